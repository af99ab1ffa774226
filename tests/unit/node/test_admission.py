"""Promises: a store that runs from an old copy of its disk, or beside a copy of itself, is refused by its peers."""

from __future__ import annotations

import random

import trio

from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId
from leafdb.vfs.memory import MemoryFileSystem

N1, N2, N3 = NodeId(1), NodeId(2), NodeId(3)


def copy_of(disk: MemoryFileSystem) -> MemoryFileSystem:
    """The same bytes in another place, as a backup or a cloned machine has them."""
    return disk.power_cut(random.Random(1), keep=1.0)


async def assert_refused(cluster: MemoryCluster, node: NodeId) -> None:
    """The node runs and reaches nobody; the others serve on without it."""
    await trio.sleep(20)
    others = {other: running for other, running in cluster.nodes.items() if other != node}
    assert not cluster.nodes[node].view.usable
    assert all(running.view.usable == {*others} - {other} for other, running in others.items())
    client = await cluster.client(next(iter(others)))
    bucket = await cluster.create_bucket("after", via=next(iter(others)))
    assert (await client.put(bucket, "k", b"v", w=2)).acks == 2
    client.close()


@virtual
async def test_a_disk_brought_back_from_a_copy_is_refused() -> None:
    async with memory_cluster(3) as cluster:
        await cluster.stop(N3)
        backup = copy_of(cluster.disks[N3])
        for _ in range(2):
            await cluster.start(N3)
            await cluster.meet()
            await cluster.stop(N3)
        newest, cluster.disks[N3] = cluster.disks[N3], backup
        await cluster.start(N3)
        await assert_refused(cluster, N3)
        await cluster.stop(N3)
        cluster.disks[N3] = newest
        await cluster.start(N3)
        await cluster.meet()


@virtual
async def test_a_clone_is_refused_although_it_started_as_often_as_the_original() -> None:
    async with memory_cluster(3) as cluster:
        await cluster.stop(N3)
        clone = copy_of(cluster.disks[N3])
        await cluster.start(N3)
        await cluster.meet()
        await cluster.stop(N3)
        cluster.disks[N3] = clone
        await cluster.start(N3)
        await assert_refused(cluster, N3)


@virtual
async def test_what_was_seen_of_a_peer_outlives_restarts_of_the_one_who_saw_it() -> None:
    async with memory_cluster(3) as cluster:
        await cluster.stop(N3)
        clone = copy_of(cluster.disks[N3])
        await cluster.start(N3)
        await cluster.meet()
        await cluster.stop(N1, N2, N3)
        await cluster.restart(N1, N2)
        cluster.disks[N3] = clone
        await cluster.start(N3)
        await assert_refused(cluster, N3)
