"""The tier of rot: damaged tables of whole nodes are salvaged and healed by the replicas, counted (I32)."""

from __future__ import annotations

from leafdb.sim.outcome import Tier
from leafdb.sim.plan import DESTROYERS, Plan, Trouble
from leafdb.sim.rot_run import run


def test_what_rots_is_healed_by_the_replicas() -> None:
    healed = rotten = 0
    for seed in (1, 4, 5):
        outcome = run(seed, operations=80)
        assert outcome.broken is None, f"seed {seed}: {outcome.broken}"
        assert outcome.tier is Tier.ROT
        healed += outcome.probes["healed_in_place"]
        rotten += outcome.faults.get("table_rot", 0)
    assert rotten >= healed >= 1


def test_in_every_seed_of_the_tier_rot_is_the_only_destroyer() -> None:
    for seed in range(200):
        plan = Plan.draw(seed, 3).rotting()
        assert plan.kinds & set(DESTROYERS) == {Trouble.ROT}
        assert plan.kinds == {kind for kind, _ in plan.troubles}
        assert plan.bucket.w >= 2
        assert plan.rings is None
