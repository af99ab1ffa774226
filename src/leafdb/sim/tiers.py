"""From a tier to what runs it. A runner is imported when it is asked for: each brings its own part of leafdb along, and
a mutation has to come before any of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from traceback import extract_tb
from typing import Final, cast

from leafdb.sim.outcome import NODES, OPERATIONS, Broken, Outcome, Runner, Tier
from leafdb.testing.violation import Invariant

MODULES: Final[Mapping[Tier, str]] = {
    Tier.CLUSTER: "leafdb.sim.cluster_run",
    Tier.RING: "leafdb.sim.ring_run",
    Tier.HUNT: "leafdb.sim.hunt_run",
    Tier.ROT: "leafdb.sim.rot_run",
    Tier.STORE: "leafdb.sim.store_run",
    Tier.CRASH: "leafdb.sim.crash_run",
    Tier.FAILING: "leafdb.sim.failing_run",
    Tier.DAMAGE: "leafdb.sim.damage_run",
    Tier.RECORD: "leafdb.sim.record_run",
    Tier.MEMBERSHIP: "leafdb.sim.membership_run",
    Tier.PURGE: "leafdb.sim.purge_run",
    Tier.REGISTER: "leafdb.sim.register_run",
}
"""Each has a function `run`, which is the Runner."""


def runner(tier: Tier) -> Runner:
    """What runs the tier's seeds. It never raises: an exception out of a run is an outcome too (SELF_CHECK)."""
    return guarded(tier, cast(Runner, import_module(MODULES[tier]).run))


def guarded(tier: Tier, inner: Runner) -> Runner:
    """`inner`, with what it raises as an outcome without a fingerprint."""

    def run(seed: int, *, nodes: int = NODES, operations: int = OPERATIONS, keep: bool = False) -> Outcome:
        try:
            return inner(seed, nodes=nodes, operations=operations, keep=keep)
        except Exception as error:
            broken = Broken(Invariant.SELF_CHECK.value, f"the run raised {_told(error)}")
            return Outcome(tier, seed, nodes, operations, 0.0, "", broken)

    return run


def _told(error: BaseException) -> str:
    """The first error of a group, and the last place of ours it came through."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    ours = [frame for frame in extract_tb(error.__traceback__) if "leafdb" in frame.filename]
    where = f" ({ours[-1].filename.rpartition('leafdb')[2].lstrip('/')}:{ours[-1].lineno})" if ours else ""
    return f"{type(error).__name__}: {error}{where}"
