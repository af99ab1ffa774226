"""The other half: what the types must allow, with the exact types that come out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import assert_never, assert_type

from pydantic import BaseModel

import leafdb
from leafdb import BLIND, Conflict, Failed, Found, Item, Missing, Sibling, Written


@dataclass
class Cart:
    """A value."""

    items: list[str] = field(default_factory=list)


def merge_carts(one: Cart, other: Cart) -> Cart:
    """A merge."""
    return Cart([*one.items, *other.items])


def every_case(db: leafdb.Client) -> bytes:
    """`match` covers an answer with three cases."""
    answer = db.bucket("b").get(("p", b"s"), r="all", pr=0, local=True)
    match answer:
        case Missing(context):
            assert_type(context, leafdb.Context)
            return b""
        case Found(value, _):
            assert_type(value, bytes)
            return value
        case Conflict(siblings, _):
            assert_type(siblings, tuple[Sibling[bytes], ...])
            return siblings[0].value
        case _:
            assert_never(answer)


def handles(db: leafdb.Client) -> None:
    """Overloads give each handle its type."""
    codec = leafdb.JSON(Cart)
    assert_type(db.bucket("b"), leafdb.SiblingBucket[bytes])
    assert_type(db.bucket("b", codec=codec), leafdb.SiblingBucket[Cart])
    assert_type(db.bucket("b", merge=max), leafdb.Bucket[bytes])
    carts = db.bucket("b", codec=codec, merge=merge_carts)
    assert_type(carts, leafdb.Bucket[Cart])
    assert_type(carts.get("k"), Cart | None)
    assert_type(carts.read("k"), Found[Cart] | Missing)
    assert_type(carts.update("k", lambda cart: cart, default=Cart()), Cart)
    assert_type(carts.update("k", lambda cart: cart or Cart()), Cart)
    assert_type(carts.put("k", Cart(), after=BLIND, ttl=5.0), Written)
    assert_type(carts.put_explained("k", Cart(), after=BLIND).answer, Written)
    assert_type(carts.get_explained("k").answer, Cart | None)
    assert_type(carts.get_many(["k", b"k", ("p", "s")]), list[Found[Cart] | Missing | Failed])
    assert_type(db.lww_bucket("l"), leafdb.LwwBucket[bytes])
    assert_type(db.lww_bucket("l", codec=leafdb.Text()).get("k"), str | None)
    for item in carts.scan():
        assert_type(item, Item[Found[Cart] | Missing])
    for pair in db.bucket("b").range("p", start="a"):
        assert_type(pair.answer, Found[bytes] | Missing | Conflict[bytes])


class Profile(BaseModel):
    """A model."""

    name: str


def models(db: leafdb.Client) -> None:
    """Codecs of models give their handles the model's type."""
    profiles = db.bucket("b", codec=leafdb.Pydantic(Profile))
    assert_type(profiles, leafdb.SiblingBucket[Profile])
    assert_type(db.lww_bucket("l", codec=leafdb.Msgspec(Cart)).get("k"), Cart | None)
    codec: leafdb.Codec[Profile] = leafdb.Pydantic(Profile)
    assert_type(codec.decode(b""), Profile)


async def the_same_awaited(db: leafdb.AsyncClient) -> None:
    """The asynchronous twins."""
    carts = db.bucket("b", codec=leafdb.CBOR(Cart), merge=merge_carts)
    assert_type(await carts.get("k"), Cart | None)
    async for item in carts.scan(limit=5):
        assert_type(item.key, bytes | tuple[bytes, bytes])
    with db.deadline(1.0):
        assert_type(await db.ping(), leafdb.Pong)
