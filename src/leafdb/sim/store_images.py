"""Disks as a crash leaves them: each is opened on its own and held against what was acknowledged by then (I29 to I31).

An image is a copy, so the history it was taken from goes on and one history gives thousands. The power goes while an
image recovers, too, and again while that is recovered: the store that comes of it must be the same. Now and then the
one that recovered goes on to flush and compact what it found, and loses its power at the end: what it has shown stays.
"""

from __future__ import annotations

from random import Random
from typing import Final

from leafdb.errors import StorageError
from leafdb.sim.store_machine import Machine
from leafdb.sim.store_program import Program
from leafdb.testing.violation import Invariant, require, violated
from leafdb.types import TreeId
from leafdb.vfs.memory import MemoryFileSystem

CUTS_MAX: Final = 3
"""Power cuts on end, the first included."""
RECOVERY_CALLS: Final = 36
"""About as many calls as a recovery makes: at which of them the power goes again is drawn from so many."""
SETTLED: Final = 0.1
"""Share of the stores that go on to work."""
SNAPSHOTS_SEEN: Final = 0.1
"""Share of the images of which the snapshots are opened, too, beside those taken at a call to one."""

Found = tuple[int, list[TreeId]]
"""What a recovery found: how many writes, which trees."""


class Images:
    """Judges images of the disk of `program`; every draw is from `rng`."""

    def __init__(self, program: Program, rng: Random) -> None:
        self._program = program
        self.rng = rng
        self._clock_s = 0.0
        self.judged: int = 0

    def prove(
        self, image: MemoryFileSystem, required: int, when: str, *, snapshots: bool = False, more: bool = True
    ) -> None:
        """Open `image`, which must have `required` writes, and whatever more power cuts make of it, if there are to be
        any while it recovers."""
        self._clock_s = self._program.life.now_s
        cuts = 1 if more else CUTS_MAX
        self._prove(image, required, None, when, cuts, snapshots or self.rng.random() < SNAPSHOTS_SEEN)

    def _prove(
        self, image: MemoryFileSystem, required: int, due: Found | None, when: str, cuts: int, snapshots: bool
    ) -> None:
        """`due` is what another recovery of the same disk has found."""
        trace = self._program.trace
        again = self._cut_while_it_opens(image, cuts)
        machine = self._opened(image, when)
        image.on_call = None
        found = machine.engine.last_sequence, machine.engine.trees()
        self._judge(machine, required, when)
        if due is not None:
            require(found == due, Invariant.CRASH_IDEMPOTENT, f"{when}: {found} found, {due} by another recovery")
        if snapshots:
            self._program.snapshots.look(image, machine)
        self.judged += 1
        trace.feed(b"image", b"%d" % found[0])
        trace.probe("a torn tail", machine.engine.recovery.torn_bytes > 0)
        if self.rng.random() < SETTLED:
            self._settled(machine, image, found, when)
        machine.engine.abandon()
        if again:
            trace.probe(f"power cut {cuts + 1} on end, in recovery")
            self._prove(again[0], required, found, f"{when}, cut {cuts + 1} on end", cuts + 1, snapshots)

    def _cut_while_it_opens(self, image: MemoryFileSystem, cuts: int) -> list[MemoryFileSystem]:
        """Where the disk is put that the next power cut leaves, if it comes in time."""
        cut: list[MemoryFileSystem] = []
        if cuts == CUTS_MAX:
            return cut
        left = self.rng.randrange(1, RECOVERY_CALLS)

        def called(kind: str, path: str) -> None:
            nonlocal left
            left -= 1
            if not left:
                cut.append(image.power_cut(self.rng))

        image.on_call = called
        return cut

    def _opened(self, image: MemoryFileSystem, when: str) -> Machine:
        try:
            machine = Machine(image, self._program.plan.config, self._now_s)
        except StorageError as error:
            violated(Invariant.PREFIX_DURABLE, f"{when}: the store does not open: {type(error).__name__}: {error}")
        self._program.windows.tell(machine)
        return machine

    def _judge(self, machine: Machine, required: int, when: str) -> None:
        model, lsn = self._program.model, machine.engine.last_sequence
        require(lsn <= model.last_lsn, Invariant.NO_PHANTOMS, f"{when}: {lsn} writes found of {model.last_lsn}")
        if lsn < required:
            key = model.log[lsn][0].key.decode()
            violated(Invariant.PREFIX_DURABLE, f"{when}: {lsn} writes are left of {required} acknowledged", key)
        machine.engine.check()
        lost = machine.engine.lost
        require(not lost, Invariant.PREFIX_DURABLE, f"{when}: given up as damaged, and it is not: {lost}")
        model.judge({tree_id: machine.contents(tree_id) for tree_id in machine.engine.trees()}, lsn, when)

    def _settled(self, machine: Machine, image: MemoryFileSystem, found: Found, when: str) -> None:
        """The store works on what it found; what it shows then is there after the next power cut, too."""
        machine.settle()
        require(not machine.failures, Invariant.SELF_CHECK, f"{when}: failed for nothing: {machine.failures}")
        self._judge(machine, found[0], f"{when}, settled")
        self._program.trace.probe("a power cut when all was done")
        after = image.power_cut(self.rng)
        self._prove(after, found[0], found, f"{when}, settled and cut", CUTS_MAX, snapshots=False)

    def _now_s(self) -> float:
        return self._clock_s
