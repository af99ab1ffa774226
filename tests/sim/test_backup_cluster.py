"""A backup of a cluster in which things happen between the snapshots of its nodes: a hint goes home, a key is deleted
and forgotten. What was acknowledged is in it, what was forgotten by right is not, and so it comes back in one node and
in five."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from leafdb.backup.merging import Merger, living
from leafdb.backup.store_copy import StoreCopy
from leafdb.limits import RESTORE_KEYS_MAX
from leafdb.model.bucket import BucketProperties
from leafdb.model.key import encode_key
from leafdb.node import admin_backup
from leafdb.node.node import Node
from leafdb.ring.token import TOKEN_BYTES, storage_key
from leafdb.storage.snapshot_files import snapshot_path
from leafdb.testing import cluster as testing_cluster
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId, Token, TreeId
from leafdb.vfs.below import Below
from support.horizons import place_of, set_horizon, stamp_now, swept
from support.transports import until

N1, N2, N3 = map(NodeId, range(1, 4))
Records = dict[bytes, bytes]
"""By encoded key."""


async def copy(node: Node, *, hints: bool = False) -> StoreCopy:
    """A snapshot of a node, read as a backup is."""
    name = "hints" if hints else "whole"
    await admin_backup.snapshot(node, {"name": name, "hints": hints})
    return StoreCopy.open(Below(node.world.fs, snapshot_path(name)), f"{name}-{node.view.self_id}")


def merged(
    cluster: MemoryCluster, bucket: BucketProperties, whole: Iterable[StoreCopy], hints: Iterable[StoreCopy]
) -> Records:
    """What lives in the backup."""
    metadata = next(iter(cluster.nodes.values())).view.metadata
    assert metadata is not None
    merger = Merger(list(whole), list(hints), metadata.partitions)
    found = merger.records(bucket)
    return {key[TOKEN_BYTES:]: record for key, record in found if living(record, cluster.now_ms())}


@virtual
async def test_a_hint_that_goes_home_between_two_snapshots_is_in_the_backup() -> None:
    async with memory_cluster(2, partitions=8) as cluster:
        bucket = await cluster.create_bucket(n=1, r=1, w=1)
        ring = cluster.nodes[N1].view.ring
        assert ring is not None
        owned = [
            key
            for key in (f"k{number}" for number in range(100))
            if ring.primaries(ring.partition_of(_token(bucket, key)), 1) == (N2,)
        ]
        await cluster.kill(N2)
        client = await cluster.client(N1)
        for key in owned:
            await client.put(bucket, key, b"kept for another", w=1)
        holder = cluster.nodes[N1]
        holder.hint_pauses.set(None, paused=True)
        await cluster.start(N2)
        await cluster.meet()
        hints = [await copy(node, hints=True) for node in cluster.nodes.values()]
        target = await copy(cluster.nodes[N2])
        holder.hint_pauses.set(None, paused=False)
        holder.handoff.on_pauses()
        await until(lambda: not holder.hints.ledger.summaries())
        whole = [await copy(holder), target]
        wanted = {encode_key(key) for key in owned}
        assert len(wanted) > 20
        assert set(merged(cluster, bucket, whole, hints)) == wanted
        assert merged(cluster, bucket, whole, []) == {}, "neither has them"


@pytest.mark.parametrize("count", [1, 5])
@virtual
async def test_what_was_forgotten_between_two_snapshots_stays_away_wherever_the_rest_comes_back(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with memory_cluster(3, partitions=8) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        for number in range(60):
            await client.put(bucket, f"k{number}", b"v%d" % number, w=3)
        early = await copy(cluster.nodes[N1])
        for number in range(0, 60, 3):
            answer = await client.get(bucket, f"k{number}", r=3)
            await client.put(bucket, f"k{number}", None, context=answer.context, w=3)
        await cluster.pass_time(1.0)
        await set_horizon(cluster, stamp_now(cluster))
        await until(lambda: swept(cluster.nodes.values()))
        assert await cluster.record(N2, bucket, "k0") is None, "it is forgotten"
        assert place_of(bucket.id, "k0") in dict(early.entries(TreeId(bucket.id))), "and was there before"
        whole = [early, *[await copy(cluster.nodes[node]) for node in (N2, N3)]]
        records = merged(cluster, bucket, whole, [])
        assert set(records) == {encode_key(f"k{number}") for number in range(60) if number % 3}
    monkeypatch.setattr(testing_cluster, "CLUSTER_ID", bytes(16))
    await _restored(count, records)


async def _restored(count: int, records: Records) -> None:
    """All of it is in a new cluster, above whose horizon nothing of it lies."""
    assert len(records) <= RESTORE_KEYS_MAX
    async with memory_cluster(count, seed=2, partitions=16) as cluster:
        bucket = await cluster.create_bucket("again")
        await set_horizon(cluster, stamp_now(cluster))
        args = {"bucket": "again", "generation": bucket.generation, "keys": list(records)}
        given = await admin_backup.restore(cluster.nodes[N1], args | {"records": list(records.values())})
        assert given == {"restored": len(records), "errors": {}}
        client = await cluster.client(N1)
        for number in range(60):
            wanted = [b"v%d" % number] if number % 3 else []
            assert await client.values(bucket, f"k{number}", r=min(count, 3)) == wanted


def _token(bucket: BucketProperties, key: str) -> Token:
    return Token(int.from_bytes(storage_key(bucket.id, encode_key(key))[:TOKEN_BYTES], "big"))
