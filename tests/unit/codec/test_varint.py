"""Promise: one number, one encoding; anything else is refused with ValueError."""

from __future__ import annotations

import random

import pytest

from leafdb.codec.varint import VARINT_BYTES_MAX, decode_varint, encode_varint


@pytest.mark.parametrize(
    ("number", "encoded"),
    [(0, "00"), (1, "01"), (127, "7f"), (128, "8001"), (300, "ac02"), ((1 << 64) - 1, "ffffffffffffffffff01")],
)
def test_known_encodings(number: int, encoded: str) -> None:
    assert encode_varint(number).hex() == encoded
    assert decode_varint(bytes.fromhex(encoded), 0) == (number, len(encoded) // 2)


def test_every_width_survives_the_round_trip_at_any_offset() -> None:
    for bits in range(65):
        for number in {(1 << bits) - 1, (1 << bits) & ((1 << 64) - 1)}:
            encoded = encode_varint(number)
            assert len(encoded) <= VARINT_BYTES_MAX
            assert decode_varint(b"\x80" + encoded + b"\x80", 1) == (number, 1 + len(encoded))


@pytest.mark.parametrize("number", [-1, 1 << 64])
def test_numbers_outside_64_bits_are_refused(number: int) -> None:
    with pytest.raises(ValueError, match="unsigned"):
        encode_varint(number)


@pytest.mark.parametrize("encoded", ["", "80", "ffff", "8000", "ff00", "ff" * 9 + "02", "ff" * 10 + "01", "80" * 11])
def test_bad_encodings_are_refused(encoded: str) -> None:
    with pytest.raises(ValueError, match="varint"):
        decode_varint(bytes.fromhex(encoded), 0)


def test_bad_offsets_are_refused() -> None:
    for offset in (-1, 1, 2):
        with pytest.raises(ValueError, match="varint"):
            decode_varint(b"\x05", offset)


def test_whatever_decodes_encodes_back() -> None:
    rng = random.Random(1)
    for _ in range(2_000):
        data = rng.randbytes(rng.randrange(12))
        try:
            number, end = decode_varint(data, 0)
        except ValueError:
            continue
        assert encode_varint(number) == data[:end]
