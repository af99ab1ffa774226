"""Code that forgets concurrent writes must not type-check. Every line that ends in an ignore is wrong on purpose, is
the error it names, and says why: `test_face.py` takes the ignores away and looks whether mypy agrees."""

from __future__ import annotations

from dataclasses import dataclass

import leafdb
from leafdb import BLIND, Conflict, Found, Missing


@dataclass
class Cart:
    """A value."""

    items: list[str]


def merge_carts(one: Cart, other: Cart) -> Cart:
    """A merge."""
    return Cart([*one.items, *other.items])


def merge_bytes(one: bytes, other: bytes) -> bytes:
    """A merge of another type."""
    return max(one, other)


def forgets_siblings(db: leafdb.Client) -> bytes:
    """A SiblingBucket answers three ways, and only one of them has a value."""
    raw = db.bucket("b")
    answer = raw.get("k")
    print(answer.value)  # type: ignore[union-attr]  # Missing and Conflict have none
    if isinstance(answer, Conflict):
        print(answer.value)  # type: ignore[attr-defined]  # a conflict has siblings
        print(answer.siblings[0].context)  # type: ignore[attr-defined]  # the context covers all of them
    if isinstance(answer, Missing):
        print(answer.value)  # type: ignore[attr-defined]  # nothing is there
    if isinstance(answer, Found):
        return answer.value
    return answer.context  # type: ignore[return-value]  # a context is not the value


def forgets_the_context(db: leafdb.Client) -> None:
    """Writes say what they have seen."""
    raw = db.bucket("b")
    raw.put("k", b"v")  # type: ignore[call-arg]  # after= is required
    raw.delete("k")  # type: ignore[call-arg]  # after= is required
    raw.put("k", b"v", after=None)  # type: ignore[arg-type]  # None is not BLIND
    raw.put("k", b"v", after=b"context")  # type: ignore[arg-type]  # bytes are not a context
    raw.put("k", b"v", BLIND)  # type: ignore[call-arg]  # by keyword, so that it can be searched for
    db.lww_bucket("l").put("k", b"v", after=BLIND)  # type: ignore[call-arg]  # the lossy kind has no contexts
    db.bucket("b", merge=merge_bytes).put("k", b"v")  # type: ignore[call-arg]  # merging readers still say what they saw


def mixes_up_types(db: leafdb.Client) -> None:
    """The codec says what goes in and comes out."""
    carts = db.bucket("carts", codec=leafdb.JSON(Cart), merge=merge_carts)
    carts.put("k", b"v", after=BLIND)  # type: ignore[arg-type]  # a Cart
    wrong: bytes | None = carts.get("k")  # type: ignore[assignment]  # a Cart comes out
    print(carts.get("k").items)  # type: ignore[union-attr]  # or nothing
    carts.update("k", lambda cart: Cart(cart.items))  # type: ignore[union-attr]  # without a default it may be None
    carts.update("k", lambda cart: b"v", default=Cart([]))  # type: ignore[arg-type, return-value]  # a Cart goes back
    db.bucket("b", codec=leafdb.JSON(Cart), merge=merge_bytes)  # type: ignore[arg-type]  # a merge of other values
    db.bucket("b", merge=merge_carts)  # type: ignore[arg-type]  # without a codec values are bytes
    db.bucket("b", codec=leafdb.Text).get("k")  # type: ignore[call-overload]  # a codec is an instance
    db.bucket("b", leafdb.Text())  # type: ignore[call-overload]  # by keyword
    db.bucket("b").get(5)  # type: ignore[arg-type]  # a key is text, bytes or a pair
    db.bucket("b").get(("a", "b", "c"))  # type: ignore[arg-type]  # a pair
    db.bucket("b").get("k", r="most")  # type: ignore[arg-type]  # a number, "quorum" or "all"
    db.bucket("b").scan(page_size=None)  # type: ignore[arg-type]  # a number
    db.create_bucket("b", conflict="counter")  # type: ignore[arg-type]  # not in this version
    leafdb.connect("leafdb://a", routing="any")  # type: ignore[arg-type]  # ring or listed
    leafdb.connect("leafdb://a", tls=object())  # type: ignore[arg-type]  # a leafdb.TLS
    print(leafdb.no_such_name)  # type: ignore[attr-defined]  # lazy names are still checked
    print(wrong)


def batches_may_fail(db: leafdb.Client) -> None:
    """Each place of a batch is an answer or a failure."""
    raw = db.bucket("b")
    for answer in raw.get_many(["k"]):
        print(answer.context)  # type: ignore[union-attr]  # or Failed
    for written in raw.put_many([leafdb.Put("k", b"v", BLIND)]):
        print(written.op_id)  # type: ignore[union-attr]  # or Failed
    raw.put_many([leafdb.Put("k", "text", BLIND)])  # type: ignore[arg-type]  # bytes


async def forgets_to_await(db: leafdb.AsyncClient) -> None:
    """The asynchronous client is awaited; its scans are iterated."""
    raw = db.bucket("b")
    print(raw.get("k").context)  # type: ignore[attr-defined]  # a coroutine
    for item in raw.scan():  # type: ignore[attr-defined]  # async for
        print(item)
    await raw.scan()  # type: ignore[misc]  # not awaitable
    with db:  # type: ignore[attr-defined]  # async with
        pass
