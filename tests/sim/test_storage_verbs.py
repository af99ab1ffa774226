"""What a person asks of the stores of a cluster: every store answers, and damage on one node's disk is found there."""

from __future__ import annotations

from random import Random
from typing import Any

import trio

from leafdb.limits import STORAGE_DAMAGES_TOLD, STORAGE_TREES_TOLD, VALUE_INLINE_BYTES_MAX
from leafdb.node.storage_tasks import KEY_BYTES_TOLD
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId, TreeId

N1, N2, N3 = NodeId(1), NodeId(2), NodeId(3)


async def admin(cluster: MemoryCluster, verb: str, **args: Any) -> dict[str, Any]:
    """A verb through n2."""
    client = await cluster.client(N2)
    answer = await client.admin(verb, **args)
    client.close()
    return dict(answer)


async def ended(cluster: MemoryCluster, kind: str) -> dict[str, dict[str, Any]]:
    """The tasks of a kind by node, once none is running."""
    while True:
        tasks = [task for task in (await admin(cluster, "storage.tasks"))["tasks"] if task["kind"] == kind]
        if all(task["state"] != "running" for task in tasks):
            return {task["node"]: task for task in tasks}
        await trio.sleep(0.1)


@virtual
async def test_every_store_flushes_compacts_verifies_and_says_what_it_holds() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        for number in range(30):
            await client.put(bucket, f"key{number}", b"v" * 100)
        flushed = await admin(cluster, "storage.flush")
        assert set(flushed["tasks"]) == {"n1", "n2", "n3"}
        assert {task["state"] for task in (await ended(cluster, "flush")).values()} == {"done"}
        stores = (await admin(cluster, "storage.stats"))["nodes"]
        assert set(stores) == {"n1", "n2", "n3"}
        for store in stores.values():
            shape = {tree["tree"]: tree for tree in store["trees"]}[bucket.name]
            assert shape["levels"][0][0:2] == [0, 1]
            assert shape["levels"][0][3] == 30
            assert store["flushes"] >= 1
            assert store["more_trees"] == 0
        compacted = await admin(cluster, "storage.compact", bucket=bucket.name, node="n3")
        assert set(compacted["tasks"]) == {"n3"}
        (task,) = (await ended(cluster, "compact")).values()
        assert (task["node"], task["state"], task["jobs"], task["trees_total"]) == ("n3", "done", 1, 1)
        only = (await admin(cluster, "storage.stats", node="n3"))["nodes"]
        assert set(only) == {"n3"}
        assert {tree["tree"]: tree for tree in only["n3"]["trees"]}[bucket.name]["levels"][0][0] == 1
        await admin(cluster, "storage.verify", bytes_per_s=0)
        found = await ended(cluster, "verify")
        assert {(task["state"], task["damages_found"]) for task in found.values()} == {("done", 0)}
        assert all(task["bytes_read"] > 0 for task in found.values())
        assert cluster.nodes[N1].metrics.counter("verified_bytes_total") == found["n1"]["bytes_read"]


@virtual
async def test_damage_on_one_nodes_disk_is_found_there_and_the_node_serves_on() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        for number in range(30):
            await client.put(bucket, f"key{number}", b"v" * 100)
        await admin(cluster, "storage.flush")
        await ended(cluster, "flush")
        node = cluster.nodes[N3]
        (meta,) = node.engine._tables.version.trees[TreeId(bucket.id)]
        node.world.fs.flip(meta.path, 40)  # type: ignore[attr-defined]
        await admin(cluster, "storage.verify")
        found = await ended(cluster, "verify")
        assert {name: task["damages_found"] for name, task in found.items()} == {"n1": 0, "n2": 0, "n3": 1}
        (damage,) = found["n3"]["damages"]
        assert (damage["path"], damage["tree"]) == (meta.path, bucket.name)
        first, last = damage["partitions"]
        assert 0 <= first <= last
        assert found["n3"]["state"] == "done"
        answer = await client.get(bucket, "key7")
        assert answer is not None, "the node serves on"


@virtual
async def test_a_verification_is_stopped_a_second_is_refused_and_who_is_away_is_named() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        await client.put(bucket, "key", b"v" * 100)
        await admin(cluster, "storage.flush")
        await ended(cluster, "flush")
        await cluster.kill(N1)
        begun = await admin(cluster, "storage.verify", bytes_per_s=1)
        assert set(begun["tasks"]) == {"n2", "n3"}
        assert set(begun["errors"]) == {"n1"}
        again = await admin(cluster, "storage.verify", bytes_per_s=1, node="n3")
        assert again["tasks"] == {}
        assert "under way" in again["errors"]["n3"]
        stopped = await admin(cluster, "storage.stop")
        assert stopped["nodes"] == ["n2", "n3"]
        found = await ended(cluster, "verify")
        assert {task["state"] for task in found.values()} == {"cancelled"}
        assert (await admin(cluster, "storage.stop"))["nodes"] == []


@virtual
async def test_what_a_node_answers_is_bounded() -> None:
    async with memory_cluster(1) as cluster:
        engine = cluster.nodes[N1].engine
        for number in range(STORAGE_TREES_TOLD + 10):
            engine.create_tree(TreeId(1_000 + number))
        await trio.sleep(1)
        client = await cluster.client(N1)
        store = dict(await client.admin("storage.stats"))["nodes"]["n1"]
        assert len(store["trees"]) == STORAGE_TREES_TOLD
        assert store["more_trees"] == len(engine.trees()) - STORAGE_TREES_TOLD
        tree = TreeId(1_000)
        for number in range(9 * (STORAGE_DAMAGES_TOLD + 5)):  # some eight fill a block; longer ones lie in a value file
            engine.write([(tree, bytes(100) + b"%05d" % number, random_bytes(VALUE_INLINE_BYTES_MAX, seed=number))])
        engine.write([(tree, b"z" * 300, b"v")])
        await client.admin("storage.flush")
        await trio.sleep(5)
        (meta,) = engine._tables.version.trees[tree]
        for offset, _ in engine._tables.readers[meta.file_number]._places:
            cluster.nodes[N1].world.fs.flip(meta.path, offset + 5)  # type: ignore[attr-defined]
        await client.admin("storage.verify", bytes_per_s=0)
        await trio.sleep(5)
        tasks = dict(await client.admin("storage.tasks"))["tasks"]
        (found,) = [task for task in tasks if task["kind"] == "verify"]
        assert found["damages_found"] > STORAGE_DAMAGES_TOLD == len(found["damages"])
        assert all(len(damage["smallest"]) <= KEY_BYTES_TOLD for damage in found["damages"])


def random_bytes(count: int, *, seed: int) -> bytes:
    """Bytes that do not compress."""
    return Random(seed).randbytes(count)
