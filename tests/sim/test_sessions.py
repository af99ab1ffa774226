"""Sessions over a cluster in memory: who has a token sees what it stands for, or is told in time that it cannot be.

Clients here speak to one node each and ask for as little as can be asked (r=1, w=1): what they see they see because of
the session and nothing else. A node that is cut off has what was written through it, and nobody else does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio

from leafdb import BLIND, Conflict, DeadlineExceeded, Found, Missing, NotApplied, SessionToken
from leafdb.client.async_client import AsyncClient
from leafdb.client.connect import async_client_over
from leafdb.client.session import Session
from leafdb.client.url import Address
from leafdb.errors import ContextMismatch, NotEnoughReplicas
from leafdb.hints.hint import decode as decode_hint
from leafdb.model.record import decode
from leafdb.testing.cluster import CLIENT_HOST, MemoryCluster, host_of, memory_cluster
from leafdb.testing.network import Link
from leafdb.testing.real_client import dialler
from leafdb.testing.virtual_time import virtual
from leafdb.types import Conflict as Policy
from leafdb.types import NodeId

N1, N2, N3, N4 = map(NodeId, range(1, 5))


@asynccontextmanager
async def through(cluster: MemoryCluster, *nodes: NodeId, keys_max: int = 0) -> AsyncIterator[AsyncClient]:
    """A client that speaks to these nodes only, and remembers so many keys."""
    async with async_client_over(
        [Address(host_of(node), 1) for node in nodes],
        dial=dialler(cluster.network, CLIENT_HOST),
        routing="listed",
        rng=Random(str(nodes)),  # two clients that drew alike would name their writes alike
    ) as db:
        if keys_max:
            db._core.session = Session(keys_max)
        yield db


def hand_over(giver: AsyncClient, taker: AsyncClient) -> None:
    """As bytes, as it would travel."""
    taker.observe(SessionToken.from_bytes(bytes(giver.session_token)))


@virtual
async def test_a_write_that_cannot_be_reached_is_never_missed_but_told_of_at_the_deadline() -> None:
    async with memory_cluster(3) as cluster:
        await cluster.create_bucket()
        cluster.cut(N1, [N2, N3])
        async with through(cluster, N1) as writer, through(cluster, N2) as other, through(cluster, N3) as reader:
            await writer.bucket("b").put("k", b"v", after=BLIND, w=1)
            assert isinstance(await other.bucket("b").get("k", r=1), Missing)  # nobody promised it anything
            hand_over(writer, reader)
            began = trio.current_time()
            with pytest.raises(DeadlineExceeded) as failure:
                await reader.bucket("b").get("k", r=1, timeout=1.0)
            assert failure.value.stage == "session"
            assert failure.value.retryable
            assert trio.current_time() - began <= 1.1
            assert cluster.nodes[N3].metrics.session_waits_total >= 1
            await trio.sleep(0.1)
            assert not cluster.nodes[N3].coordinator.operations
            cluster.heal()
            found = await reader.bucket("b").get("k", r=1, timeout=20.0)
            assert isinstance(found, Found)
            assert found.value == b"v"


@virtual
async def test_a_read_waits_for_the_partition_to_heal_within_its_deadline() -> None:
    async with memory_cluster(3) as cluster:
        await cluster.create_bucket()
        cluster.cut(N1, [N2, N3])
        async with through(cluster, N1) as writer, through(cluster, N3) as reader, trio.open_nursery() as nursery:
            await writer.bucket("b").put("k", b"v", after=BLIND, w=1)
            hand_over(writer, reader)

            async def heal() -> None:
                await trio.sleep(1.0)
                cluster.heal()

            nursery.start_soon(heal)
            assert isinstance(await reader.bucket("b").get("k", r=1, timeout=30.0), Found)


@virtual
async def test_a_slow_replica_that_alone_has_the_write_is_waited_for() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        cluster.cut(N1, [N3])
        cluster.network.clog(host_of(N1), host_of(N2))  # its copy for node 2 is under way for ever
        async with through(cluster, N1) as writer, through(cluster, N2) as reader:
            await writer.bucket("b").put("k", b"v", after=BLIND, w=1)
            assert await cluster.record(N2, bucket, "k") is None
            hand_over(writer, reader)
            async with trio.open_nursery() as nursery:

                async def free() -> None:
                    await trio.sleep(0.3)
                    cluster.network.unclog(host_of(N1), host_of(N2))

                nursery.start_soon(free)
                began = trio.current_time()
                assert isinstance(await reader.bucket("b").get("k", r=1), Found)
                assert trio.current_time() - began >= 0.25
        cluster.network.set_link(host_of(N1), host_of(N2), Link())


@virtual
async def test_a_copy_that_a_stand_in_keeps_is_found() -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket()
        key = cluster.key_of(bucket, N1, N2, N3)
        cluster.cut(N4, [N1, N2, N3])
        async with through(cluster, N4) as writer, through(cluster, N2) as reader:
            written = await writer.bucket("b").put(key, b"v", after=BLIND, w=1)
            assert written.primaries == 0
            hand_over(writer, reader)
            cluster.network.heal(host_of(N4), host_of(N2))
            found = await reader.bucket("b").get(key, r=1, timeout=20.0)
            assert isinstance(found, Found)


@virtual
async def test_a_later_read_of_a_session_shows_no_less_through_another_node() -> None:
    async with memory_cluster(3) as cluster:
        await cluster.create_bucket()
        cluster.cut(N1, [N2, N3])
        async with through(cluster, N1) as one, through(cluster, N2) as two, through(cluster, N1) as stranger:
            await stranger.bucket("b").put("k", b"v", after=BLIND, w=1)
            assert isinstance(await one.bucket("b").get("k", r=1), Found)
            hand_over(one, two)
            with pytest.raises(DeadlineExceeded):
                await two.bucket("b").get("k", r=1, timeout=0.5)
            (failed,) = await two.bucket("b").get_many(["k"], r=1, timeout=0.5)
            assert isinstance(getattr(failed, "error", None), DeadlineExceeded)
            # Outside of it, as documented: scans, and what one node says of its own store.
            assert [item async for item in two.bucket("b").scan(r=1)] == []
            assert isinstance(await two.bucket("b").get("k", local=True), Missing)


@virtual
async def test_a_deletion_of_a_session_stays_for_it_through_every_node() -> None:
    async with memory_cluster(3) as cluster:
        await cluster.create_bucket()
        async with through(cluster, N1) as one, through(cluster, N2) as two:
            written = await one.bucket("b").put("k", b"v", after=BLIND, w=3)
            cluster.cut(N1, [N2, N3])
            await one.bucket("b").delete("k", after=written.context, w=1)
            hand_over(one, two)
            with pytest.raises(DeadlineExceeded):
                await two.bucket("b").get("k", r=1, timeout=0.5)
            cluster.heal()
            assert isinstance(await two.bucket("b").get("k", r=1, timeout=20.0), Missing)


@virtual
async def test_a_blind_write_is_minted_over_what_its_session_wrote_or_not_at_all() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        cluster.cut(N1, [N2, N3])
        async with through(cluster, N1) as one, through(cluster, N2) as two, through(cluster, N2) as anybody:
            await one.bucket("b").put("k", b"first", after=BLIND, w=1)
            hand_over(one, two)
            with pytest.raises(NotEnoughReplicas) as failure:
                await two.bucket("b").put("k", b"second", after=BLIND, w=1, timeout=0.5)
            assert failure.value.outcome == "not_applied"
            assert await cluster.record(N2, bucket, "k") is None
            cluster.heal()
            await two.bucket("b").put("k", b"second", after=BLIND, w=1, timeout=20.0)
            # Who sees the second write, through whatever single replica, sees the first.
            answer = await anybody.bucket("b").get("k", r=1)
            assert isinstance(answer, Conflict)
            assert sorted(sibling.value for sibling in answer.siblings) == [b"first", b"second"]
            assert not cluster.nodes[N2].coordinator.operations


@virtual
async def test_a_write_over_all_that_its_session_has_seen_waits_for_nobody() -> None:
    async with memory_cluster(3) as cluster:
        await cluster.create_bucket()
        cluster.cut(N1, [N2, N3])
        async with through(cluster, N1) as one, through(cluster, N2) as two:
            written = await one.bucket("b").put("k", b"first", after=BLIND, w=1)
            hand_over(one, two)
            again = await two.bucket("b").put("k", b"second", after=written.context, w=1, timeout=0.5)
            found = await two.bucket("b").get("k", r=1)
            assert isinstance(found, Found)
            assert found.value == b"second"
            await two.bucket("b").put("k", b"third", after=again.context, w=1, timeout=0.5)


@virtual
async def test_a_context_that_the_session_does_not_know_must_be_known_to_whoever_mints_over_it() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        cluster.cut(N1, [N2, N3])
        async with through(cluster, N1) as stranger, through(cluster, N2) as two:
            await stranger.bucket("b").put("k", b"first", after=BLIND, w=1)
            second = await stranger.bucket("b").put("k", b"second", after=BLIND, w=1)
            assert bytes(two.session_token)
            # It covers the second write only. Minted here it would hide that without the first being anywhere.
            with pytest.raises(NotApplied):
                await two.bucket("b").put("k", b"third", after=second.context, w=1, timeout=0.5)
            cluster.heal()
            await two.bucket("b").put("k", b"third", after=second.context, w=1, timeout=20.0)
            record = await cluster.record(N2, bucket, "k")
            assert record is not None
            assert sorted(str(sibling.value) for sibling in decode(record).siblings.values()) == [
                "b'first'",
                "b'third'",
            ]


@virtual
async def test_in_an_lww_bucket_a_session_s_later_write_wins_although_the_clock_of_its_node_is_behind() -> None:
    async with memory_cluster(3) as cluster:
        await cluster.create_bucket(conflict=Policy.LWW)
        cluster.skew_ms[N2] = -3_000
        cluster.cut(N1, [N2, N3])
        async with through(cluster, N1) as one, through(cluster, N2) as two:
            await one.lww_bucket("b").put("k", b"first", w=1)
            hand_over(one, two)
            with pytest.raises(NotApplied):
                await two.lww_bucket("b").put("k", b"second", w=1, timeout=0.5)
            cluster.heal()
            await two.lww_bucket("b").put("k", b"second", w=1, timeout=20.0)
            await cluster.meet()
            assert await two.lww_bucket("b").get("k", r=3) == b"second"


@virtual
async def test_a_stand_in_mints_over_what_the_session_has_seen_as_well() -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket()
        key = cluster.key_of(bucket, N1, N2, N3)
        async with through(cluster, N1) as one, through(cluster, N4) as four:
            cluster.cut(N1, [N2, N3, N4])
            await one.bucket("b").put(key, b"first", after=BLIND, w=1)
            hand_over(one, four)
            cluster.cut(N4, [N2, N3])
            with pytest.raises(NotApplied):
                await four.bucket("b").put(key, b"second", after=BLIND, w=1, timeout=0.5)
            assert await cluster.hints(N4) == {}
            cluster.heal()
            await four.bucket("b").put(key, b"second", after=BLIND, w=1, timeout=20.0)
            await cluster.settle()
            await cluster.assert_replicas_equal(bucket)


@virtual
async def test_a_stand_in_that_keeps_the_first_write_for_another_primary_joins_it_to_the_second() -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket()
        key = cluster.key_of(bucket, N1, N2, N3)
        async with through(cluster, N1) as one, through(cluster, N4) as four:
            cluster.cut(N1, [N2, N3])
            await one.bucket("b").put(key, b"first", after=BLIND, w=2)  # node 4 keeps it for node 2 or 3
            hand_over(one, four)
            cluster.cut(N4, [N1, N2, N3])
            await four.bucket("b").put(key, b"second", after=BLIND, w=1, timeout=1.0)
            minted = [decode(decode_hint(value).record) for value in (await cluster.hints(N4)).values()]
            assert any(len(record.siblings) == 2 for record in minted)
            for record in minted:
                values = {sibling.value for sibling in record.siblings.values()}
                assert b"second" not in values or b"first" in values


@virtual
async def test_what_was_given_up_for_room_is_read_from_a_majority_and_a_write_reads_first() -> None:
    async with memory_cluster(3) as cluster:
        await cluster.create_bucket()
        async with through(cluster, N1, keys_max=2) as one, through(cluster, N3) as three:
            cluster.cut(N3, [N1, N2])
            for number in range(6):
                await one.bucket("b").put(f"k{number}", b"v", after=BLIND, w=2)
            hand_over(one, three)
            for key in ("k0", "k5"):
                with pytest.raises((NotEnoughReplicas, DeadlineExceeded)):
                    await three.bucket("b").get(key, r=1, timeout=0.5)
                with pytest.raises((NotEnoughReplicas, DeadlineExceeded)):
                    await three.bucket("b").put(key, b"w", after=BLIND, w=1, timeout=0.5)
            cluster.heal()
            await cluster.meet()
            assert isinstance(await three.bucket("b").get("k0", r=1), Found)
            await three.bucket("b").put("k1", b"w", after=BLIND, w=1)
            assert isinstance(await three.bucket("b").get("k1", r=1), Conflict)
            one._core.check()
            three._core.check()


@virtual
async def test_a_token_of_another_cluster_is_refused_and_so_is_a_floor_of_another_key() -> None:
    async with memory_cluster(1) as cluster:
        await cluster.create_bucket()
        async with through(cluster, N1) as one:
            await one.bucket("b").put("k", b"v", after=BLIND)
            token = bytes(one.session_token)
            moved = SessionToken.from_bytes(token.replace(b"k\x00\x01", b"l\x00\x01"))
            one.observe(moved)
            with pytest.raises(NotApplied) as refused:
                await one.bucket("b").get("l")
            assert refused.value.reason == "context_mismatch"
            with pytest.raises(ContextMismatch):
                one.observe(SessionToken(token[:2] + b"another cluster." + token[18:]))
