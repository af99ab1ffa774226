"""Clusters whose deletions are watched: nobody may drop a record, or forget a hint, that a holder of it has not got."""

from __future__ import annotations

import trio

from leafdb.hints.hint import Kind, decode_key
from leafdb.hints.hint import decode as decode_hint
from leafdb.hints.hint import encode_key as encode_hint_key
from leafdb.model.bucket import BucketProperties
from leafdb.model.key import encode_key as encode
from leafdb.model.record import merge
from leafdb.node.hint_keeper import HINTS_TREE
from leafdb.node.node import Node
from leafdb.ring.ring import Ring
from leafdb.ring.token import split_storage_key, storage_key
from leafdb.testing.cluster import MemoryCluster
from leafdb.types import Conflict, NodeId, TreeId
from support.plans import Steps
from support.repairs import plant, record_of, view_of

KEYS = 40


def ring_of(node: Node) -> Ring:
    assert node.view.ring is not None
    return node.view.ring


class Guard:
    """Sees every write to every store: nobody may drop a record that not all of its holders have."""

    def __init__(self, cluster: MemoryCluster, bucket: BucketProperties) -> None:
        self.cluster = cluster
        self.tree = TreeId(bucket.id)
        self.n = bucket.n
        self.stores: dict[NodeId, dict[bytes, bytes]] = {}
        self.hints: dict[NodeId, dict[bytes, bytes]] = {}
        self.forgotten: dict[NodeId, dict[bytes, bytes]] = {}
        """Hints that were removed: one that was not synced away is there again after a power cut, and goes again."""
        self.drops: list[tuple[NodeId, bytes]] = []
        self.stop_at = 0
        self.stopped = trio.Event()
        cluster.observe_writes(self.on_write)

    def on_write(self, node: NodeId, tree: TreeId, key: bytes, value: bytes | None) -> None:
        if tree == HINTS_TREE:
            self.on_hint(node, key, value)
        if tree != self.tree:
            return
        store = self.stores.setdefault(node, {})
        if value is not None:
            store[key] = value
            return
        ring = ring_of(self.cluster.nodes[node])
        holders = ring.holders(ring.partition_of(split_storage_key(key)[0]), self.n)
        assert node not in holders
        for holder in holders:
            held = self.stores.get(holder, {}).get(key)
            assert held is not None, f"n{node} drops {key!r}, of which n{holder} has nothing"
            assert merge(held, store[key], Conflict.SIBLINGS) == held, f"n{node} knows more of {key!r} than n{holder}"
        self.drops.append((node, key))
        if len(self.drops) == self.stop_at:
            self.stopped.set()

    def on_hint(self, node: NodeId, key: bytes, value: bytes | None) -> None:
        hints, forgotten = self.hints.setdefault(node, {}), self.forgotten.setdefault(node, {})
        if value is not None:
            hints[key] = value
            return
        target, bucket, place = decode_key(key)
        forgotten[key] = hints.pop(key, b"") or forgotten[key]
        record = decode_hint(forgotten[key]).record
        ring = ring_of(self.cluster.nodes[node])
        holders = ring.holders(ring.partition_of(split_storage_key(place)[0]), self.n)
        for holder in (target,) if target in holders else holders:
            held = self.stores.get(holder, {}).get(place)
            kept = hints.get(encode_hint_key(holder, bucket, place))
            known = [held] if held is not None else []
            known += [decode_hint(kept).record] if kept is not None else []
            covered = any(merge(each, record, Conflict.SIBLINGS) == each for each in known)
            assert covered, f"n{node} forgets what n{target} missed of {place!r}, and n{holder} has not got it"


async def fill(cluster: MemoryCluster, bucket: BucketProperties) -> dict[str, bytes]:
    """Keys with values."""
    client = await cluster.client(min(cluster.nodes))
    for number in range(KEYS):
        await client.put(bucket, f"k{number}", b"v%d" % number)
    return {f"k{number}": b"v%d" % number for number in range(KEYS)}


async def only_on(cluster: MemoryCluster, bucket: BucketProperties, node: NodeId) -> list[str]:
    """Keys of which a node has its copy, and no other primary has anything."""
    keys = [f"only{number}" for number in range(KEYS) if node in cluster.primaries(bucket, f"only{number}")]
    for number, key in enumerate(keys):
        await plant(cluster.nodes[node], "b", key, record_of(number))
    await cluster.settle()
    return keys


async def assert_whole(cluster: MemoryCluster, bucket: BucketProperties, values: dict[str, bytes]) -> None:
    """Everybody holds what is his, nobody anything else, and all values are there."""
    await cluster.settle()
    for node in cluster.nodes.values():
        node.anti_entropy.start_repair(None)  # what a plan's own copies are for
    await cluster.settle()
    await cluster.assert_replicas_equal(bucket)
    client = await cluster.client(min(cluster.nodes))
    for key, value in values.items():
        assert await client.values(bucket, key) == [value]
    assert not any(node.estate.problems() for node in cluster.nodes.values())


def holders_of(cluster: MemoryCluster, bucket: BucketProperties, place: bytes) -> tuple[NodeId, ...]:
    """Who holds a storage key, as the newest of all nodes believes."""
    ring = max((ring_of(node) for node in cluster.nodes.values()), key=lambda ring: ring.epoch)
    return ring.holders(ring.partition_of(split_storage_key(place)[0]), bucket.n)


async def ended_while_away(steps: Steps, newcomer: NodeId) -> None:
    """End the plan while its newcomer is down, so that nothing can be given to it."""
    await steps.cluster.kill(newcomer)
    await trio.sleep(1.0)
    await steps.end()


async def keep(cluster: MemoryCluster, holder: NodeId, target: NodeId, key: str, record: bytes, kind: Kind) -> None:
    """Have a node keep a hint of which nobody else has anything."""
    node = cluster.nodes[holder]
    bucket = view_of(node, "b")
    place = storage_key(bucket.id, encode(key))
    if kind is Kind.COORDINATOR:
        node.hints.owe(target, bucket, place, record)
        await trio.sleep(0.1)
        return
    over = trio.Event()
    errors: list[Exception | None] = []

    def done(error: Exception | None) -> None:
        errors.append(error)
        over.set()

    node.hints.keep(target, bucket, place, record, done)
    await over.wait()
    assert errors == [None]


async def targets(cluster: MemoryCluster, node: NodeId) -> set[NodeId]:
    """Whom a node keeps hints for."""
    return {decode_key(key).target for key in await cluster.hints(node)}
