"""The store tier: one real engine under a random program, a disk that fails and a process that dies at any call.

Operations are drawn one by one from the seed: writes, reads, scans, trees made and dropped, flushes, clean closes, and
between them the world's: kills and power cuts at the n-th call from now, faults of the disk, a disk that fills. A model
beside it (`store_model`) knows what each answer must be. After a crash the store is opened again, perhaps dying in
that as well, and what it then holds must be a prefix of the writes with all that was acknowledged (I29), the same
prefix whoever recovers it (I30), and nothing else (I31). Damage is tried on copies (`store_healing`, I32),
and on a store of its own that is scrubbed (`store_rot`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from leafdb.sim.outcome import NODES, OPERATIONS, Broken, Outcome, Tier
from leafdb.sim.store_plan import StorePlan
from leafdb.sim.store_program import Program
from leafdb.sim.store_rot import StoreRot
from leafdb.testing.violation import Invariant, Violation

PROBES: Final = (
    "a batch over trees",
    "a read that waits for the disk",
    "a page that ends before its range",
    "a scan in reverse",
    "a tree dropped",
    "a tree refused: its number is in the log",
    "a tree made again",
    "writers slowed",
    "writers refused: the disk is full",
    "a store that failed",
    "a flush",
    "a compaction",
    "a compaction below level 1",
    "a job that failed and was given again",
    "a new manifest in mid-life",
    "a clean reopening",
    "a torn tail",
    "records replayed",
    "writes lost that nobody was promised",
    "periodic writes lost to a power cut",
    "written since the last sync",
    "a crash in recovery",
    "a recovery that flushes",
    "orphan tables swept",
    "values in files of their own",
    "values partly dead",
    "a value file gone",
    "stale blocks in the tail",
    "a disk failing in recovery",
    "a table dropped whole",
    "windows merged",
    "a snapshot",
    "a snapshot dropped",
    "a snapshot nobody was told of",
    "damage: refused",
    "damage: error",
    "damage: healed",
    "damage: harmless",
    "rot that the scrub has found",
    "rot of what nobody needs",
)


def run(seed: int, *, nodes: int = NODES, operations: int = OPERATIONS, keep: bool = False) -> Outcome:
    """Run one seed. `nodes` means nothing here: there is one store."""
    del nodes
    program = Program(seed, StorePlan.draw(Random(f"{seed}/plan")), keep=keep)
    rot = StoreRot(Random(f"{seed}/rot"), program.trace)

    def body() -> None:
        program.begin()
        while program.operations < operations:
            program.step()
            rot.turn()
        program.end()

    return outcome(Tier.STORE, seed, program, PROBES, body)


def outcome(tier: Tier, seed: int, program: Program, probes: Sequence[str], body: Callable[[], None]) -> Outcome:
    """What comes of `body`, which works with the program."""
    broken: Broken | None = None
    try:
        body()
    except Violation as violation:
        broken = Broken(violation.invariant.value, violation.message, violation.key)
    except Exception as error:  # whatever the store lets out that it must not is the finding
        broken = Broken(Invariant.SELF_CHECK.value, f"{type(error).__name__}: {error}, {_place(error)}")
    trace = program.trace
    if broken is not None:
        trace.tell("checker", f"{broken.invariant}: {broken.message}", broken.key)
    return Outcome(
        tier=tier,
        seed=seed,
        nodes=1,
        operations=program.operations,
        virtual_s=program.life.now_s,
        trace=trace.hexdigest(),
        broken=broken,
        faults=dict(sorted(trace.faults.items())),
        probes={name: trace.probes[name] for name in probes},
        lines=tuple(trace.lines),
    )


def _place(error: BaseException) -> str:
    """Where it was raised: the function's name, which is the same on every machine."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return "in " + (frame.tb_frame.f_code.co_qualname if frame is not None else "the open")
