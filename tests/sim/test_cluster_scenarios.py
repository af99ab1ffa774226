"""Whole clusters in one loop: what three healthy nodes promise about values (2-semantics sections 2 and 3)."""

from __future__ import annotations

import pytest
import trio

from leafdb.errors import NotApplied, NotEnoughReplicas, Reason
from leafdb.limits import SIBLINGS_MAX, SIBLINGS_WARN
from leafdb.model.bucket import BucketProperties
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.raw_client import RawClient
from leafdb.testing.virtual_time import virtual
from leafdb.types import Conflict, Durability, NodeId

N1, N2, N3 = NodeId(1), NodeId(2), NodeId(3)
ALL = 255


async def clients_of(cluster: MemoryCluster) -> dict[NodeId, RawClient]:
    """One connection to each node."""
    return {node: await cluster.client(node) for node in cluster.nodes}


@pytest.mark.parametrize("durability", list(Durability))
@virtual
async def test_a_write_acknowledged_anywhere_is_read_everywhere(durability: Durability) -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket(durability=durability)
        clients = await clients_of(cluster)
        for number in range(30):
            key, value = f"key{number}", b"value %d" % number
            written = await clients[NodeId(number % 3 + 1)].put(bucket, key, value)
            assert written.acks >= 2
            for client in clients.values():
                assert await client.values(bucket, key) == [value]
        await cluster.settle()
        await cluster.assert_replicas_equal(bucket)
        assert await clients[N1].values(bucket, "missing") == []


@virtual
async def test_two_writers_with_one_context_leave_two_siblings_and_one_with_both_leaves_one() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        clients = await clients_of(cluster)
        context = (await clients[N1].put(bucket, "k", b"base")).context
        left = await clients[N2].put(bucket, "k", b"left", context)
        await clients[N3].put(bucket, "k", b"right", context)
        assert await clients[N1].values(bucket, "k", r=3) == [b"left", b"right"]
        # What a write returns covers what its writer knew, and nothing it has not seen.
        await clients[N1].put(bucket, "k", b"left again", left.context)
        assert await clients[N3].values(bucket, "k", r=3) == [b"left again", b"right"]
        both = await clients[N1].get(bucket, "k")
        await clients[N2].put(bucket, "k", b"one", both.context)
        assert await clients[N3].values(bucket, "k", r=3) == [b"one"]


@virtual
async def test_a_writer_that_chains_its_contexts_never_covers_a_blind_write_it_has_not_seen() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        clients = await clients_of(cluster)
        await clients[N1].put(bucket, "k", b"old")
        seen = await clients[N1].get(bucket, "k")
        await clients[N2].put(bucket, "k", b"of B")
        first = await clients[N1].put(bucket, "k", b"first of A", seen.context)
        await clients[N3].put(bucket, "k", b"second of A", first.context)
        assert await clients[N2].values(bucket, "k", r=3) == [b"of B", b"second of A"]


@virtual
async def test_a_sequential_writer_through_different_nodes_never_makes_a_sibling() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        clients = await clients_of(cluster)
        context: bytes | None = None
        for number in range(60):
            context = (await clients[NodeId(number % 3 + 1)].put(bucket, "k", b"%d" % number, context)).context
            if number % 7 == 0:
                assert await clients[NodeId(number % 2 + 1)].values(bucket, "k") == [b"%d" % number]
        assert await clients[N1].values(bucket, "k", r=3) == [b"59"]


@virtual
async def test_a_hundred_blind_writes_of_one_key_are_accepted_up_to_the_limit_and_all_accepted_are_kept() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        clients = await clients_of(cluster)
        accepted: list[bytes] = []
        refused: list[NotApplied] = []
        in_flight = 8

        async def write(numbers: range) -> None:
            for number in numbers:
                value = b"%03d" % number
                try:
                    await clients[NodeId(number % 3 + 1)].put(bucket, "k", value)
                    accepted.append(value)
                except NotApplied as error:
                    refused.append(error)

        async with trio.open_nursery() as nursery:
            for lane in range(in_flight):
                nursery.start_soon(write, range(lane, 100, in_flight))
        assert SIBLINGS_MAX <= len(accepted) <= SIBLINGS_MAX + in_flight
        assert len(accepted) + len(refused) == 100
        assert {error.reason for error in refused} == {Reason.CONFLICT_LIMIT}
        shown = await clients[N1].get(bucket, "k", r=3)
        assert sorted(sibling.value for sibling in shown.siblings) == sorted(accepted)
        found = cluster.nodes[N1].metrics.siblings
        assert (found.count, found.total) == (1, len(accepted))
        await clients[N2].put(bucket, "k", b"resolved", shown.context)
        assert await clients[N3].values(bucket, "k", r=3) == [b"resolved"]


@virtual
async def test_a_key_with_many_siblings_is_told_of_in_the_log_at_most_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def told() -> int:
        return sum("a key has many siblings" in record.getMessage() for record in caplog.records)

    async with memory_cluster(1) as cluster:
        bucket = await cluster.create_bucket()
        client = (await clients_of(cluster))[N1]
        for number in range(SIBLINGS_WARN - 1):
            await client.put(bucket, "k", b"%d" % number)
        await client.get(bucket, "k")
        assert told() == 0
        await client.put(bucket, "k", b"one more")
        for _ in range(5):
            await client.get(bucket, "k")
        assert told() == 1
        await cluster.pass_time(61)
        await client.get(bucket, "k")
        assert told() == 2


@virtual
async def test_deletes_hide_at_once_and_a_blind_write_beside_a_delete_survives() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        clients = await clients_of(cluster)
        written = await clients[N1].put(bucket, "k", b"v")
        await clients[N3].put(bucket, "k", b"unseen")
        await clients[N2].put(bucket, "k", None, written.context)
        assert await clients[N1].values(bucket, "k", r=3) == [b"unseen"]
        seen = await clients[N1].get(bucket, "k")
        await clients[N1].put(bucket, "k", None, seen.context)
        gone = await clients[N3].get(bucket, "k", r=3)
        assert gone.siblings == ()
        await clients[N3].put(bucket, "k", b"back", gone.context)
        assert await clients[N2].values(bucket, "k", r=3) == [b"back"]


@virtual
async def test_an_lww_bucket_shows_the_last_write_even_when_clocks_disagree() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket(conflict=Conflict.LWW)
        clients = await clients_of(cluster)
        cluster.skew_ms[N2] = -3_000
        for number in range(12):
            # Node 2 is behind: it still writes above every stamp in the record it read.
            await clients[NodeId(number % 3 + 1)].put(bucket, "k", b"%d" % number, w=3)
            for client in clients.values():
                assert await client.values(bucket, "k") == [b"%d" % number]
        with pytest.raises(NotApplied) as refused:
            await clients[N1].put(BucketProperties(bucket.id, "b", bucket.generation), "k", b"as siblings")
        assert refused.value.reason is Reason.WRONG_BUCKET_KIND


@virtual
async def test_values_expire_for_every_reader_at_once() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket(ttl_ms=12_000)
        clients = await clients_of(cluster)
        await clients[N1].put(bucket, "default", b"v")
        await clients[N1].put(bucket, "short", b"v", ttl_ms=5_000)
        await trio.sleep(4.9)
        assert await clients[N2].values(bucket, "short") == [b"v"]
        await trio.sleep(0.2)
        for client in clients.values():
            assert await client.values(bucket, "short") == []
        assert await clients[N3].values(bucket, "default") == [b"v"]
        await trio.sleep(8)
        assert await clients[N3].values(bucket, "default") == []
        await cluster.settle()
        await cluster.assert_replicas_equal(bucket)


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ({"w": 4}, Reason.IMPOSSIBLE_QUORUM),
        ({"w": 253}, Reason.IMPOSSIBLE_QUORUM),
        ({"w": 1, "pw": 2}, Reason.IMPOSSIBLE_QUORUM),
        ({"w": 1, "dw": 2}, Reason.IMPOSSIBLE_QUORUM),
        ({"w": 200}, Reason.IMPOSSIBLE_QUORUM),
    ],
)
@virtual
async def test_impossible_quorums_are_refused_by_name(counts: dict[str, int], reason: Reason) -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        with pytest.raises(NotApplied) as refused:
            await client.put(bucket, "k", b"v", **counts)  # type: ignore[arg-type]  # only counts
        assert refused.value.reason is reason
        assert await client.values(bucket, "k", r=3) == []


@virtual
async def test_a_bucket_wider_than_its_cluster_works_and_a_literal_count_above_it_says_why_not() -> None:
    async with memory_cluster(2) as cluster:
        bucket = await cluster.create_bucket(n=3)
        client = await cluster.client(N1)
        assert (await client.put(bucket, "k", b"v", w=ALL)).acks == 2
        with pytest.raises(NotEnoughReplicas) as refused:
            await client.put(bucket, "k", b"w", w=3)
        assert (refused.value.alive, refused.value.required) == (2, 3)
        with pytest.raises(NotEnoughReplicas):
            await client.get(bucket, "k", r=3)


@virtual
async def test_primary_and_durable_counts_are_kept() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket(durability=Durability.PERIODIC)
        client = await cluster.client(N1)
        written = await client.put(bucket, "k", b"v", w=3, pw=3, dw=2)
        assert (written.acks, written.primaries) == (3, 3)
        await cluster.power_cut(N1, N2, N3, keep=0.0)
        await cluster.restart(N1, N2, N3)
        await cluster.settle()
        client = await cluster.client(N2)
        # dw asked for a sync before the acknowledgement, although the bucket is periodic
        assert await client.values(bucket, "k", r=3) == [b"v"]


@virtual
async def test_bad_requests_are_refused_one_by_one_and_the_session_lives_on() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        other = await cluster.create_bucket("other")
        client = await cluster.client(N2)
        context = (await client.put(bucket, "k", b"v")).context
        cases: list[tuple[dict[str, object], Reason]] = [
            ({"key": "another", "context": context}, Reason.CONTEXT_MISMATCH),
            ({"key": "k", "context": context[:-1]}, Reason.CONTEXT_MISMATCH),
            ({"key": "k", "context": b"nonsense"}, Reason.CONTEXT_MISMATCH),
            ({"key": "k", "value": bytes((1 << 20) + 1)}, Reason.TOO_LARGE),
            ({"key": "k", "op_id": bytes(16), "ttl_ms": 1 << 60}, Reason.BAD_REQUEST),
            ({"key": "k", "timeout_s": 0.0}, Reason.EXPIRED),
            ({"key": "k", "generation": bucket.generation - 1}, Reason.STALE_EPOCH),
            ({"key": "k", "generation": bucket.generation + 9}, Reason.NO_SUCH_BUCKET),
        ]
        for arguments, reason in cases:
            with pytest.raises(NotApplied) as refused:
                await client.put(bucket, **{"value": b"w", **arguments})  # type: ignore[arg-type]
            assert refused.value.reason is reason, (arguments, refused.value)
        with pytest.raises(NotApplied) as refused:
            await client.put(other, "k", b"w", context)
        assert refused.value.reason is Reason.CONTEXT_MISMATCH
        assert await client.values(bucket, "k", r=3) == [b"v"]
        assert not client.closed


@virtual
async def test_the_second_half_of_a_pair_key_orders_within_the_first() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        clients = await clients_of(cluster)
        for name in ("a", "b"):
            await clients[N1].put(bucket, ("user", name), name.encode())
        assert cluster.primaries(bucket, ("user", "a")) == cluster.primaries(bucket, ("user", "b"))
        assert await clients[N2].values(bucket, ("user", "a")) == [b"a"]
        assert await clients[N3].values(bucket, ("user", "b")) == [b"b"]
        assert await clients[N3].values(bucket, "user") == []
