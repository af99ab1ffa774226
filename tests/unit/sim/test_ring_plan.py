"""Which seeds have a ring that changes, and what is left out of them."""

from __future__ import annotations

from dataclasses import replace

from leafdb.sim.plan import HINTS_BYTES_TINY, NOT_WITH_RINGS, Plan
from leafdb.sim.ring_plan import RING_N
from leafdb.sim.ring_run import with_stories_perhaps
from leafdb.types import Durability

PLANS = [Plan.draw(seed, 5) for seed in range(400)]


def test_some_seeds_have_a_ring_that_changes_and_most_have_not() -> None:
    changing = [plan for plan in PLANS if plan.rings is not None]
    assert 20 < len(changing) < 120
    assert not any(Plan.draw(seed, 2).rings for seed in range(400)), "two nodes have no ring to change"


def test_a_ring_that_changes_leaves_the_rest_of_a_seed_as_it_was() -> None:
    for plan in PLANS:
        if plan.rings is None:
            changing = plan.with_rings()
            assert (changing.gap_s, changing.latency_s, changing.shape) == (plan.gap_s, plan.latency_s, plan.shape)
            assert set(changing.troubles) <= set(plan.troubles)


def test_some_seeds_have_stories_at_the_steps_of_plans_and_the_rest_stays_as_it_was() -> None:
    plain = [plan.with_rings() for plan in PLANS]
    told = [with_stories_perhaps(plan) for plan in plain]
    changed = [(one, other) for one, other in zip(plain, told, strict=True) if one != other]
    assert 140 < len(changed) < 260
    for one, other in changed:
        assert one.rings is not None
        assert other.rings == replace(one.rings, stories=True)
        assert replace(other, rings=one.rings, hints_bytes_max=one.hints_bytes_max) == one
        assert "hear late" in other.describe()
    assert any(one.hints_bytes_max == other.hints_bytes_max for one, other in changed)
    assert any(other.hints_bytes_max == HINTS_BYTES_TINY for _, other in changed)


def test_there_are_as_many_nodes_as_copies_and_one_kind_of_loss_at_a_time() -> None:
    for plan in (plan.with_rings() for plan in PLANS):
        rings = plan.rings
        assert rings is not None
        assert plan.with_rings() is plan
        assert RING_N == plan.bucket.n <= rings.founders < rings.machines_max
        assert not plan.kinds & set(NOT_WITH_RINGS)
        assert not rings.losses or plan.bucket.durability is Durability.ALWAYS
        assert plan.destructive or not rings.losses
