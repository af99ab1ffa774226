"""The crash tier: one history of a store, and at every call it makes to the disk the power goes, in several ways.

The history is that of a random program (`store_program`) without any fault, with sizes so small that in a few hundred
operations it flushes, compacts, begins new manifests, closes in order and opens again. After every call that changes
something a few disks are taken as a power cut may leave them, with unsynced writes torn, reordered or lost, now and
then one as a kill leaves it, and `store_images` judges each. The history itself never notices.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Final

from leafdb.sim.outcome import NODES, OPERATIONS, Outcome, Tier
from leafdb.sim.store_images import Images
from leafdb.sim.store_plan import StorePlan
from leafdb.sim.store_program import Program
from leafdb.sim.store_run import outcome
from leafdb.storage.snapshot_files import SNAPSHOTS_DIRECTORY
from leafdb.testing.violation import Violation

CUTS_EACH: Final = 2
CUTS_WRITTEN: Final = 4
"""Power cuts after every call, and after one that left bytes to be torn."""
WRITES: Final = ("append", "write_at")
KILL_EVERY: Final = 4
"""Calls from one kill to the next."""
PROBES: Final = (
    "a call",
    "an image",
    "power cut 1",
    "power cut 2 on end, in recovery",
    "power cut 3 on end, in recovery",
    "a power cut when all was done",
    "a kill",
    "a torn tail",
    "a flush",
    "a compaction",
    "a new manifest in mid-life",
    "values in files of their own",
    "a value file gone",
    "a table dropped whole",
    "windows merged",
    "a clean reopening",
    "a tree dropped",
    "a tree made again",
    "a snapshot",
    "a snapshot dropped",
)


def run(seed: int, *, nodes: int = NODES, operations: int = OPERATIONS, keep: bool = False) -> Outcome:
    """Run one seed. `nodes` means nothing here: there is one store."""
    del nodes
    program = Program(seed, calm_plan(Random(f"{seed}/plan")), keep=keep)
    matrix = CrashMatrix(program, Random(f"{seed}/images"))

    def body() -> None:
        program.life.on_call = matrix.called
        try:
            program.run(operations)
        finally:
            matrix.end()
        program.life.count()

    return outcome(Tier.CRASH, seed, program, PROBES, body)


def calm_plan(rng: Random) -> StorePlan:
    """Sizes at which a short history meets everything, and nothing that fails or dies."""
    plan = StorePlan.draw(rng)
    limits = replace(
        plan.config.compaction,
        level0_tables=rng.choice((2, 3)),
        level1_bytes=6_000,
        fanout=2,
        table_bytes=2_000,
        job_bytes_max=12_000,
        value_files_max=rng.choice((2, 4, 64)),
    )
    config = replace(
        plan.config,
        memtable_bytes=rng.choice((1_500, 3_000)),
        manifest_bytes_max=rng.choice((300, 1_000)),
        value_inline_bytes_max=rng.choice((20, 100)),
        compaction=limits,
    )
    return replace(
        plan,
        config=config,
        faults=frozenset({"clean close"}),
        keys=rng.choice((8, 24)),
        value_bytes_max=rng.choice((40, 200)),
        trees=rng.choice((1, 2, 3)),
        diligence=rng.choice((0.3, 0.7)),
        cold=0.0,
    )


class CrashMatrix:
    """What follows each call of the history."""

    def __init__(self, program: Program, rng: Random) -> None:
        self._program = program
        self._rng = rng
        self._images = Images(program, rng)
        self._calls = 0
        self._violation: Violation | None = None

    def called(self, kind: str, path: str) -> None:
        """The disk has done a call. Raises Violation, which the store takes for an error of the call: see `end`."""
        try:
            self._prove(kind, path)
        except Violation as violation:
            self._violation = self._violation or violation
            raise

    def end(self) -> None:
        """Raise what was found first, whatever has come of it on its way through the store."""
        if self._violation is not None:
            raise self._violation

    def _prove(self, kind: str, path: str) -> None:
        program, rng, images = self._program, self._rng, self._images
        life, trace = program.life, program.trace
        self._calls += 1
        trace.probe("a call")
        before = images.judged
        when = f"after call {self._calls}, {kind} {path}, of operation {program.operations}"
        snapshots = path.startswith(SNAPSHOTS_DIRECTORY)
        for _ in range(CUTS_WRITTEN if kind in WRITES else CUTS_EACH):
            trace.probe("power cut 1")
            images.prove(life.disk.power_cut(rng), life.model.synced, f"power cut {when}", snapshots=snapshots)
        if self._calls % KILL_EVERY == 0:
            trace.probe("a kill")
            killed = life.disk.power_cut(rng, keep=1.0)
            images.prove(killed, life.model.written, f"killed {when}", snapshots=snapshots)
        trace.probe("an image", images.judged - before)
