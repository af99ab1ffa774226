"""Large values are read as if they lay in the tables, cost compaction nothing, and their space comes back."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from leafdb.errors import CorruptionError, StorageError
from leafdb.storage.compaction_picker import PickerLimits
from leafdb.storage.lost_ranges import LostRange
from leafdb.storage.manifest import current_manifest, read_manifest
from leafdb.storage.sstable_reader import verify
from leafdb.storage.value_reader import verify_values
from leafdb.storage.verification import Verified
from leafdb.storage.version import Version
from leafdb.types import TreeId
from leafdb.vfs.base import read_file
from leafdb.vfs.memory import Fault, MemoryFileSystem
from support.store import SMALL, TREE, Store

CONFIG = replace(
    SMALL,
    memtable_bytes=1 << 20,
    value_inline_bytes_max=100,
    compaction=PickerLimits(level0_tables=2, level1_bytes=1 << 20, table_bytes=1 << 20),
)


def opened(fs: MemoryFileSystem | None = None) -> Store:
    store = Store(fs, CONFIG)
    if fs is None:
        store.engine.create_tree(TREE)
        store.settle()
    return store


def flush(store: Store, items: dict[bytes, bytes | None]) -> None:
    for key, value in items.items():
        store.put(key, value)
    store.engine.flush_soon()
    store.settle()


def large(seed: int, count: int = 20) -> dict[bytes, bytes | None]:
    rng = Random(seed)
    return {b"k%03d" % number: rng.randbytes(500) for number in range(count)}


def on_disk(store: Store) -> Version:
    number = current_manifest(store.fs)
    assert number is not None
    version = read_manifest(store.fs, number)
    assert store.fs.list("values") == [f"{number:010d}.val" for number in sorted(version.values.metas)]
    for meta in version.tables.values():
        verify(store.fs, meta)
    for values in version.values.metas.values():
        verify_values(store.fs, values)
    return version


def test_a_flush_separates_large_values_and_every_read_gives_them() -> None:
    store = opened()
    items = {**large(1), b"small": b"x" * 100, b"gone": None}
    flush(store, items)
    version = on_disk(store)
    assert [meta.count for meta in version.values.metas.values()] == [20]
    kept = {key: value for key, value in items.items() if value is not None}
    assert {key: store.get(key) for key in items} == items
    assert dict(store.items()) == kept
    assert dict(store.items(reverse=True)) == kept
    stats = store.engine.stats()
    assert (stats.value_files, stats.value_dead_bytes) == (1, 0)
    assert stats.value_live_bytes > 20 * 500
    assert store.engine.tree_bytes(TREE) > 20 * 500
    store.engine.check()
    store.close()
    again = opened(store.fs)
    assert dict(again.items()) == kept
    again.close()
    assert store.fs.open_files == 0


def test_a_tree_without_large_values_has_no_value_file_and_tables_of_format_1() -> None:
    store = opened()
    flush(store, {b"a": b"x" * 100})
    (meta,) = on_disk(store).tables.values()
    assert meta.references == ()
    assert store.fs.list("values") == []


def test_compaction_carries_places_and_writes_no_value_again() -> None:
    store = opened()
    flush(store, large(1))
    flush(store, {b"m%03d" % number: b"y" * 500 for number in range(20)})
    version = on_disk(store)
    assert [meta.level for meta in version.tables.values()] == [1]
    assert len(version.values.metas) == 2
    assert store.fs.list("values") == [f"{number:010d}.val" for number in sorted(version.values.metas)]
    assert store.engine.stats().value_dead_bytes == 0
    assert store.get(b"k007") == large(1)[b"k007"]


def test_values_are_moved_out_of_a_file_that_is_mostly_dead() -> None:
    store = opened()
    flush(store, large(1))
    flush(store, {b"z": b"-"})
    (first,) = on_disk(store).values.metas
    newer = dict(list(large(2).items())[:12])
    flush(store, newer)
    flush(store, {b"z": b"+"})
    version = on_disk(store)
    assert first not in version.values.metas, "the job moves what was left in it"
    assert sorted(meta.count for meta in version.values.metas.values()) == [8, 12]
    assert dict(store.items()) == {**large(1), **newer, b"z": b"+"}
    store.engine.check()


def test_a_file_without_a_live_value_leaves_with_the_edit_but_not_before_its_readers() -> None:
    store = opened()
    flush(store, large(1))
    (name,) = store.fs.list("values")
    pin = store.engine._tables.pin()
    flush(store, large(2))
    assert name in store.fs.list("values"), "somebody still reads it"
    assert int(name[:10]) not in store.engine._tables.version.values.metas
    store.engine._tables.release(pin)
    store.settle()
    assert name not in store.fs.list("values")
    assert len(on_disk(store).values.metas) == 1
    assert store.get(b"k001") == large(2)[b"k001"]


def test_dropping_a_tree_drops_its_values() -> None:
    store = opened()
    other = TreeId(301)
    store.engine.create_tree(other)
    for key, value in large(1).items():
        store.put(key, value, tree=other)
    flush(store, large(2))
    assert len(store.fs.list("values")) == 2
    store.engine.drop_tree(other)
    store.settle()
    assert len(on_disk(store).values.metas) == 1
    store.engine.check()


def test_a_tree_dropped_during_its_flush_leaves_no_value_file() -> None:
    store = opened()
    for key, value in large(1).items():
        store.put(key, value)
    store.engine.flush_soon()
    while not store.fs.list("values"):
        store.commit()
        store.jobs.step()
    store.engine.drop_tree(TREE)
    store.settle()
    assert on_disk(store).values.metas == {}


def test_orphans_are_swept_and_an_older_store_gets_its_directory() -> None:
    store = opened()
    flush(store, {b"a": b"1"})
    store.close()
    store.fs.create("values/0000000999.val").close()
    store.fs.create("values/notes.txt").close()
    again = opened(store.fs)
    assert store.fs.list("values") == ["notes.txt"]
    again.close()
    older = without_values(store.fs)
    upgraded = opened(older)
    assert upgraded.get(b"a") == b"1"
    flush(upgraded, large(1))
    assert len(older.list("values")) == 1


def without_values(fs: MemoryFileSystem) -> MemoryFileSystem:
    """The closed store as a build of before there were value files would have left it."""
    copy = MemoryFileSystem()
    for directory in ("", "tables", "wal"):
        copy.mkdir(directory)
        for name in fs.list(directory):
            path = f"{directory}/{name}".lstrip("/")
            if path not in ("snapshots", "tables", "values", "wal", "LOCK"):
                file = copy.create(path)
                file.append(read_file(fs, path))
                file.close()
    return copy


def test_a_value_that_is_not_at_hand_is_waited_for_elsewhere() -> None:
    store = opened()
    flush(store, large(1))
    assert store.get(b"k001") == large(1)[b"k001"], "this opens the file and warms the block"
    assert store.engine.get_now(TREE, b"k001") == (large(1)[b"k001"], 0)
    store.fs.cold = True
    assert store.engine.get_now(TREE, b"k001") is None
    assert store.get(b"k001") == large(1)[b"k001"]


def test_a_scan_loads_only_what_it_shows() -> None:
    store = opened()
    flush(store, large(1))
    page = store.page(limit=1)
    for number in range(2, 20):
        store.fs.flip(f"values/{store.fs.list('values')[0]}", 64 + number * 520)
    assert store.page(limit=1) == page
    with pytest.raises(CorruptionError):
        store.page()


def test_damage_in_a_value_file_is_told_as_damage_of_the_tables_that_refer_to_it() -> None:
    store = opened()
    flush(store, large(1))
    told: list[tuple[TreeId, bytes, bytes]] = []
    store.engine.on_damage = lambda tree, smallest, largest: told.append((tree, smallest, largest))
    path = f"values/{store.fs.list('values')[0]}"
    store.fs.flip(path, 600)
    with pytest.raises(CorruptionError) as caught:
        store.page()
    assert caught.value.path == path
    assert caught.value.offset > 0
    assert told == [(TREE, b"k000", b"k019")]
    assert store.get(b"k019") == large(1)[b"k019"], "the rest is served"
    store.close()
    again = opened(store.fs)
    assert again.get(b"k019") == large(1)[b"k019"]


def test_a_value_file_that_is_gone_fails_its_reads_and_not_the_store() -> None:
    store = opened()
    flush(store, {**large(1), b"small": b"s"})
    store.close()
    (name,) = store.fs.list("values")
    store.fs.unlink(f"values/{name}")
    again = opened(store.fs)
    assert again.get(b"small") == b"s"
    with pytest.raises(CorruptionError, match="cannot be opened"):
        again.get(b"k001")


def test_a_compaction_goes_on_without_moving_out_of_a_damaged_file() -> None:
    store = opened()
    flush(store, large(1))
    flush(store, {b"z": b"-"})
    (first,) = on_disk(store).values.metas
    store.fs.flip(f"values/{first:010d}.val", 64 + 19 * 520)
    newer = dict(list(large(2).items())[:12])
    flush(store, newer)
    flush(store, {b"z": b"+"})
    version = store.engine._tables.version
    assert [meta.level for meta in version.tables.values()] == [1], "merged all the same"
    assert first in version.values.metas
    assert store.get(b"k001") == newer[b"k001"]
    assert not store.failures


def test_a_failed_flush_leaves_no_value_file() -> None:
    store = opened()
    for key, value in large(1).items():
        store.put(key, value)
    store.fs.faults.append(Fault("append", at=1, error=28, path_prefix="values"))
    store.engine.flush_soon()
    store.settle()
    assert store.fs.list("values") == []
    store.elapse(1.0)
    store.settle()
    assert len(on_disk(store).values.metas) == 1
    assert store.get(b"k001") == large(1)[b"k001"]


def test_one_value_that_cannot_be_read_is_lost_alone_and_verification_names_its_file() -> None:
    store = opened()
    flush(store, large(1))
    (meta,) = store.engine._tables.version.values.metas.values()
    store.fs.flip(meta.path, meta.size // 2)
    lost: list[LostRange] = []
    store.engine.on_lost = lost.extend
    told: list[Verified | StorageError] = []
    store.engine.verify_soon(bytes_per_s=0, done=told.append)
    store.settle()
    (verified,) = told
    assert isinstance(verified, Verified)
    assert [damage.path for damage in verified.damages] == [meta.path]
    (gone,) = lost
    assert gone.smallest == gone.largest
    assert gone.smallest in large(1)
    left = {key: value for key, value in large(1).items() if key != gone.smallest}
    assert dict(store.items()) == left
    assert sum(size for _, size in next(iter(store.engine._tables.version.tables.values())).references) < meta.size
    store.engine.check()


def test_a_value_file_that_is_gone_takes_its_values_and_no_others() -> None:
    store = opened()
    flush(store, {**large(1), b"small": b"1"})
    (meta,) = store.engine._tables.version.values.metas.values()
    store.fs.unlink(meta.path)
    lost: list[LostRange] = []
    store.engine.on_lost = lost.extend
    with pytest.raises(CorruptionError):
        store.get(b"k000")
    store.settle()
    assert all(any(each.smallest <= key <= each.largest for each in lost) for key in large(1))
    assert dict(store.items()) == {b"small": b"1"}
    assert store.engine._tables.version.values.metas == {}
    store.engine.check()
