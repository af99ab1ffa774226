"""The failing tier: one history of a store, over and over; each time another one of its calls to the disk fails.

Every call counts, reading ones as well, those of recoveries too. It fails once with EIO and, where that may be, once
with ENOSPC and half of its bytes. Then the store serves on, or it has stopped, by its own word and for this reason; and
whichever it is, what it acknowledged is there, after a kill and after a power cut.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from random import Random
from typing import Final

from leafdb.errors import StorageError
from leafdb.sim.crash_run import calm_plan
from leafdb.sim.outcome import NODES, OPERATIONS, Outcome, Tier
from leafdb.sim.store_images import Images
from leafdb.sim.store_program import Program
from leafdb.sim.store_run import outcome
from leafdb.testing.violation import Invariant, require
from leafdb.types import Durability
from leafdb.vfs.memory import Fault
from leafdb.vfs.memory_faults import LOSE, MISDIRECT

AFTERWARDS: Final = 15
"""Operations that follow the one in which a call failed."""
NEED_ROOM: Final = ("append", "write_at", "create", "rename", "link", "sync", "sync_dir")
"""Calls that may find the disk full."""
NEVER: Final = 1 << 62
SERVING: Final = "it serves on"
STOPPED: Final = "it stopped"
NOT_OPENED: Final = "it did not open"
ENDINGS: Final = (SERVING, STOPPED, NOT_OPENED)
PROBES: Final = (
    "a call",
    *ENDINGS,
    "an image",
    "a failed read",
    "a failed sync",
    "a failed append",
    "a failed rename",
    "a failed unlink",
    "a failed link",
)


@dataclass(slots=True)
class AnyCall(Fault):
    """Strikes one call, whatever its kind: the `at`-th."""

    calls: list[tuple[str, str]] = field(default_factory=list)
    """What was called so far, and on which path."""
    seen: int = field(default=0, init=False)

    def strikes(self, kind: str, path: str) -> bool:
        if kind in (LOSE, MISDIRECT):
            return False
        self.seen += 1
        self.calls.append((kind, path))
        return self.seen == self.at


def run(seed: int, *, nodes: int = NODES, operations: int = OPERATIONS, keep: bool = False) -> Outcome:
    """Run one seed: as many histories as it has calls, and more. `nodes` means nothing here."""
    del nodes
    matrix = FailingMatrix(seed, keep=keep)
    return outcome(Tier.FAILING, seed, matrix.whole, PROBES, lambda: matrix.run(operations))


class FailingMatrix:
    """All of it; `whole` is the history without a failure, whose trace takes in those of all others."""

    def __init__(self, seed: int, *, keep: bool) -> None:
        self._seed = seed
        self._keep = keep
        self.whole: Program = self._program()

    def _program(self) -> Program:
        return Program(self._seed, calm_plan(Random(f"{self._seed}/plan")), keep=self._keep)

    def run(self, operations: int) -> None:
        counting = AnyCall("any", at=NEVER)
        self.whole.life.disk.faults.append(counting)
        self.whole.begin()
        while self.whole.operations < operations:
            self.whole.step()
        self.whole.end()
        for number, (kind, path) in enumerate(counting.calls, 1):
            self.whole.trace.probe("a call")
            name = "read" if kind == "read_at" else kind
            self.whole.trace.probe(f"a failed {name}")
            self._fail(f"call {number}, {kind} {path}", AnyCall("any", at=number), operations)
            if kind in NEED_ROOM:
                full = AnyCall("any", at=number, error=errno.ENOSPC, short=True)
                self._fail(f"call {number}, {kind} {path}", full, operations)

    def _fail(self, what: str, fault: AnyCall, operations: int) -> None:
        """The history with that failure, and what came of it."""
        trace, program = self.whole.trace, self._program()
        name = errno.errorcode[fault.error]
        trace.fault(name, what)
        try:
            ending = self._ending(program, fault, operations)
        finally:
            trace.feed(b"history", program.trace.hexdigest().encode())
            if self._keep:
                trace.lines[:] = program.trace.lines
        trace.probe(ending)
        trace.probe("an image", program.trace.probes["an image"])

    def _ending(self, program: Program, fault: AnyCall, operations: int) -> str:
        life = program.life
        life.disk.faults.append(fault)
        program.begin()
        left = AFTERWARDS
        while left and program.operations < operations:
            left -= fault.seen >= fault.at
            program.step()
        self._prove(program, f"{errno.errorcode[fault.error]} at call {fault.at}")
        program.end()
        probes = program.trace.probes
        return (
            NOT_OPENED
            if probes["a disk failing in recovery"]
            else STOPPED
            if probes["a store that failed"]
            else SERVING
        )

    def _prove(self, program: Program, what: str) -> None:
        """Serving or stopped, and nothing is lost."""
        life, model = program.life, program.model
        if life.over():
            return  # it is opened again at the end, and judged there
        images = Images(program, Random(f"{self._seed}/{what}"))
        if not life.machine.failures:
            answers: list[StorageError | None] = []
            life.machine.engine.when_safe(model.last_lsn, Durability.ALWAYS, answers.append)
            life.machine.engine.flush_batch()
            life.machine.settle()
            served = answers == [None] or bool(life.machine.failures)
            require(served, Invariant.LIVENESS, f"{what}: the store runs, and a write is answered with {answers}")
        cut, killed = life.disk.power_cut(images.rng), life.disk.power_cut(images.rng, keep=1.0)
        images.prove(cut, model.synced, f"power cut after {what}", more=False)
        images.prove(killed, model.written, f"killed after {what}", more=False)
        program.trace.probe("an image", images.judged)
