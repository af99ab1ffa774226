"""Promises of the load generator's arithmetic: percentiles never too good, distributions that are what they say."""

from __future__ import annotations

import os
from collections import Counter
from random import Random

import pytest

from leafdb.errors import ConfigError
from leafdb_cli.workloads.distributions import latest, named, scrambled, uniform, zeta, zipfian
from leafdb_cli.workloads.histogram import MICROSECONDS_MAX, Histogram, bucket_of, upper_end
from leafdb_cli.workloads.machine import CpuMeter, cpu_s, server_pids
from leafdb_cli.workloads.mixes import MIXES, mix_named


def test_buckets_meet_and_are_narrow() -> None:
    histogram = Histogram()
    histogram.check()
    for value in (0, 1, 255, 256, 257, 1_000, 65_535, 65_536, 10**6, MICROSECONDS_MAX):
        end = upper_end(bucket_of(value))
        assert value <= end <= value * 1.008 + 1


def test_percentiles_are_those_of_the_sorted_values() -> None:
    rng = Random(7)
    values = sorted(rng.expovariate(200) for _ in range(5_000))
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    histogram.check()
    for percent in (1, 50, 90, 99, 99.9, 100):
        true_ms = values[max(0, -(-len(values) * percent // 100).__floor__() - 1)] * 1000
        found = histogram.percentile_ms(percent)
        assert found is not None
        assert true_ms - 0.001 <= found <= true_ms * 1.01 + 0.001


def test_odd_latencies_are_kept_in_bounds() -> None:
    histogram = Histogram()
    assert histogram.percentile_ms(50) is None
    for value in (-1.0, 0.0, 1e9):
        histogram.add(value)
    histogram.check()
    assert histogram.percentile_ms(50) == 0.0
    assert histogram.percentile_ms(100) == MICROSECONDS_MAX / 1000


def test_zeta_beyond_the_exact_terms_is_close() -> None:
    exact = sum(1 / i**0.99 for i in range(1, 30_001))
    assert zeta(30_000) == pytest.approx(exact, rel=1e-9)
    assert zeta(3) == pytest.approx(1 + 2**-0.99 + 3**-0.99)


def test_zipfian_ranks_have_zipfs_shares() -> None:
    count, draws = 1_000, 40_000
    draw = zipfian(count, Random(3))
    seen = Counter(draw() for _ in range(draws))
    assert 0 <= min(seen) <= max(seen) < count
    total = zeta(count)
    for rank in (0, 1):
        assert seen[rank] / draws == pytest.approx(1 / (rank + 1) ** 0.99 / total, rel=0.1)
    top = sum(seen[rank] for rank in range(100)) / draws
    assert top == pytest.approx(zeta(100) / total, rel=0.05)


def test_scrambling_keeps_popularity_and_spreads_it() -> None:
    count = 1_000
    draw = scrambled(zipfian(count, Random(3)), count)
    seen = Counter(draw() for _ in range(20_000))
    assert 0 <= min(seen) <= max(seen) < count
    (first, _), (second, _) = seen.most_common(2)
    assert abs(first - second) > 1


def test_latest_prefers_the_newest() -> None:
    newest = [999]
    draw = latest(zipfian(1_000, Random(3)), lambda: newest[0])
    seen = Counter(draw() for _ in range(5_000))
    assert seen.most_common(1)[0][0] == 999
    newest[0] = 2_000
    assert Counter(draw() for _ in range(5_000)).most_common(1)[0][0] == 2_000
    newest[0] = 3
    assert all(0 <= draw() <= 3 for _ in range(1_000))


def test_uniform_and_names() -> None:
    draw = uniform(10, Random(1))
    seen = Counter(draw() for _ in range(10_000))
    assert set(seen) == set(range(10))
    assert max(seen.values()) < 1.25 * min(seen.values())
    assert zipfian(1, Random(1))() == 0
    with pytest.raises(ConfigError):
        named("normal", 10, Random(1), lambda: 0)


def test_the_workloads_are_those_of_the_interface() -> None:
    assert list(MIXES) == ["put", "get", "mixed", *(f"ycsb-{letter}" for letter in "abcdef")]
    for mix in MIXES.values():
        mix.check()
    assert not MIXES["put"].preloads
    assert all(mix.preloads for name, mix in MIXES.items() if name != "put")
    with pytest.raises(ConfigError, match="ycsb-f"):
        mix_named("ycsb-g")


def test_cpu_is_read_from_proc() -> None:
    before = cpu_s(os.getpid())
    assert before is not None
    assert cpu_s(0) is None
    meter = CpuMeter([os.getpid()])
    spent = meter.spent_s()
    assert spent is not None
    assert spent >= 0
    assert CpuMeter([]).spent_s() is None


def test_servers_elsewhere_are_not_measured() -> None:
    here = {"client": "127.0.0.1:7411", "state": "alive", "pid": os.getpid(), "worker_pid": None}
    assert server_pids([here]) == [os.getpid()]
    assert server_pids([here, {**here, "client": "10.0.0.1:7411"}]) == []
    assert server_pids([here, {**here, "state": "dead", "pid": None}]) == [os.getpid()]
