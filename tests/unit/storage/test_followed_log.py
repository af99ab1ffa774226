"""Who follows the log gets back at the next open what it gave, and keeps the log until it has what it needs of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from leafdb.codec.checksum import crc32c
from leafdb.errors import CorruptionError
from leafdb.storage.wal import SegmentScan, WalWriter, segment_path
from leafdb.storage.wal_format import ENTRY, MARKED
from leafdb.types import Durability, TreeId
from leafdb.vfs.base import read_file, replace_file
from leafdb.vfs.memory import MemoryFileSystem
from support.store import SMALL, TREE, Store

OTHER = TreeId(301)
MARK = b"12345678"


class Follower:
    """Follows a log and lets flushes pass when it is told to."""

    def __init__(self, *, open_gate: bool = True) -> None:
        self.open_gate = open_gate
        self.told: list[tuple[int, TreeId, bytes, bytes | None, bytes]] = []
        self.asked: list[tuple[int, Callable[[], None]]] = []

    def replayed(self, lsn: int, tree: TreeId, key: bytes, value: bytes | None, mark: bytes) -> None:
        self.told.append((lsn, tree, key, value, mark))

    def before_flush(self, lsn: int, go_on: Callable[[], None]) -> None:
        self.asked.append((lsn, go_on))
        if self.open_gate:
            go_on()


def followed(follower: Follower, fs: MemoryFileSystem | None = None, memtable_bytes: int = 1 << 20) -> Store:
    config = replace(SMALL, memtable_bytes=memtable_bytes)
    return Store(fs, config, replayed=follower.replayed, before_flush=follower.before_flush)


def killed(store: Store) -> MemoryFileSystem:
    return store.fs.power_cut(Random(0), keep=1.0)


def test_marks_come_back_with_their_entries_in_order() -> None:
    store = followed(Follower())
    store.engine.create_tree(TREE)
    store.engine.create_tree(OTHER)
    engine = store.engine
    engine.write([(TREE, b"a", b"1")], Durability.ALWAYS, None, MARK)
    engine.write([(TREE, b"b", b"2")], Durability.ALWAYS)
    engine.write([(TREE, b"a", None), (OTHER, b"x", b"y"), (TREE, b"c", b"")], Durability.ALWAYS, None, b"abcdefgh")
    engine.write([(TREE, b"b", None)], Durability.ALWAYS, None, b"        ")
    store.settle()
    follower = Follower()
    again = followed(follower, killed(store))
    assert follower.told == [
        (1, TREE, b"a", b"1", MARK),
        (2, TREE, b"b", b"2", b""),
        (3, TREE, b"a", None, b"abcdefgh"),
        (3, OTHER, b"x", b"y", b""),
        (3, TREE, b"c", b"", b""),
        (4, TREE, b"b", None, b"        "),
    ]
    assert again.items() == [(b"c", b"")]


def test_what_is_in_tables_and_what_was_of_a_dropped_tree_is_not_told() -> None:
    store = followed(Follower())
    store.engine.create_tree(TREE)
    store.engine.create_tree(OTHER)
    store.engine.write([(TREE, b"a", b"1")], Durability.ALWAYS, None, MARK)
    store.engine.flush_soon()
    store.settle()
    store.engine.write([(OTHER, b"a", b"1")], Durability.ALWAYS, None, MARK)
    store.engine.drop_tree(OTHER)
    store.engine.write([(TREE, b"b", b"1")], Durability.ALWAYS, None, MARK)
    store.settle()
    follower = Follower()
    followed(follower, killed(store))
    assert follower.told == [(3, TREE, b"b", b"1", MARK)]


def test_the_log_stays_until_the_follower_lets_it_go() -> None:
    follower = Follower(open_gate=False)
    store = followed(follower)
    store.engine.create_tree(TREE)
    store.engine.write([(TREE, b"a", b"1")], Durability.ALWAYS, None, MARK)
    store.engine.flush_soon()
    store.settle()
    ((lsn, go_on),) = follower.asked
    assert lsn == 1
    assert store.engine.stats().flushes == 0
    after = Follower()
    followed(after, killed(store))
    assert after.told == [(1, TREE, b"a", b"1", MARK)]
    go_on()
    store.settle()
    assert store.engine.stats().flushes == 1
    after = Follower()
    again = followed(after, killed(store))
    assert after.told == []
    assert again.items() == [(b"a", b"1")]


def test_a_tree_dropped_while_its_flush_waits_is_gone() -> None:
    follower = Follower(open_gate=False)
    store = followed(follower)
    store.engine.create_tree(TREE)
    store.engine.create_tree(OTHER)
    store.put(b"a", b"1")
    store.put(b"a", b"1", tree=OTHER)
    store.engine.flush_soon()
    store.settle()
    store.engine.drop_tree(OTHER)
    follower.asked[0][1]()
    store.settle()
    store.engine.check()
    assert store.engine.stats().flushes == 1
    assert followed(Follower(), killed(store)).items() == [(b"a", b"1")]


def test_a_follower_that_answers_after_the_end_changes_nothing() -> None:
    follower = Follower(open_gate=False)
    store = followed(follower)
    store.engine.create_tree(TREE)
    store.put(b"a", b"1")
    store.engine.flush_soon()
    store.settle()
    store.close()
    follower.asked[0][1]()
    store.settle()
    after = Follower()
    again = followed(after, killed(store))
    assert again.engine.recovery.clean
    assert [told[2] for told in after.told] == [b"a"]


@pytest.mark.parametrize("crashes", [1, 3])
def test_what_recovery_flushes_on_the_spot_is_told_again_until_the_follower_lets_it_go(crashes: int) -> None:
    writer = Follower(open_gate=False)
    store = followed(writer, memtable_bytes=20_000)
    store.engine.create_tree(TREE)
    for number in range(150):
        store.engine.write([(TREE, b"%04d" % (number % 60), b"v%d" % number * 60)], Durability.ALWAYS, None, MARK)
        store.commit()
    everything = store.items()
    fs = killed(store)
    for _ in range(crashes):
        follower = Follower(open_gate=False)
        again = followed(follower, fs, memtable_bytes=4_000)
        assert again.engine.stats().tables > 0, "too little was replayed for this test"
        assert [told[0] for told in follower.told] == list(range(1, 151))
        assert again.items() == everything
        again.engine.check()
        again.settle()
        fs = killed(again)
    while again.engine.stats().frozen_memtables:
        follower.asked.pop()[1]()
        again.settle()
    again.engine.check()
    assert again.items() == everything
    last = Follower()
    assert followed(last, killed(again)).items() == everything
    assert last.told == []


def logged(entries: list[bytes], writes: int, version: int = 2) -> MemoryFileSystem:
    fs = MemoryFileSystem()
    fs.mkdir("wal")
    writer = WalWriter(fs)
    writer.start_segment(1, 1)
    writer.append(1, writes, entries)
    if version == 1:
        other = MemoryFileSystem()
        other.mkdir("wal")
        data = bytearray(read_file(fs, segment_path(1)))
        data[9] = 1
        data[28:32] = crc32c(bytes(data[:28])).to_bytes(4, "big")
        replace_file(other, segment_path(1), bytes(data))
        return other
    return fs


@pytest.mark.parametrize(
    ("entries", "writes", "version"),
    [
        ([ENTRY.pack(MARKED, 300, 1, 0), b"k", b"1234567"], 1, 2),
        ([ENTRY.pack(8, 300, 1, 0), b"k"], 1, 2),
        ([ENTRY.pack(2, 300, 1, 0), b"k", ENTRY.pack(MARKED, 300, 1, 0), b"l", MARK], 1, 2),
        ([ENTRY.pack(MARKED, 300, 1, 0), b"k", MARK], 1, 1),
        ([ENTRY.pack(MARKED, 300, 1, 0), b"k"], 1, 1),
    ],
    ids=["cut short", "unknown flag", "not the first", "version 1", "version 1, no mark"],
)
def test_marks_where_none_may_be_are_refused(entries: list[bytes], writes: int, version: int) -> None:
    fs = logged(entries, writes, version)
    with pytest.raises(CorruptionError, match="malformed"):
        list(SegmentScan(fs, segment_path(1)).writes())
