"""Nothing that is minted below a horizon comes to count: a store that lost the end of its log still has the ceiling it
promised, and an old disk, which has not, reaches nobody."""

from __future__ import annotations

import trio

from leafdb.limits import HLC_LEASE_MS
from leafdb.model.hlc import LOGICAL_BITS
from leafdb.model.record import newest_stamp
from leafdb.testing.cluster import memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId
from support.horizons import set_horizon, stamp_now
from support.transports import until

N1, N2, N3 = map(NodeId, range(1, 4))
HOUR_MS = 3_600_000


@virtual
async def test_what_an_old_disk_with_a_slow_clock_mints_below_a_horizon_reaches_nobody() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        await cluster.stop(N3)
        backup = cluster.clone_disk(N3)
        for _ in range(2):
            await cluster.start(N3)
            await cluster.meet()
            await cluster.stop(N3)
        cluster.disks[N3] = backup
        cluster.skew_ms[N3] = -HOUR_MS
        await trio.sleep(HLC_LEASE_MS / 1000)  # so much was durable when the copy was made
        horizon = stamp_now(cluster)
        await set_horizon(cluster, horizon)
        node = await cluster.start(N3)
        assert not node.horizons.of(0), "it has not heard of it"
        client = await cluster.client(N3)
        await client.put(bucket, "k", b"v", w=1)
        minted = await cluster.record(N3, bucket, "k")
        assert minted is not None
        assert newest_stamp(minted) < horizon
        await until(lambda: N3 not in cluster.nodes)
        for number in (N1, N2):
            assert await cluster.record(number, bucket, "k") is None
            assert await (await cluster.client(number)).values(bucket, "k") == []


@virtual
async def test_a_store_that_lost_its_end_mints_above_the_horizon_it_has_agreed_to_and_never_heard_of() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        await client.put(bucket, "k", b"v", w=3)
        node = cluster.nodes[N3]
        horizon = stamp_now(cluster)
        secured: list[object] = []
        node.leases.secure(horizon, secured.append)
        await until(lambda: secured == [None])
        await client.put(bucket, "lost", b"v", w=1)
        await cluster.power_cut(N3, keep=0.0)
        cluster.skew_ms[N3] = -HOUR_MS
        await cluster.start(N3)
        assert not cluster.nodes[N3].horizons.of(0)
        await (await cluster.client(N3)).put(bucket, "new", b"v", w=1)
        minted = await cluster.record(N3, bucket, "new")
        assert minted is not None
        assert newest_stamp(minted) >= horizon > cluster.now_ms() - HOUR_MS << LOGICAL_BITS
