"""Snapshots of a cluster's members: each makes its own, of what it holds at that moment; who cannot is said by name."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from leafdb.errors import NotApplied
from leafdb.storage.block_cache import BlockCache
from leafdb.storage.snapshot_files import read_snapshot, snapshot_path
from leafdb.storage.sstable_reader import TableReader
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId
from leafdb.vfs.below import Below
from leafdb.vfs.memory import Fault

N1, N2, N3 = NodeId(1), NodeId(2), NodeId(3)


async def admin(cluster: MemoryCluster, verb: str, **args: Any) -> dict[str, Any]:
    client = await cluster.client(N2)
    try:
        return dict(await client.admin(verb, **args))
    finally:
        client.close()


def keys_in(cluster: MemoryCluster, node: NodeId, name: str) -> int:
    """How many entries the snapshot's tables have."""
    inside = Below(cluster.disks[node], snapshot_path(name))
    _, version = read_snapshot(inside)
    readers = [TableReader.open(inside, meta, BlockCache(0)) for meta in version.tables.values()]
    found = sum(len(list(reader.iterate(b"", None))) for reader in readers)
    for reader in readers:
        reader.close()
    return found


@virtual
async def test_every_member_makes_one_with_what_was_acknowledged_and_drops_it() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket(name="carts")
        other = await cluster.create_bucket(name="other")
        client = await cluster.client(N1)
        for number in range(20):
            await client.put(bucket, f"key{number}", b"v", w=3)
            await client.put(other, f"key{number}", b"v", w=3)
        made = await admin(cluster, "snapshots.create", name="monday", bucket="carts")
        assert [(line["node"], line["name"], line["trees"]) for line in made["snapshots"]] == [
            ("n1", "monday", 1), ("n2", "monday", 1), ("n3", "monday", 1),
        ]  # fmt: skip
        assert made["errors"] == {}
        assert all(keys_in(cluster, node, "monday") == 20 for node in (N1, N2, N3))
        whole = await admin(cluster, "snapshots.create", name="whole", node="n2")
        assert [line["node"] for line in whole["snapshots"]] == ["n2"]
        assert whole["snapshots"][0]["trees"] > 2
        await trio.sleep(10)
        await cluster.stop(N3)
        again = await admin(cluster, "snapshots.create", name="monday")
        assert again["snapshots"] == []
        assert "already" in again["errors"]["n1"]
        assert "n3" in again["errors"]
        listed = await admin(cluster, "snapshots.list")
        assert [(line["node"], line["name"]) for line in listed["snapshots"]] == [
            ("n1", "monday"), ("n2", "monday"), ("n2", "whole"),
        ]  # fmt: skip
        assert all(10 <= line["age_s"] < 20 and not line["problem"] for line in listed["snapshots"])
        assert set(listed["held"]) == {"n1", "n2"}
        await cluster.start(N3)
        await cluster.meet()
        assert len((await admin(cluster, "snapshots.list"))["snapshots"]) == 4, "it outlives its process"
        assert (await admin(cluster, "snapshots.drop", name="monday", node="n1"))["dropped"] == ["n1"]
        assert (await admin(cluster, "snapshots.drop", name="monday"))["dropped"] == ["n2", "n3"]
        with pytest.raises(NotApplied, match="nobody has"):
            await admin(cluster, "snapshots.drop", name="monday")
        with pytest.raises(NotApplied, match="no bucket"):
            await admin(cluster, "snapshots.create", name="x", bucket="none")


@virtual
async def test_what_a_disk_does_to_a_snapshot_is_told_without_its_paths_and_the_node_goes_on() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        await client.put(bucket, "key", b"v", w=3)
        cluster.disks[N3].faults.append(Fault("link"))
        made = await admin(cluster, "snapshots.create", name="s")
        assert [line["node"] for line in made["snapshots"]] == ["n1", "n2"]
        assert made["errors"]["n3"].endswith("snapshot s: its disk failed it; the log of the node says how")
        bad = await admin(cluster, "snapshots.create", name="../s")
        assert all("cannot name a snapshot" in why for why in bad["errors"].values())
        await client.put(bucket, "key", b"w", w=3)
