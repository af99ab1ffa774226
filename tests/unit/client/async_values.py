"""What both clients promise about single values: siblings, contexts, merges, codecs.

Told once: a story is an async function of a `FakeCluster`; `test_stories.py` runs each under trio, under asyncio, and
as the blocking twin that tools/unasync.py makes of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

import pytest

import leafdb
from leafdb import BLIND, Conflict, Found, Missing, NotApplied, Put, Reason
from leafdb.errors import OutcomeUnknown, Overloaded
from leafdb.types import Conflict as Policy
from leafdb.wire.registry import MessageType
from unit.client.fake_node import FakeCluster, carry_out_and_hang_up, refuse

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
        cluster.node.script(MessageType.PUT, carry_out_and_hang_up, refuse(DRAINING))
        assert await carts.update("k", change, default=Cart()) == Cart(["tea", "tea"])
        assert len(seen) == 4, "what may have been applied is sent again, not made again"
        cluster.node.script(MessageType.PUT, *[carry_out_and_hang_up] * 4)
        with pytest.raises(OutcomeUnknown):
            await carts.update("k", change, default=Cart())
        assert len(seen) == 5
        cluster.node.script(MessageType.PUT, refuse(NotApplied("no", reason=Reason.READ_ONLY)))
        with pytest.raises(NotApplied):
            await carts.update("k", change, default=Cart())
        assert len(seen) == 6


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


async def explained_calls_answer_what_the_plain_ones_do_and_how(cluster: FakeCluster) -> None:
    async with leafdb.connect_async(cluster.url) as db:
        await db.create_bucket("s")
        await db.create_bucket("l", conflict="lww")
        siblings, merged = db.bucket("s"), db.bucket("s", codec=leafdb.Text(), merge=max)
        texts = db.lww_bucket("l", codec=leafdb.Text())
        written = await siblings.put_explained("k", b"one", after=BLIND)
        assert isinstance(written, leafdb.Explained)
        assert written.explanation.operation == "put"
        assert written.explanation.counted == ("node-1",)
        await merged.put_explained("k", "two", after=written.answer.context)
        await texts.put_explained("k", "three")
        found = await siblings.get_explained("k", r=1, timeout=1.0)
        assert found.answer == await siblings.get("k")
        assert str(found.explanation).startswith("get in b: answered by node-1 after 1.0 ms")
        assert (await merged.get_explained("k")).answer == await merged.get("k") == "two"
        assert (await merged.read_explained("k")).answer == await merged.read("k")
        assert (await texts.get_explained("k")).answer == await texts.get("k") == "three"
        assert (await texts.get_explained("none")).answer is None
        bad = db.bucket("s", codec=leafdb.JSON(int))
        with pytest.raises(leafdb.DataError) as unreadable:
            await bad.get_explained("k")
        assert unreadable.value.explanation is not None


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
