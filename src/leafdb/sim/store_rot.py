"""Rot that no read meets, in one store that was made for it (I32): the scrub finds what matters, once.

What a program leaves are mostly tables of one block. Here a store is filled in one go, with a model beside it: tables
of many blocks that look alike, an old and a new version of many keys, value files that are partly dead. Copies of it
rot in one place of a table or a value file, and mostly nobody reads. A pass of the scrub, driven as `node/scrubber`
does and with the process killed in between, has to find whatever some key needs: after it every read is served, no more
is given up than what rotted, and the next pass finds nothing. What is lost is noted in a tree of its own, as a node
does, and then the store need not name it; the power goes at some call of that, and one of the two still does.

Among the damage is what only the seal of a part can tell, by its file and offset: a sound block, or a sound value of
the same key, where another of the same length belongs. That is told by reads, too, so sometimes they come first.

With chance of its own, and on disks of its own: the seeds are the same as without it. What replicas bring back of what
was lost is the matter of tier ROT (`rot_run`).
"""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Final

from leafdb.codec import cbor
from leafdb.errors import StorageError
from leafdb.sim.store_damage import KINDS, Damage, harm, parts_of, store_files, version_on
from leafdb.sim.store_healing import NOTES, prove_no_more, read_all
from leafdb.sim.store_machine import Machine
from leafdb.sim.store_model import StoreModel
from leafdb.sim.trace import Trace
from leafdb.storage import scrub
from leafdb.storage.compaction_picker import PickerLimits
from leafdb.storage.lost_ranges import LostRange, Range
from leafdb.storage.scrub import Scrubbed, ScrubPass
from leafdb.storage.settings import EngineConfig
from leafdb.storage.value_files import ValueMeta
from leafdb.storage.verification import Verified
from leafdb.testing.violation import Invariant, require, violated
from leafdb.types import Durability, TreeId
from leafdb.vfs.base import read_file
from leafdb.vfs.memory import MemoryFileSystem

TREE: Final = TreeId(300)
CONFIG: Final = EngineConfig(
    memtable_bytes=1 << 20, value_inline_bytes_max=800, compaction=PickerLimits(level0_tables=2), store_id=bytes(16)
)
NOW_S: Final = 100.0
KEYS: Final = 150
SMALL_BYTES: Final = 600
LARGE_BYTES: Final = 900
LARGE: Final = 4
"""Every so manyth key has large values."""
ROUNDS: Final = (1.0, 0.4, 0.1)
"""How many of the keys are written before each flush; the first two are merged."""
CHANCE: Final = 0.003
"""Of an operation to be followed by some rot."""
KILL: Final = 0.1
"""Of a pass to be cut off before the next file."""
READS_FIRST: Final = 0.5
LOOKS_MAX: Final = 4
"""At one file that is damaged and there still: the first salvage ends it."""


class StoreRot:
    """Beside the program of one seed. The store is made when it is first wanted."""

    def __init__(self, rng: Random, trace: Trace) -> None:
        self._rng = rng
        self._trace = trace
        self._model = StoreModel()
        self._disk: MemoryFileSystem | None = None

    def turn(self) -> None:
        """After an operation: now and then something rots. Raises Violation."""
        if self._rng.random() >= CHANCE:
            return
        if self._disk is None:
            self._disk = self._filled()
        copy = self._disk.power_cut(self._rng, keep=1.0)
        done = self._rotten(copy)
        found = _Scrubbing(copy, self._rng, done).prove(self._model)
        self._trace.fault("rot", f"{done}: {found} places are found")
        self._trace.probe("rot that the scrub has found", found > 0)
        self._trace.probe("rot of what nobody needs", not found)

    def _filled(self) -> MemoryFileSystem:
        rng, model, disk = self._rng, self._model, MemoryFileSystem()
        machine = _opened(disk)
        model.create(TREE)
        machine.engine.create_tree(TREE)
        machine.engine.create_tree(NOTES)
        numbers = range(KEYS)
        written = 0
        for share in ROUNDS:
            for number in sorted(rng.sample(numbers, int(share * KEYS))):
                written += 1
                size = SMALL_BYTES if number % LARGE else LARGE_BYTES
                value = None if share < 1 and rng.random() < 0.1 else (b"%06d." % written) + rng.randbytes(size)
                entries = [(TREE, b"k%03d" % number, value)]
                machine.engine.write(entries, Durability.ALWAYS)
                model.write(entries)
            machine.engine.flush_soon()
            machine.settle()
        machine.engine.close()
        model.all_durable()
        return disk

    def _rotten(self, disk: MemoryFileSystem) -> Damage:
        """One place of a table or value file is not what it was."""
        rng, version = self._rng, version_on(disk)
        files: list[Scrubbed] = [*version.tables.values(), *version.values.metas.values()]
        meta = rng.choice(files)
        content = read_file(disk, meta.path)
        kind = rng.choice((*KINDS, "misplaced", "misplaced"))
        if kind != "misplaced":
            place = meta.path, range(len(content))
            return harm(disk, place, store_files(disk), rng, kind=kind, written=self._model.written)
        others = [other for other in files if isinstance(other, ValueMeta) == isinstance(meta, ValueMeta)]
        parts = [(read_file(disk, other.path), *part) for other in others for part in _parts(disk, other)]
        offset, size, keys = rng.choice(_parts(disk, meta))
        alike = [
            bytes(found[at : at + length])
            for found, at, length, of in parts
            if length == size and (found, at) != (content, offset) and (of == keys or not isinstance(meta, ValueMeta))
        ]
        file = disk.open_append(meta.path)
        file.write_at(offset, rng.choice(alike) if alike else bytes(size))
        file.close()
        return Damage(kind, meta.path, offset, self._model.written, (keys,))


class _Scrubbing:
    """One rotten disk."""

    def __init__(self, disk: MemoryFileSystem, rng: Random, done: Damage) -> None:
        disk.cold = rng.random() < 0.5
        self._disk = disk
        self._rng = rng
        self._damage = done
        self._calls_left = rng.choice((1, 2, 3, 4, 5, 8, 13))
        """From the first loss to the power cut."""
        self._cut: MemoryFileSystem | None = None
        self._machine = self._opened()

    def prove(self, model: StoreModel) -> int:
        """How many damaged places the first pass has found. Raises Violation."""
        if self._rng.random() < READS_FIRST:
            read_all(self._machine, model, self._damage)
        found = self._pass()
        self._machine.settle()
        told = f"{self._damage}: {found} places are found, and"
        outcome = read_all(self._machine, model, self._damage)
        require(outcome == "harmless", Invariant.CORRUPTION_DETECTED, f"{told} reads fail after it")
        prove_no_more(self._machine, self._damage)
        again = self._pass()
        require(not again, Invariant.CORRUPTION_DETECTED, f"{told} {again} by the next pass")
        self._machine.engine.check()
        self._machine.engine.abandon()
        if self._cut is not None:
            machine = _opened(self._cut)
            read_all(machine, model, self._damage)
            machine.engine.abandon()
        return found

    def _opened(self) -> Machine:
        """Its next process, which notes what the store has lost."""
        machine = _opened(self._disk)
        machine.engine.on_lost = partial(self._lost, machine)
        if machine.engine.lost:
            self._lost(machine, machine.engine.lost)
        return machine

    def _lost(self, machine: Machine, lost: tuple[LostRange, ...]) -> None:
        notes = [(NOTES, b"%d" % each.file_number + each.smallest, cbor.dumps(each.to_plain())) for each in lost]
        self._disk.on_call = self._called
        machine.engine.write(notes, Durability.ALWAYS)
        machine.engine.lost_noted(lost)

    def _called(self, kind: str, path: str) -> None:
        self._calls_left -= 1
        if not self._calls_left:
            self._cut = self._disk.power_cut(self._rng)

    def _pass(self) -> int:
        """Damaged places found by a whole pass, as far as somebody heard of them."""
        state = scrub.begin(self._machine.engine.files(), now_ms=0)
        found = looks = 0
        while (turn := scrub.next_turn(state, self._machine.engine.files(), interval_ms=1)) is not None:
            if self._rng.random() < KILL:
                self._machine.engine.abandon()
                self._disk.locks.clear()
                self._machine = self._opened()
                state = ScrubPass.decode(state.encode())
            number = turn.file.file_number
            damages = self._read(number)
            found += damages
            looks += 1
            if damages and number in self._machine.engine.files():
                require(looks < LOOKS_MAX, Invariant.CORRUPTION_DETECTED, f"{self._damage}: found, and never healed")
                continue
            looks = 0
            state = scrub.had_its_turn(state, turn.file)
        return found

    def _read(self, number: int) -> int:
        told: list[Verified | StorageError] = []
        self._machine.engine.scrub_soon(number, bytes_per_s=0, done=told.append)
        self._machine.settle()
        (verified,) = told
        assert isinstance(verified, Verified), f"the store has failed: {verified}"
        return verified.damages_found


def _opened(disk: MemoryFileSystem) -> Machine:
    try:
        return Machine(disk, CONFIG, lambda: NOW_S)
    except StorageError as error:
        violated(Invariant.PREFIX_DURABLE, f"the store that rots does not open: {type(error).__name__}: {error}")


def _parts(disk: MemoryFileSystem, meta: Scrubbed) -> list[tuple[int, int, Range]]:
    return parts_of(meta, read_file(disk, meta.path))
