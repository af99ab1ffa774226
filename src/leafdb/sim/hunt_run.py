"""The tier of the undead: whole clusters as in tier CLUSTER, and every seed is made for values that come back."""

from __future__ import annotations

from leafdb.sim import cluster_run
from leafdb.sim.outcome import NODES, OPERATIONS, Outcome, Tier
from leafdb.sim.plan import Plan


def run(seed: int, *, nodes: int = NODES, operations: int = OPERATIONS, keep: bool = False) -> Outcome:
    """As `outcome.Runner`."""
    plan = Plan.draw(seed, nodes).hunted()
    return cluster_run.run_plan(plan, operations=operations, keep=keep, tier=Tier.HUNT)
