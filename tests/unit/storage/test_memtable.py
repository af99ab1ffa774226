"""A memtable answers like a sorted dict of the newest writes and counts what it holds."""

from __future__ import annotations

from random import Random

from leafdb.storage.memtable import SAMPLE, Memtable
from leafdb.types import TreeId

ONE, TWO = TreeId(1), TreeId(2)


def test_it_agrees_with_a_sorted_dict_whatever_order_writes_and_scans_come_in() -> None:
    rng = Random(11)
    memtable = Memtable([ONE, TWO], segments=[1], first_lsn=1)
    model: dict[bytes, tuple[int, bytes | None]] = {}
    for lsn in range(1, 600):
        key = rng.randbytes(1) + b"k"
        value = None if rng.random() < 0.2 else rng.randbytes(rng.randrange(30))
        memtable.put(ONE, key, value, lsn)
        model[key] = (lsn, value)
        if rng.random() < 0.1:
            start, stop = sorted((rng.randbytes(1), rng.randbytes(1)))
            reverse = rng.random() < 0.5
            end = None if rng.random() < 0.2 else stop
            wanted = [(k, *model[k]) for k in sorted(model) if start <= k and (end is None or k < end)]
            wanted = wanted[::-1] if reverse else wanted
            assert memtable.trees[ONE].range(start, end, limit=20, reverse=reverse) == wanted[:20]
            memtable.check()
    assert memtable.trees[ONE].entries[key] == (value, lsn)
    assert memtable.tree_ids() == [ONE]


def test_replay_skips_trees_that_are_no_more_and_dropping_one_frees_its_bytes() -> None:
    memtable = Memtable([ONE, TWO], segments=[1], first_lsn=1)
    memtable.replay(1, [(ONE, b"a", b"1"), (TreeId(99), b"b", b"2"), (TWO, b"c", b"3")])
    memtable.replay(2, [(ONE, b"a", None)])
    assert memtable.trees[ONE].entries == {b"a": (None, 2)}
    assert memtable.last_lsn == 2
    memtable.drop(ONE)
    memtable.drop(ONE)
    memtable.check()
    assert memtable.tree_ids() == [TWO]


def test_what_a_tree_weighs_is_told_exactly_while_it_is_small_and_about_when_it_is_large() -> None:
    rng = Random(12)
    memtable = Memtable([ONE, TWO], segments=[1], first_lsn=1)
    assert memtable.trees[ONE].bytes_about() == 0
    for tree, count in ((ONE, 100), (TWO, 5 * SAMPLE)):
        held = 0
        for number in range(count):
            key, value = b"%06d" % number, rng.randbytes(rng.randrange(200))
            memtable.put(tree, key, value if number % 7 else None, number + 1)
            held += len(key) + (len(value) if number % 7 else 0)
        about = memtable.trees[tree].bytes_about()
        assert about == held if tree == ONE else 0.8 * held < about < 1.2 * held


def test_overwriting_does_not_grow_the_account() -> None:
    memtable = Memtable([ONE], segments=[1], first_lsn=1)
    memtable.put(ONE, b"key", b"x" * 100, 1)
    used = memtable.bytes_used
    for lsn in range(2, 50):
        memtable.put(ONE, b"key", b"y" * 100, lsn)
    assert memtable.bytes_used == used
    memtable.put(ONE, b"key", None, 50)
    assert memtable.bytes_used == used - 100
