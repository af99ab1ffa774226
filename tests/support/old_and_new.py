"""What tests of purge horizons do with whole nodes: horizons set by hand, marks, records of a chosen age."""

from __future__ import annotations

from collections.abc import Iterable

from leafdb.codec.checksum import xxh3_64
from leafdb.model.actor import ActorIdentity
from leafdb.model.hlc import LOGICAL_BITS
from leafdb.model.key import encode_key
from leafdb.model.record import first
from leafdb.node.node import Node
from leafdb.ring.horizon_change import Proof, raise_horizons
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.token import storage_key
from leafdb.types import Durability, Key, NodeId, PartitionId
from support.repairs import view_of
from support.transports import until

OLD = 1_000 << LOGICAL_BITS
HORIZON = 2_000 << LOGICAL_BITS
NEW = 3_000 << LOGICAL_BITS
"""Stamps of what was written before the horizon, the horizon, and of what came after it."""
WRITER = ActorIdentity(1, NodeId(900), 1)


def written(number: int, stamp: int, value: bytes | None = b"v") -> bytes:
    """A record of one write; each number is another dot. None is a deletion."""
    return first(WRITER.actor(number + 1), stamp, 0, number.to_bytes(16, "big"), value)


async def raise_horizon(nodes: Iterable[Node], stamp: int = HORIZON) -> None:
    """Have the register raise the horizons of all partitions; returns when every node knows, and has swept."""
    nodes = list(nodes)

    def change(current: ClusterMetadata, change_id: bytes) -> ClusterMetadata:
        members = {node: member.incarnation for node, member in current.members.items()}
        partitions = dict(enumerate(current.range_epochs))
        proof = Proof(stamp, {PartitionId(at): epoch for at, epoch in partitions.items()}, members, current.generation)
        return raise_horizons(current, proof, change_id=change_id)

    await nodes[0].register.change(change, 10.0)
    await until(lambda: all(node.horizons.of(0) == stamp for node in nodes))
    for node in nodes:
        swept(node)


def swept(node: Node) -> None:
    """Have it that the sweeper has passed the present horizon everywhere, also after every change to come."""

    def passed(partitions: Iterable[int]) -> None:
        for partition in partitions:
            node.horizons.has_swept(partition, node.horizons.of(partition))

    if node.view.ring is not None:
        passed(range(node.view.ring.partitions))
    node.horizons.on_change.append(passed)


def vouch(nodes: Iterable[Node], stamp: int = HORIZON) -> None:
    """Have stores vouch, in all partitions."""
    for node in nodes:
        assert node.view.ring is not None
        node.horizons.vouch(range(node.view.ring.partitions), stamp)


def put_there(node: Node, name: str, key: Key, record: bytes | None) -> bytes:
    """Have a store hold exactly this of a key, past every rule; answers its storage key."""
    bucket = view_of(node, name)
    place = storage_key(bucket.id, encode_key(key))
    local = node.replica.queue.now(bucket.tree, place)
    assert local is not None, "it is in memory"
    if local[0] != record:
        node.trees.kept.write(bucket.tree, place, local[0], record, Durability.PERIODIC)
    return place


def held(node: Node, name: str, key: Key) -> bytes | None:
    """What a store has of a key now."""
    bucket = view_of(node, name)
    local = node.replica.queue.now(bucket.tree, storage_key(bucket.id, encode_key(key)))
    assert local is not None, "it is in memory"
    return local[0]


def prints(nodes: Iterable[Node], name: str, keys: Iterable[Key]) -> set[int]:
    """One number for each different content of some keys."""
    wanted = list(keys)
    return {xxh3_64(b"".join(held(node, name, key) or b"-" for key in wanted)) for node in nodes}
