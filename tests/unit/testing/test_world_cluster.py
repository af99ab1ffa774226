"""What can be done to whole nodes in memory is what happens to real ones."""

from __future__ import annotations

from random import Random

import pytest
import trio

from leafdb.errors import StorageError
from leafdb.model.bucket import BucketProperties
from leafdb.model.key import encode_key
from leafdb.ring.token import storage_key
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId, TreeId

N1, N2, N3 = NodeId(1), NodeId(2), NodeId(3)


@virtual
async def test_a_node_that_vanished_is_missed_only_by_those_who_talk_to_it() -> None:
    async with memory_cluster(3) as cluster:
        await cluster.kill(N3, vanish=True)
        assert N3 in cluster.nodes[N1].view.usable, "nobody was told"
        await trio.sleep(30)
        assert N3 not in cluster.nodes[N1].view.usable
        await cluster.restart(N3)
        await cluster.settle()


async def refusals(cluster: MemoryCluster) -> str:
    await trio.sleep(20)
    return "".join(text for node in cluster.nodes.values() for text in node.admission.refusals.values())


@virtual
async def test_a_disk_rolled_back_is_refused() -> None:
    async with memory_cluster(3) as cluster:
        old = cluster.clone_disk(N3)
        await cluster.kill(N3)
        await cluster.restart(N3)
        await cluster.meet()
        await cluster.kill(N3)
        await cluster.restart(N3)
        await cluster.meet()
        await cluster.kill(N3)
        cluster.disks[N3] = old
        await cluster.start(N3)
        assert "rolled back" in await refusals(cluster)


@virtual
async def test_a_cloned_disk_is_refused() -> None:
    async with memory_cluster(3) as cluster:
        await cluster.kill(N1)
        twin = cluster.clone_disk(N1)
        await cluster.restart(N1)
        await cluster.meet()
        await cluster.start_twin(N1, twin)
        assert "clone" in await refusals(cluster)
        await cluster.stop_twins()
        await cluster.settle()


@virtual
async def test_a_wiped_disk_is_empty_and_belongs_to_no_member() -> None:
    async with memory_cluster(3) as cluster:
        await cluster.kill(N3)
        cluster.wipe(N3)
        node = await cluster.start(N3)
        assert node.view.metadata is None


async def written(cluster: MemoryCluster) -> tuple[BucketProperties, list[tuple[NodeId, TreeId, bytes]]]:
    seen: list[tuple[NodeId, TreeId, bytes]] = []
    cluster.observe_writes(lambda node, tree, key, _: seen.append((node, tree, key)))
    bucket = await cluster.create_bucket()
    await (await cluster.client(N1)).put(bucket, "k", b"v", w=3)
    return bucket, seen


@virtual
async def test_writes_of_every_node_are_seen() -> None:
    async with memory_cluster(3) as cluster:
        bucket, seen = await written(cluster)
        key = storage_key(bucket.id, encode_key("k"))
        assert {node for node, tree, at in seen if (tree, at) == (TreeId(bucket.id), key)} == {N1, N2, N3}


@virtual
async def test_a_disk_can_become_slow_and_fast_again() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)

        async def takes_s() -> float:
            began = trio.current_time()
            await client.put(bucket, "k", b"v", w=3, pw=3, timeout_s=20)
            return trio.current_time() - began

        fast = await takes_s()
        cluster.slow_disk(N2, lambda: 2.0)
        assert await takes_s() >= 2.0 - 1e-6
        cluster.slow_disk(N2, None)
        await trio.sleep(10)
        assert await takes_s() <= fast


@virtual
async def test_a_clock_may_jump_while_its_node_runs() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        cluster.skew_ms[N2] = 60_000
        assert cluster.nodes[N2].world.now_ms() - cluster.now_ms() == 60_000
        client = await cluster.client(N2)
        await trio.sleep(5)  # stamps are leased ahead, and not so far
        await client.put(bucket, "k", b"1", w=3)
        cluster.skew_ms[N2] = -60_000
        await client.put(bucket, "k", b"2", w=3)
        await cluster.settle()
        await cluster.assert_replicas_equal(bucket)


@virtual
async def test_a_node_whose_disk_has_rotted_does_not_start() -> None:
    async with memory_cluster(3) as cluster:
        await cluster.kill(N3)
        disk = cluster.disks[N3]
        assert disk.flip_random(Random(1), lambda path: path.endswith("CURRENT")) is not None
        with pytest.raises(StorageError):
            await cluster.start(N3)
