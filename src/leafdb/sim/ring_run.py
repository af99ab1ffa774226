"""The tier of ring changes: whole clusters as in tier CLUSTER, and in every seed operators who change the ring.

In half of the seeds stories are played at the steps of plans (`ring_stories.py`).
"""

from __future__ import annotations

from leafdb.sim import cluster_run
from leafdb.sim.outcome import NODES, OPERATIONS, Outcome, Tier
from leafdb.sim.plan import Plan
from leafdb.sim.ring_plan import RING_N


def run(seed: int, *, nodes: int = NODES, operations: int = OPERATIONS, keep: bool = False) -> Outcome:
    """As `outcome.Runner`; `nodes` is the most that a cluster begins with."""
    plan = Plan.draw(seed, max(nodes, RING_N)).with_rings().with_ring_stories_perhaps()
    return cluster_run.run_plan(plan, operations=operations, keep=keep, tier=Tier.RING)
