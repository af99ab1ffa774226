"""Whole nodes forget what is dead below a horizon, each for itself, and nothing that was forgotten comes back: not by a
late message, not by a hint, not from a store that cannot vouch for it. Horizons are set by hand."""

from __future__ import annotations

from functools import partial

import trio

from leafdb.hints.hint import Kind
from leafdb.model.actor import ActorIdentity
from leafdb.model.bucket import BucketProperties
from leafdb.model.clock import CausalClock
from leafdb.model.hlc import LOGICAL_BITS
from leafdb.model.key import encode_key
from leafdb.model.record import header
from leafdb.model.record_format import Record, Sibling, encode, first
from leafdb.node.left_out import LeftOut
from leafdb.node.node import Node
from leafdb.node.purge_member import Asked
from leafdb.node.purge_rules import Hold, ground_of
from leafdb.node.register import META_TREE, METADATA_KEY
from leafdb.quorum.messages import FLAG_HORIZON, ReplicaStatus, decode_reply, encode_replica_get, encode_replica_put
from leafdb.ring.metadata import decode
from leafdb.sim.tree_truth import check_trees
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.raw_client import RawClient
from leafdb.testing.virtual_time import virtual
from leafdb.types import BucketId, Durability, Key, NodeId, TreeId
from leafdb.wire.registry import Lane, MessageType
from support.horizons import noted, place_of, set_horizon, stamp_now, swept
from support.repairs import contents, drop_bucket, partition_of, view_of
from support.transports import until

N1, N2, N3, N4 = map(NodeId, range(1, 5))
WRITER = ActorIdentity(1, NodeId(900), 1).actor(1)


def old(cluster: MemoryCluster, value: bytes | None = b"old", age_ms: int = 500) -> bytes:
    """A record as it lies in a message that was late, or on a disk of long ago."""
    return first(WRITER, cluster.now_ms() - age_ms << LOGICAL_BITS, 0, b"o" * 16, value)


async def delete(client: RawClient, bucket: BucketProperties, key: Key) -> None:
    """Delete what is there, everywhere."""
    seen = await client.get(bucket, key)
    await client.put(bucket, key, None, seen.context, w=bucket.n)


async def merged(node: Node, bucket: BucketProperties, key: Key, record: bytes) -> Exception | None:
    """What comes of a record that a message brings."""
    over, errors = trio.Event(), list[Exception | None]()

    def done(error: Exception | None) -> None:
        errors.append(error)
        over.set()

    view = view_of(node, bucket.name)
    node.replica.merge(view.tree, place_of(bucket.id, key), record, view.conflict, Durability.ALWAYS, done)
    await over.wait()
    return errors[0]


async def stored(node: Node, bucket: BucketProperties, key: Key) -> bytes | None:
    """What a node has of a key."""
    return (await contents(node, bucket.name)).get(place_of(bucket.id, key))


async def asked(node: Node, peer: NodeId, number: MessageType, body: bytes) -> tuple[ReplicaStatus, bytes]:
    """What a peer answers to a request for a replica."""
    frame = await node.peers.call(peer, Lane.REQUESTS, number, body, 5.0)
    return decode_reply(frame.body)


def head(node: Node, bucket: BucketProperties, key: Key) -> tuple[int, int, int, int]:
    """Of a request about a key."""
    ring = node.view.ring
    assert ring is not None
    epoch = ring.range_epoch(ring.partition_of(int.from_bytes(place_of(bucket.id, key)[:8], "big")))  # type: ignore[arg-type]
    return int(bucket.id), bucket.generation, int(epoch), 5_000


@virtual
async def test_what_was_deleted_or_has_expired_goes_when_the_horizon_has_passed_it_and_not_before() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        for name in ("kept", "deleted", "late"):
            await client.put(bucket, name, b"v", w=3)
        for name in ("deleted", "late"):
            await delete(client, bucket, name)
        await client.put(bucket, "brief", b"v", w=3, ttl_ms=1_000)
        await client.put(bucket, "long", b"v", w=3, ttl_ms=10**7)
        died = stamp_now(cluster)
        await trio.sleep(60)  # all are dead by now, and nobody has proved anything
        for node in cluster.nodes.values():
            assert len(await contents(node, "b")) == 5
            assert noted(node, bucket.id, "brief") is not None
        await set_horizon(cluster, died)
        await until(lambda: swept(cluster.nodes.values()))
        left = {place_of(bucket.id, name) for name in ("kept", "brief", "long")}
        for node in cluster.nodes.values():
            assert (await contents(node, "b")).keys() == left, "it had expired, and its expiry is above the horizon"
            assert node.metrics.records_forgotten_total == 2
        await set_horizon(cluster, stamp_now(cluster))
        await until(lambda: swept(cluster.nodes.values()))
        left.discard(place_of(bucket.id, "brief"))
        for node in cluster.nodes.values():
            assert (await contents(node, "b")).keys() == left
            assert noted(node, bucket.id, "deleted") is None
            node.sweeper.check()
        assert await client.values(bucket, "kept", r=3) == [b"v"]
        assert await client.values(bucket, "deleted", r=3) == []
        assert await check_trees(cluster, cluster.nodes.values()) > 0


@virtual
async def test_a_horizon_is_in_force_only_when_the_metadata_that_say_so_are_synced() -> None:
    async with memory_cluster(3) as cluster:
        horizon, seen = stamp_now(cluster), list[NodeId]()

        def changed(number: NodeId, node: Node, _: object) -> None:
            if node.horizons.of(0):
                slot = node.engine.get_now(META_TREE, METADATA_KEY)
                assert slot is not None
                assert slot[0] is not None
                assert decode(slot[0]).horizons[0].stamp == horizon == node.horizons.of(0)
                assert slot[1] <= node.engine.safe_sequence(Durability.ALWAYS)
                seen.append(number)

        for number, node in cluster.nodes.items():
            node.horizons.on_change.insert(0, partial(changed, number, node))
        await set_horizon(cluster, horizon, vouching=())
        await until(lambda: sorted(seen) == [N1, N2, N3])


@virtual
async def test_no_horizon_is_proved_below_what_a_store_has_vouched_for_already() -> None:
    async with memory_cluster(3) as cluster:
        node = cluster.nodes[N2]
        metadata = node.view.metadata
        assert metadata is not None
        stamp = stamp_now(cluster)
        over = trio.Event()
        node.horizons.vouch([3], stamp + 1, lambda error: over.set())  # for a proof that came to nothing
        await over.wait()
        partitions = (1 << metadata.partitions) - 1
        asked = Asked(N1, b"anything", stamp, ground_of(metadata), metadata.epoch, partitions)
        answer = node.purge.member.begin(asked)
        assert answer.yes == partitions & ~(1 << 3)
        (refusal,) = answer.refusals
        assert refusal.hold is Hold.CLOCK
        assert "has vouched for more already" in refusal.why
        assert node.purge.member.begin(asked._replace(stamp=stamp + 1)).yes == partitions


@virtual
async def test_a_late_copy_of_what_was_forgotten_is_left_out_and_does_not_count() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        await trio.sleep(5)
        zombie, horizon = old(cluster), stamp_now(cluster)
        await set_horizon(cluster, horizon)
        node = cluster.nodes[N1]
        assert isinstance(await merged(node, bucket, "k", zombie), LeftOut)
        assert await stored(node, bucket, "k") is None
        assert node.replica.left_out_total == 1
        body = encode_replica_put(*head(node, bucket, "k"), 0, 0, encode_key("k"), zombie)
        assert await asked(node, N2, MessageType.REPLICA_PUT, body) == (ReplicaStatus.REFUSED_STALE_EPOCH, b"")
        assert await stored(cluster.nodes[N2], bucket, "k") is None
        # The key lives again, and the old value does not join it.
        client = await cluster.client(N3)
        await trio.sleep(1)
        await client.put(bucket, "k", b"new", w=3)
        assert isinstance(await merged(node, bucket, "k", zombie), LeftOut)
        assert await client.values(bucket, "k", r=3) == [b"new"]
        # What comes with it and is younger is taken.
        young = Sibling(stamp_now(cluster), 0, b"y" * 16, b"young")
        both = header(zombie)
        mixed = Record(CausalClock({WRITER: 2}), {(WRITER, 1): both.sibling((WRITER, 1)), (WRITER, 2): young})
        assert isinstance(await merged(node, bucket, "k", encode(mixed)), LeftOut)
        here = await stored(node, bucket, "k")
        assert here is not None
        assert sorted(header(here).sibling(dot).value or b"" for dot in header(here).heads) == [b"new", b"young"]


@virtual
async def test_a_late_deletion_that_is_taken_in_is_forgotten_as_well() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        await trio.sleep(5)
        node = cluster.nodes[N1]
        assert await merged(node, bucket, "k", old(cluster, None, age_ms=2_000)) is None
        await set_horizon(cluster, stamp_now(cluster), vouching=(N2, N3))
        await until(lambda: swept(cluster.nodes.values()))
        assert await stored(node, bucket, "k") is None
        # Newer than something held: by the rule of admission it is only late.
        place, view = place_of(bucket.id, "k"), view_of(node, "b")
        kept = encode(
            Record(
                CausalClock({WRITER: 1}),
                {(WRITER, 1): Sibling(cluster.now_ms() - 4_000 << LOGICAL_BITS, 0, b"a" * 16, b"v")},
            )
        )
        node.trees.kept.write(view.tree, place, None, kept, Durability.ALWAYS)
        other = ActorIdentity(1, NodeId(901), 1).actor(1)
        stone = Sibling(cluster.now_ms() - 3_000 << LOGICAL_BITS, 0, b"b" * 16, None)
        late = encode(Record(CausalClock({WRITER: 1, other: 1}), {(other, 1): stone}))
        assert await merged(node, bucket, "k", late) is None
        partition = partition_of(node, place)
        assert node.horizons.swept(partition) == 0, "nobody may begin an exchange before it is gone"
        await until(lambda: swept((node,)))
        assert await stored(node, bucket, "k") is None
        assert node.sweeper.oldest_death(partition) is None


@virtual
async def test_a_hint_of_long_ago_is_delivered_shows_nothing_and_brings_nothing_back() -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket()
        await trio.sleep(5)
        node = cluster.nodes[N1]
        ring = node.view.ring
        assert ring is not None
        key = next(
            name
            for name in map("key{}".format, range(1_000))
            if N1 not in ring.holders(ring.partition_of(int.from_bytes(place_of(bucket.id, name)[:8], "big")), 3)  # type: ignore[arg-type]
        )
        await cluster.kill(N4)
        zombie, view = old(cluster), view_of(node, "b")
        kept = trio.Event()
        node.hints.keep(N4, view, place_of(bucket.id, key), zombie, lambda _: kept.set())
        await kept.wait()
        await set_horizon(cluster, stamp_now(cluster), vouching=(N1, N2, N3))
        horizon = node.replica.horizon_at(place_of(bucket.id, key))
        body = encode_replica_get(*head(node, bucket, key), FLAG_HORIZON, encode_key(key), horizon=horizon)
        assert await asked(cluster.nodes[N2], N1, MessageType.REPLICA_GET, body) == (ReplicaStatus.UNKNOWN, b"")
        # Another one is not even kept, and what is kept counts as delivered.
        errors: list[Exception | None] = []
        node.hints.keep(N3, view, place_of(bucket.id, key), zombie, errors.append)
        node.hints.take_over(N2, view, place_of(bucket.id, key), Kind.COORDINATOR, zombie, errors.append)
        assert [type(error) for error in errors] == [LeftOut, LeftOut]
        await cluster.start(N4)
        await until(lambda: not node.hints.ledger.records(N4))
        assert node.metrics.hints_delivered_total == 1
        for each in cluster.nodes.values():
            assert await stored(each, bucket, key) is None


@virtual
async def test_who_does_not_vouch_shows_only_what_lies_above_the_horizon() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        await client.put(bucket, "a", b"old", w=3)
        await client.put(bucket, "z", b"old", w=3)
        await set_horizon(cluster, stamp_now(cluster))
        await trio.sleep(1)
        await client.put(bucket, "m", b"new", w=3)
        node = cluster.nodes[N1]
        horizon = node.horizons.of(0)
        body = encode_replica_get(*head(node, bucket, "a"), FLAG_HORIZON, encode_key("a"), horizon=horizon)
        assert (await asked(cluster.nodes[N2], N1, MessageType.REPLICA_GET, body))[0] is ReplicaStatus.FOUND
        node.horizons.retract(range(64), "the test says so")
        status, record = await asked(cluster.nodes[N2], N1, MessageType.REPLICA_GET, body)
        assert status is not ReplicaStatus.FOUND
        assert record == b""
        assert len(await contents(node, "b")) == 3
        shown: list[bytes | None] = []
        view = view_of(node, "b")
        for name in ("a", "m"):
            place = place_of(bucket.id, name)
            node.replica.show(view.tree, place, Durability.PERIODIC, 0, lambda value, _: shown.append(value))
        await until(lambda: len(shown) == 2)
        assert shown[0] is None
        assert shown[1] is not None


@virtual
async def test_a_start_goes_through_everything_again_and_dropped_buckets_leave_nothing_behind() -> None:
    async with memory_cluster(1) as cluster:
        bucket = await cluster.create_bucket(n=1)
        gone = await cluster.create_bucket("gone", n=1)
        client = await cluster.client(N1)
        for number in range(40):
            for each in (bucket, gone):
                await client.put(each, f"k{number}", b"v")
                await delete(client, each, f"k{number}")
        horizon = stamp_now(cluster)
        await drop_bucket(cluster.nodes[N1], gone.id)
        await cluster.nodes[N1].register.change(lambda current, _: current, 10.0)
        await set_horizon(cluster, horizon)
        await cluster.power_cut(N1)
        await cluster.start(N1)
        node = cluster.nodes[N1]
        await until(lambda: swept((node,)))
        assert await contents(node, "b") == {}
        assert all(node.sweeper.oldest_death(partition) is None for partition in range(64))
        assert node.trees.kept.deaths.partitions() == {}
        await check_trees(cluster, (node,))


@virtual
async def test_a_full_disk_does_not_stop_forgetting() -> None:
    async with memory_cluster(1) as cluster:
        bucket = await cluster.create_bucket(n=1)
        client = await cluster.client(N1)
        for number in range(20):
            await client.put(bucket, f"k{number}", b"v")
            await delete(client, bucket, f"k{number}")
        await trio.sleep(5)
        cluster.fill_disk(N1)
        node = cluster.nodes[N1]
        await until(lambda: node.engine.stats().disk_full)
        await set_horizon(cluster, stamp_now(cluster))
        await until(lambda: swept((node,)))
        assert await contents(node, "b") == {}
        cluster.free_disk(N1)


@virtual
async def test_marks_go_when_a_tree_is_doubted_and_when_a_table_cannot_be_read() -> None:
    async with memory_cluster(3) as cluster:  # a lone owner has nobody to be made whole by, and vouches again at once
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        await client.put(bucket, "k", b"v")
        await set_horizon(cluster, 5)
        await cluster.settle()
        node = cluster.nodes[N1]
        partition = partition_of(node, place_of(bucket.id, "k"))
        assert node.horizons.vouches(partition)
        node.trees.kept.doubt(TreeId(bucket.id), node.view.ring.partition_of(0), "the test says so")  # type: ignore[union-attr, arg-type]
        assert node.horizons.vouches(partition), "another range"
        node.trees.kept.doubt(TreeId(BucketId(bucket.id)), partition, "the test says so")  # type: ignore[arg-type]
        assert not node.horizons.vouches(partition)
        assert node.horizons.vouches(63)
        node.engine.on_damage(TreeId(bucket.id), b"\xf8\0\1", b"\xff\xff\xff")
        assert [at for at in range(60, 64) if node.horizons.vouches(at)] == [60, 61]
