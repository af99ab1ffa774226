"""Promise: what the hardened decoder lets through is one small item of plain types; everything else is DecodeError."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from leafdb.codec import cbor
from leafdb.limits import CBOR_DEPTH_MAX, CBOR_ITEMS_MAX

PLAIN: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    (1 << 64) - 1,
    -(1 << 63),
    1.5,
    math.inf,
    "",
    "grün 🌿",
    b"",
    bytes(range(256)),
    [],
    [1, [2, [3]]],
    {},
    {"a": 1, "b": {"c": [None, b"\xf7\xe0"]}, "z": "\u0000"},
    {b"raw": 1},
]


def nested(depth: int) -> bytes:
    return b"\x81" * depth + b"\x01"


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_plain_values_survive_the_round_trip(value: Any) -> None:
    assert cbor.loads(cbor.dumps(value)) == value


def test_encoding_is_canonical() -> None:
    forward = {"b": 1, "a": 2, "aa": {"y": 1, "x": 2}}
    backward = {"aa": {"x": 2, "y": 1}, "a": 2, "b": 1}
    assert cbor.dumps(forward) == cbor.dumps(backward)
    assert cbor.dumps({"b": 1, "a": 24}).hex() == "a2616118186162" + "01"


def test_what_cbor_cannot_carry_is_an_encode_error() -> None:
    with pytest.raises(cbor.EncodeError):
        cbor.dumps({"x": object()})


@pytest.mark.parametrize("item", ["01", "80", "8201c24101", "a0", "40", "60", "6161", "f5", "820102", "1a00000001"])
def test_every_tag_is_refused(item: str) -> None:
    tags = [*range(300), 1004, 1040, 43000, 55799, 65535, 1 << 20, (1 << 64) - 1]
    for tag in tags:
        head = bytes((0xC0 + tag,)) if tag < 24 else bytes((0xDB,)) + tag.to_bytes(8, "big")
        for data in (head + bytes.fromhex(item), b"\x81" + head + bytes.fromhex(item)):
            with pytest.raises(cbor.DecodeError):
                cbor.loads(data)


@pytest.mark.parametrize(
    "data",
    [
        "",
        "0000",
        "a0a0",
        "9fff",
        "bfff",
        "5f4101ff",
        "7f6161ff",
        "ff",
        "a2616101616102",
        "a10102",
        "a1f601",
        "a1820102f6",
        "f7",
        "e0",
        "f0",
        "f8ff",
        "f818",
        "81f7",
        "1c",
        "61ff",
        "18",
        "5b7fffffffffffffff",
        "9bffffffffffffffff",
        "bbffffffffffffffff",
        "7bffffffffffffffff",
    ],
)
def test_what_is_not_one_plain_item_is_refused(data: str) -> None:
    with pytest.raises(cbor.DecodeError):
        cbor.loads(bytes.fromhex(data))


def test_nesting_is_bounded() -> None:
    assert cbor.loads(nested(CBOR_DEPTH_MAX)) is not None
    for depth in (CBOR_DEPTH_MAX + 1, 500, 200_000):
        with pytest.raises(cbor.DecodeError):
            cbor.loads(nested(depth))


def test_items_are_bounded_before_they_are_built() -> None:
    fits = CBOR_ITEMS_MAX - 1
    assert len(cbor.loads(b"\x9a" + fits.to_bytes(4, "big") + b"\xa0" * fits)) == fits
    for head, item in ((b"\x9a", b"\xa0"), (b"\x9a", b"\x40"), (b"\xba", b"\x40\xa0")):
        count = CBOR_ITEMS_MAX
        with pytest.raises(cbor.DecodeError, match="items"):
            cbor.loads(head + count.to_bytes(4, "big") + item * count)


def test_large_items_pass() -> None:
    value = {"blob": b"\xf7" * 300_000, "more": ["x" * 70_000, 1.5, 2.0**100, -5, True]}
    assert cbor.loads(cbor.dumps(value)) == value


def test_random_and_mutated_bytes_never_raise_anything_but_decode_error() -> None:
    rng = random.Random(4)
    seeds = [cbor.dumps(value) for value in PLAIN] + [cbor.dumps(PLAIN[:12])]
    for _ in range(4_000):
        data = bytearray(rng.choice(seeds) if rng.random() < 0.7 else rng.randbytes(rng.randrange(24)))
        for _ in range(rng.randrange(4)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            value = cbor.loads(bytes(data[: rng.randrange(len(data) + 1)]))
        except cbor.DecodeError:
            continue
        assert plain(value)


def test_the_walk_agrees_with_the_library() -> None:
    # Padding with a byte string over the item budget forces the walk that small inputs skip.
    rng = random.Random(5)
    padding = cbor.dumps(bytes(CBOR_ITEMS_MAX))
    for _ in range(300):
        data = rng.choice([cbor.dumps(value) for value in PLAIN]) if rng.random() < 0.5 else rng.randbytes(6)
        small = outcome(b"\x82" + data + b"\x40")
        large = outcome(b"\x82" + data + padding)
        assert small == large


def outcome(data: bytes) -> Any:
    try:
        value = cbor.loads(data)
    except cbor.DecodeError:
        return "refused"
    return repr(value[0])


def plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(plain(item) for item in value)
    if isinstance(value, dict):
        return all(type(key) in (str, bytes) and plain(item) for key, item in value.items())
    return value is None or type(value) in (bool, int, float, str, bytes)
