"""Horizons as tests set them: by hand, in the register of a running cluster, without any proof."""

from __future__ import annotations

from collections.abc import Iterable

from leafdb.model.hlc import LOGICAL_BITS
from leafdb.model.key import encode_key
from leafdb.node.admin_data import offer
from leafdb.node.node import Node
from leafdb.ring.horizon_change import Proof, raise_horizons
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.token import storage_key
from leafdb.testing.cluster import MemoryCluster
from leafdb.types import BucketId, Key, NodeId, PartitionId
from support.repairs import partition_of


def stamp_now(cluster: MemoryCluster) -> int:
    """Above every stamp minted so far, and below those to come a millisecond later."""
    return (cluster.now_ms() + 1) << LOGICAL_BITS


async def set_horizon(cluster: MemoryCluster, stamp: int, *, vouching: Iterable[NodeId] | None = None) -> None:
    """Every partition has this horizon from now on; `vouching`, or all, vouch below it."""
    nodes = cluster.nodes
    at = next(iter(nodes.values()))
    for node in nodes if vouching is None else vouching:
        assert nodes[node].view.metadata is not None
        nodes[node].horizons.vouch(range(nodes[node].view.metadata.partitions), stamp)  # type: ignore[union-attr]

    def change(current: ClusterMetadata, change_id: bytes) -> ClusterMetadata:
        epochs = {PartitionId(partition): epoch for partition, epoch in enumerate(current.range_epochs)}
        members = {node: member.incarnation for node, member in current.members.items()}
        proof = Proof(stamp, epochs, members, current.generation)
        return raise_horizons(current, proof, change_id=change_id)

    await offer(at, await at.register.change(change, 10.0))


def place_of(bucket: BucketId, key: Key) -> bytes:
    """The storage key."""
    return storage_key(bucket, encode_key(key))


def noted(node: Node, bucket: BucketId, key: Key) -> int | None:
    """The oldest death that a node notes in the partition of a key."""
    return node.sweeper.oldest_death(partition_of(node, place_of(bucket, key)))


def swept(nodes: Iterable[Node]) -> bool:
    """Whether everybody has passed every horizon."""
    return all(
        node.sweeper.quiet
        and all(node.horizons.swept(at) == node.horizons.of(at) for at in range(node.view.metadata.partitions))
        for node in nodes
        if node.view.metadata is not None
    )
