"""A store that meets damage, or is given a range it has not got, takes its marks back, and no others."""

from __future__ import annotations

from leafdb.node.vouching import touched


def test_a_damaged_table_touches_the_partitions_of_its_keys() -> None:
    assert list(touched(b"\x00\x00a", b"\x00\x00b", 256)) == [0]
    assert list(touched(b"\x10\xffa", b"\x13\x00", 256)) == [0x10, 0x11, 0x12, 0x13]
    assert list(touched(b"\x3f\xff", b"\x40\x00", 4)) == [0, 1]


def test_the_bound_of_a_block_may_be_shorter_than_a_partition_is_written() -> None:
    assert list(touched(b"\x10", b"\x12\x01", 256)) == [0x10, 0x11, 0x12]
    assert list(touched(b"", b"\x01", 256)) == [0, 1]
