"""Promise: a block comes back as it went in, and a hostile one costs no more memory than the caller allowed."""

from __future__ import annotations

import contextlib
import random

import pytest

from leafdb.codec.compression import compress, decompress
from leafdb.codec.varint import encode_varint


@pytest.mark.parametrize("data", [b"", b"x", b"leaf" * 4_000, random.Random(2).randbytes(5_000)])
def test_round_trip(data: bytes) -> None:
    assert decompress(compress(data), len(data)) == data


def test_repetition_shrinks() -> None:
    assert len(compress(b"leaf" * 1_000)) < 100


def test_a_size_over_the_bound_is_refused_before_it_is_allocated() -> None:
    with pytest.raises(ValueError, match="over 10"):
        decompress(encode_varint(1 << 62) + b"\x00", 10)
    with pytest.raises(ValueError, match="over 3"):
        decompress(compress(b"four"), 3)


def test_a_lying_header_is_refused() -> None:
    block = compress(b"leaf" * 100)
    body = block[len(encode_varint(400)) :]
    for size in (0, 1, 399, 401, 4_000):
        with pytest.raises(ValueError, match="lz4"):
            decompress(encode_varint(size) + body, 1 << 20)


def test_random_and_mutated_blocks_never_raise_anything_but_value_error() -> None:
    rng = random.Random(3)
    good = bytearray(compress(b"the quick brown leaf " * 40))
    for _ in range(2_000):
        if rng.random() < 0.5:
            data = rng.randbytes(rng.randrange(40))
        else:
            mutated = bytearray(good)
            for _ in range(rng.randrange(1, 4)):
                mutated[rng.randrange(len(mutated))] = rng.randrange(256)
            data = bytes(mutated[: rng.randrange(len(mutated) + 1)])
        with contextlib.suppress(ValueError):
            assert len(decompress(data, 2_000)) <= 2_000
