"""A write keeps its name: what became of it can be asked, and sending it again does not write it twice."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio

from leafdb.client.connect import async_client_over
from leafdb.client.context import BLIND
from leafdb.client.results import Found
from leafdb.client.url import Address
from leafdb.errors import NotApplied, OutcomeUnknown, Reason
from leafdb.model.bucket import COUNT_ALL, BucketProperties
from leafdb.model.context import past_in
from leafdb.model.record import clock_of, decode, newest_stamp
from leafdb.testing.cluster import CLIENT_HOST, MemoryCluster, host_of, memory_cluster
from leafdb.testing.raw_client import Severed, op_id_of
from leafdb.testing.real_client import dialler
from leafdb.testing.virtual_time import virtual
from leafdb.types import Conflict, NodeId

N1, N2, N3, N4 = map(NodeId, range(1, 5))


async def killed_under_way(cluster: MemoryCluster, bucket: BucketProperties, key: str, op_id: bytes) -> None:
    """N1 coordinates a write of b"x" and is killed before it answers; whoever it is not cut off from has a copy."""
    client = await cluster.client(N1)

    async def put() -> None:
        with suppress(Severed):
            await client.put(bucket, key, b"x", w=COUNT_ALL, op_id=op_id)
            raise AssertionError("it was answered")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(put)
        await trio.sleep(0.2)
        cluster.cut(N1, (N2, N3))  # aloud now: what was held back is lost
        await cluster.kill(N1)
    cluster.heal()


async def dots_everywhere(cluster: MemoryCluster, bucket: BucketProperties, key: str) -> set[int]:
    """How many siblings of any kind the records of the primaries have."""
    counts = set()
    for node in cluster.primaries(bucket, key):
        data = await cluster.record(node, bucket, key)
        counts.add(0 if data is None else len(decode(data).siblings))
    return counts


@virtual
async def test_a_write_whose_coordinator_is_killed_is_found_by_its_id_and_a_retry_elsewhere_makes_no_sibling() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        op_id = op_id_of(bucket, "k", 7)
        cluster.cut(N1, (N3,), silently=True)
        await killed_under_way(cluster, bucket, "k", op_id)
        client = await cluster.client(N3)
        found = await client.admin("outcome", op_id=op_id)
        assert (found["outcome"], found["bucket"], found["replaced"]) == ("applied", "b", False)
        record = await cluster.record(N2, bucket, "k")
        assert record is not None
        assert past_in(found["context"]) == (clock_of(record), newest_stamp(record))
        assert found["replicas"] == ["n2"], "N1 has it and is dead, N3 has never heard of it"
        assert set(found["errors"]) == {"n1"}
        again = await client.put(bucket, "k", b"x", op_id=op_id, retry=True)
        assert again.acks == 2
        after = await client.put(bucket, "k", b"y", again.context)
        assert await client.values(bucket, "k") == [b"y"], "the retry's context covers the write"
        await cluster.restart(N1)
        await cluster.settle()
        assert await dots_everywhere(cluster, bucket, "k") == {1}
        assert (await client.admin("outcome", op_id=op_id))["replaced"] is True
        assert after.acks >= 2


@virtual
async def test_a_retry_of_a_write_that_was_replaced_meanwhile_brings_nothing_back() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        op_id = op_id_of(bucket, "k", 7)
        cluster.cut(N1, (N3,), silently=True)
        await killed_under_way(cluster, bucket, "k", op_id)
        second = await cluster.client(N2)
        seen = await second.get(bucket, "k", r=1, local=True)
        assert [sibling.value for sibling in seen.siblings] == [b"x"]
        third = await cluster.client(N3)
        await third.put(bucket, "k", b"y", seen.context)  # N3 itself has never had x
        again = await third.put(bucket, "k", b"x", op_id=op_id, retry=True)
        assert again.acks == 2
        assert await third.values(bucket, "k") == [b"y"]
        found = await third.admin("outcome", op_id=op_id)
        assert (found["outcome"], found["replaced"], found["replicas"]) == ("applied", True, ["n2", "n3"])
        await cluster.restart(N1)
        await cluster.settle()
        assert await third.values(bucket, "k", r=3) == [b"y"]
        assert await dots_everywhere(cluster, bucket, "k") == {1}


@virtual
async def test_a_first_try_that_nobody_could_be_asked_about_is_folded_when_it_surfaces() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        op_id = op_id_of(bucket, "k", 7)
        cluster.cut(N1, (N2, N3), silently=True)
        await killed_under_way(cluster, bucket, "k", op_id)
        client = await cluster.client(N2)
        found = await client.admin("outcome", op_id=op_id)
        assert (found["outcome"], set(found["errors"])) == ("unknown", {"n1"}), "only N1 has it"
        await client.put(bucket, "k", b"x", op_id=op_id, retry=True)
        await cluster.restart(N1)
        await cluster.settle()
        assert await client.values(bucket, "k", r=3) == [b"x"], "two dots, one write"


@virtual
async def test_a_first_try_that_surfaces_after_its_retry_was_replaced_is_covered_as_it_comes() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        op_id = op_id_of(bucket, "k", 7)
        cluster.cut(N1, (N2, N3), silently=True)
        await killed_under_way(cluster, bucket, "k", op_id)
        client = await cluster.client(N2)
        again = await client.put(bucket, "k", b"x", op_id=op_id, retry=True)
        await client.put(bucket, "k", b"y", again.context)
        await cluster.restart(N1)
        await cluster.settle()
        assert await client.values(bucket, "k", r=3) == [b"y"]
        assert await dots_everywhere(cluster, bucket, "k") == {1}


@virtual
async def test_a_write_sent_twice_to_one_node_is_one_write_even_when_it_is_not_marked() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        op_id = op_id_of(bucket, "k", 1)
        one = await client.put(bucket, "k", b"x", op_id=op_id)
        other = await client.put(bucket, "k", b"x", op_id=op_id)
        assert one.context == other.context
        await client.put(bucket, "k", b"y", one.context)
        again = past_in((await client.put(bucket, "k", b"x", op_id=op_id)).context)
        assert again.clock == past_in(one.context).clock
        assert again.stamp > past_in(one.context).stamp, "its own is gone with it: that of what replaced it will do"
        assert await client.values(bucket, "k") == [b"y"]
        assert cluster.nodes[N1].metrics.writes_recognised_total == 2


@virtual
async def test_an_lww_write_is_not_newer_for_being_sent_again() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket(conflict=Conflict.LWW)
        client = await cluster.client(N1)
        op_id = op_id_of(bucket, "k", 1)
        await client.put(bucket, "k", b"x", op_id=op_id)
        await client.put(bucket, "k", b"y")
        other = await cluster.client(N2)
        await other.put(bucket, "k", b"x", op_id=op_id, retry=True)
        assert await other.values(bucket, "k", r=3) == [b"y"]
        assert (await other.admin("outcome", op_id=op_id))["replaced"] is True


@virtual
async def test_a_copy_that_only_a_stand_in_has_is_found() -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket()
        key = cluster.key_of(bucket, N1, N2, N3)
        op_id = op_id_of(bucket, key, 1)
        await cluster.kill(N2, N3)
        await cluster.pass_time(20)
        client = await cluster.client(N4)
        await cluster.kill(N1)
        await cluster.pass_time(20)
        assert (await client.put(bucket, key, b"x", w=1, op_id=op_id)).primaries == 0
        found = await client.admin("outcome", op_id=op_id)
        assert (found["outcome"], found["replicas"]) == ("applied", ["n4"])
        assert set(found["errors"]) == {"n1", "n2", "n3"}
        again = await client.put(bucket, key, b"x", w=1, op_id=op_id, retry=True)
        assert again.acks == 1
        await cluster.restart(N1, N2, N3)
        await cluster.settle()
        assert await dots_everywhere(cluster, bucket, key) == {1}


@virtual
async def test_an_id_that_nobody_knows_is_unknown_and_says_who_was_not_asked() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        await client.put(bucket, "k", b"x", op_id=op_id_of(bucket, "k", 1))
        found = await client.admin("outcome", op_id=op_id_of(bucket, "k", 2))
        assert (found["outcome"], found["replicas"], found["errors"]) == ("unknown", [], {})
        with pytest.raises(NotApplied):
            await client.admin("outcome", op_id=bytes(16))


@virtual
async def test_an_id_that_leads_elsewhere_is_refused_and_so_is_a_retry_without_one() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        with pytest.raises(NotApplied) as elsewhere:
            await client.put(bucket, "k", b"x", op_id=op_id_of(bucket, "other", 1))
        assert elsewhere.value.reason is Reason.BAD_REQUEST
        with pytest.raises(NotApplied) as nameless:
            await client.put(bucket, "k", b"x", retry=True)
        assert nameless.value.reason is Reason.BAD_REQUEST
        await client.put(bucket, "k", b"x")  # one without an id is a write like any other
        await client.put(bucket, "k", b"x")
        assert await client.values(bucket, "k") == [b"x", b"x"]


@virtual
async def test_the_client_sends_again_by_itself_when_its_node_is_killed_under_way() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        addresses = [Address(host_of(node), 1) for node in (N1, N2, N3)]
        dial = dialler(cluster.network, CLIENT_HOST)
        async with async_client_over(addresses, dial=dial, routing="listed") as db:
            raw = db.bucket("b")
            await raw.get("k")
            cluster.cut(N1, (N3,), silently=True)

            async def killing() -> None:
                await trio.sleep(0.2)
                await cluster.kill(N1)
                cluster.heal()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(killing)
                written = await raw.put("k", b"x", after=BLIND, w="quorum", pw=2)
                assert written.acks >= 2
            cluster.cut(N2, (N3,), silently=True)
            with pytest.raises(OutcomeUnknown) as unknown:
                await raw.put("k", b"y", after=written.context, w=2, timeout=0.05)
            assert unknown.value.op_id
            cluster.heal()
            found = await db.outcome(unknown.value.op_id)
            assert (found.state, found.key) == ("applied", b"k")
            assert found.context is not None
            await raw.put("k", b"z", after=found.context)
            answer = await raw.get("k")
            assert isinstance(answer, Found)
            assert answer.value == b"z"
        await cluster.restart(N1)
        await cluster.settle()
        assert await dots_everywhere(cluster, bucket, "k") == {1}
