"""Promises: a record of a backup goes to all who hold it or is not said to be restored; it is taken whole also where a
horizon has long passed it, and readers see it; twice changes nothing; what is no record is refused before anybody has
it; files of a snapshot are shown piece by piece, and no other file is; a backup is not begun while records move."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from leafdb.codec import cbor
from leafdb.errors import NotApplied, ProtocolError
from leafdb.limits import BACKUP_CHUNK_BYTES_MAX, RESTORE_BYTES_MAX, RESTORE_KEYS_MAX
from leafdb.model.actor import Actor, ActorIdentity
from leafdb.model.bucket import BucketProperties
from leafdb.model.clock import CausalClock
from leafdb.model.key import encode_key
from leafdb.model.record import Record, Sibling, encode
from leafdb.node import admin_backup
from leafdb.node.node import Node
from leafdb.node.record_messages import Restore, decode_request
from leafdb.storage.identity import IDENTITY_PATH
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId
from support.horizons import set_horizon, stamp_now
from support.repairs import repaired

N1, N2, N3, N4 = map(NodeId, range(1, 5))
NODES = (N1, N2, N3)


def record(*values: bytes, actor: Actor | None = None, stamp: int = 1_000, counter: int = 1) -> bytes:
    """Concurrent values of long ago, written elsewhere, or one by that actor."""
    dots = [(actor or ActorIdentity(7, NodeId(at), 1).actor(1), counter) for at in range(1, len(values) + 1)]
    siblings = {dot: Sibling(stamp + at, 0, bytes(16), values[at]) for at, dot in enumerate(dots)}
    return encode(Record(CausalClock(dict(dots), frozenset()), siblings))


def request(bucket: BucketProperties, items: Mapping[str, bytes], **other: Any) -> dict[str, Any]:
    keys = [encode_key(key) for key in items]
    fields = {"bucket": bucket.name, "generation": bucket.generation, "keys": keys, "records": list(items.values())}
    return fields | other


async def restore(node: Node, bucket: BucketProperties, items: Mapping[str, bytes]) -> dict[str, Any]:
    return await admin_backup.restore(node, request(bucket, items))


async def copies(cluster: MemoryCluster, bucket: BucketProperties, key: str) -> list[bytes | None]:
    return [await cluster.record(node, bucket, key) for node in sorted(cluster.nodes)]


@virtual
async def test_all_holders_have_it_and_readers_see_it_however_far_above_it_the_horizon_is() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        await set_horizon(cluster, stamp_now(cluster))
        items = {f"k{number}": record(b"v%d" % number) for number in range(100)} | {"two": record(b"a", b"b")}
        assert await restore(cluster.nodes[N2], bucket, items) == {"restored": 101, "errors": {}}
        for key, wanted in items.items():
            assert await copies(cluster, bucket, key) == [wanted] * 3, "dots and stamps are those of the backup"
        client = await cluster.client(N3)
        assert await client.values(bucket, "k7", r=3) == [b"v7"]
        assert sorted(await client.values(bucket, "two", r=1)) == [b"a", b"b"]
        assert sum(node.metrics.records_restored_total for node in cluster.nodes.values()) == 303
        assert not any(node.metrics.losses_proved_total for node in cluster.nodes.values())


@virtual
async def test_twice_changes_nothing_not_even_what_was_written_since() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        items = {"k": record(b"old"), "other": record(b"other")}
        await restore(cluster.nodes[N1], bucket, items)
        client = await cluster.client(N1)
        answer = await client.get(bucket, "k", r=3)
        await client.put(bucket, "k", b"new", context=answer.context, w=3)
        before = await copies(cluster, bucket, "k")
        assert (await restore(cluster.nodes[N3], bucket, items))["errors"] == {}
        assert await copies(cluster, bucket, "k") == before
        assert await client.values(bucket, "k", r=3) == [b"new"]


@virtual
async def test_a_holder_that_is_away_is_named_and_the_next_try_makes_it_whole() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        await cluster.kill(N3)
        answer = await restore(cluster.nodes[N1], bucket, {"k": record(b"v")})
        name = cluster.nodes[N1].view.name_of(N3)
        assert answer["restored"] == 0
        assert list(answer["errors"]) == [name]
        await cluster.start(N3)
        await cluster.meet()
        assert await restore(cluster.nodes[N1], bucket, {"k": record(b"v")}) == {"restored": 1, "errors": {}}
        assert await copies(cluster, bucket, "k") == [record(b"v")] * 3


@virtual
async def test_a_store_that_meets_its_own_dots_does_not_go_on_from_them() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        for number in range(5):
            await client.put(bucket, f"other{number}", b"takes an epoch", w=3)
        actor = cluster.nodes[N1].replica.minter[0].actor(2)
        await restore(cluster.nodes[N1], bucket, {"k": record(b"v", actor=actor, counter=5)})
        answer = await client.get(bucket, "k", r=3)
        await client.put(bucket, "k", b"new", context=answer.context, w=3)
        later = record(b"of the original", actor=actor, counter=6, stamp=2_000)
        await restore(cluster.nodes[N2], bucket, {"k": later})
        await repaired(*cluster.nodes.values())
        assert sorted(await client.values(bucket, "k", r=3)) == [b"new", b"of the original"], "two writes, two dots"


@virtual
async def test_a_record_with_writes_of_a_node_that_it_never_made_is_refused_by_that_node() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        node = cluster.nodes[N1]
        dot = (cluster.nodes[N2].replica.minter[0].actor(1 << 30), 1)
        forged = encode(Record(CausalClock(dict((dot,)), frozenset()), {dot: Sibling(1, 0, bytes(16), b"forged")}))
        answer = await restore(node, bucket, {"k": forged})
        assert list(answer["errors"]) == [node.view.name_of(N2)]
        assert "never made" in answer["errors"][node.view.name_of(N2)]
        assert await cluster.record(N2, bucket, "k") is None


@virtual
async def test_what_cannot_be_restored_is_refused_and_nobody_has_any_of_it() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        node, good = cluster.nodes[N1], record(b"v")
        wrong = [
            request(bucket, {"k": good, "other": b"nonsense"}),
            request(bucket, {"k": good}, keys=[b"\xff"]),
            request(bucket, {"k": good}, keys=[]),
            request(bucket, {"k": good}, generation=bucket.generation + 1),
            request(bucket, {"k": good}) | {"bucket": "none"},
            request(bucket, {f"k{at}": good for at in range(RESTORE_KEYS_MAX + 1)}),
            request(bucket, {"k": good, "l": record(bytes(RESTORE_BYTES_MAX))}),
            request(bucket, {"k": good}, records=["text"]),
        ]
        for args in wrong:
            with pytest.raises((NotApplied, ValueError)):
                await admin_backup.restore(node, args)
        assert await copies(cluster, bucket, "k") == [None] * 3


@virtual
async def test_a_snapshot_is_shown_piece_by_piece_and_nothing_else_is() -> None:
    async with memory_cluster(1) as cluster:
        bucket = await cluster.create_bucket()
        await (await cluster.client(N1)).put(bucket, "k", b"v" * 3_000)
        node = cluster.nodes[N1]
        await admin_backup.snapshot(node, {"name": "s", "hints": False})
        with pytest.raises(NotApplied):
            await admin_backup.snapshot(node, {"name": "s", "hints": False})
        listed = await admin_backup.files(node, {"name": "s", "after": ""})
        assert not listed["more"]
        paths = [path for path, _ in listed["files"]]
        assert paths == sorted(paths)
        assert IDENTITY_PATH in paths
        behind = await admin_backup.files(node, {"name": "s", "after": paths[1]})
        assert behind["files"] == listed["files"][2:]
        for path, size in listed["files"]:
            first = await admin_backup.read(node, {"name": "s", "path": path, "offset": 0, "size": 7})
            rest = await admin_backup.read(
                node, {"name": "s", "path": path, "offset": 7, "size": BACKUP_CHUNK_BYTES_MAX}
            )
            assert len(first["data"] + rest["data"]) == size
        for path in ("../../IDENTITY", "LOCK", "wal/0000000001.wal", "tables/../CURRENT", ""):
            with pytest.raises(ValueError, match="no file of a store"):
                await admin_backup.read(node, {"name": "s", "path": path, "offset": 0, "size": 1})
        with pytest.raises(ValueError, match="size"):
            size = BACKUP_CHUNK_BYTES_MAX + 1
            await admin_backup.read(node, {"name": "s", "path": IDENTITY_PATH, "offset": 0, "size": size})
        with pytest.raises(NotApplied, match="no snapshot"):
            await admin_backup.files(node, {"name": "..", "after": ""})
        with pytest.raises(NotApplied, match="could not"):
            await admin_backup.read(node, {"name": "s", "path": "tables/0000009999.sst", "offset": 0, "size": 1})
        for _ in range(2):
            assert await admin_backup.drop(node, {"name": "s"}) == {}
        assert node.engine.snapshots() == ()


@virtual
async def test_a_backup_is_not_begun_while_records_move() -> None:
    async with memory_cluster(3) as cluster:
        await cluster.create_bucket()
        await cluster.settle()
        node = cluster.nodes[N1]
        assert (await admin_backup.state(node, {}))["busy"] == {}
        cluster.nodes[N2].drain.begin()
        assert (await admin_backup.state(node, {}))["busy"] == {node.view.name_of(N2): "it is draining"}
        cluster.nodes[N2].drain.end()
        await cluster.kill(N3)
        found = await admin_backup.state(node, {})
        assert list(found["errors"]) == [node.view.name_of(N3)]
        assert [member["id"] for member in found["members"]] == [1, 2, 3]


def test_a_restore_is_read_as_it_was_written_and_by_no_other_name() -> None:
    made = Restore(256, 9, (encode_key("k"),), (record(b"v"),))
    assert decode_request(made.encode()) == made
    plain = cbor.loads(made.encode())
    changes: list[dict[str, Any]] = [
        {"epoch": 0}, {"restored": []}, {"restored": [b""]}, {"keys": []}, {"restored": b"v"},
    ]  # fmt: skip
    for change in changes:
        with pytest.raises(ProtocolError):
            decode_request(cbor.dumps(plain | change))
