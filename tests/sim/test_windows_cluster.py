"""A bucket with a ttl in whole clusters: tables of which nothing is left go whole, on every replica for itself, and
neither a hash tree nor a reader nor an exchange notices."""

from __future__ import annotations

from collections import Counter

import pytest
import trio

from leafdb.sim import cluster_run
from leafdb.sim.plan import Plan
from leafdb.sim.tree_truth import check_trees
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.raw_client import RawClient
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId
from support.horizons import set_horizon, stamp_now, swept
from support.repairs import contents
from support.transports import until

N1, N2, N3 = map(NodeId, range(1, 4))


async def flushed(cluster: MemoryCluster) -> None:
    """Everything is in tables, and the stores have had the time to do what is due."""
    for node in cluster.nodes.values():
        node.engine.flush_soon()
    await trio.sleep(5)


async def forget(cluster: MemoryCluster) -> None:
    """What has expired by now may go, and goes."""
    await set_horizon(cluster, stamp_now(cluster))
    await until(lambda: swept(cluster.nodes.values()))
    await flushed(cluster)


def dropped(cluster: MemoryCluster) -> list[int]:
    return [node.engine.stats().dropped_tables for node in cluster.nodes.values()]


async def write(client: RawClient, bucket: object, names: range, **how: int) -> None:
    for number in names:
        await client.put(bucket, f"session {number}", b"v" * 100, w=3, **how)  # type: ignore[arg-type]


@virtual
async def test_sessions_leave_with_their_tables_on_every_replica_and_nothing_notices() -> None:
    async with memory_cluster(3, partitions=8) as cluster:
        bucket = await cluster.create_bucket(ttl_ms=10_000)
        client = await cluster.client(N1)
        await write(client, bucket, range(40))
        await flushed(cluster)
        assert dropped(cluster) == [0, 0, 0]
        await trio.sleep(20)
        await write(client, bucket, range(40, 60))
        await forget(cluster)
        assert dropped(cluster) == [1, 1, 1]
        for node in cluster.nodes.values():
            assert len(await contents(node, "b")) == 20
        assert await client.values(bucket, "session 50", r=3) == [b"v" * 100]
        assert await client.values(bucket, "session 5", r=3) == []
        assert await check_trees(cluster, cluster.nodes.values()) > 0
        await cluster.kill(N2)
        await cluster.start(N2)
        await cluster.settle()
        assert await check_trees(cluster, cluster.nodes.values()) > 0
        for node in cluster.nodes.values():
            assert len(await contents(node, "b")) == 20
            assert node.metrics.exchange_keys_differing_total == 0


@virtual
async def test_nothing_is_dropped_for_its_age_while_no_horizon_has_passed_it() -> None:
    async with memory_cluster(3, partitions=8) as cluster:
        bucket = await cluster.create_bucket(ttl_ms=1_000)
        client = await cluster.client(N1)
        await write(client, bucket, range(20))
        await flushed(cluster)
        await trio.sleep(40)
        await flushed(cluster)
        assert dropped(cluster) == [0, 0, 0]
        for node in cluster.nodes.values():
            assert len(await contents(node, "b")) == 20, "they are hidden, and there"


@virtual
async def test_a_value_that_was_given_no_end_outlives_those_of_its_table() -> None:
    async with memory_cluster(3, partitions=8) as cluster:
        bucket = await cluster.create_bucket(ttl_ms=10_000)
        client = await cluster.client(N1)
        await write(client, bucket, range(20))
        await client.put(bucket, "for long", b"v", w=3, ttl_ms=10**9)
        await flushed(cluster)
        await trio.sleep(20)
        await forget(cluster)
        assert dropped(cluster) == [0, 0, 0]
        assert await client.values(bucket, "for long", r=3) == [b"v"]
        assert await check_trees(cluster, cluster.nodes.values()) > 0


def test_seeds_of_the_cluster_tier_hold_while_tables_are_dropped_whole() -> None:
    probes: Counter[str] = Counter()
    for seed in range(2, 5):
        plan = Plan.draw(seed, 5).with_windows()
        outcome = cluster_run.run_plan(plan, operations=150)
        assert outcome.broken is None, f"seed {seed}: {outcome.broken}"
        probes.update(outcome.probes)
    assert probes["dropped_whole"] > 0


@pytest.mark.parametrize("nodes", [3, 5])
def test_some_seeds_have_a_bucket_of_sessions_and_others_are_as_they_were(nodes: int) -> None:
    drawn = [Plan.draw(seed, nodes) for seed in range(200)]
    assert 4 < sum(plan == plan.with_windows() for plan in drawn) < 40
