"""Hours pass for next to nothing, and everything that is due in them happens."""

from __future__ import annotations

import trio

from leafdb.limits import HINT_AGE_S_MAX
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId

N1, N2, N3 = NodeId(1), NodeId(2), NodeId(3)
HOUR_S = 3600.0


@virtual
async def test_a_cluster_that_sleeps_for_hours_stays_whole() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        await client.put(bucket, "k", b"v", w=3)
        began = trio.current_time()
        sessions = [node.pump.counters.sessions_opened_total for node in cluster.nodes.values()]
        await cluster.pass_time(3 * HOUR_S)
        assert trio.current_time() == began + 3 * HOUR_S
        assert not cluster.unsettled()
        assert sessions == [node.pump.counters.sessions_opened_total for node in cluster.nodes.values()], (
            "none was lost"
        )
        assert await client.values(bucket, "k", r=3) == [b"v"]


async def missed_write(cluster: MemoryCluster, away_s: float) -> int:
    """How many hints are left for a node that is away so long."""
    bucket = await cluster.create_bucket()
    client = await cluster.client(N1)
    await cluster.kill(N3)
    await client.put(bucket, "k", b"v", w=2)
    await cluster.pass_time(away_s)
    left = len(await cluster.hints(N1)) + len(await cluster.hints(N2))
    await cluster.restart(N3)
    await cluster.settle()
    await cluster.assert_replicas_equal(bucket)
    return left


@virtual
async def test_a_hint_is_kept_for_its_window_and_no_longer() -> None:
    async with memory_cluster(3) as cluster:
        assert await missed_write(cluster, HINT_AGE_S_MAX - HOUR_S / 2)
    async with memory_cluster(3) as cluster:
        assert not await missed_write(cluster, HINT_AGE_S_MAX + HOUR_S / 2)
