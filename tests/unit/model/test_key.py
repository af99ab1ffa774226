"""Promise: a key has one encoding, which keeps order, and a plain key never equals a pair."""

from __future__ import annotations

import itertools
import random

import pytest

from leafdb.errors import ClientMisuse
from leafdb.limits import KEY_BYTES_MAX
from leafdb.model.key import ENCODED_KEY_BYTES_MAX, decode_key, encode_key, partition_part

PARTS = [b"\x00", b"\x00\x00", b"\x00\x01", b"\x00\xff", b"\x01", b"a", b"a\x00", b"a\x00\x01b", b"ab", b"b", b"\xff"]


def test_known_encodings() -> None:
    assert encode_key("ab").hex() == "61620001"
    assert encode_key(b"a\x00b").hex() == "6100ff620001"
    assert encode_key(("ab", b"c")).hex() == "61620001630001"


def test_text_is_its_utf8_bytes() -> None:
    assert encode_key("grün") == encode_key("grün".encode())
    assert encode_key(("a", "ü")) == encode_key((b"a", "ü".encode()))


def test_round_trip() -> None:
    for part in PARTS:
        assert decode_key(encode_key(part)) == part
    for pair in itertools.product(PARTS, PARTS):
        assert decode_key(encode_key(pair)) == pair


def test_order_is_kept_and_no_two_keys_collide() -> None:
    keys: list[bytes | tuple[bytes, bytes]] = [*PARTS, *itertools.product(PARTS, PARTS)]
    by_parts = sorted(keys, key=lambda key: key if isinstance(key, tuple) else (key,))
    encoded = [encode_key(key) for key in by_parts]
    assert encoded == sorted(encoded)
    assert len(set(encoded)) == len(keys)


def test_self_delimiting() -> None:
    # Nothing that follows an encoded pair can make it the encoding of another key.
    for first, second in itertools.permutations(itertools.product(PARTS, PARTS), 2):
        assert not encode_key(second).startswith(encode_key(first))


def test_partition_part_is_shared_by_a_partitions_rows_alone() -> None:
    for part, sort in itertools.product(PARTS, PARTS):
        assert partition_part(encode_key((part, sort))) == encode_key(part)
        assert partition_part(encode_key(part)) == encode_key(part)


@pytest.mark.parametrize(
    "key",
    [1, None, 1.5, True, ["a"], bytearray(b"a"), ("a",), ("a", "b", "c"), ("a", 1), (None, "a"), ("a", ("b", "c"))],
)
def test_wrong_types_are_misuse(key: object) -> None:
    with pytest.raises(ClientMisuse, match="key"):
        encode_key(key)  # type: ignore[arg-type]  # that is what is tested


@pytest.mark.parametrize("key", ["", b"", ("", "a"), ("a", ""), ("", "")])
def test_empty_parts_are_misuse(key: str | bytes | tuple[str, str]) -> None:
    with pytest.raises(ClientMisuse, match="at least one byte"):
        encode_key(key)


def test_lone_surrogates_are_misuse() -> None:
    with pytest.raises(ClientMisuse, match="surrogate"):
        encode_key("a\ud800")


def test_length_is_bounded() -> None:
    assert len(encode_key(bytes(KEY_BYTES_MAX))) <= ENCODED_KEY_BYTES_MAX
    assert decode_key(encode_key((b"a", b"b" * (KEY_BYTES_MAX - 1))))
    for key in (b"a" * (KEY_BYTES_MAX + 1), (b"a", b"b" * KEY_BYTES_MAX)):
        with pytest.raises(ClientMisuse, match="over"):
            encode_key(key)
    for encoded in (b"a" * (KEY_BYTES_MAX + 1) + b"\x00\x01", b"a\x00\x01" + b"b" * KEY_BYTES_MAX + b"\x00\x01"):
        with pytest.raises(ValueError, match="too long"):
            decode_key(encoded)


@pytest.mark.parametrize(
    "encoded",
    [
        "",
        "61",
        "6100",
        "0001",
        "00010001",
        "610001" + "0001",
        "610001" + "62",
        "61000162000163",
        "6100ff",
        "6100620001",
    ],
)
def test_malformed_encodings_are_refused(encoded: str) -> None:
    with pytest.raises(ValueError):
        decode_key(bytes.fromhex(encoded))


@pytest.mark.parametrize("encoded", ["", "61", "0001", "6100ff"])
def test_partition_part_of_malformed_encodings_is_refused(encoded: str) -> None:
    with pytest.raises(ValueError, match="malformed"):
        partition_part(bytes.fromhex(encoded))


def test_whatever_decodes_encodes_back() -> None:
    rng = random.Random(6)
    accepted = 0
    for _ in range(20_000):
        data = bytes(rng.choice((0, 1, 0x61, 0xFF)) for _ in range(rng.randrange(9)))
        try:
            key = decode_key(data)
        except ValueError:
            continue
        accepted += 1
        assert encode_key(key) == data
    assert accepted > 100
