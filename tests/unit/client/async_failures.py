"""What both clients promise when nodes refuse, hang, die and come back. How stories are run: `async_values.py`."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

import pytest

import leafdb
from leafdb import BLIND, Conflict, Found, Missing, NotApplied, Reason
from leafdb.client.url import Address
from leafdb.errors import DeadlineExceeded, NotEnoughReplicas, OutcomeUnknown, Overloaded, ServerBug
from leafdb.model.key import encode_key
from leafdb.ring.token import storage_key
from leafdb.wire.registry import MessageType
from leafdb.wire.requests import FLAG_RETRY, decode_get, decode_put
from unit.client.fake_node import FakeCluster, carry_out_and_hang_up, dead_address, hang_up, refuse, silence, when

OVERLOADED = Overloaded("busy", retry_after=0.0)
DRAINING = NotApplied("draining", reason=Reason.DRAINING)


# -- errors, retries, deadlines


async def every_refusal_arrives_as_what_it_was(cluster: FakeCluster) -> None:
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        raw = db.bucket("b")
        cluster.node.script(MessageType.GET, *[refuse(NotEnoughReplicas("1 of 2", alive=1, required=2))] * 9)
        with pytest.raises(NotEnoughReplicas) as short:
            await raw.get("k")
        assert (short.value.alive, short.value.required, short.value.node) == (1, 2, "node-1")
        assert short.value.retryable
        assert short.value.request_id
        assert short.value.outcome == "not_applied"
        assert len(cluster.asked(MessageType.GET)) == 4, "three retries and no more"
        unknown = OutcomeUnknown("cut", acks=1, required=2, replicas=["node-3"])
        cluster.node.script(MessageType.PUT, *[refuse(unknown)] * 4)
        with pytest.raises(OutcomeUnknown) as cut:
            await raw.put("k", b"", after=BLIND)
        assert (cut.value.acks, cut.value.required, cut.value.replicas) == (1, 2, ("node-3",))
        assert cut.value.op_id == decode_put(cluster.asked(MessageType.PUT)[0].body).op_id
        assert isinstance(cut.value, TimeoutError)
        assert [decode_put(frame.body).flags & FLAG_RETRY for frame in cluster.asked(MessageType.PUT)] == [
            0,
            64,
            64,
            64,
        ]
        cluster.node.script(MessageType.PUT, refuse(ServerBug("oops")))
        with pytest.raises(ServerBug) as bug:
            await raw.put("k", b"", after=BLIND)
        assert bug.value.outcome == "unknown"


async def refusals_that_may_pass_are_tried_again(cluster: FakeCluster) -> None:
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        raw = db.bucket("b")
        cluster.node.script(MessageType.PUT, refuse(OVERLOADED), refuse(DRAINING))
        await raw.put("k", b"1", after=BLIND)
        ids = {decode_put(frame.body).op_id for frame in cluster.asked(MessageType.PUT)}
        assert len(cluster.asked(MessageType.PUT)) == 3
        assert len(ids) == 1, "a retry is the same operation"
        cluster.node.script(MessageType.PUT, refuse(NotApplied("no", reason=Reason.UNAUTHORIZED)))
        with pytest.raises(NotApplied):
            await raw.put("k", b"1", after=BLIND)
        assert len(cluster.asked(MessageType.PUT)) == 4


async def a_retry_waits_as_long_as_the_node_asked_or_not_at_all(cluster: FakeCluster) -> None:
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        raw = db.bucket("b")
        cluster.node.script(MessageType.GET, refuse(Overloaded("later", retry_after=60.0)))
        with pytest.raises(Overloaded) as refused:
            await raw.get("k")
        assert refused.value.retry_after == 60.0
        assert len(cluster.asked(MessageType.GET)) == 1


async def the_budget_ends_retries_when_everything_fails(cluster: FakeCluster) -> None:
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        raw = db.bucket("b")
        await raw.get("k")
        before = len(cluster.asked(MessageType.GET))
        calls = 15
        cluster.node.script(MessageType.GET, *[refuse(OVERLOADED)] * 100)
        for _ in range(calls):
            with pytest.raises(Overloaded):
                await raw.get("k")
        retries = len(cluster.asked(MessageType.GET)) - before - calls
        assert 9 <= retries <= 13, "ten tokens to begin with, a tenth for each call"


async def nodes_that_drain_cost_no_retries_while_one_does_not(cluster: FakeCluster) -> None:
    cluster.grow(3)
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        raw = db.bucket("b")
        for node in cluster.nodes:
            node.script(MessageType.GET, *[refuse(OVERLOADED)] * 100)
        for _ in range(25):
            with pytest.raises(Overloaded):
                await raw.get("k")
        # No retry is left to be spent.
        for node in cluster.nodes[:2]:
            node.script(MessageType.PUT, refuse(DRAINING))
        await raw.put("k", b"1", after=BLIND)
        for node in cluster.nodes:
            node.script(MessageType.PUT, *[refuse(DRAINING)] * 10)
        with pytest.raises(NotApplied) as everywhere:
            await raw.put("k", b"2", after=BLIND)
        assert everywhere.value.reason is Reason.DRAINING
        assert everywhere.value.retryable


async def a_local_read_is_one_node_s_word(cluster: FakeCluster) -> None:
    cluster.create("b")
    async with leafdb.connect_async(cluster.url, routing="listed") as db:
        cluster.node.script(MessageType.GET, refuse(NotEnoughReplicas("incomplete", alive=0, required=1)))
        with pytest.raises(NotEnoughReplicas):
            await db.bucket("b").get("k", local=True)
        assert len(cluster.asked(MessageType.GET)) == 1
        assert isinstance(await db.bucket("b").get("k", local=True), Missing)


async def a_write_of_unknown_outcome_is_sent_again_under_its_own_name(cluster: FakeCluster) -> None:
    cluster.grow(3)
    bucket = cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        raw = db.bucket("b")
        for node in cluster.nodes:
            node.script(MessageType.PUT, carry_out_and_hang_up)
        written = await raw.put("k", b"1", after=BLIND)
        sent = [decode_put(frame.body) for frame in cluster.asked(MessageType.PUT)]
        assert [len(node.asked(MessageType.PUT)) for node in cluster.nodes].count(0) < 2, "another node is asked"
        assert {each.op_id for each in sent} == {written.op_id}
        assert sorted(each.flags & FLAG_RETRY for each in sent)[:2] == [0, 64]
        assert written.op_id[:8] == storage_key(bucket.id, encode_key("k"))[:8], "an id leads to where its key lies"
        found = await raw.get("k")
        assert isinstance(found, Found)


async def a_refusal_after_an_unknown_outcome_proves_nothing(cluster: FakeCluster) -> None:
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        raw = db.bucket("b")
        await raw.get("k")
        no = NotApplied("no", reason=Reason.UNAUTHORIZED)
        cluster.node.script(MessageType.PUT, carry_out_and_hang_up, refuse(OVERLOADED), refuse(no))
        with pytest.raises(OutcomeUnknown) as unknown:
            await raw.put("k", b"1", after=BLIND)
        assert unknown.value.op_id == decode_put(cluster.asked(MessageType.PUT)[0].body).op_id
        assert isinstance(unknown.value.__cause__, NotApplied), "why it was not tried again"
        assert len(cluster.asked(MessageType.PUT)) == 3


async def a_read_survives_its_connection_and_a_write_says_unknown(cluster: FakeCluster) -> None:
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        raw = db.bucket("b")
        await raw.put("k", b"1", after=BLIND)
        cluster.node.script(MessageType.GET, hang_up, hang_up)
        assert isinstance(await raw.get("k"), Found)
        cluster.node.script(MessageType.PUT, *[carry_out_and_hang_up] * 4)
        with pytest.raises(OutcomeUnknown) as unknown:
            await raw.put("k", b"2", after=BLIND)
        assert (unknown.value.acks, unknown.value.required, len(unknown.value.op_id)) == (0, 2, 16)
        assert len(cluster.asked(MessageType.PUT)) == 5, "three retries and no more"
        cluster.node.script(MessageType.ADMIN, hang_up)
        with pytest.raises(OutcomeUnknown):
            await db.create_bucket("c")
        cluster.node.script(MessageType.GET, *[hang_up] * 4)
        with pytest.raises(leafdb.ConnectFailed) as lost:
            await raw.get("k")
        assert list(lost.value.attempts) == [str(cluster.node.address)]


async def a_deadline_that_passes_says_what_is_known(cluster: FakeCluster) -> None:
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        raw = db.bucket("b")
        await raw.get("k")
        cluster.node.script(MessageType.GET, silence)
        with pytest.raises(DeadlineExceeded) as late:
            await raw.get("k", timeout=0.1)
        assert (late.value.stage, late.value.required, late.value.node) == ("wait", 2, str(cluster.node.address))
        assert isinstance(late.value, TimeoutError)
        cluster.node.script(MessageType.PUT, silence)
        with pytest.raises(OutcomeUnknown):
            await raw.put("k", b"", after=BLIND, timeout=0.1)
        assert len(cluster.asked(MessageType.PUT)) == 1


async def late_answers_reach_nobody(cluster: FakeCluster) -> None:
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        raw = db.bucket("b")
        await raw.put("slow", b"slow", after=BLIND)
        await raw.put("fast", b"fast", after=BLIND)
        release = threading.Event()
        cluster.node.script(MessageType.GET, when(release))
        with pytest.raises(DeadlineExceeded):
            await raw.get("slow", timeout=0.1)
        release.set()
        for _ in range(20):
            answer = await raw.get("fast")
            assert isinstance(answer, Found)
            assert answer.value == b"fast"
        assert len(cluster.node.sessions) == 1, "the connection goes on"


async def deadlines_nest_by_the_nearer_one(cluster: FakeCluster) -> None:
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db, leafdb.connect_async(cluster.url) as other:
        raw = db.bucket("b")
        with db.deadline(3.0):
            await raw.get("k")
            with db.deadline(timedelta(seconds=60)):
                await raw.get("k")
                await raw.get("k", timeout=1.0)
                await other.bucket("b").get("k")
        await raw.get("k")
    left = [round(decode_get(frame.body).deadline_ms / 1000) for frame in cluster.asked(MessageType.GET)]
    assert left == [3, 3, 1, 5, 5]


# -- nodes that come and go


async def another_node_is_asked_when_one_cannot_be_reached(cluster: FakeCluster) -> None:
    cluster.create("b")
    with dead_address() as dead:
        url = f"leafdb://{dead},{cluster.node.address}"
        async with leafdb.connect_async(url) as db:
            await db.bucket("b").put("k", b"", after=BLIND)
        async with leafdb.connect_async(f"leafdb://{dead}") as lonely:
            raw = lonely.bucket("b")
            with pytest.raises(leafdb.ConnectFailed) as failed:
                await raw.put("k", b"", after=BLIND)
        assert list(failed.value.attempts) == [str(dead)]
        assert "refused" in failed.value.attempts[str(dead)]
        assert failed.value.retryable
        assert failed.value.outcome == "not_applied"


async def a_node_that_comes_back_is_used_again(cluster: FakeCluster) -> None:
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        raw = db.bucket("b")
        await raw.put("k", b"1", after=BLIND)
        cluster.node.stop()
        with pytest.raises((leafdb.ConnectFailed, OutcomeUnknown)):
            await raw.put("k", b"2", after=BLIND, timeout=0.3)
        cluster.node.start()
        assert isinstance(await raw.get("k"), Found | Conflict)


async def a_node_that_answers_nothing_costs_a_share_of_the_deadline(cluster: FakeCluster) -> None:
    cluster.create("b")
    second = cluster.add_node()
    async with leafdb.connect_async(cluster.url, routing="listed") as db:
        raw = db.bucket("b")
        await raw.get("k")
        cluster.node.script(MessageType.GET, silence)
        assert isinstance(await raw.get("k", timeout=2.0), Missing)
        assert len(second.asked(MessageType.GET)) == 1


async def a_node_that_fell_silent_is_met_again_by_a_handshake(cluster: FakeCluster) -> None:
    """A stopped process keeps its connections: only the first write to it is unknown, the next is provably unsent."""
    cluster.create("b")
    second = cluster.add_node()
    async with leafdb.connect_async(cluster.url, routing="listed") as db:
        raw = db.bucket("b")
        await raw.put("k", b"1", after=BLIND)
        cluster.node.frozen.set()
        with pytest.raises(OutcomeUnknown):
            await raw.put("k", b"2", after=BLIND, timeout=1.1)
        second.stop()
        with pytest.raises(leafdb.ConnectFailed) as failed:
            await raw.put("k", b"3", after=BLIND, timeout=1.2)
        assert "handshake" in failed.value.attempts[str(cluster.node.address)]
        second.start()
        await raw.put("k", b"4", after=BLIND)
        cluster.node.frozen.clear()
    assert len(second.asked(MessageType.PUT)) == 1


async def a_node_of_another_cluster_is_not_one_of_ours(cluster: FakeCluster) -> None:
    cluster.create("b")
    with FakeCluster(cluster_id=b"x" * 16) as stranger:
        url = f"leafdb://{cluster.node.address},{stranger.node.address}"
        async with leafdb.connect_async(url, routing="listed") as db:
            await db.bucket("b").get("k")
            cluster.node.stop()
            with pytest.raises(leafdb.ConnectFailed) as failed:
                await db.bucket("b").get("k", timeout=1.0)
            assert "another cluster" in failed.value.attempts[str(stranger.node.address)]


async def a_node_outside_any_cluster_is_still_spoken_to(cluster: FakeCluster) -> None:
    cluster.in_cluster = False
    async with leafdb.connect_async(cluster.url) as db:
        assert (await db.ping()).node == 1
        cluster.create("b")
        assert isinstance(await db.bucket("b").get("k"), Missing)


async def the_ring_says_whom_to_ask(cluster: FakeCluster) -> None:
    cluster.grow(4)
    bucket = cluster.create("b", n=1)
    async with leafdb.connect_async(f"leafdb://{cluster.node.address}") as db:
        raw = db.bucket("b")
        for number in range(40):
            await raw.get(f"k{number}")
        for node in cluster.nodes:
            for frame in node.asked(MessageType.GET):
                assert cluster.owners(bucket, decode_get(frame.body).key) == [node.id]
        assert all(node.asked(MessageType.GET) for node in cluster.nodes)
        assert cluster.verbs().count("ring") == 1
        cluster.create("c")
        await raw.get("k1")
        await raw.get("k1")
        assert cluster.verbs().count("ring") == 2, "an answer carried a newer epoch"


async def the_own_zone_comes_first(cluster: FakeCluster) -> None:
    cluster.grow(3, zones=("a", "b", "a"))
    cluster.create("b", n=3)
    async with leafdb.connect_async(cluster.url, zone="b") as db:
        await db.bucket("b").get_many([f"k{number}" for number in range(30)])
        assert [len(node.asked(MessageType.GET)) for node in cluster.nodes] == [0, 30, 0]
        cluster.nodes[1].stop()
        await db.bucket("b").get_many([f"k{number}" for number in range(30)])
        assert len(cluster.nodes[0].asked(MessageType.GET)) + len(cluster.nodes[2].asked(MessageType.GET)) == 30


async def listed_routing_stays_with_the_url(cluster: FakeCluster) -> None:
    cluster.grow(3)
    cluster.create("b", n=1)
    async with leafdb.connect_async(f"leafdb://{cluster.nodes[1].address}", routing="listed") as db:
        await db.bucket("b").get_many([f"k{number}" for number in range(30)])
        assert [len(node.asked(MessageType.GET)) for node in cluster.nodes] == [0, 30, 0]
        assert "ring" not in cluster.verbs()


async def a_client_has_one_life(cluster: FakeCluster) -> None:
    cluster.create("b")
    db = leafdb.connect_async(cluster.url)
    async with db:
        await db.ping()
        await db.close()
        await db.close()
        with pytest.raises(leafdb.ClientMisuse, match="closed"):
            await db.ping()
    with pytest.raises(leafdb.ClientMisuse, match="closed"):
        await db.bucket("b").get("k")


async def the_block_s_own_exception_comes_through(cluster: FakeCluster) -> None:
    with pytest.raises(KeyError):
        db = leafdb.connect_async(cluster.url)
        async with db:
            await db.ping()
            raise KeyError("mine")


async def connecting_alone_does_no_io(cluster: FakeCluster) -> None:
    async with leafdb.connect_async("leafdb://192.0.2.1:1") as db:
        db.bucket("b")
        db.lww_bucket("l", codec=leafdb.CBOR(datetime))
    assert Address("192.0.2.1", 1)
