"""What both clients promise, told once: run under trio, under asyncio, and (generated) on blocking sockets.

A story is an async function of a `FakeCluster`; `test_stories.py` runs each three times.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import leafdb
from leafdb import BLIND, Conflict, Failed, Found, Missing, NotApplied, Put, Reason
from leafdb.client.url import Address
from leafdb.errors import DeadlineExceeded, NotEnoughReplicas, OutcomeUnknown, Overloaded, ServerBug
from leafdb.types import Conflict as Policy
from leafdb.wire.registry import MessageType
from leafdb.wire.requests import FLAG_LOCAL, FLAG_SLOPPY, FLAG_STRICT, decode_get, decode_put
from unit.client.fake_node import FakeCluster, carry_out_and_hang_up, dead_address, hang_up, refuse, silence, when

OVERLOADED = Overloaded("busy", retry_after=0.0)
DRAINING = NotApplied("draining", reason=Reason.DRAINING)


@dataclass
class Cart:
    """A value with a merge."""

    items: list[str] = field(default_factory=list)

    def add(self, item: str) -> Cart:
        self.items.append(item)
        return self


def merge_carts(one: Cart, other: Cart) -> Cart:
    return Cart(sorted({*one.items, *other.items}))


# -- siblings and contexts


async def a_missing_key_has_a_context_and_reads_back_what_was_put(cluster: FakeCluster) -> None:
    async with leafdb.connect_async(cluster.url) as db:
        await db.create_bucket("carts")
        raw = db.bucket("carts")
        answer = await raw.get("alice")
        assert isinstance(answer, Missing)
        written = await raw.put("alice", b"tea", after=answer.context)
        assert (written.acks, written.primaries, len(written.op_id)) == (2, 2, 16)
        found = await raw.get(b"alice")
        assert isinstance(found, Found)
        assert found.value == b"tea"
        assert found.dot is not None
        assert found.written_at is not None
        assert found.written_at.tzinfo is UTC


async def blind_writes_stay_beside_each_other_until_one_has_seen_both(cluster: FakeCluster) -> None:
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        raw = db.bucket("b")
        await raw.put("k", b"1", after=BLIND)
        await raw.put("k", b"2", after=BLIND)
        answer = await raw.get("k")
        assert isinstance(answer, Conflict)
        assert not hasattr(answer, "value")
        assert [sibling.value for sibling in answer.siblings] == [b"1", b"2"]
        assert len({sibling.dot for sibling in answer.siblings}) == 2
        assert answer.siblings[0].written_at < answer.siblings[1].written_at
        await raw.put("k", b"3", after=answer.context)
        settled = await raw.get("k")
        assert isinstance(settled, Found)
        assert settled.value == b"3"


async def a_returned_context_covers_its_own_write_only(cluster: FakeCluster) -> None:
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        raw = db.bucket("b")
        seen = await raw.get("k")
        await raw.put("k", b"other", after=BLIND)
        written = await raw.put("k", b"first", after=seen.context)
        await raw.put("k", b"second", after=written.context)
        answer = await raw.get("k")
        assert isinstance(answer, Conflict)
        assert sorted(sibling.value for sibling in answer.siblings) == [b"other", b"second"]


async def a_deletion_covers_what_it_has_seen(cluster: FakeCluster) -> None:
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        raw = db.bucket("b")
        written = await raw.put("k", b"", after=BLIND)
        empty = await raw.get("k")
        assert isinstance(empty, Found)
        assert empty.value == b""
        await raw.delete("k", after=written.context)
        assert isinstance(await raw.get("k"), Missing)


async def contexts_travel_as_bytes_and_only_to_their_own_key(cluster: FakeCluster) -> None:
    cluster.create("b")
    cluster.create("c")
    async with leafdb.connect_async(cluster.url) as db:
        raw = db.bucket("b")
        written = await raw.put("k", b"1", after=BLIND)
        carried = leafdb.Context.from_bytes(bytes(written.context))
        assert carried == written.context
        await raw.put("k", b"2", after=carried)
        assert isinstance(await raw.get("k"), Found)
        puts = len(cluster.asked(MessageType.PUT))
        with pytest.raises(leafdb.ContextMismatch):
            await raw.put("other", b"3", after=carried)
        with pytest.raises(leafdb.ContextMismatch):
            await db.bucket("c").delete("k", after=carried)
        with pytest.raises(leafdb.ContextMismatch):
            await raw.put_many([Put("fine", b"", BLIND), Put("other", b"", carried)])
        assert len(cluster.asked(MessageType.PUT)) == puts


# -- the merged and the lossy kind


async def a_bucket_with_a_merge_never_shows_siblings(cluster: FakeCluster) -> None:
    cluster.create("carts")
    async with leafdb.connect_async(cluster.url) as db:
        carts = db.bucket("carts", codec=leafdb.JSON(Cart), merge=merge_carts)
        assert await carts.get("alice") is None
        assert isinstance(await carts.read("alice"), Missing)
        await carts.put("alice", Cart(["tea"]), after=BLIND)
        await carts.put("alice", Cart(["milk"]), after=BLIND)
        assert await carts.get("alice") == Cart(["milk", "tea"])
        puts = len(cluster.asked(MessageType.PUT))
        read = await carts.read("alice")
        assert len(cluster.asked(MessageType.PUT)) == puts, "reading wrote"
        assert isinstance(read, Found)
        assert read.dot is None
        await carts.put("alice", read.value, after=read.context)
        assert isinstance(await db.bucket("carts").get("alice"), Found)
        await carts.delete("alice", after=(await carts.read("alice")).context)
        assert await carts.get("alice") is None


async def siblings_are_merged_in_dot_order(cluster: FakeCluster) -> None:
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        joined = db.bucket("b", merge=lambda one, other: one + other)
        for value in (b"a", b"b", b"c"):
            await joined.put("k", value, after=BLIND)
        assert await joined.get("k") == b"abc"


async def update_reads_merges_changes_and_writes(cluster: FakeCluster) -> None:
    cluster.create("carts")
    async with leafdb.connect_async(cluster.url) as db:
        carts = db.bucket("carts", codec=leafdb.JSON(Cart), merge=merge_carts)
        default = Cart()
        assert await carts.update("alice", lambda cart: cart.add("tea"), default=default) == Cart(["tea"])
        assert default == Cart(), "the default itself was handed out"
        await carts.put("alice", Cart(["milk"]), after=BLIND)
        assert await carts.update("alice", lambda cart: cart.add("oil"), default=default) == Cart(
            ["milk", "tea", "oil"]
        )
        assert isinstance(await db.bucket("carts").get("alice"), Found)
        counter = db.bucket("carts", codec=leafdb.JSON(int), merge=max)
        assert await counter.update("n", lambda count: 1 if count is None else count + 1) == 1
        assert await counter.update("n", lambda count: 1 if count is None else count + 1) == 2


async def update_tries_again_only_when_nothing_was_applied(cluster: FakeCluster) -> None:
    cluster.create("b")
    seen: list[list[str]] = []

    def change(cart: Cart) -> Cart:
        seen.append(list(cart.items))
        return cart.add("tea")

    async with leafdb.connect_async(cluster.url) as db:
        carts = db.bucket("b", codec=leafdb.JSON(Cart), merge=merge_carts)
        cluster.node.script(MessageType.PUT, refuse(DRAINING), refuse(NotApplied("64", reason=Reason.CONFLICT_LIMIT)))
        assert await carts.update("k", change, default=Cart()) == Cart(["tea"])
        assert seen == [[], [], []], "a try saw what another did"
        cluster.node.script(MessageType.PUT, carry_out_and_hang_up)
        with pytest.raises(OutcomeUnknown):
            await carts.update("k", change, default=Cart())
        assert len(seen) == 4
        cluster.node.script(MessageType.PUT, refuse(NotApplied("no", reason=Reason.READ_ONLY)))
        with pytest.raises(NotApplied):
            await carts.update("k", change, default=Cart())
        assert len(seen) == 5


async def a_last_writer_wins_bucket_has_no_contexts(cluster: FakeCluster) -> None:
    async with leafdb.connect_async(cluster.url) as db:
        await db.create_bucket("l", conflict="lww")
        texts = db.lww_bucket("l", codec=leafdb.Text())
        assert await texts.get("k") is None
        await texts.put("k", "one")
        written = await texts.put("k", "two")
        assert await texts.get("k") == "two"
        with pytest.raises(leafdb.ClientMisuse):
            await texts.put_many([Put("k", "three", written.context)])
        assert await texts.put_many([Put("k", "three")]) != []
        found, missing = await texts.get_many(["k", "none"])
        assert isinstance(found, Found)
        assert found.value == "three"
        assert isinstance(missing, Missing)
        await texts.delete("k")
        assert await texts.get("k") is None


async def a_handle_of_the_wrong_kind_names_the_right_one(cluster: FakeCluster) -> None:
    cluster.create("plain")
    cluster.create("lossy", conflict=Policy.LWW)
    async with leafdb.connect_async(cluster.url) as db:
        with pytest.raises(leafdb.ClientMisuse, match=r"lww_bucket\('lossy'\)"):
            await db.bucket("lossy").put("k", b"", after=BLIND)
        with pytest.raises(leafdb.ClientMisuse, match=r"lww_bucket\('lossy'\)"):
            await db.bucket("lossy", merge=max).get("k")
        with pytest.raises(leafdb.ClientMisuse, match=r"use bucket\('plain'\)"):
            await db.lww_bucket("plain").get_many(["k"])
        with pytest.raises(leafdb.ClientMisuse, match=r"use bucket\('plain'\)"):
            await db.lww_bucket("plain").put("k", b"")
        assert not cluster.asked(MessageType.PUT)


# -- many keys


async def batches_answer_in_the_order_asked(cluster: FakeCluster) -> None:
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        raw = db.bucket("b")
        puts = [Put(f"k{number}", b"%d" % number, BLIND) for number in range(500)]
        written = await raw.put_many(puts)
        assert all(not isinstance(each, Failed) for each in written)
        answers = await raw.get_many([f"k{number}" for number in (7, 499, 1000, 7)])
        assert [answer.value if isinstance(answer, Found) else None for answer in answers] == [b"7", b"499", None, b"7"]
        assert await raw.get_many([]) == []
        assert await raw.put_many(iter([])) == []


async def an_item_that_fails_fails_alone(cluster: FakeCluster) -> None:
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        raw = db.bucket("b")
        cluster.node.script(MessageType.PUT, refuse(NotApplied("full", reason=Reason.DISK_FULL)))
        written = await raw.put_many([Put("a", b"1", BLIND), Put("b", b"2", BLIND), Put("c", b"x" * (2 << 20), BLIND)])
        reasons = [
            each.error.reason for each in written if isinstance(each, Failed) and isinstance(each.error, NotApplied)
        ]
        assert reasons == [Reason.DISK_FULL, Reason.TOO_LARGE]
        assert not isinstance(written[1], Failed)
        await raw.put("t", b"\xff", after=BLIND)
        answers = await db.bucket("b", codec=leafdb.Text()).get_many(["b", "t"])
        assert isinstance(answers[0], Found)
        assert isinstance(answers[1], Failed)
        assert isinstance(answers[1].error, leafdb.DataError)


async def a_batch_retries_what_may_be_retried(cluster: FakeCluster) -> None:
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        raw = db.bucket("b")
        cluster.node.script(MessageType.PUT, *[refuse(OVERLOADED)] * 4)
        written = await raw.put_many([Put(f"k{number}", b"", BLIND) for number in range(20)])
        assert all(not isinstance(each, Failed) for each in written)
        assert len(cluster.asked(MessageType.PUT)) == 24


async def a_batch_with_a_wrong_item_sends_nothing(cluster: FakeCluster) -> None:
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        raw: Any = db.bucket("b")
        with pytest.raises(leafdb.ClientMisuse):
            await raw.put_many([Put("a", b"", BLIND), Put("b", b"")])
        with pytest.raises(leafdb.ClientMisuse):
            await raw.get_many(["a", ""])
        with pytest.raises(leafdb.DataError):
            await raw.put_many([Put("a", b"", BLIND), Put("b", 5, BLIND)])
        assert not cluster.node.log


async def a_scan_sees_every_key_and_can_go_on_from_its_cursor(cluster: FakeCluster) -> None:
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        raw = db.bucket("b")
        await raw.put_many([Put(f"k{number}", b"v", BLIND) for number in range(40)])
        gone = await raw.get("k7")
        await raw.delete("k7", after=gone.context)
        keys = [item.key async for item in raw.scan(page_size=7)]
        assert sorted(keys) == sorted(b"k%d" % number for number in range(40) if number != 7)
        first = raw.scan(page_size=4)
        assert first.cursor is None
        head = []
        async for item in first:
            head.append(item.key)
            assert isinstance(item.answer, Found)
            if len(head) == 10:
                break
        cursor = first.cursor
        assert head + [item.key async for item in raw.scan(cursor=cursor)] == keys
        assert [item.key async for item in raw.scan(cursor=cursor, limit=3)] == keys[10:13]
        ended = raw.scan(limit=5)
        assert [item.key async for item in ended] == keys[:5]
        assert [item.key async for item in raw.scan(cursor=ended.cursor)] == keys[5:]


async def a_cursor_belongs_to_its_bucket(cluster: FakeCluster) -> None:
    cluster.create("b")
    cluster.create("c")
    async with leafdb.connect_async(cluster.url) as db:
        await db.bucket("b").put("k", b"", after=BLIND)
        scan = db.bucket("b").scan()
        assert [item.key async for item in scan] == [b"k"]
        with pytest.raises(leafdb.ClientMisuse, match="another bucket"):
            await anext(db.bucket("c").scan(cursor=scan.cursor))
        with pytest.raises(leafdb.ClientMisuse):
            db.bucket("b").scan(cursor=b"nonsense")


async def a_range_holds_the_pairs_of_one_partition_key(cluster: FakeCluster) -> None:
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        raw = db.bucket("b")
        await raw.put("p", b"plain", after=BLIND)
        await raw.put(("q", "a"), b"stranger", after=BLIND)
        sorts: list[str | bytes] = ["a", b"\x00", b"\x00\x01", "b", "c", b"\xff\xff"]
        await raw.put_many([Put(("p", sort), b"v", BLIND) for sort in sorts])
        whole = [item.key async for item in raw.range("p")]
        assert whole == [(b"p", sort) for sort in (b"\x00", b"\x00\x01", b"a", b"b", b"c", b"\xff\xff")]
        assert [item.key async for item in raw.range("p", reverse=True)] == whole[::-1]
        assert [item.key async for item in raw.range("p", start="a", stop="c")] == whole[2:4]
        assert [item.key async for item in raw.range("p", start="a", reverse=True, limit=2)] == [whole[5], whole[4]]
        assert [item.key async for item in raw.range("p", limit=1)] == whole[:1]
        assert [item.key async for item in raw.range("nobody")] == []


# -- buckets and the cluster


async def buckets_are_created_listed_and_dropped(cluster: FakeCluster) -> None:
    async with leafdb.connect_async(cluster.url) as db:
        made = await db.create_bucket("b", n=5, r=1, w="all", pw=2, ttl=timedelta(hours=1), durability="periodic")
        assert (made.n, made.r, made.w, made.pw, made.ttl) == (5, 1, "all", 2, timedelta(hours=1))
        assert await db.buckets() == {"b": made}
        with pytest.raises(NotApplied) as refused:
            await db.create_bucket("b")
        assert refused.value.reason is Reason.BUCKET_EXISTS
        same = await db.create_bucket(
            "b", n=5, r=1, w="all", pw=2, ttl=timedelta(hours=1), durability="periodic", exist_ok=True
        )
        assert same == made
        await db.drop_bucket("b")
        assert await db.buckets() == {}
        with pytest.raises(NotApplied) as unknown:
            await db.bucket("b").get("k")
        assert unknown.value.reason is Reason.NO_SUCH_BUCKET


async def a_handle_outlives_its_bucket_being_made_again(cluster: FakeCluster) -> None:
    async with leafdb.connect_async(cluster.url) as db:
        await db.create_bucket("b")
        raw = db.bucket("b")
        await raw.put("k", b"old", after=BLIND)
        cluster.metadata = cluster.metadata.drop_bucket(cluster.create("b").id)
        cluster.create("b")
        assert isinstance(await raw.get("k"), Missing)
        await raw.put("k", b"new", after=BLIND)


async def what_can_never_work_is_refused_before_anything_is_sent(cluster: FakeCluster) -> None:
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        raw: Any = db.bucket("b")
        await raw.get("k")
        sent = len(cluster.asked(MessageType.GET)) + len(cluster.asked(MessageType.PUT))
        for options in ({"r": 4}, {"r": 1, "pr": 2}, {"r": 0}, {"r": "most"}, {"pr": "all"}, {"r": True}, {"r": 17}):
            with pytest.raises(leafdb.ClientMisuse):
                await raw.get("k", **options)
        for options in ({"w": 4}, {"w": 1, "pw": 2}, {"dw": 3}, {"w": 0}, {"ttl": -1}, {"sloppy": 1}, {"timeout": 0}):
            with pytest.raises(leafdb.ClientMisuse):
                await raw.put("k", b"", after=BLIND, **options)
        wrong: list[dict[str, Any]] = [{"timeout": 1e9}, {"timeout": "5"}, {"after": None}, {"after": b"ctx"}]
        for each in wrong:
            with pytest.raises(leafdb.ClientMisuse):
                await raw.delete("k", **{"after": BLIND, **each})
        for key in ("", b"", ("p", ""), 5, None, "x" * 5_000, ("a", "b", "c")):
            with pytest.raises(leafdb.ClientMisuse):
                await raw.get(key)
        assert len(cluster.asked(MessageType.GET)) + len(cluster.asked(MessageType.PUT)) == sent


async def a_bucket_that_cannot_work_is_refused_before_anything_is_sent(cluster: FakeCluster) -> None:
    async with leafdb.connect_async(cluster.url) as db:
        create: Any = db.create_bucket
        for options in ({"r": 4}, {"w": 1, "pw": 2}, {"n": 0}, {"n": 17}, {"n": "3"}, {"r": 0}, {"ttl": 0}):
            with pytest.raises(leafdb.ClientMisuse):
                await create("b", **options)
        for name in ("", "x" * 129, "a b", 5):
            with pytest.raises(leafdb.ClientMisuse):
                await create(name)
        with pytest.raises(leafdb.ConfigError, match="siblings, lww"):
            await create("b", conflict="counter")
        with pytest.raises(leafdb.ConfigError, match="always, periodic"):
            await create("b", durability="never")
        assert not cluster.node.log


async def the_cluster_answers_for_itself(cluster: FakeCluster) -> None:
    async with leafdb.connect_async(cluster.url) as db:
        assert (await db.ping()).name == "node-1"
        status = await db.status()
        assert (status.cluster, status.healthy, status.problems) == ("fake", True, ())
        assert await db.outcome(b"0" * 16) == "unknown"
        with pytest.raises(leafdb.ClientMisuse):
            await db.outcome(b"short")
        assert (await db.admin("ping"))["epoch"] == 1
        with pytest.raises(NotApplied):
            await db.admin("no.such.verb", {"a": 1}, changes=True)


async def options_reach_the_node(cluster: FakeCluster) -> None:
    cluster.create("b")
    async with leafdb.connect_async(cluster.url, timeout=2.0) as db:
        raw = db.bucket("b")
        await raw.get("k", r="all", pr=0, sloppy=True, local=True)
        await raw.put(
            "k", b"", after=BLIND, w="quorum", pw=1, dw=2, sloppy=False, ttl=0.5, timeout=timedelta(seconds=9)
        )
    get = decode_get(cluster.asked(MessageType.GET)[0].body)
    assert (get.r, get.pr, get.flags) == (255, 253, FLAG_SLOPPY | FLAG_LOCAL)
    assert 1_500 < get.deadline_ms <= 2_000
    put = decode_put(cluster.asked(MessageType.PUT)[0].body)
    assert (put.w, put.pw, put.dw, put.ttl_ms) == (254, 1, 2, 500)
    assert put.flags & FLAG_STRICT
    assert 8_000 < put.deadline_ms <= 9_000


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
        cluster.node.script(MessageType.PUT, refuse(unknown))
        with pytest.raises(OutcomeUnknown) as cut:
            await raw.put("k", b"", after=BLIND)
        assert (cut.value.acks, cut.value.required, cut.value.replicas) == (1, 2, ("node-3",))
        assert cut.value.op_id == decode_put(cluster.asked(MessageType.PUT)[0].body).op_id
        assert isinstance(cut.value, TimeoutError)
        assert len(cluster.asked(MessageType.PUT)) == 1
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


async def a_local_read_is_one_node_s_word(cluster: FakeCluster) -> None:
    cluster.create("b")
    async with leafdb.connect_async(cluster.url, routing="listed") as db:
        cluster.node.script(MessageType.GET, refuse(NotEnoughReplicas("incomplete", alive=0, required=1)))
        with pytest.raises(NotEnoughReplicas):
            await db.bucket("b").get("k", local=True)
        assert len(cluster.asked(MessageType.GET)) == 1
        assert isinstance(await db.bucket("b").get("k", local=True), Missing)


async def a_read_survives_its_connection_and_a_write_says_unknown(cluster: FakeCluster) -> None:
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        raw = db.bucket("b")
        await raw.put("k", b"1", after=BLIND)
        cluster.node.script(MessageType.GET, hang_up, hang_up)
        assert isinstance(await raw.get("k"), Found)
        cluster.node.script(MessageType.PUT, carry_out_and_hang_up)
        with pytest.raises(OutcomeUnknown) as unknown:
            await raw.put("k", b"2", after=BLIND)
        assert (unknown.value.acks, unknown.value.required, len(unknown.value.op_id)) == (0, 2, 16)
        assert len(cluster.asked(MessageType.PUT)) == 2
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
        assert isinstance(await raw.get("k", timeout=1.0), Missing)
        assert len(second.asked(MessageType.GET)) == 1


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


async def values_pass_through_codecs_of_any_make(cluster: FakeCluster) -> None:
    cluster.create("b")

    class Reversed:
        def encode(self, value: str, /) -> bytes:
            return value[::-1].encode()

        def decode(self, data: bytes, /) -> str:
            if data == b"bad":
                raise ZeroDivisionError
            return data.decode()[::-1]

    async with leafdb.connect_async(cluster.url) as db:
        words = db.bucket("b", codec=Reversed())
        await words.put("k", "tea", after=BLIND)
        answer = await words.get("k")
        assert isinstance(answer, Found)
        assert answer.value == "tea"
        await db.bucket("b").put("bad", b"bad", after=BLIND)
        with pytest.raises(leafdb.DataError):
            await words.get("bad")
        with pytest.raises(leafdb.DataError):
            await words.put("k", 5, after=BLIND)  # type: ignore[arg-type]  # what the test is about
        handle: Any = db.bucket
        with pytest.raises(leafdb.ClientMisuse):
            handle("b", codec=leafdb.Raw)("x")
