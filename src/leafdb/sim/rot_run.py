"""The tier of rot: whole clusters as in tier CLUSTER, and in every seed tables are damaged, and replicas heal them."""

from __future__ import annotations

from typing import Final

from leafdb.sim import cluster_run
from leafdb.sim.outcome import NODES, OPERATIONS, Outcome, Tier
from leafdb.sim.plan import Plan

NODES_MIN: Final = 3


def run(seed: int, *, nodes: int = NODES, operations: int = OPERATIONS, keep: bool = False) -> Outcome:
    """As `outcome.Runner`; there are three nodes at least."""
    plan = Plan.draw(seed, max(nodes, NODES_MIN)).rotting()
    return cluster_run.run_plan(plan, operations=operations, keep=keep, tier=Tier.ROT)
