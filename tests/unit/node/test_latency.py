"""The estimate follows the 95th percentile; hedges are a twentieth of the reads, and a few saved ones."""

from __future__ import annotations

from random import Random

from leafdb.node.latency import FIRST_GUESS_S, HEDGES_SAVED_MAX, SLOW_AFTER_S_MIN, SLOWEST_S, PeerLatency
from leafdb.types import NodeId

N1, N2, N3 = NodeId(1), NodeId(2), NodeId(3)


def test_the_estimate_finds_the_percentile_from_either_side() -> None:
    for scale_s in (0.002, 0.4):
        rng = Random(3)
        latency = PeerLatency()
        for _ in range(8_000):
            latency.observed(N1, rng.expovariate(1 / scale_s))
        # the 95th percentile of an exponential distribution is three times its mean
        assert 2.0 * scale_s < latency.p95_s(N1) < 4.5 * scale_s


def test_one_outlier_changes_little_and_nothing_goes_past_the_slowest() -> None:
    latency = PeerLatency()
    for _ in range(200):
        latency.observed(N1, 0.001)
    before = latency.p95_s(N1)
    latency.observed(N1, 60.0)
    assert latency.p95_s(N1) < before * 1.1
    for _ in range(1_000):
        latency.observed(N1, 60.0)
    assert latency.p95_s(N1) == SLOWEST_S


def test_the_wait_is_that_for_the_slowest_of_the_others_asked() -> None:
    latency = PeerLatency()
    for _ in range(2_000):
        latency.observed(N1, 1.0)
        latency.observed(N2, 0.000_1)
    assert latency.slow_after_s([N2], own=N3) == SLOW_AFTER_S_MIN
    assert latency.slow_after_s([N1, N2], own=N3) == latency.p95_s(N1)
    assert latency.slow_after_s([N1, N2], own=N1) == SLOW_AFTER_S_MIN
    assert latency.slow_after_s([NodeId(9)], own=N3) == FIRST_GUESS_S


def test_hedges_are_bounded_by_the_reads_there_were() -> None:
    latency = PeerLatency()
    saved = sum(latency.may_hedge() for _ in range(100))
    assert saved == HEDGES_SAVED_MAX
    hedges = 0
    for _ in range(1_000):
        latency.slow_after_s([N2], own=N1)
        hedges += latency.may_hedge()
    assert 45 <= hedges <= 50
