"""Clusters wider than n: nodes that hold a key by right, and those that stand in for them (2-semantics section 3)."""

from __future__ import annotations

import pytest
import trio

from leafdb.errors import NotApplied, NotEnoughReplicas, OutcomeUnknown, Overloaded
from leafdb.hints.hint import Kind, decode, decode_key
from leafdb.model.record import decode as decode_record
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.raw_client import op_id_of
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId

N1, N2, N3, N4 = map(NodeId, range(1, 5))


async def kinds(cluster: MemoryCluster, node: NodeId) -> list[tuple[NodeId, Kind]]:
    """Whom a node keeps hints for, and of which kind."""
    return [(decode_key(key).target, decode(value).kind) for key, value in (await cluster.hints(node)).items()]


@virtual
async def test_a_fallback_stands_in_for_a_dead_primary_and_hands_its_copy_home() -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket()
        key = cluster.key_of(bucket, N1, N2, N3)
        client = await cluster.client(N1)
        await cluster.kill(N3)
        await trio.sleep(0.1)
        written = await client.put(bucket, key, b"v", w=3)
        assert (written.acks, written.primaries) == (3, 2)
        assert await kinds(cluster, N4) == [(N3, Kind.FALLBACK)]
        assert await cluster.record(N4, bucket, key) is None
        assert not await cluster.hints(N1)
        # The copy counts for reads as well, unless they are strict; that another key is not there is no absence.
        assert await client.values(bucket, key, r=3) == [b"v"]
        with pytest.raises(NotEnoughReplicas):
            await client.get(bucket, key, r=3, sloppy=False)
        with pytest.raises(NotEnoughReplicas):
            await client.get(bucket, cluster.key_of(bucket, N1, N2, N3, stem="other"), r=3)
        await cluster.start(N3)
        await cluster.settle()
        assert not await cluster.hints(N4)
        assert await cluster.record(N3, bucket, key) == await cluster.record(N1, bucket, key)
        await cluster.assert_replicas_equal(bucket)


@virtual
async def test_strict_writes_and_primary_counts_take_no_fallback() -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket()
        key = cluster.key_of(bucket, N1, N2, N3)
        client = await cluster.client(N2)
        await cluster.kill(N3)
        await trio.sleep(0.1)
        for counts in ({"w": 3, "sloppy": False}, {"w": 3, "pw": 3}):
            with pytest.raises(NotEnoughReplicas):
                await client.put(bucket, key, b"v", **counts)  # type: ignore[arg-type]
        assert await cluster.record(N2, bucket, key) is None
        written = await client.put(bucket, key, b"v", sloppy=False)
        assert (written.acks, written.primaries) == (2, 2)
        assert await kinds(cluster, N2) == [(N3, Kind.COORDINATOR)]
        assert not await cluster.hints(N4)


@virtual
async def test_a_node_that_holds_nothing_of_a_key_forwards_once() -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket()
        key = cluster.key_of(bucket, N1, N2, N3)
        client = await cluster.client(N4)
        context = (await client.put(bucket, key, b"v")).context
        await client.put(bucket, key, b"w", context)
        assert await client.values(bucket, key, r=3) == [b"w"]
        with pytest.raises(NotApplied):
            await client.put(bucket, key, b"x", b"nonsense")
        assert await cluster.record(N4, bucket, key) is None
        assert not cluster.nodes[N4].coordinator.operations
        await cluster.settle()
        await cluster.assert_replicas_equal(bucket)


@virtual
async def test_a_forwarded_write_whose_coordinator_is_lost_is_unknown_and_names_its_operation() -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket()
        key = cluster.key_of(bucket, N1, N2, N3)
        client = await cluster.client(N4)
        cluster.cut(N4, (N1,), silently=True)
        with pytest.raises(OutcomeUnknown) as unknown:
            await client.put(bucket, key, b"v", op_id=op_id_of(bucket, key, 1), timeout_s=0.5)
        assert unknown.value.op_id == op_id_of(bucket, key, 1)
        cluster.heal()
        await cluster.settle()


@virtual
async def test_a_forward_that_no_primary_has_room_for_is_refused_as_overload() -> None:
    class Full:
        def send(self, frame: bytes) -> bool:
            return False

    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket()
        key = cluster.key_of(bucket, N1, N2, N3)
        client = await cluster.client(N4)
        coordinator = cluster.nodes[N4].coordinator
        lanes, coordinator.lanes = coordinator.lanes, {node: Full() for node in (N1, N2, N3)}
        with pytest.raises(Overloaded):
            await client.put(bucket, key, b"v")
        with pytest.raises(Overloaded):
            await client.get(bucket, key)
        coordinator.lanes = lanes
        await client.put(bucket, key, b"v")


@virtual
async def test_a_node_cut_off_from_all_primaries_takes_writes_and_never_says_absent() -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket(r=1, w=1)
        key, known = (cluster.key_of(bucket, N1, N2, N3, stem=stem) for stem in ("new", "known"))
        there, client = await cluster.client(N1), await cluster.client(N4)
        await there.put(bucket, known, b"known", w=3)
        cluster.cut(N4, (N1, N2, N3))
        await trio.sleep(0.1)
        with pytest.raises(NotEnoughReplicas):
            await client.get(bucket, known)
        with pytest.raises(NotEnoughReplicas):
            await client.put(bucket, key, b"v", sloppy=False)
        written = await client.put(bucket, key, b"first")
        assert (written.acks, written.primaries) == (1, 0)
        assert await client.values(bucket, key) == [b"first"]
        written = await client.put(bucket, key, b"second", written.context)
        await client.put(bucket, key, b"third", written.context)
        assert await client.values(bucket, key) == [b"third"]
        assert await cluster.record(N4, bucket, key) is None
        assert (N1, Kind.MINTED) in await kinds(cluster, N4)
        cluster.heal()
        await cluster.settle()
        assert not await cluster.hints(N4)
        assert await there.values(bucket, key, r=3) == [b"third"]
        await cluster.assert_replicas_equal(bucket)


@virtual
async def test_copies_that_pass_through_a_fallback_come_home_as_they_were() -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket()
        key = cluster.key_of(bucket, N1, N2, N3)
        there, client = await cluster.client(N1), await cluster.client(N4)
        cluster.cut(N4, (N1, N2, N3))
        await trio.sleep(0.1)
        context = (await client.put(bucket, key, b"minted by the fallback", w=1)).context
        cluster.heal()
        await cluster.settle()
        for number in range(4):
            await cluster.kill(N3)
            await trio.sleep(0.1)
            context = (await there.put(bucket, key, b"%d" % number, context, w=3)).context
            await cluster.start(N3)
            await cluster.settle()
            # The fallback's own dot is named in what it keeps, and it has never been asked to mint over that.
            await cluster.assert_replicas_equal(bucket)
        record = await cluster.record(N1, bucket, key)
        assert record is not None
        assert len(decode_record(record).clock.vector) <= 3


@virtual
async def test_a_fallback_never_mints_a_dot_twice_over_copies_that_come_and_go() -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket()
        key = cluster.key_of(bucket, N1, N2, N3)
        there, client = await cluster.client(N1), await cluster.client(N4)
        written = []
        for number in range(4):
            cluster.cut(N4, (N1, N2, N3))
            await trio.sleep(0.1)
            written += [b"%d %d" % (number, again) for again in range(2)]
            for value in written[-2:]:
                await client.put(bucket, key, value, w=1)
            cluster.heal()
            await cluster.meet()
            await cluster.kill(N1)
            await trio.sleep(0.1)
            other = await cluster.client(N2)
            written.append(b"%d there" % number)
            await other.put(bucket, key, written[-1], w=3)
            await cluster.start(N1)
            if number % 2:
                await cluster.settle()
        await cluster.settle()
        there = await cluster.client(N1)
        assert await there.values(bucket, key, r=3) == sorted(written)
        await cluster.assert_replicas_equal(bucket)


@virtual
async def test_two_fallbacks_that_differ_are_brought_up_before_a_read_answers() -> None:
    async with memory_cluster(5) as cluster:
        bucket = await cluster.create_bucket()
        *primaries, left, right = cluster.walk(bucket, "k")
        for node in (left, right):
            cluster.cut(node, primaries)
        await trio.sleep(0.1)
        clients = {node: await cluster.client(node) for node in (left, right)}
        for node, client in clients.items():
            assert (await client.put(bucket, "k", b"of %d" % node, w=1)).primaries == 0
        both = sorted(b"of %d" % node for node in clients)
        assert await clients[left].values(bucket, "k") == both
        assert await clients[right].values(bucket, "k") == both
        cluster.heal()
        await cluster.settle()
        client = await cluster.client(primaries[0])
        assert await client.values(bucket, "k", r=3) == both
        await cluster.assert_replicas_equal(bucket)


@virtual
async def test_primaries_lost_under_way_are_replaced_by_fallbacks() -> None:
    async with memory_cluster(5) as cluster:
        bucket = await cluster.create_bucket()
        first, second, third, *_ = cluster.walk(bucket, "k")
        key = "k"
        client = await cluster.client(first)
        cluster.cut(first, (second, third), silently=True)
        async with trio.open_nursery() as nursery:

            async def put() -> None:
                written = await client.put(bucket, key, b"v", timeout_s=10.0)
                assert written.acks >= 2

            nursery.start_soon(put)
            await trio.sleep(0.1)
            await cluster.kill(second, third)
        cluster.heal()
        await cluster.restart(second, third)
        await cluster.settle()
        assert await client.values(bucket, key, r=3) == [b"v"]
        await cluster.assert_replicas_equal(bucket)
