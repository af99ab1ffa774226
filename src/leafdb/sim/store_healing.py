"""How damage is judged: whatever is done to the bytes of a store, it gives what was written or an error (I32).

One place of one file was damaged (`store_damage`), before the store is opened or while it is open. Everything is read,
then compacted and read again. What is damaged of a table or a value file is salvaged meanwhile: from then on every read
is served, and is wrong, if at all, only where the store says that something was lost; and that is no more than the
blocks or the values that were damaged. The power goes at some moment of it, too: also then a hole is known, or not
there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Final

from leafdb.codec import cbor
from leafdb.errors import StorageError
from leafdb.sim.store_damage import Damage
from leafdb.sim.store_machine import Machine
from leafdb.sim.store_model import Contents, StoreModel, short
from leafdb.storage.lost_ranges import LostRange, Range
from leafdb.storage.settings import EngineConfig
from leafdb.testing.violation import Invariant, require
from leafdb.types import TreeId
from leafdb.vfs.memory import MemoryFileSystem

OUTCOMES: Final = ("refused", "error", "healed", "harmless")
NOTES: Final = TreeId(999)
"""Where what follows a store may note what that has lost; no tree of a model."""


class DamageJudge:
    """Judges one damaged disk. `rng` says when the power goes while it heals; `owner` is told of each opening."""

    def __init__(
        self,
        disk: MemoryFileSystem,
        model: StoreModel,
        config: EngineConfig,
        rng: Random,
        now_s: float,
        owner: Callable[[Machine], None],
    ) -> None:
        self._disk = disk
        self._model = model
        self._config = config
        self._rng = rng
        self._now_s = now_s
        self._owner = owner
        self.machine: Machine | None = None
        """The store that was open when it happened, if one was."""

    def open(self) -> Machine:
        """Open what is on the disk; raises what a store raises that does not."""
        self.machine = self._machine(self._disk)
        return self.machine

    def prove(self, damage: Damage, *, settle: bool = True, cut: bool = True) -> str:
        """Read everything, and again when the store has come to rest, if it is to, and what a power cut on the way
        there left, if that is wanted. Answers one of OUTCOMES."""
        model = self._model
        try:
            machine = self.machine or self.open()
        except StorageError:
            require(damage.refusable, Invariant.CORRUPTION_DETECTED, f"{damage}: refused")
            return "refused"
        outcome = read_all(machine, model, damage)
        if not machine.failures and settle:
            left = _settle_and_cut(machine, self._disk, self._rng)
            outcome = _healed(machine, model, damage, outcome)
            if left is not None and cut:
                self._prove_known(left, damage)
        machine.engine.abandon()
        return outcome

    def prove_snapshot(self, damage: Damage, sequence: int, state: Mapping[TreeId, Contents]) -> str:
        """Open a snapshot with a damaged file and read all of it, which was `state`. Answers `refused` or `read`."""
        try:
            machine = Machine(self._disk, self._config, lambda: self._now_s)
        except StorageError:
            return "refused"
        found = machine.engine.last_sequence, machine.engine.trees()
        due = sequence, sorted(state)
        require(found == due, Invariant.CORRUPTION_DETECTED, f"{damage}: a snapshot of {due} opens as one of {found}")
        known = _known_lost(machine)
        for tree_id, expected in state.items():
            outcome, report = _read_tree(machine, tree_id, expected, _lost(known, tree_id))
            if outcome == "wrong":
                report(damage)
        machine.engine.abandon()
        return "read"

    def _prove_known(self, disk: MemoryFileSystem, damage: Damage) -> None:
        """A store that was cut off while it healed knows of every hole it has, at every start."""
        if not damage.heals:
            return
        for _ in range(2):
            machine = self._machine(disk)
            read_all(machine, self._model, damage)
            if not machine.failures:
                machine.settle()
                read_all(machine, self._model, damage)
                prove_no_more(machine, damage)
            machine.engine.abandon()
            disk.locks.clear()

    def _machine(self, disk: MemoryFileSystem) -> Machine:
        machine = Machine(disk, self._config, lambda: self._now_s)
        self._owner(machine)
        return machine


def _settle_and_cut(machine: Machine, disk: MemoryFileSystem, rng: Random) -> MemoryFileSystem | None:
    """Let the store come to rest; answers the disk as a power cut at some call in between leaves it."""
    cuts: list[MemoryFileSystem] = []
    left = rng.choice((1, 2, 3, 5, 8, 13, 21))

    def called(kind: str, path: str) -> None:
        nonlocal left
        left -= 1
        if not left:
            cuts.append(disk.power_cut(rng))

    disk.on_call = called
    machine.settle()
    disk.on_call = None
    return cuts[0] if cuts else None


def _healed(machine: Machine, model: StoreModel, damage: Damage, outcome: str) -> str:
    """Everything is served again, and no more is given up than was damaged."""
    again = read_all(machine, model, damage)
    machine.settle()  # that read may have been the first to meet it
    if not machine.failures:
        again = read_all(machine, model, damage)
    if not damage.heals or machine.failures:
        return max(outcome, again, key=("harmless", "error").index)
    require(again == "harmless", Invariant.CORRUPTION_DETECTED, f"{damage}: not served after the salvage")
    machine.engine.check()
    prove_no_more(machine, damage)
    return "healed" if machine.engine.stats().salvages else again


def prove_no_more(machine: Machine, damage: Damage) -> None:
    """Nothing is given up that was not damaged."""
    for lost in _known_lost(machine):
        require(
            damage.ranges is None or any(low <= lost.smallest <= lost.largest <= high for low, high in damage.ranges),
            Invariant.CORRUPTION_DETECTED,
            f"{damage}: {lost} is given up, where {damage.ranges} was damaged",
        )


def _known_lost(machine: Machine) -> tuple[LostRange, ...]:
    """What the store says that it has lost, and what was noted in its tree NOTES, if it has one."""
    notes = machine.contents(NOTES) if NOTES in machine.engine.trees() else {}
    return (*machine.engine.lost, *(LostRange.from_plain(cbor.loads(note)) for note in notes.values()))


def read_all(machine: Machine, model: StoreModel, damage: Damage) -> str:
    """Read everything by key and in order."""
    lsn = machine.engine.stats().last_sequence
    if NOTES in machine.engine.trees():
        lsn = min(lsn, model.last_lsn)  # notes are written behind all that the model knows
    if not damage.path.startswith("MANIFEST"):
        require(
            damage.proven <= lsn,
            Invariant.CORRUPTION_DETECTED,
            f"{damage}: the store opens with {lsn} writes of {damage.proven} and says nothing",
        )
    require(lsn <= model.last_lsn, Invariant.NO_PHANTOMS, f"{damage}: {lsn} writes of {model.last_lsn}")
    outcome = "harmless"
    known = _known_lost(machine)
    for tree_id in machine.engine.trees():
        if tree_id == NOTES:
            continue
        lives = model.lives.get(tree_id)
        if lives is None:
            require(damage.path.startswith("MANIFEST"), Invariant.NO_PHANTOMS, f"{damage}: tree {tree_id} is back")
            continue
        lost = _lost(known, tree_id)
        outcomes = [_read_tree(machine, tree_id, model.contents_at(lsn, life), lost) for life in lives]
        good = [found for found in outcomes if found[0] != "wrong"]
        if not good:
            outcomes[-1][1](damage)
        if any(found[0] == "error" for found in good):
            outcome = "error"
    return outcome


def _lost(known: Sequence[LostRange], tree_id: TreeId) -> tuple[Range, ...]:
    """Where something of the tree may be missing."""
    return tuple((each.smallest, each.largest) for each in known if each.tree_id == tree_id)


def _read_tree(
    machine: Machine, tree_id: TreeId, expected: Mapping[bytes, bytes], lost: tuple[Range, ...]
) -> tuple[str, Callable[[Damage], None]]:
    """`harmless`, `error` or `wrong`; and who raises what was wrong. Where something is lost nothing is."""

    def sure(key: bytes) -> bool:
        return not any(low <= key <= high for low, high in lost)

    found: Contents = {}
    outcome = "harmless"
    keys = sorted({b"", b"~", *expected})
    for key in keys:
        try:
            value = machine.get(tree_id, key)
        except StorageError:
            outcome = "error"
            continue
        if value != expected.get(key) and sure(key):
            return "wrong", _wrong(tree_id, key, value, expected.get(key))
    try:
        found = machine.contents(tree_id)
    except StorageError:
        return "error", _nothing
    for key in sorted(found.keys() | expected.keys()):
        if found.get(key) != expected.get(key) and sure(key):
            return "wrong", _wrong(tree_id, key, found.get(key), expected.get(key))
    return outcome, _nothing


def _nothing(damage: Damage) -> None:
    """Nothing was wrong."""


def _wrong(tree_id: TreeId, key: bytes, found: bytes | None, expected: bytes | None) -> Callable[[Damage], None]:
    name = key.decode("ascii", "replace")

    def report(damage: Damage) -> None:
        message = f"{damage}: {name} of tree {tree_id} reads {short(found)} where {short(expected)} was written"
        require(False, Invariant.CORRUPTION_DETECTED, message, name)

    return report
