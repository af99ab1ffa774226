"""Promise: bucket properties cross the wire whole, and an impossible combination names everything wrong with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from leafdb.codec import cbor
from leafdb.model.bucket import (
    COUNT_ALL,
    COUNT_QUORUM,
    BucketProperties,
    check,
    check_name,
    count_from_name,
    count_name,
    count_of,
)
from leafdb.types import BucketId, Conflict, Durability

CARTS = BucketProperties(id=BucketId(300), name="carts", generation=4)
OTHER = BucketProperties(
    id=BucketId(256),
    name="grün",
    generation=1,
    n=5,
    r=1,
    w=COUNT_ALL,
    pr=1,
    pw=COUNT_QUORUM,
    dw=2,
    conflict=Conflict.LWW,
    durability=Durability.PERIODIC,
    ttl_ms=60_000,
    sloppy=False,
)


@pytest.mark.parametrize("properties", [CARTS, OTHER], ids=lambda p: p.name)
def test_wire_round_trip(properties: BucketProperties) -> None:
    assert check(properties) == []
    assert BucketProperties.from_wire(cbor.loads(cbor.dumps(properties.to_wire()))) == properties


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"id": 255}, "bucket id"),
        ({"id": 1 << 32}, "bucket id"),
        ({"n": 0}, "n=0"),
        ({"n": 17}, "n=17"),
        ({"r": 4}, "r=4 is above n=3"),
        ({"w": 4}, "w=4 is above n=3"),
        ({"r": 0}, "r must be"),
        ({"w": 0}, "w must be"),
        ({"pw": 3}, "pw=3 is above w=2"),
        ({"pr": COUNT_ALL}, "pr=3 is above r=2"),
        ({"dw": COUNT_QUORUM, "w": 1}, "dw=2 is above w=1"),
        ({"ttl_ms": -1}, "ttl"),
        ({"name": ""}, "name"),
    ],
)
def test_impossible_properties_are_named(changes: dict[str, Any], problem: str) -> None:
    found = check(replace(CARTS, **changes))
    assert len(found) == 1
    assert problem in found[0]


def test_all_problems_are_listed_at_once() -> None:
    assert len(check(replace(CARTS, id=BucketId(1), name="", r=9, w=0, pr=2, ttl_ms=-5))) == 5


@pytest.mark.parametrize("name", ["", "a b", "a/b", "-x", "a\n", "\x00", "a\ud800", "x" * 129, "ü" * 65])
def test_bad_names(name: str) -> None:
    assert check_name(name)


@pytest.mark.parametrize("name", ["a", "carts", "_x", "a-b.c:1", "grün", "x" * 128])
def test_good_names(name: str) -> None:
    assert check_name(name) == []


def test_counts() -> None:
    assert [count_of(COUNT_QUORUM, n) for n in range(1, 6)] == [1, 2, 2, 3, 3]
    assert count_of(COUNT_ALL, 4) == 4
    assert count_of(2, 4) == 2
    names: list[Any] = [0, 1, 16, "quorum", "all"]
    for count in names:
        assert count_name(count_from_name(count)) == count
    wrong: list[Any] = [-1, 17, True, 1.0, "most", None]
    for bad in wrong:
        with pytest.raises(ValueError, match="count"):
            count_from_name(bad)


@pytest.mark.parametrize("field", list(CARTS.to_wire()))
def test_every_field_is_checked_when_read(field: str) -> None:
    fields = CARTS.to_wire()
    wrong: list[Any] = [None, "x\n", -1, 1.5, [], 1 << 70]
    for bad in wrong:
        with pytest.raises(ValueError):
            BucketProperties.from_wire({**fields, field: bad})
    del fields[field]
    with pytest.raises(ValueError, match=field):
        BucketProperties.from_wire(fields)


def test_counts_between_the_literal_and_the_named_are_refused() -> None:
    for bad in (17, 200, 253, 256):
        with pytest.raises(ValueError, match="r"):
            BucketProperties.from_wire({**CARTS.to_wire(), "r": bad})
