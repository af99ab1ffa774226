"""Snapshots under the random program of the store tier, and what each must hold (I29, I31).

Every snapshot under its final name is whole: opened on another disk it is the state after the number of writes it says,
which is not below what had been written when it was asked for. What was answered is there for good until it is asked to
go; what was neither answered nor refused, since the process died, is there whole or not at all.

It draws from a generator of its own: the other draws of a seed are the same as without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Final

from leafdb.errors import StorageError
from leafdb.sim.store_disk import Hands, Rubbish
from leafdb.sim.store_life import StoreLife
from leafdb.sim.store_machine import Machine
from leafdb.sim.store_model import Contents, Life, difference
from leafdb.sim.trace import Trace
from leafdb.storage.snapshot_files import PART, SNAPSHOTS_DIRECTORY, Snapshot, SnapshotRefused, snapshot_path
from leafdb.testing.violation import Invariant, require, violated
from leafdb.types import TreeId
from leafdb.vfs.memory import Fault, MemoryFileSystem

NAMES: Final = ("first", "second")
CHANCE: Final = 0.05
"""Of an operation to be followed by one with a snapshot."""
SHARE: Final = 0.4
"""Of the seeds that have what it takes: snapshots are dropped in vain, and once more."""
FAULTS: Final = ("sync", "sync_dir", "link", "create", "rename", "append", "unlink")

State = dict[TreeId, Contents]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a snapshot that may be there must hold."""

    sequence: int
    trees: Mapping[TreeId, Life]
    """Those that were there; one dropped since, or made again, may be missing."""


class StoreSnapshots:
    """Beside the program; `opened` is called at each opening, before the model goes back to what was found."""

    def __init__(self, life: StoreLife, rng: Random, cuts: Random) -> None:
        self._life = life
        self._rng = rng
        self._asked: dict[str, Asked] = {}
        """Of this process, and not known to be there or not."""
        self._kept: dict[str, State] = {}
        """There for good, with what they hold."""
        self._going: set[str] = set()
        """Of the kept ones: asked to go, perhaps gone."""
        self._cuts = cuts
        self._twice = cuts.random() < SHARE and {"sync fails", "power cut"} <= life.plan.faults

    def turn(self) -> None:
        """After an operation: now and then take or drop one, with trouble waiting for it perhaps."""
        rng, life = self._rng, self._life
        if self._twice and self._kept and self._cuts.random() < 2 * CHANCE:
            self._drop_twice(self._cuts.choice(sorted(self._kept)))
        if rng.random() >= CHANCE:
            return
        name, trouble, calls = rng.choice(NAMES), rng.random(), rng.randrange(1, 40)
        fault = Fault(rng.choice(FAULTS), at=rng.choice((1, 2, 4)), path_prefix=SNAPSHOTS_DIRECTORY)
        if life.dead:
            return
        if trouble < 0.3:
            life.plan_death(calls)
        elif trouble < 0.5 and "sync fails" in life.plan.faults:
            life.disk.faults.append(fault)
        if name in self._kept:
            self._drop(name)
        else:
            self._take(name)

    # -- taking and dropping

    def _take(self, name: str) -> None:
        life = self._life
        model = life.model
        trees = {tree_id: tree for tree_id, tree in model.trees().items() if tree.created}
        asked = Asked(model.last_lsn, trees)
        life.trace.tell("program", f"snapshot {name} of {asked.sequence} writes")
        try:
            life.machine.engine.snapshot_soon(name, partial(self._taken, life.birth, name, asked))
        except SnapshotRefused:
            return  # one is being made, or what became of one is not known
        except StorageError as error:
            life.expect_failed(error)
            return
        before = self._asked.get(name, asked)
        both = {tree_id: life for tree_id, life in asked.trees.items() if before.trees.get(tree_id) is life}
        self._asked[name] = Asked(min(before.sequence, asked.sequence), both)

    def _taken(self, birth: int, name: str, asked: Asked, answer: Snapshot | StorageError) -> None:
        life = self._life
        if birth != life.birth or life.dead:
            return
        if isinstance(answer, StorageError):
            if not isinstance(answer, SnapshotRefused):
                life.expect_failed(answer, reading=True)
            return  # a rename whose sync failed may have come about
        life.trace.probe("a snapshot")
        del self._asked[name]
        self._kept[name] = self._read(life.disk, name, asked)

    def _drop(self, name: str) -> None:
        life = self._life
        life.trace.tell("program", f"drop snapshot {name}")
        try:
            life.machine.engine.drop_snapshot_soon(name, partial(self._dropped, life.birth, name))
        except SnapshotRefused:
            return  # it is being dropped
        except StorageError as error:
            life.expect_failed(error)
            return
        self._going.add(name)

    def _drop_twice(self, name: str) -> None:
        """The new name of what goes is not synced; it is tried again, and the power goes at one of the next calls."""
        life, machine = self._life, self._life.machine
        if life.over() or machine.failures:
            return
        life.disk.faults.append(Fault("sync_dir", path_prefix=SNAPSHOTS_DIRECTORY))
        self._drop(name)
        machine.read_executor.run_pending()
        life.plan_death(self._cuts.randrange(1, 12), "power cut")
        if name in self._kept and not life.dead:
            self._drop(name)
            machine.read_executor.run_pending()

    def _dropped(self, birth: int, name: str, error: StorageError | None) -> None:
        life = self._life
        if birth != life.birth or life.dead:
            return
        if error is not None:
            life.expect_failed(error, reading=True)
            return
        life.trace.probe("a snapshot dropped")
        self._going.discard(name)
        del self._kept[name]

    # -- looking

    def opened(self, machine: Machine) -> None:
        """Look at every snapshot a new process finds, and at what it says of them."""
        found = self.look(self._life.disk, machine)
        self._life.trace.probe("a snapshot nobody was told of", len(found.keys() - self._kept.keys()))
        self._kept, self._asked, self._going = found, {}, set()

    def look(self, disk: MemoryFileSystem, machine: Machine) -> dict[str, State]:
        """Every snapshot on `disk`, which `machine` has opened; Violation unless they can be."""
        there = [name for name in disk.list(SNAPSHOTS_DIRECTORY) if not name.endswith(PART)]
        missing = sorted(self._kept.keys() - self._going - set(there))
        require(not missing, Invariant.PREFIX_DURABLE, f"snapshots {missing} were answered and are gone")
        found: dict[str, State] = {}
        for name in there:
            kept, asked = self._kept.get(name), self._asked.get(name)
            require(kept is not None or asked is not None, Invariant.NO_PHANTOMS, f"snapshot {name} is there")
            found[name] = self.open(disk, name)[1] if asked is None else self._read(disk, name, asked)
            require(kept in (None, found[name]), Invariant.PREFIX_DURABLE, f"snapshot {name} is another one now")
        said = [(snapshot.name, snapshot.problem) for snapshot in machine.engine.snapshots()]
        if not self._life.hands.world_errors:
            require(said == [(name, "") for name in there], Invariant.SELF_CHECK, f"snapshots {said} of {there}")
        return found

    def _read(self, disk: MemoryFileSystem, name: str, asked: Asked) -> State:
        """What it holds, which must be the state after its number of writes."""
        model = self._life.model
        sequence, state = self.open(disk, name)
        low, high = asked.sequence, model.last_lsn
        text = f"snapshot {name} holds {sequence} writes; {low} were written when it was asked for"
        require(low <= sequence, Invariant.PREFIX_DURABLE, text)
        require(sequence <= high, Invariant.NO_PHANTOMS, f"snapshot {name} holds {sequence} writes of {high}")
        alive = model.trees()
        missing = sorted(
            tree_id for tree_id, life in asked.trees.items() if alive.get(tree_id) is life and tree_id not in state
        )
        require(not missing, Invariant.PREFIX_DURABLE, f"snapshot {name} lacks trees {missing}")
        for tree_id, contents in state.items():
            lives = model.lives.get(tree_id, [])
            expected = [model.contents_at(sequence, tree) for tree in lives]
            if contents not in expected:
                key, message = difference(expected[-1] if expected else {}, contents)
                violated(Invariant.PREFIX_DURABLE, f"snapshot {name}, tree {tree_id}: {message}", key)
        return state

    def open(self, disk: MemoryFileSystem, name: str) -> tuple[int, State]:
        """Its number of writes and all it holds, on a disk of its own."""
        now_s = self._life.now_s
        hands = Hands(disk.copy_below(snapshot_path(name)), Trace(lambda: now_s), Rubbish())
        try:
            machine = Machine(hands, replace(self._life.plan.config, snapshot=True), lambda: now_s)
            state = {tree_id: machine.contents(tree_id) for tree_id in machine.engine.trees()}
        except StorageError as error:
            violated(Invariant.PREFIX_DURABLE, f"snapshot {name} does not open: {type(error).__name__}: {error}")
        sequence = machine.engine.last_sequence
        machine.engine.check()
        machine.engine.abandon()
        return sequence, state
