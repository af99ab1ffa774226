"""No reader is shown what was deleted and forgotten, though somebody who answers has not heard of the horizon yet: not
by a stand-in that was told late, not by an owner with an old disk, not by a coordinator that is behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from random import Random

import trio

from leafdb import BLIND, Missing
from leafdb.client.async_client import AsyncClient
from leafdb.client.connect import async_client_over
from leafdb.client.url import Address
from leafdb.model.actor import ActorIdentity
from leafdb.model.bucket import BucketProperties
from leafdb.model.clock import CausalClock
from leafdb.model.hlc import LOGICAL_BITS
from leafdb.model.key import encode_key
from leafdb.model.record_format import Record, Sibling, encode
from leafdb.node.node import Node
from leafdb.quorum.messages import FLAG_HORIZON, ReplicaStatus, decode_reply, encode_replica_get
from leafdb.testing.cluster import CLIENT_HOST, MemoryCluster, host_of, memory_cluster
from leafdb.testing.raw_client import RawClient
from leafdb.testing.real_client import dialler
from leafdb.testing.virtual_time import virtual
from leafdb.types import Durability, NodeId, PartitionId
from leafdb.wire.registry import Lane, MessageType
from support.deafness import deaf
from support.horizons import place_of, set_horizon, stamp_now
from support.repairs import partition_of, view_of
from support.transports import until

N1, N2, N3, N4 = map(NodeId, range(1, 5))
WRITER = ActorIdentity(1, NodeId(900), 1).actor(1)
OTHER = ActorIdentity(1, NodeId(901), 1).actor(1)


@asynccontextmanager
async def through(cluster: MemoryCluster, node: NodeId) -> AsyncIterator[AsyncClient]:
    dial = dialler(cluster.network, CLIENT_HOST)
    async with async_client_over([Address(host_of(node), 1)], dial=dial, routing="listed", rng=Random(7)) as db:
        yield db


def zombie(cluster: MemoryCluster, young: bytes | None = None) -> bytes:
    """A value of long ago, as a message brings it that was late, or an old disk; `young` is beside it."""
    siblings = {(WRITER, 1): Sibling(cluster.now_ms() - 500 << LOGICAL_BITS, 0, b"o" * 16, b"old")}
    clock = {WRITER: 1}
    if young is not None:
        clock[OTHER] = 1
        siblings[OTHER, 1] = Sibling((cluster.now_ms() + 60_000) << LOGICAL_BITS, 0, b"y" * 16, young)
    return encode(Record(CausalClock(clock), siblings))


async def forgotten(
    cluster: MemoryCluster, bucket: BucketProperties, key: str, unaware: Iterable[NodeId], *, young: bytes | None = None
) -> bytes:
    """A horizon has passed the deletion of the key, and nothing is left of it. These nodes are deaf, and have not heard
    of it; what one of them may still have is returned."""
    await trio.sleep(5)
    record, horizon = zombie(cluster, young), stamp_now(cluster)
    aware = [number for number in cluster.nodes if number not in unaware]
    await set_horizon(cluster, horizon, vouching=aware)
    assert [node.horizons.of(0) for number, node in cluster.nodes.items() if number in unaware] == [0] * len(
        list(unaware)
    )
    return record


def plant(node: Node, bucket: BucketProperties, key: str, record: bytes) -> None:
    """It is on the disk of that owner."""
    node.trees.kept.write(view_of(node, bucket.name).tree, place_of(bucket.id, key), None, record, Durability.ALWAYS)


async def shown(client: RawClient, bucket: BucketProperties, key: str, r: int) -> list[bytes]:
    return await client.values(bucket, key, r=r)


@virtual
async def test_a_stand_in_that_has_not_heard_of_the_horizon_shows_nothing_that_was_forgotten() -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket()
        ring = cluster.nodes[N1].view.ring
        assert ring is not None
        partition = PartitionId(partition_of(cluster.nodes[N1], place_of(bucket.id, "k")))
        owners = ring.holders(partition, 3)
        (aside,) = {N1, N2, N3, N4} - {*owners}
        away, *rest = (node for node in owners if node != N1)
        stand_in = cluster.nodes[aside]
        with deaf(stand_in):
            record = await forgotten(cluster, bucket, "k", [aside], young=b"young")
            await cluster.kill(away)
            kept = trio.Event()
            stand_in.hints.keep(away, view_of(stand_in, "b"), place_of(bucket.id, "k"), record, lambda _: kept.set())
            await kept.wait()
            await until(lambda: all(away not in node.view.usable for node in cluster.nodes.values()))
            for number in (rest[0], aside):
                client = await cluster.client(number)
                assert await shown(client, bucket, "k", 3) == [b"young"]
        await cluster.start(away)


@virtual
async def test_an_owner_with_an_old_disk_that_has_not_heard_of_the_horizon_brings_nothing_back() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        behind = cluster.nodes[N1]
        with deaf(behind):
            plant(behind, bucket, "k", await forgotten(cluster, bucket, "k", [N1]))
            for number in (N1, N2, N3):
                client = await cluster.client(number)
                for _ in range(4):  # others are asked in turn
                    assert await shown(client, bucket, "k", 2) == []
                async with through(cluster, number) as db:
                    assert isinstance(await db.bucket("b").get("k", r=2), Missing)
                    explained = await db.bucket("b").get_explained("k", r=2)
                    assert isinstance(explained.answer, Missing)
            assert behind.metrics.reads_anew_total > 0
            assert not behind.horizons.of(0)
            for number in (N2, N3):
                assert await cluster.record(number, bucket, "k") is None, "read repair brings it to nobody"


@virtual
async def test_what_an_owner_says_that_does_not_vouch_for_the_horizon_it_is_asked_by_does_not_count() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        behind = cluster.nodes[N1]
        with deaf(behind):
            await forgotten(cluster, bucket, "k", [N1])
            horizon, epoch = cluster.nodes[N2].horizons.of(0), cluster.ring.range_epoch(PartitionId(0))
            said = []
            for named in (0, horizon):
                head = int(bucket.id), bucket.generation, int(epoch), 5_000, FLAG_HORIZON if named else 0
                body = encode_replica_get(*head, encode_key("k"), horizon=named)
                frame = await cluster.nodes[N2].peers.call(N1, Lane.REQUESTS, MessageType.REPLICA_GET, body, 5.0)
                said.append(decode_reply(frame.body)[0])
            assert said == [ReplicaStatus.ABSENT, ReplicaStatus.UNKNOWN]


@virtual
async def test_a_scan_shows_nothing_that_was_forgotten_whoever_coordinates_it() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        behind = cluster.nodes[N1]
        client = await cluster.client(N2)
        with deaf(behind):
            plant(behind, bucket, "k", await forgotten(cluster, bucket, "k", [N1]))
            await trio.sleep(1)
            for name in ("a", "z", "m"):
                await client.put(bucket, name, b"new", w=3)
            for number in (N1, N2, N3):
                async with through(cluster, number) as db:
                    for _ in range(3):  # others are asked in turn
                        keys = [item.key async for item in db.bucket("b").scan(r=2)]
                        assert sorted(keys) == [b"a", b"m", b"z"]


@virtual
async def test_a_session_is_told_what_was_forgotten_by_right_by_a_coordinator_that_has_not_heard_of_it() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        behind = cluster.nodes[N1]
        async with through(cluster, N1) as db:
            written = await db.bucket("b").put("k", b"v", after=BLIND, w=3)
            await db.bucket("b").delete("k", after=written.context, w=3)
            db.session_token  # noqa: B018  from here on the session is one
            place = place_of(bucket.id, "k")
            record = await cluster.record(N1, bucket, "k")
            assert record is not None
            with deaf(behind):
                await forgotten(cluster, bucket, "k", [N1])
                behind.replica.remove(view_of(behind, "b").tree, place, record, Durability.ALWAYS)
                await until(lambda: all(node.sweeper.quiet for node in cluster.nodes.values()))
                assert isinstance(await db.bucket("b").get("k", r=1, timeout=2.0), Missing)
                await db.bucket("b").put("k", b"anew", after=BLIND, w=1, timeout=2.0)


@virtual
async def test_a_horizon_that_everybody_knows_costs_no_second_question() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        await client.put(bucket, "k", b"v", w=3)
        await set_horizon(cluster, stamp_now(cluster))
        await trio.sleep(3)
        for number in (N1, N2, N3):
            assert await shown(await cluster.client(number), bucket, "k", 3) == [b"v"]
        assert [node.metrics.reads_anew_total for node in cluster.nodes.values()] == [0, 0, 0]
