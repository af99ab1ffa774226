"""Blocks give back every entry, by key and as a whole, and nothing else."""

from __future__ import annotations

from random import Random

import pytest

from leafdb.limits import BLOCK_RESTART_INTERVAL
from leafdb.storage.block import ABSENT, Block, Columns, concatenate, encode_block, shared_bytes
from leafdb.storage.value_files import Place

WORKED_EXAMPLE = bytes.fromhex(
    "03000000 0a00000000000000 02 02 02 01"  # three entries, lowest sequence 10, widths of 2, tombstones among them
    "0600"  # the only group leaves out a prefix of 6 bytes
    "0000 0600 0700 0800"  # where keys end
    "0000 0200 0200 0500"  # where values end
    "0000 0500 0100"  # sequences above the lowest
    "00 01 00"  # the second entry is a tombstone
    "757365723161 31 62"  # user1a whole, then what the others have more
    "6869 627965"  # hi, bye
)


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 32, 33, 500])
@pytest.mark.parametrize("prefix", [b"", b"ab", b"a long shared prefix "])
def test_every_entry_is_found_and_no_other(count: int, prefix: bytes) -> None:
    rng = Random(count)
    keys = sorted({prefix + rng.randbytes(rng.randrange(5)) for _ in range(count)})
    sequences = [rng.randrange(1 << 20) for _ in keys]
    values = [None if rng.random() < 0.2 else rng.randbytes(rng.randrange(30)) for _ in keys]
    block = Block(encode_block(keys, sequences, values))
    block.check()
    assert [list(column) for column in block.columns()] == [keys, sequences, values]
    for key in keys:
        for other in (key[:-1], key + b"\0", key + b"x", b"", b"\xff" * 30):
            if other not in keys:
                assert block.find(other) is ABSENT


def test_a_key_is_found_where_it_is_whole_and_not_where_it_is_part_of_others() -> None:
    for prefix in (b"", b"shared"):
        keys = [prefix + key for key in (b"ab", b"ba", b"baab", b"bb", b"bbaabb", b"bbba", b"c")]
        block = Block(encode_block(keys, [1] * len(keys), keys))
        block.check()
        for other in (b"a", b"aa", b"aab", b"abba", b"b", b"bab", b"bba", b"bbaab", b"bbb"):
            assert block.find(prefix + other) is ABSENT


@pytest.mark.parametrize("count", [1, 16, 100])
def test_places_come_back_beside_values_and_tombstones(count: int) -> None:
    rng = Random(count)
    keys = [b"%03d" % number for number in range(count)]
    sequences = [rng.randrange(1 << 20) for _ in keys]
    place = Place(rng.randrange(1 << 64), rng.randrange(1 << 64), rng.randrange(1 << 32))
    values = [rng.choice((None, b"", rng.randbytes(20), place)) for _ in keys[1:]] + [place]
    block = Block(encode_block(keys, sequences, values))
    block.check()
    assert [list(column) for column in block.columns()] == [keys, sequences, values]


def test_a_kind_of_entry_that_is_not_known_is_refused() -> None:
    raw = bytearray(encode_block([b"a", b"b"], [1, 1], [b"x", None]))
    at = raw.index(b"\0\1ab")
    for flags, kind in ((1, 2), (3, 4), (4, 1)):
        raw[15], raw[at + 1] = flags, kind
        with pytest.raises(ValueError):
            Block(bytes(raw))


def test_ends_and_sequences_take_the_width_they_need() -> None:
    big = b"v" * 70_000
    cases: list[tuple[list[bytes], list[int], list[bytes | None]]] = [
        ([b"a", b"b"], [5, 5], [b"", None]),
        ([b"a", b"b"], [5, 5 + (1 << 16)], [big, b"x"]),
        ([b"a" * 70_000, b"b"], [5, 5 + (1 << 33)], [b"", b"x"]),
        ([b"", b"\0"], [(1 << 64) - 1, 0], [b"x", big]),
    ]
    for keys, sequences, values in cases:
        block = Block(encode_block(keys, sequences, values))
        block.check()
        assert [list(column) for column in block.columns()] == [keys, sequences, values]


def test_the_shared_prefix_of_a_group_is_stored_once() -> None:
    keys = [b"0123456789" * 10 + bytes([n]) for n in range(BLOCK_RESTART_INTERVAL)]
    size = len(encode_block(keys, [0] * len(keys), [b""] * len(keys)))
    assert size < 2 * len(keys[0]) + 8 * len(keys)


def test_the_page_of_the_format_shows_true_bytes() -> None:
    assert encode_block([b"user1a", b"user1a1", b"user1ab"], [10, 15, 11], [b"hi", None, b"bye"]) == WORKED_EXAMPLE
    Block(WORKED_EXAMPLE).check()


def test_malformed_bytes_are_a_value_error() -> None:
    data = encode_block([b"key%03d" % n for n in range(20)], range(20), [b"v"] * 20)
    for size in range(len(data)):
        with pytest.raises(ValueError):
            Block(data[:size])
    with pytest.raises(ValueError):
        Block(data + b"x")
    with pytest.raises(ValueError):
        Block(bytes(18))
    rng = Random(4)
    for _ in range(500):
        hostile = bytearray(data)
        hostile[rng.randrange(18)] = rng.randrange(256)
        try:
            Block(bytes(hostile)).columns()
        except ValueError:
            continue


def test_runs_are_joined_in_order() -> None:
    left: Columns = ([b"a"], [1], [b"x"])
    right: Columns = ([b"b", b"c"], (2, 3), (None, b"z"))
    assert concatenate([left]) == left
    assert concatenate([left, right]) == ([b"a", b"b", b"c"], [1, 2, 3], [b"x", None, b"z"])


@pytest.mark.parametrize(
    ("left", "right", "shared"), [(b"", b"", 0), (b"a", b"b", 0), (b"ab", b"abc", 2), (b"\0a", b"\0b", 1)]
)
def test_shared_prefixes_are_counted_in_bytes(left: bytes, right: bytes, shared: int) -> None:
    assert shared_bytes(left, right) == shared
