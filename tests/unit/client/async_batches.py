"""What both clients promise about many keys, buckets and the cluster. How stories are run: `async_values.py`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import leafdb
from leafdb import BLIND, Failed, Found, Missing, NotApplied, Put, Reason
from leafdb.errors import Overloaded
from leafdb.wire.registry import MessageType
from leafdb.wire.requests import FLAG_LOCAL, FLAG_SLOPPY, FLAG_STRICT, decode_get, decode_put
from unit.client.fake_node import FakeCluster, refuse

OVERLOADED = Overloaded("busy", retry_after=0.0)
DRAINING = NotApplied("draining", reason=Reason.DRAINING)


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


async def an_outcome_says_what_was_written_and_leads_on_from_there(cluster: FakeCluster) -> None:
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        raw = db.bucket("b")
        written = await raw.put("k", b"1", after=leafdb.BLIND)
        found = await db.outcome(written.op_id)
        assert (found.state, found.bucket, found.key) == ("applied", "b", b"k")
        assert (found.replicas, found.replaced, found.unasked) == (("node-1",), True, {})
        assert found.context is not None
        await raw.put("k", b"2", after=found.context)
        with pytest.raises(leafdb.ContextMismatch):
            await raw.put("other", b"2", after=found.context)


async def the_cluster_answers_for_itself(cluster: FakeCluster) -> None:
    async with leafdb.connect_async(cluster.url) as db:
        assert (await db.ping()).name == "node-1"
        status = await db.status()
        assert (status.cluster, status.healthy, status.problems) == ("fake", True, ())
        nobody = await db.outcome(b"0" * 16)
        assert nobody == leafdb.Outcome("unknown", unasked={"node-9": "away"})
        for wrong in (b"short", bytes(16)):
            with pytest.raises(leafdb.ClientMisuse):
                await db.outcome(wrong)
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
