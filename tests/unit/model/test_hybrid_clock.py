"""Promise: stamps never go back, restarts included, never come to an end, and no peer drags them."""

from __future__ import annotations

import random

import pytest

from leafdb.limits import HLC_DRIFT_MS_MAX, HLC_LEASE_MS
from leafdb.model.hlc import LOGICAL_BITS, STAMP_MAX, HybridClock, LeaseExhausted, stamp_ms

NOW = 1_700_000_000_000


def granted(now_ms: int = NOW, ceiling: int = 0) -> HybridClock:
    clock = HybridClock(ceiling)
    wanted = clock.lease_wanted(now_ms)
    assert wanted is not None
    clock.grant(wanted)
    return clock


def test_follows_the_wall_and_counts_within_a_millisecond() -> None:
    clock = granted()
    assert clock.tick(NOW) == NOW << LOGICAL_BITS
    assert clock.tick(NOW) == (NOW << LOGICAL_BITS) + 1
    assert stamp_ms(clock.tick(NOW + 7)) == NOW + 7


def test_never_back_when_the_wall_jumps_back() -> None:
    clock = granted()
    before = clock.tick(NOW + 1_000)
    assert clock.tick(NOW - 3_600_000) == before + 1


def test_nothing_is_minted_at_or_above_the_ceiling() -> None:
    clock = HybridClock()
    with pytest.raises(LeaseExhausted):
        clock.tick(NOW)
    clock = granted()
    with pytest.raises(LeaseExhausted):
        clock.tick(NOW + HLC_LEASE_MS)
    assert clock.tick(NOW + HLC_LEASE_MS - 1) < clock.ceiling


def test_a_restarted_clock_begins_above_all_it_minted() -> None:
    clock = granted()
    newest = clock.tick(NOW + HLC_LEASE_MS - 1)
    restarted = granted(NOW - 60_000, clock.ceiling)
    assert restarted.tick(NOW - 60_000) > newest


def test_a_crash_loop_does_not_run_ahead() -> None:
    ceiling, now_ms = 0, NOW
    for _ in range(100):
        clock = granted(now_ms, ceiling)
        assert clock.tick(now_ms)
        ceiling = clock.ceiling
        now_ms += 2_000
    assert stamp_ms(ceiling) - now_ms < 2 * HLC_LEASE_MS


def test_lease_is_wanted_in_time_and_granted_only_upwards() -> None:
    clock = granted()
    assert clock.lease_wanted(NOW) is None
    assert clock.lease_wanted(NOW + HLC_LEASE_MS // 2) is not None
    ceiling = clock.ceiling
    clock.grant(ceiling - 1)
    assert clock.ceiling == ceiling


def test_a_peers_stamp_beyond_the_drift_bound_is_not_followed() -> None:
    clock = granted()
    assert not clock.observe((NOW + HLC_DRIFT_MS_MAX + 1) << LOGICAL_BITS, NOW)
    assert stamp_ms(clock.tick(NOW + 2)) == NOW + 2


def test_a_wall_clock_that_is_wrong_beyond_all_measure_leaves_room_above_its_stamps() -> None:
    year_9999 = 253_402_300_799_000
    clock = granted(year_9999)
    last = 0
    for step in range(1_000):
        stamp = clock.tick(year_9999 + step * HLC_LEASE_MS)
        wanted = clock.lease_wanted(year_9999 + step * HLC_LEASE_MS)
        assert last < stamp < STAMP_MAX // 2 + (1 << 32)
        if wanted is not None:
            clock.grant(wanted)
        last = stamp
    clock.check()


def test_a_peers_stamp_within_the_bound_is_followed() -> None:
    clock = granted()
    seen = (NOW + HLC_DRIFT_MS_MAX) << LOGICAL_BITS
    assert clock.observe(seen, NOW)
    assert clock.observe(seen - 5, NOW)
    assert clock.tick(NOW) == seen + 1


def test_random_walk_is_strictly_increasing_over_restarts() -> None:
    rng = random.Random(9)
    clock, now_ms, last = granted(), NOW, 0
    for _ in range(3_000):
        now_ms += rng.choice((0, 0, 1, 5, 300, -200))
        if rng.random() < 0.01:
            clock = HybridClock(clock.ceiling)
        wanted = clock.lease_wanted(now_ms)
        if wanted is not None:
            clock.grant(wanted)
        if rng.random() < 0.2:
            clock.observe((now_ms + rng.randint(-100, 100)) << LOGICAL_BITS, now_ms)
        stamp = clock.tick(now_ms)
        assert last < stamp < clock.ceiling
        last = stamp
        clock.check()
