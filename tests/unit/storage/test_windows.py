"""An engine that keeps a tree by time: what expires is written once or twice, and leaves with its whole table."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from leafdb.storage.compaction_picker import PickerLimits
from leafdb.storage.expiry import load_expiry, newest_of
from leafdb.storage.forgetting import Forgetting
from leafdb.storage.forgotten import Told, told_from_plain
from leafdb.storage.value_files import Place
from leafdb.vfs.memory import MemoryFileSystem
from support.expiring import EXPIRING, expires_ms, value_until
from support.store import SMALL, TREE, Store

BY_TIME = replace(
    SMALL, memtable_bytes=1 << 20, expiry=EXPIRING, value_inline_bytes_max=500,
    compaction=PickerLimits(level0_tables=2, windows=2, window_tables=4, level1_bytes=1 << 20),
)  # fmt: skip


def opened(fs: MemoryFileSystem | None = None, *, told: bool = True) -> Store:
    store = Store(fs, BY_TIME)
    store.engine.create_tree(TREE)
    if told:
        store.engine.keep_by_time([TREE])
    store.settle()
    return store


def window(store: Store, first: int, expires: int, count: int = 20, filling: bytes = b"x" * 40) -> None:
    """A table of entries that expire then; their keys are spread over the tree."""
    for number in range(first, first + count):
        store.put(b"%03d/%d" % (number * 37 % 1000, number), value_until(expires, filling))
    flush(store)


def flush(store: Store) -> None:
    store.engine.flush_soon()
    store.settle()


def forget(store: Store, expires: int) -> None:
    """Delete what expires before that time, and say so."""
    page = store.page(b"", limit=10_000)
    for key, value in page.items:
        if expires_ms(value) and expires_ms(value) < expires:
            store.put(key, None)
    say(store, expires)


def say(store: Store, expires: int) -> None:
    """And bring it into tables: what is said counts then."""
    store.engine.forgotten(b"", None, expires)
    flush(store)
    store.elapse(1.0)
    store.settle()


def contents(store: Store) -> dict[bytes, bytes]:
    return dict(store.page(b"", limit=10_000).items)


def levels(store: Store) -> list[int]:
    version = store.engine._tables.version
    return [len(level) for level in version.trees[TREE].levels]


def test_what_is_told_is_plain_data() -> None:
    for told in (Told(b"", None, 5, 6), Told(b"a", b"b", 0, 0)):
        assert told_from_plain(list(told)) == told
    for plain in (None, [], [b"", None, 5], ["", None, 5, 6], [b"", 1, 5, 6], [b"", None, -1, 6], [b"", None, 5, True]):
        with pytest.raises(ValueError, match="what was forgotten"):
            told_from_plain(plain)


def test_a_table_says_when_all_of_it_has_expired() -> None:
    expiry = load_expiry(EXPIRING)
    assert newest_of(expiry, [value_until(7), None, value_until(9)]) == 9
    assert newest_of(expiry, [value_until(7), value_until(0)]) == 0, "one lasts"
    assert newest_of(expiry, [None]) == 1, "deletions alone have expired at once"
    for name in ("support.expiring:nothing", "nowhere.at.all:expires_ms", "support.expiring"):
        with pytest.raises(ValueError, match="no filter"):
            load_expiry(name)


def test_what_expired_and_was_deleted_leaves_with_its_table_and_nothing_is_merged_for_it() -> None:
    store = opened()
    window(store, 0, 500)
    window(store, 100, 600)
    assert levels(store)[0] == 2
    forget(store, 501)
    stats = store.engine.stats()
    assert (stats.dropped_tables, levels(store)[0], stats.compactions) == (1, 2, 0), "deletions lie over the other"
    assert stats.dropped_bytes > 0
    assert len(contents(store)) == 20
    forget(store, 601)
    say(store, 601)
    assert (contents(store), levels(store)[0], store.engine.stats().tables) == ({}, 0, 0)
    assert store.fs.list("tables") == []
    store.engine.check()


def test_nothing_is_dropped_for_what_was_said_before_it_was_written_or_while_one_entry_lives() -> None:
    store = opened()
    say(store, 501)
    window(store, 0, 500)
    store.elapse(1.0)
    store.settle()
    assert (levels(store)[0], len(contents(store))) == (1, 20)
    store.put(b"500/one", value_until(501))
    window(store, 50, 400)
    page = [key for key, value in contents(store).items() if expires_ms(value) < 501]
    for key in page:
        store.put(key, None)
    say(store, 501)
    assert (store.engine.stats().dropped_tables, levels(store)[0]) == (1, 2), "the other has one entry that lives"
    assert list(contents(store)) == [b"500/one"]


def test_large_values_leave_with_the_table_that_refers_to_them() -> None:
    store = opened()
    window(store, 0, 500, filling=Random(1).randbytes(1000))
    assert len(store.fs.list("values")) == 1
    forget(store, 501)
    assert store.fs.list("values") == []
    assert store.engine.stats().dropped_bytes >= 20_000


def test_a_value_that_lasts_is_merged_down_and_keeps_what_lies_over_it_from_being_dropped_whole() -> None:
    store = opened()
    store.put(b"500/lasts", value_until(0))
    window(store, 0, 500)
    window(store, 100, 510)
    window(store, 200, 900)
    forget(store, 511)
    say(store, 511)
    assert contents(store)[b"500/lasts"] == value_until(0)
    assert len(contents(store)) == 21
    assert levels(store)[1] == 1
    merged = [meta for meta in store.engine.tables().values() if meta.level == 1]
    assert [(meta.entries, meta.tombstones) for meta in merged] == [(1, 0)], "what is dead is not written again"
    store.engine.check()


def test_an_overwritten_value_does_not_come_back_when_what_covered_it_is_dropped() -> None:
    store = opened()
    store.put(b"500/twice", value_until(0))
    flush(store)
    store.put(b"500/twice", value_until(500))
    flush(store)
    forget(store, 501)
    say(store, 501)
    assert contents(store) == {}
    again = opened(store.fs.power_cut(Random(1)))
    assert contents(again) == {}


def test_a_merge_takes_for_deleted_what_was_forgotten_and_nothing_else() -> None:
    told = (Told(b"b", b"d", 500, 70), Told(b"d", None, 400, 70))
    forgetting = Forgetting(told, EXPIRING)
    entries = [
        (b"a", 10, value_until(1)),  # nothing was told of it
        (b"b", 70, value_until(499)),
        (b"b2", 71, value_until(1)),  # written since
        (b"c", 10, value_until(500)),
        (b"c2", 10, value_until(0)),
        (b"c3", 10, None),
        (b"c4", 10, Place(7, 0, 100)),
        (b"d", 10, value_until(499)),
        (b"e", 10, value_until(399)),
    ]
    keys, sequences, values = zip(*entries, strict=True)
    told_keys, told_sequences, kept = forgetting.applied((list(keys), sequences, values))
    assert (list(told_keys), list(told_sequences)) == (list(keys), list(sequences))
    gone = [key for key, old, new in zip(keys, values, kept, strict=True) if new != old]
    assert gone == [b"b", b"e"]
    assert [new for new, old in zip(kept, values, strict=True) if new != old] == [None, None]
    assert Forgetting(told[1:], EXPIRING).applied((list(keys[:1]), sequences[:1], values[:1]))[2] == [values[0]]


def test_what_a_merge_takes_for_deleted_still_covers_what_lies_deeper() -> None:
    store = opened()
    store.engine.keep_by_time([])
    for _ in range(3):
        store.put(b"500/old", value_until(0, b"old"))
        store.put(b"1", value_until(0))
        store.put(b"9", value_until(0))
        flush(store)
    assert levels(store)[1] == 1
    store.engine.compact_soon(TREE, lambda outcome: None)
    store.settle()
    store.engine.keep_by_time([TREE])
    window(store, 0, 500)
    store.put(b"500/old", value_until(500, b"new"))
    flush(store)
    forget(store, 501)
    assert sorted(contents(store)) == [b"1", b"9"]
    say(store, 501)
    assert sorted(contents(store)) == [b"1", b"9"]
    store.engine.check()
    assert sorted(contents(opened(store.fs.power_cut(Random(2))))) == [b"1", b"9"]


def test_windows_are_merged_on_level_0_and_there_are_few() -> None:
    store = opened()
    for number in range(12):
        window(store, number * 20, 500 + number)
    assert 2 <= levels(store)[0] <= 4
    assert sum(levels(store)[1:]) == 0
    assert len(contents(store)) == 240
    metas = store.engine.tables().values()
    assert all(500 <= meta.newest_expiry_ms <= 511 for meta in metas)


def test_nothing_is_merged_before_the_owner_has_said_which_trees_are_kept_by_time() -> None:
    store = opened()
    for number in range(4):
        window(store, number * 20, 500)
    store.engine.close()
    again = opened(store.fs, told=False)
    again.elapse(10.0)
    again.settle()
    assert levels(again)[:2] == [4, 0]
    again.engine.keep_by_time([TREE])
    again.settle()
    assert levels(again)[:2] == [4, 0]
    again.engine.keep_by_time([])
    again.settle()
    assert levels(again)[:2] == [0, 1], "its bucket has no ttl any more"
    assert len(contents(again)) == 80


def test_a_snapshot_keeps_what_is_dropped() -> None:
    store = opened()
    window(store, 0, 500)
    taken: list[object] = []
    store.engine.snapshot_soon("kept", taken.append)
    store.settle()
    forget(store, 501)
    assert store.fs.list("tables") == []
    assert len(store.fs.list("snapshots/kept/tables")) == 1
