"""Filters never deny a key that was added, and seldom let another pass."""

from __future__ import annotations

from array import array
from typing import Any

import pytest

from leafdb.codec.checksum import xxh3_64
from leafdb.limits import FILTER_SLICE_KEYS
from leafdb.storage.bloom import BloomFilter, filter_slices
from leafdb.storage.job_execution import run_slices


@pytest.mark.parametrize("count", [1, 50, 5_000])
def test_no_added_key_is_denied_and_few_others_pass(count: int) -> None:
    added = array("Q", [xxh3_64(b"in%d" % n) for n in range(count)])
    bloom = BloomFilter(run_slices(filter_slices(added, 10)))
    assert all(bloom.may_contain(digest) for digest in added)
    passed = sum(bloom.may_contain(xxh3_64(b"out%d" % n)) for n in range(5_000))
    assert passed < 5_000 * 0.025


def test_the_pattern_table_never_changes() -> None:
    one = run_slices(filter_slices(array("Q", [xxh3_64(b"leafdb")]), 10))
    assert len(one) == 4 + 64
    assert int.from_bytes(one[4:], "little").bit_count() == 6
    many = run_slices(filter_slices(array("Q", [xxh3_64(b"%d" % n) for n in range(2000)]), 10))
    assert xxh3_64(many) == 0xB34957558C558BB5


class Counted(list[int]):
    """Hashes that count how many of them were taken."""

    taken = 0

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        self.taken += len(found)
        return found


def test_a_filter_is_built_in_bounded_steps() -> None:
    hashes = Counted(xxh3_64(b"%d" % n) for n in range(10 * FILTER_SLICE_KEYS + 1))
    steps = 0
    before = 0
    for _ in filter_slices(hashes, 10):
        assert hashes.taken - before <= FILTER_SLICE_KEYS
        before = hashes.taken
        steps += 1
    assert hashes.taken == len(hashes)
    assert steps >= 11


@pytest.mark.parametrize("data", [b"", b"\1\0\0", bytes(4), bytes(68), b"\2" + bytes(67), b"\1\0\0\0" + bytes(63)])
def test_malformed_filters_are_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        BloomFilter(data)
