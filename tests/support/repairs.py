"""What tests of anti-entropy do with whole nodes: buckets, records put behind the cluster's back, stores compared."""

from __future__ import annotations

from collections.abc import Iterable

import trio

from leafdb.model.actor import ActorIdentity
from leafdb.model.bucket import BucketProperties
from leafdb.model.key import encode_key
from leafdb.model.record import first
from leafdb.node.engine_reads import read_page
from leafdb.node.node import Node
from leafdb.node.view import BucketView
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.token import split_storage_key, storage_key
from leafdb.types import BucketId, Durability, Key, NodeId
from support.transports import until

WRITER = ActorIdentity(1, NodeId(900), 1)


async def make_bucket(nodes: Iterable[Node], name: str, *, n: int = 3) -> BucketId:
    """Create a bucket; returns when every node has it."""
    nodes = list(nodes)
    asked = BucketProperties(BucketId(0), name, 0, n=n, durability=Durability.PERIODIC)

    def change(current: ClusterMetadata, change_id: bytes) -> ClusterMetadata:
        return current.create_bucket(asked, change_id=change_id)

    await nodes[0].register.change(change, 10.0)
    await until(lambda: all(node.view.bucket_named(name) for node in nodes))
    return view_of(nodes[0], name).id


async def drop_bucket(node: Node, bucket: BucketId) -> None:
    """Drop a bucket."""

    def change(current: ClusterMetadata, change_id: bytes) -> ClusterMetadata:
        return current.drop_bucket(bucket, change_id=change_id)

    await node.register.change(change, 10.0)


def view_of(node: Node, name: str) -> BucketView:
    """A node's view of a bucket."""
    found = node.view.bucket_named(name)
    assert found is not None
    return found


def record_of(number: int, size: int = 20) -> bytes:
    """A record nobody but the test has written; each number is another dot."""
    return first(WRITER.actor(number + 1), number + 1, 0, number.to_bytes(16, "big"), b"v" * size)


async def plant(node: Node, name: str, key: Key, record: bytes) -> bytes:
    """Put a record into one node's store, past the cluster. Answers its storage key."""
    bucket = view_of(node, name)
    place = storage_key(bucket.id, encode_key(key))
    over = trio.Event()
    errors: list[Exception | None] = []

    def merged(error: Exception | None) -> None:
        errors.append(error)
        over.set()

    node.replica.merge(bucket.tree, place, record, bucket.conflict, bucket.durability, merged)
    await over.wait()
    assert errors == [None]
    return place


def partition_of(node: Node, place: bytes) -> int:
    """The partition of a storage key."""
    assert node.view.ring is not None
    return node.view.ring.partition_of(split_storage_key(place)[0])


async def contents(node: Node, name: str) -> dict[bytes, bytes]:
    """Everything a node holds of a bucket."""
    tree = view_of(node, name).tree
    found: dict[bytes, bytes] = {}
    start = b""
    while True:
        page = await read_page(node.engine, tree, start, None)
        found.update(page.items)
        if page.next_key is None:
            return found
        start = page.next_key


async def repaired(*nodes: Node, timeout_s: float = 600.0) -> None:
    """Wait until no node owes anybody an exchange; check the parts."""
    await until(lambda: not any(node.anti_entropy.pending for node in nodes), timeout_s)
    for node in nodes:
        node.anti_entropy.check()
