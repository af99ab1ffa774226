"""Whole clusters in memory whose ring changes: nodes that wait blank, plans that the test commits and moves on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from unittest.mock import patch

import trio

from leafdb.model.key import encode_key
from leafdb.node.node import Node
from leafdb.node.plan_driver import PlanDriver
from leafdb.ring import transitions
from leafdb.ring.member import ProposedMember
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.proposal import propose
from leafdb.ring.ring import Ring
from leafdb.ring.staging import Join, Replace, StagedChange
from leafdb.ring.token import split_storage_key, storage_key
from leafdb.testing.cluster import MemoryCluster, host_of
from leafdb.types import BucketId, NodeId, PartitionId, Token
from support.repairs import contents, make_bucket, partition_of, plant, view_of
from support.transports import until

BUCKET = "b"


@asynccontextmanager
async def ring_cluster(
    founders: int, disks: int, *, partitions: int = 16, n: int = 3, seed: int = 1
) -> AsyncIterator[MemoryCluster]:
    """A cluster of the first nodes with the bucket `b`, and disks for more; only the test drives its plans. Leaving it
    checks and stops every node."""
    with patch.object(PlanDriver, "run", _idle):
        async with trio.open_nursery() as nursery:
            cluster = MemoryCluster(nursery, disks, seed, partitions=partitions)
            for number in range(1, founders + 1):
                await cluster.start(NodeId(number))
            await cluster.found()
            await make_bucket(cluster.nodes.values(), BUCKET, n=n)
            yield cluster
            await cluster.check()
            await cluster.stop(*cluster.nodes)
            nursery.cancel_scope.cancel()


async def _idle(driver: PlanDriver) -> None:
    await trio.sleep_forever()


def newcomer(number: int) -> ProposedMember:
    """The member that the node on this disk would be."""
    host = host_of(NodeId(number))
    return ProposedMember(
        name=f"n{number}",
        host=host,
        client_address=f"{host}:1",
        peer_address=f"{host}:2",
        http_address=f"{host}:3",
    )


def join(number: int) -> Join:
    """That node comes."""
    return Join(newcomer(number))


def replace(node: NodeId, by: int) -> Replace:
    """That node comes for another."""
    return Replace(node, newcomer(by))


async def change(
    node: Node, step: Callable[[ClusterMetadata], ClusterMetadata], *, told: Collection[Node] = ()
) -> ClusterMetadata:
    """Change the metadata through a node; returns when the others in `told` believe it as well."""
    made = await node.register.change(lambda current, _: step(current), 10.0)
    await until(lambda: all(each.view.epoch >= made.epoch for each in told))
    return made


async def commit(cluster: MemoryCluster, *changes: StagedChange, told: bool = True) -> ClusterMetadata:
    """Stage and commit a plan; newcomers are started and admitted."""
    nodes = list(cluster.nodes.values())

    def step(current: ClusterMetadata) -> ClusterMetadata:
        for each in changes:
            current = transitions.stage(current, each)
        return current

    await change(nodes[0], step)
    made = await change(nodes[0], lambda current: transitions.commit(current, propose(current).id))
    assert made.plan is not None
    for number in made.plan.joining:
        node = await cluster.start(number)
        await admit(node, made, number)
    if told:
        await until(lambda: all(node.view.epoch >= made.epoch for node in nodes))
    return made


async def admit(node: Node, metadata: ClusterMetadata, number: NodeId) -> None:
    """Make a blank node the member it is to be."""
    synced = trio.Event()
    node.founded(metadata, number, lambda _: synced.set())
    await synced.wait()


async def advance(cluster: MemoryCluster) -> ClusterMetadata:
    """Reads move to the new owners."""
    return await _move(cluster, transitions.advance)


async def finish(cluster: MemoryCluster) -> ClusterMetadata:
    """The plan is done."""
    return await _move(cluster, transitions.finish)


async def abort(cluster: MemoryCluster) -> ClusterMetadata:
    """The plan is given up."""
    return await _move(cluster, transitions.abort)


async def _move(cluster: MemoryCluster, step: Callable[[ClusterMetadata, bytes], ClusterMetadata]) -> ClusterMetadata:
    nodes = list(cluster.nodes.values())
    plan = ring_of(cluster).metadata.plan
    assert plan is not None
    made = await change(nodes[0], lambda current: step(current, plan.id))
    stays = [node for number, node in cluster.nodes.items() if number in made.members]
    await until(lambda: all(node.view.epoch >= made.epoch for node in stays))
    return made


async def copied(cluster: MemoryCluster, timeout_s: float = 600.0) -> None:
    """Wait until no node has a copy to make; check what they keep of it."""
    await until(lambda: all(node.transfers.settled() for node in cluster.nodes.values()), timeout_s)
    for node in cluster.nodes.values():
        node.anti_entropy.check()


# -- what is where


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
    """Every new owner of every changing range holds all that its old owners hold, the same as the other new ones."""
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
