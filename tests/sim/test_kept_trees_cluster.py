"""Whole nodes compare themselves by kept trees: equal ranges cost no reading, a wrong tree is found and mended."""

from __future__ import annotations

import pytest
import trio

from leafdb.merkle.tree import leaf_of
from leafdb.model.key import encode_key
from leafdb.node.node import Node
from leafdb.ring.token import split_storage_key, storage_key
from leafdb.sim.tree_truth import check_trees
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import FIRST_BUCKET_ID, BucketId, NodeId, TreeId
from support.repairs import drop_bucket

N1, N2, N3 = NodeId(1), NodeId(2), NodeId(3)
KEYS = 200


async def filled(cluster: MemoryCluster) -> BucketId:
    bucket = await cluster.create_bucket()
    client = await cluster.client(N1)
    for number in range(KEYS):
        await client.put(bucket, f"key{number}", b"v", w=3)
    await cluster.settle()
    return bucket.id


def counted_scans(node: Node, monkeypatch: pytest.MonkeyPatch) -> list[TreeId]:
    """From now on: the buckets' trees of which pages are read."""
    scans: list[TreeId] = []
    scan = node.engine.scan_soon

    def noted(tree: TreeId, *rest: object, **more: object) -> None:
        if tree >= FIRST_BUCKET_ID:
            scans.append(tree)
        scan(tree, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(node.engine, "scan_soon", noted)
    return scans


@virtual
async def test_replicas_that_are_equal_compare_all_their_ranges_without_reading_them() -> None:
    with pytest.MonkeyPatch.context() as patch:
        async with memory_cluster(3) as cluster:
            await filled(cluster)
            await trio.sleep(1)
            scans = [counted_scans(node, patch) for node in cluster.nodes.values()]
            before = cluster.nodes[N1].metrics.exchanges_total
            cluster.nodes[N1].anti_entropy.start_repair(None)
            await cluster.settle()
            ring = cluster.nodes[N1].view.ring
            assert ring is not None
            assert cluster.nodes[N1].metrics.exchanges_total - before == 2 * ring.partitions
            assert scans == [[], [], []]
            assert await check_trees(cluster, cluster.nodes.values()) > 0


@virtual
async def test_a_tree_that_is_wrong_is_found_by_the_next_exchange_counted_and_built_anew() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await filled(cluster)
        node = cluster.nodes[N2]
        place = storage_key(bucket, encode_key("key7"))
        ring = node.view.ring
        assert ring is not None
        tree = node.trees.kept.of(TreeId(bucket), ring.partition_of(split_storage_key(place)[0]))
        assert tree is not None
        tree.change(leaf_of(place), 0x1234, 0)
        cluster.nodes[N1].anti_entropy.start_repair(bucket)
        await cluster.settle()
        metrics = node.metrics
        assert (metrics.hash_trees_doubted_total, metrics.hash_trees_rebuilt_total) == (1, 1)
        assert metrics.exchange_keys_received_total == 0, "nothing was different but the hash"
        await check_trees(cluster, ())


@virtual
async def test_the_trees_of_a_bucket_that_is_dropped_go_with_it() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await filled(cluster)
        nodes = cluster.nodes.values()

        assert all(node.trees.kept.held_bytes() for node in nodes)
        await drop_bucket(cluster.nodes[N1], bucket)
        await trio.sleep(5)
        assert not any(node.trees.kept.held_bytes() for node in nodes)
        assert await check_trees(cluster, nodes) == 0


@virtual
async def test_a_node_that_was_killed_knows_its_trees_when_it_returns() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        for number in range(KEYS):
            await client.put(bucket, f"key{number % 50}", b"v%d" % number)
            if number == KEYS // 2:
                await cluster.kill(N3)
        await cluster.start(N3)
        assert not cluster.nodes[N3].trees.kept.unknown
        await cluster.settle()
        assert await check_trees(cluster, cluster.nodes.values()) > 0
        assert cluster.nodes[N3].metrics.hash_trees_rebuilt_total == 0
