"""Whole clusters in memory of which somebody wants to know who holds what, in the middle of a change of the ring."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from leafdb.model.key import encode_key
from leafdb.node.node import Node
from leafdb.ring.ring import Ring
from leafdb.ring.token import split_storage_key, storage_key
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.types import BucketId, NodeId, PartitionId, Token
from support.plans import Steps, by_hand
from support.repairs import contents, make_bucket, partition_of, plant, view_of

BUCKET = "b"


@asynccontextmanager
async def ring_cluster(nodes: int, *, partitions: int = 16) -> AsyncIterator[tuple[MemoryCluster, Steps]]:
    """A cluster with the bucket `b`, and the steps of its plans, which nobody else takes."""
    with by_hand():
        async with memory_cluster(nodes, partitions=partitions) as cluster:
            await make_bucket(cluster.nodes.values(), BUCKET)
            yield cluster, Steps(cluster)


def ring_of(cluster: MemoryCluster) -> Ring:
    """The newest ring anybody believes in."""
    rings = [node.view.ring for node in cluster.nodes.values() if node.view.ring is not None]
    return max(rings, key=lambda ring: ring.epoch)


def old_owners(ring: Ring, partition: int, n: int = 3) -> tuple[NodeId, ...]:
    """Who holds a partition before the plan."""
    return ring.write_sets(PartitionId(partition), n)[0]


def new_owners(ring: Ring, partition: int, n: int = 3) -> tuple[NodeId, ...]:
    """Who is to hold it."""
    return ring.write_sets(PartitionId(partition), n)[-1]


def place_of(cluster: MemoryCluster, key: str, name: str = BUCKET) -> tuple[bytes, int]:
    """The storage key and the partition of a key."""
    node = next(node for node in cluster.nodes.values() if node.view.ring is not None)
    place = storage_key(view_of(node, name).id, encode_key(key))
    return place, partition_of(node, place)


async def put(cluster: MemoryCluster, key: str, record: bytes, *, at: Collection[NodeId] = (), n: int = 3) -> None:
    """Put a record where a write of the moment would put it, or only to some of those."""
    _, partition = place_of(cluster, key)
    holders = ring_of(cluster).holders(PartitionId(partition), n)
    for number in holders:
        if (not at or number in at) and number in cluster.nodes:
            await plant(cluster.nodes[number], BUCKET, key, record)


async def assert_copied(cluster: MemoryCluster, *, n: int = 3, name: str = BUCKET) -> None:
    """Every new owner of every changing range holds all that its old owners do, and the same as the other new ones."""
    ring = ring_of(cluster)
    stores = {number: await contents(node, name) for number, node in cluster.nodes.items()}
    for key in sorted(set().union(*stores.values())):
        partition = ring.partition_of(_token(key))
        if not ring.is_changing(partition, n):
            continue
        news = [stores[number].get(key) for number in new_owners(ring, partition, n) if number in stores]
        assert None not in news, f"{key!r} in {partition}: {news}"
        assert len(set(news)) == 1, f"{key!r} in {partition}"


def _token(key: bytes) -> Token:
    return split_storage_key(key)[0]


async def bytes_held(node: Node, name: str = BUCKET) -> int:
    """How many bytes of keys and records a node holds of a bucket."""
    return sum(len(key) + len(record) for key, record in (await contents(node, name)).items())


def bucket_id(cluster: MemoryCluster, name: str = BUCKET) -> BucketId:
    """The number of a bucket."""
    return view_of(next(iter(cluster.nodes.values())), name).id
