"""Promises: a node that runs reads every gauge and counts what requests take, on whichever way they go; ranges with too
few replicas are seen by those who hold them; clocks that are wrong are named; the collector's pauses are measured."""

from __future__ import annotations

import gc
import logging

import pytest
import trio

from leafdb.errors import LeafdbError
from leafdb.node.clock_watch import ClockWatch, skew_s
from leafdb.node.collector import pauses_measured
from leafdb.node.gauges import watch
from leafdb.node.metric_tables import GAUGES, HISTOGRAMS
from leafdb.node.metrics import Histogram
from leafdb.node.node import Node
from leafdb.node.short_ranges import ShortRanges
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId

N1, N2, N3, N4 = map(NodeId, range(1, 5))


def count_of(cluster: MemoryCluster, attribute: str) -> int:
    """Of a histogram, over all nodes."""
    found: list[Histogram] = [getattr(node.metrics, attribute) for node in cluster.nodes.values()]
    return sum(histogram.count for histogram in found)


async def without(node: Node, other: NodeId) -> None:
    """Return when this node cannot reach the other any more."""
    with trio.fail_after(60.0):
        while other in node.view.usable:  # noqa: ASYNC110 - a set has no event
            await trio.sleep(0.1)


@virtual
async def test_every_gauge_of_a_node_that_runs_is_read() -> None:
    async with memory_cluster(3) as cluster:
        node = cluster.nodes[N1]
        watch(node)
        shown = node.metrics.gauges()
        assert set(GAUGES) - set(shown) == {"clock_skew"}, "whoever runs the watch names that one"
        for name, value in shown.items():
            assert isinstance(value, dict) == bool(GAUGES[name].label), name
        assert node.metrics.gauges()["members"] == {"alive": 3.0, "suspect": 0.0, "dead": 0.0}
        node.metrics.check()


@virtual
async def test_what_requests_take_is_counted_where_they_come_and_where_they_are_answered() -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        for number in range(40):
            await client.put(bucket, f"k{number}", b"x" * 300, w=3)
        for number in range(40):
            await client.values(bucket, f"k{number}", r=3)
        forwards = sum(node.metrics.forwards_total for node in cluster.nodes.values())
        assert 0 < forwards < 80, "of four nodes three hold a key"
        assert count_of(cluster, "put_duration") == 40
        assert count_of(cluster, "get_duration") == 40
        assert count_of(cluster, "forward_duration") == forwards
        assert count_of(cluster, "replica_put_duration") == 80
        assert count_of(cluster, "replica_get_duration") == 80
        sizes = [node.metrics.value_bytes for node in cluster.nodes.values()]
        assert sum(histogram.total for histogram in sizes) == 40 * 300


@virtual
async def test_the_syncs_of_the_log_are_told_of() -> None:
    async with memory_cluster(1) as cluster:
        bucket = await cluster.create_bucket(n=1)
        node = cluster.nodes[N1]
        watch(node)
        before = node.metrics.wal_sync_duration.count
        client = await cluster.client(N1)
        for number in range(5):
            await client.put(bucket, f"k{number}", b"x")
        assert node.metrics.wal_sync_duration.count == before + 5, "one after the other: each its own"


@virtual
async def test_too_few_replicas_are_counted_as_such_and_seen_in_the_ranges() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        await client.put(bucket, "k", b"x", w=3)
        node, short = cluster.nodes[N1], ShortRanges()
        assert short.read(node.view) == {"get": 0, "put": 0}
        await cluster.kill(N2)
        await without(node, N2)
        assert short.read(node.view) == {"get": 0, "put": 0}, "two of three are enough"
        await cluster.kill(N3)
        await without(node, N3)
        assert node.view.ring is not None
        assert short.read(node.view) == {"get": 64, "put": 64}
        for attempt in (client.put(bucket, "k", b"y"), client.values(bucket, "k")):
            with pytest.raises(LeafdbError):
                await attempt
        assert (node.metrics.put_shortfalls_total, node.metrics.get_shortfalls_total) == (1, 1)


@virtual
async def test_a_clock_that_is_wrong_is_named(caplog: pytest.LogCaptureFixture) -> None:
    async with memory_cluster(3) as cluster:
        cluster.skew_ms[N2] = 2_000
        cluster.skew_ms[N3] = -40
        clocks = ClockWatch(cluster.nodes[N1])
        with caplog.at_level(logging.WARNING, "leafdb.clock"):
            await clocks.look()
        assert clocks.skews()["n2"] == pytest.approx(2.0, abs=0.05)
        assert clocks.skews()["n3"] == pytest.approx(-0.04, abs=0.05)
        said = [vars(line)["facts"] for line in caplog.records if line.name == "leafdb.clock"]
        assert [facts["peer"] for facts in said] == ["n2"]


def test_a_slow_answer_is_no_skewed_clock() -> None:
    assert skew_s(1_000, 1_800, 1_000) == 0.0
    assert skew_s(1_000, 1_800, 1_800) == 0.0
    assert skew_s(1_000, 1_100, 1_350) == pytest.approx(0.25)
    assert skew_s(1_000, 1_100, 750) == pytest.approx(-0.25)
    assert skew_s(1_000, 900, 950) == 0.0, "a clock of ours that was set back meanwhile"


def test_collections_are_measured_while_the_context_lasts() -> None:
    pauses = Histogram(next(each for each in HISTOGRAMS if each.attribute == "gc_pause"))
    ticks = iter(range(100))
    before = list(gc.callbacks)
    with pauses_measured(pauses, lambda: float(next(ticks))):
        gc.collect()
    counted = pauses.count
    assert counted >= 1
    assert pauses.total == pytest.approx(counted), "a tick for each"
    gc.collect()
    assert pauses.count == counted
    assert gc.callbacks == before
