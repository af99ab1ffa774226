"""The hash tree: its hashes, its bytes, and what it refuses."""

from __future__ import annotations

import pytest

from leafdb.codec.checksum import xxh3_64
from leafdb.merkle.compare import Difference, ascending, between, difference, differing
from leafdb.merkle.tree import BRANCHES, FAN_OUT, LEVEL_BYTES, Tree, leaf_of, record_digest

KEYS = [number.to_bytes(8, "big") + b"k%d\x00\x01" % number for number in range(2_000)]


def built(keys: list[bytes], record: bytes = b"r") -> Tree:
    tree = Tree()
    for key in keys:
        tree.add(key, record)
    tree.check()
    return tree


def test_empty_tree_is_all_zero() -> None:
    tree = Tree()
    tree.check()
    assert (tree.root(), tree.keys, tree.branches()) == (0, 0, bytes(LEVEL_BYTES))


def test_order_of_building_does_not_matter_and_content_does() -> None:
    assert built(KEYS).encode() == built(KEYS[::-1]).encode()
    assert built(KEYS).root() != built(KEYS[:-1]).root()
    assert built(KEYS).root() != built(KEYS, b"s").root()


def test_levels_are_the_hashes_the_format_page_says() -> None:
    tree = built(KEYS[:1])
    leaf = leaf_of(KEYS[0])
    assert tree.leaf(leaf).to_bytes(8, "big") == record_digest(KEYS[0], b"r")
    leaves = tree.leaves_of(leaf // FAN_OUT)
    assert leaves[leaf % FAN_OUT * 8 :][:8] == tree.leaf(leaf).to_bytes(8, "big")
    assert tree.branches()[leaf // FAN_OUT * 8 :][:8] == xxh3_64(leaves).to_bytes(8, "big")
    assert tree.root() == xxh3_64(tree.branches())


def test_neighbours_in_key_order_spread_over_the_leaves() -> None:
    rows = [b"\x00" * 8 + b"one partition\x00\x01%06d\x00\x01" % number for number in range(4_096)]
    counts = [0] * (BRANCHES * FAN_OUT)
    for row in rows:
        counts[leaf_of(row)] += 1
    assert max(counts) <= 20


def test_taking_everything_out_leaves_the_empty_tree() -> None:
    tree = built(KEYS)
    for key in KEYS:
        tree.update(key, b"r", None)
    assert tree.encode() == Tree().encode()
    assert tree.root() == 0
    tree.check()


def test_hashes_follow_every_change() -> None:
    tree = built(KEYS[:100])
    roots = {tree.root()}
    for key in KEYS[:50]:
        tree.update(key, b"r", b"new")
        roots.add(tree.root())
        tree.check()
    assert len(roots) == 51


def test_bytes_are_those_of_the_format_page() -> None:
    tree = Tree()
    tree.add(bytes(8) + b"a\x00\x01", b"rec")
    assert tree.encode().hex() == "01000010000000000000000001001000006ddf9a2967e93626"
    assert Tree.decode(tree.encode()).root() == tree.root()


def test_malformed_bytes_are_value_errors() -> None:
    good = built(KEYS[:40]).encode()
    bad = [good[:cut] for cut in range(len(good))] + [good + b"\x00", b"\x02" + good[1:], b"\x00" * 13]
    zero_leaf = bytes.fromhex("01") + b"\x00\x00\x00\x01" + bytes(8) + b"\x00\x00\x00\x01" + bytes(8)
    empty_branch = bytes.fromhex("01") + b"\x00\x00\x00\x01" + bytes(8) + b"\x00\x00\x00\x00"
    for data in [*bad, zero_leaf, empty_branch]:
        with pytest.raises(ValueError):
            Tree.decode(data)


def test_forgetting_more_than_was_added_is_our_bug() -> None:
    with pytest.raises(AssertionError):
        Tree().update(b"key", b"r", None)


def test_levels_and_lists_are_compared_exactly() -> None:
    one, other = bytes(LEVEL_BYTES), bytearray(LEVEL_BYTES)
    other[8 * 5] = other[8 * 31 + 7] = 1
    assert differing(one, one) == []
    assert differing(one, bytes(other)) == [5, 31]
    mine = [(b"a", b"1"), (b"b", b"1"), (b"c", b"1")]
    theirs = [(b"b", b"1"), (b"c", b"2"), (b"d", b"1")]
    assert difference(mine, theirs) == Difference(mine=[b"a"], theirs=[b"d"], both=[b"c"])
    assert list(between(mine, b"a", b"b")) == [(b"b", b"1")]
    assert list(between(mine, b"", None)) == mine
    assert ascending([b"a", b"b"])
    assert not ascending([b"a", b"a"])
