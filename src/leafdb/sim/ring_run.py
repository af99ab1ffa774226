"""The tier of ring changes: whole clusters as in tier CLUSTER, and in every seed operators who change the ring.

In half of the seeds stories are played at the steps of plans (`ring_stories.py`).
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Final

from leafdb.sim import cluster_run
from leafdb.sim.outcome import NODES, OPERATIONS, Outcome, Tier
from leafdb.sim.plan import HINTS_BYTES_TINY, Plan
from leafdb.sim.ring_plan import RING_N

STORY_CHANCE: Final = 0.5
"""Of a seed in which somebody is cut off at the very moment of a step."""
NO_HINTS_CHANCE: Final = 0.75
"""Of such a seed in which there is no room for hints, so that comparing alone brings owners what they have missed."""


def run(seed: int, *, nodes: int = NODES, operations: int = OPERATIONS, keep: bool = False) -> Outcome:
    """As `outcome.Runner`; `nodes` is the most that a cluster begins with."""
    plan = with_stories_perhaps(Plan.draw(seed, max(nodes, RING_N)).with_rings())
    return cluster_run.run_plan(plan, operations=operations, keep=keep, tier=Tier.RING)


def with_stories_perhaps(plan: Plan) -> Plan:
    """A plan whose ring changes: in half of the seeds with stories, drawn apart from everything else."""
    assert plan.rings is not None
    rng = Random(f"{plan.seed}/ring stories")
    if rng.random() >= STORY_CHANCE:
        return plan
    hints = HINTS_BYTES_TINY if rng.random() < NO_HINTS_CHANCE else plan.hints_bytes_max
    return replace(plan, rings=replace(plan.rings, stories=True), hints_bytes_max=hints)
