"""The moment to ask a second node settles where 19 of 20 reads are answered; hedges stay a twentieth of them."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leafdb.client.core import Core
from leafdb.client.effects import Exchange
from leafdb.client.hedging import AFTER_S_MAX, AFTER_S_MIN, HEDGES_SAVED_MAX, Hedging
from leafdb.client.routing import NodeState
from leafdb.client.url import Address
from leafdb.wire.registry import MessageType


def read(hedging: Hedging, took_s: float) -> bool:
    """One read that a node answers after `took_s`; whether another was asked."""
    if took_s <= hedging.after_s:
        hedging.in_time()
        return False
    hedging.late()
    return hedging.budget.take()


@pytest.mark.parametrize(("fastest", "slowest"), [(0.05, 0.4), (0.2, 0.9)])
def test_the_moment_is_the_time_that_19_of_20_reads_stay_under(fastest: float, slowest: float) -> None:
    rng, hedging, late = Random(3), Hedging(), 0
    for turn in range(6_000):
        took_s = rng.uniform(fastest, slowest)
        late += turn >= 3_000 and took_s > hedging.after_s
        read(hedging, took_s)
        hedging.check()
    assert 0.03 < late / 3_000 < 0.07


def test_quick_reads_are_not_hedged_for_less_than_a_hedge_costs() -> None:
    hedging = Hedging()
    for _ in range(3_000):
        assert not read(hedging, 0.001)
    assert hedging.after_s == AFTER_S_MIN


def test_when_everything_is_slow_hedges_end() -> None:
    hedging = Hedging()
    assert sum(read(hedging, 10.0) for _ in range(1_000)) == HEDGES_SAVED_MAX
    assert hedging.after_s == AFTER_S_MAX


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.lists(st.floats(0.0, 3.0), max_size=400))
def test_hedges_are_never_more_than_a_twentieth_of_the_reads_and_what_was_saved(times: list[float]) -> None:
    hedging = Hedging()
    hedges = 0
    for took_s in times:
        hedges += read(hedging, took_s)
        hedging.check()
    assert hedges <= HEDGES_SAVED_MAX + len(times) / 20


def test_only_a_connected_node_in_good_standing_is_asked() -> None:
    addresses = [Address("n", port) for port in (1, 2)]
    core = Core(addresses, zone=None, timeout=5.0, routing="listed", clock=lambda: 7.0, rng=Random(1))
    first, second = core.router.nodes()
    exchange = Exchange(first, MessageType.GET, b"body", 12.0, 7.0)

    def connected(node: NodeState) -> bool:
        return node is second

    assert core.hedge(exchange, lambda node: False) is None
    hedge = core.hedge(exchange, connected)
    assert hedge is not None
    assert (hedge.node, hedge.body, hedge.deadline) == (second, b"body", 12.0)
    assert not hedge.hedge_at, "a hedge is not hedged"
    second.failed(7.0)
    assert core.hedge(exchange, connected) is None
    core.check()


def test_a_traced_read_is_not_asked_of_a_node_that_takes_no_traces() -> None:
    """While a cluster is upgraded its nodes differ: the older would not know the message."""
    addresses = [Address("n", port) for port in (1, 2)]
    core = Core(addresses, zone=None, timeout=5.0, routing="listed", clock=lambda: 7.0, rng=Random(1))
    first, second = core.router.nodes()
    exchange = Exchange(first, MessageType.TRACED, b"body", 12.0, 7.0)
    first.traces = True
    assert core.hedge(exchange, lambda node: True) is None
    second.traces = True
    assert core.hedge(exchange, lambda node: True) is not None
