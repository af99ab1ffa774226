"""Seeded ordeals: clients that do as they like, nodes killed, cut off and without power (see support/nemesis.py).

A seed that fails fails again: run `ordeal(seed, plan)` under `run_virtual` with it. A few run here; hundreds were run
while the node was written.
"""

from __future__ import annotations

from functools import partial

import pytest

from leafdb.testing.virtual_time import run_virtual
from leafdb.types import Durability
from support.nemesis import Plan, ordeal

PLANS = {
    "kills and cuts": Plan(seconds=6),
    "power cuts": Plan(seconds=6, durability=Durability.ALWAYS, power=True),
    "five nodes": Plan(seconds=4, nodes=5),
    "five nodes without power": Plan(seconds=4, nodes=5, durability=Durability.ALWAYS, power=True),
    "cold caches": Plan(seconds=5, durability=Durability.ALWAYS, power=True, cold=True),
    "wrong clocks": Plan(seconds=5, skew_ms=20_000),
}


@pytest.mark.parametrize("name", PLANS)
def test_promises_hold_through_an_ordeal(name: str) -> None:
    history = run_virtual(partial(ordeal, 3, PLANS[name]), 3)
    assert history.count("acked") > 20
    assert history.reads > 20


def test_the_same_seed_gives_the_same_run() -> None:
    plan = Plan(seconds=3, durability=Durability.ALWAYS, power=True)
    one, other = (run_virtual(partial(ordeal, 5, plan), 5) for _ in range(2))
    assert one.log == other.log
    assert len(one.log) > 20
