"""Calls that take or give something else must not type-check. How this file is read: `conflicts.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

import leafdb
from leafdb import BLIND, Conflict, Found, Missing


@dataclass
class Cart:
    """A value."""

    items: list[str]


class Backwards:
    """No codec: it makes text of bytes."""

    def encode(self, value: bytes, /) -> str:
        """The wrong way round."""
        return value.decode()

    def decode(self, data: str, /) -> bytes:
        """The wrong way round."""
        return data.encode()


def options(db: leafdb.Client) -> None:
    """What a call may be asked."""
    raw = db.bucket("b")
    raw.get("k", timeout="5s")  # type: ignore[arg-type]  # seconds or a timedelta
    raw.get("k", w=2)  # type: ignore[call-arg]  # w is a write's
    raw.get("k", local=1)  # type: ignore[arg-type]  # True or False
    raw.get("k", r=1.5)  # type: ignore[arg-type]  # a whole number
    raw.put("k", b"v", after=BLIND, r=2)  # type: ignore[call-arg]  # r is a read's
    raw.put("k", b"v", after=BLIND, ttl="1h")  # type: ignore[arg-type]  # seconds or a timedelta
    raw.put("k", b"v", after=BLIND, w="most")  # type: ignore[arg-type]  # a number, "quorum" or "all"
    raw.put("k", b"v", after=BLIND, sloppy="no")  # type: ignore[arg-type]  # True or False
    raw.put("k", None, after=BLIND)  # type: ignore[arg-type]  # None is not stored
    raw.put(None, b"v", after=BLIND)  # type: ignore[arg-type]  # a key is text, bytes or a pair
    raw.delete("k", after=BLIND, ttl=5)  # type: ignore[call-arg]  # a deletion does not expire
    raw.range(("a", "b"))  # type: ignore[arg-type]  # the partition key alone
    raw.range("a", start=1)  # type: ignore[arg-type]  # a sort key is text or bytes
    raw.scan(cursor="start")  # type: ignore[arg-type]  # what .cursor gave
    raw.put_many([("k", b"v")])  # type: ignore[list-item]  # leafdb.Put(...)
    raw.get_many("k", "l")  # type: ignore[arg-type, call-arg]  # one iterable of keys
    with db.deadline("1s"):  # type: ignore[arg-type]  # seconds or a timedelta
        raw.get("k")


def handles(db: leafdb.Client) -> None:
    """Each kind of handle has its own calls."""
    raw = db.bucket("b")
    raw.update("k", lambda value: value)  # type: ignore[attr-defined]  # without a merge there is nothing to update
    raw.read("k")  # type: ignore[attr-defined]  # get shows the context already
    db.lww_bucket("l", merge=max)  # type: ignore[call-overload]  # nothing to merge
    db.lww_bucket("l").update("k", lambda value: value)  # type: ignore[attr-defined]  # it could lose writes
    db.lww_bucket("l").delete("k", after=BLIND)  # type: ignore[call-arg]  # the lossy kind has no contexts
    lww: str = db.lww_bucket("l").get("k")  # type: ignore[assignment]  # bytes, or nothing
    print(db.bucket("b", merge=max).get("k").context)  # type: ignore[union-attr]  # read shows the context
    print(raw.get_explained("k").value)  # type: ignore[attr-defined]  # in .answer
    print(raw.put("k", b"v", after=BLIND).value)  # type: ignore[attr-defined]  # what was written you know
    for item in raw:  # type: ignore[attr-defined]  # scan()
        print(item, lww)


def codecs(db: leafdb.Client) -> None:
    """A codec is an instance, made for a type."""
    db.bucket("b", codec=Backwards())  # type: ignore[call-overload]  # no codec
    db.bucket("b", codec=leafdb.JSON(Cart)).put("k", {"items": []}, after=BLIND)  # type: ignore[arg-type]  # a Cart
    leafdb.JSON("Cart")  # type: ignore[arg-type]  # the class itself
    leafdb.CBOR(Cart([]))  # type: ignore[arg-type]  # the class itself
    leafdb.Msgspec("Cart")  # type: ignore[arg-type]  # the class itself
    leafdb.Pydantic(Cart)  # type: ignore[type-var]  # no pydantic model
    leafdb.Text(str)  # type: ignore[call-arg]  # of text there is one kind
    wrong: leafdb.Codec[str] = leafdb.Raw()  # type: ignore[assignment]  # bytes
    print(wrong)


def clusters(db: leafdb.Client) -> None:
    """Buckets, connections, sessions, outcomes."""
    db.create_bucket("b", n="3")  # type: ignore[arg-type]  # a number
    db.create_bucket("b", durability="never")  # type: ignore[arg-type]  # always or periodic
    db.create_bucket("b", ttl="1d")  # type: ignore[arg-type]  # seconds or a timedelta
    db.observe(b"token")  # type: ignore[arg-type]  # SessionToken.from_bytes(...)
    db.session_token = leafdb.SessionToken(b"")  # type: ignore[misc]  # other.observe(token)
    print(db.outcome("id").state)  # type: ignore[arg-type]  # bytes
    print(db.outcome(b"id").state == "not_applied")  # type: ignore[comparison-overlap]  # that is never said
    leafdb.connect(["leafdb://a", "leafdb://b"])  # type: ignore[arg-type]  # one URL with many addresses
    leafdb.connect("leafdb://a", retries=5)  # type: ignore[call-arg]  # the client knows what is safe to repeat
    leafdb.connect("leafdb://a", timeout=None)  # type: ignore[arg-type]  # every call ends
    leafdb.open(5)  # type: ignore[arg-type]  # a path


def results(answer: Found[bytes] | Missing | Conflict[bytes], context: leafdb.Context) -> None:
    """Results are values; every case is to be met."""
    match answer:
        case Found(value):
            answer.value = value + b"!"  # type: ignore[misc]  # nothing changes a result
        case Missing():
            print(answer.context < context)  # type: ignore[operator]  # contexts have no order
        case _:
            assert_never(answer)  # type: ignore[arg-type]  # there may be siblings


def reads(raw: leafdb.SiblingBucket[bytes]) -> bytes:
    """One value of many kinds of answer."""
    answer = raw.get("k")
    if isinstance(answer, Conflict):
        return answer.siblings  # type: ignore[return-value]  # many are not one
    return answer.value  # type: ignore[union-attr]  # nothing may be there


def errors() -> None:
    """Each error has what is known in its case."""
    try:
        pass
    except leafdb.NotApplied as refused:
        print(refused.op_id)  # type: ignore[attr-defined]  # nothing was applied under any id
    except leafdb.OutcomeUnknown as unknown:
        print(unknown.reason)  # type: ignore[attr-defined]  # a reason would be knowledge
    except leafdb.DeadlineExceeded as late:
        print(late.acks)  # type: ignore[attr-defined]  # reads have none
    except leafdb.Timeout:  # type: ignore[attr-defined]  # there is no such thing: what is known has a name
        pass


async def loops(db: leafdb.AsyncClient, other: leafdb.Client) -> None:
    """Awaited, or not."""
    raw = db.bucket("b")
    (await db.bucket("b")).get("k")  # type: ignore[misc]  # a handle is not awaited
    written = raw.put("k", b"v", after=BLIND)
    print(written.context)  # type: ignore[attr-defined]  # a coroutine
    print(next(raw.range("p")))  # type: ignore[call-overload]  # anext
    await other.bucket("b").get("k")  # type: ignore[misc]  # the blocking client answers at once
    async with other:  # type: ignore[attr-defined]  # with
        pass
    async for item in other.bucket("b").scan():  # type: ignore[attr-defined]  # for
        print(item)
    with leafdb.connect_async("leafdb://a"):  # type: ignore[attr-defined]  # async with
        pass
