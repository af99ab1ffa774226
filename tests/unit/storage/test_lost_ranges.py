"""What a salvage lost is known from the edit that makes the hole until somebody has noted it, crash or not."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from leafdb.codec import cbor
from leafdb.errors import CorruptionError
from leafdb.limits import LOST_TABLES_MAX
from leafdb.storage.compaction_picker import pick_salvage
from leafdb.storage.lost_ranges import LostRange
from leafdb.storage.manifest import current_manifest, read_manifest
from leafdb.storage.quarantine import Kept, listing, put_away
from leafdb.storage.version import Version, VersionEdit, table_path
from leafdb.types import TreeId
from leafdb.vfs.memory import MemoryFileSystem
from support.store import SMALL, TREE, Store
from support.tables import meta_of

KEYS = 1_000


def value_of(number: int) -> bytes:
    return Random(number).randbytes(40)


def damaged_store() -> tuple[Store, int]:
    """Some tables on level 0; the newest, which says of each key that it is deleted, has a bad block."""
    store = Store(config=replace(SMALL, memtable_bytes=1 << 20))
    store.engine.create_tree(TREE)
    store.settle()
    for deleted in (False, True):
        for number in range(KEYS):
            store.put(b"%05d" % number, None if deleted else value_of(number))
        store.engine.flush_soon()
        store.settle()
    number = max(store.engine._tables.version.tables)
    store.fs.flip(table_path(number), 40)
    return store, number


def find_damage(store: Store) -> None:
    """Read everything, until a read has met it."""
    for _ in range(5):
        try:
            store.items()
        except CorruptionError:
            return
    pytest.fail("nobody has met the damage")


def test_the_follower_is_told_before_any_read_sees_what_the_hole_uncovers() -> None:
    store, number = damaged_store()
    seen: list[tuple[LostRange, ...]] = []

    def lost(ranges: tuple[LostRange, ...]) -> None:
        seen.append(ranges)
        assert store.engine._tables.version.tables.keys() >= {number}, "reads do not see the new version yet"

    store.engine.on_lost = lost
    find_damage(store)
    store.settle()
    assert len(seen) == 1
    assert store.engine.lost == seen[0]
    shown = [key for key, _ in store.items()]
    assert shown, "an older table shows through"
    assert all(any(each.smallest <= key <= each.largest for each in seen[0]) for key in shown)
    store.engine.lost_noted(seen[0])
    store.engine.lost_noted(seen[0])
    store.settle()
    assert store.engine.lost == ()
    store.engine.check()


def test_a_crash_at_any_call_of_a_salvage_leaves_the_damage_or_the_knowledge_of_the_hole() -> None:
    store, number = damaged_store()
    find_damage(store)
    cuts: list[MemoryFileSystem] = []
    rng = Random(3)
    store.fs.on_call = lambda kind, path: cuts.append(store.fs.power_cut(rng))
    store.settle()
    store.fs.on_call = None
    assert len(cuts) > 5
    holes = 0
    for fs in cuts:
        again = Store(fs)
        if number not in again.engine._tables.version.tables:
            holes += 1
            assert again.engine.lost, "a hole that looks whole"
        again.settle()
        try:
            shown = [key for key, _ in again.items()]
        except CorruptionError:  # the damage is still there, and said so
            continue
        assert all(any(each.smallest <= key <= each.largest for each in again.engine.lost) for key in shown)
    assert 0 < holes < len(cuts)


def test_what_was_lost_survives_restarts_and_new_manifests_until_it_is_noted() -> None:
    store, _ = damaged_store()
    find_damage(store)
    store.settle()
    known = store.engine.lost
    assert known
    for _ in range(2):
        store.close()
        store = Store(store.fs)
        assert store.engine.lost == known
    store.engine.lost_noted(known)
    store.settle()
    store.close()
    assert Store(store.fs).engine.lost == ()


def test_of_a_dropped_tree_nobody_has_to_hear() -> None:
    store, _ = damaged_store()
    find_damage(store)
    store.settle()
    known = store.engine.lost
    store.engine.drop_tree(TREE)
    store.settle()
    assert store.engine.lost == ()
    store.engine.lost_noted(known)
    store.settle()
    assert not store.failures


def test_the_damaged_file_is_kept_for_people_over_restarts() -> None:
    store, number = damaged_store()
    find_damage(store)
    store.settle()
    name = f"{number:010d}.sst"
    assert store.fs.list("quarantine") == [name]
    assert name not in store.fs.list("tables")
    stats = store.engine.stats()
    assert (stats.quarantined_files, stats.damaged_tables, stats.salvages) == (1, 0, 1)
    assert stats.quarantined_bytes > 0
    store.close()
    again = Store(store.fs).engine.stats()
    assert (again.quarantined_files, again.quarantined_bytes) == (1, stats.quarantined_bytes)


def put_file(fs: MemoryFileSystem, path: str, size: int) -> None:
    file = fs.create(path)
    file.append(bytes(size))
    file.close()


def test_quarantine_is_bounded_and_keeps_what_came_last() -> None:
    fs = MemoryFileSystem()
    fs.mkdir("tables")
    for number in (5, 6, 7, 2):
        put_file(fs, table_path(number), 100)
        put_away(fs, table_path(number), bytes_max=250, files_max=9)
    assert listing(fs) == (Kept("0000000002.sst", 100), Kept("0000000007.sst", 100))
    put_file(fs, table_path(8), 251)
    assert put_away(fs, table_path(8), bytes_max=250, files_max=9) == (), "one that is too large is not kept"
    for number in range(20, 25):
        put_file(fs, table_path(number), 1)
        put_away(fs, table_path(number), bytes_max=250, files_max=3)
    assert [kept.name for kept in listing(fs)] == [f"00000000{number}.sst" for number in (22, 23, 24)]
    assert put_away(fs, table_path(77)) == listing(fs), "a file that is missing"


def test_an_edit_says_what_is_lost_and_what_is_noted_and_refuses_what_cannot_be() -> None:
    lost = LostRange(1, TREE, b"b", b"c")
    table = meta_of(1, b"a", b"z", tree_id=TREE)
    edit = VersionEdit(removed=(1,), lost=(lost,))
    noted = VersionEdit(lost_noted=(1,))
    for each in (edit, noted):
        assert VersionEdit.from_plain(cbor.loads(cbor.dumps(each.to_plain()))) == each
    version = Version().apply(VersionEdit(created_trees=(TREE,), added=(table,), next_file_number=9))
    with pytest.raises(ValueError, match="does not leave"):
        version.apply(VersionEdit(lost=(lost,)))
    with pytest.raises(ValueError, match="nothing is known"):
        version.apply(noted)
    holed = version.apply(edit)
    assert Version().apply(holed.snapshot()).lost == holed.lost == (lost,)
    assert holed.apply(noted).lost == ()
    assert holed.apply(VersionEdit(dropped_trees=(TREE,))).lost == ()
    for plain in (None, [1, TREE, b"b"], [0, TREE, b"b", b"c"], [1, TREE, b"c", b"b"], [1, TREE, "b", b"c"]):
        with pytest.raises(ValueError, match="lost range"):
            LostRange.from_plain(plain)


def test_the_manifest_has_them() -> None:
    store, _ = damaged_store()
    find_damage(store)
    store.settle()
    number = current_manifest(store.fs)
    assert number is not None
    assert read_manifest(store.fs, number).lost == store.engine.lost != ()


def test_a_salvage_is_picked_of_what_is_damaged_there_and_free_the_oldest_first() -> None:
    tables = tuple(meta_of(number, b"a", b"z", tree_id=TREE) for number in (3, 4, 5))
    version = Version().apply(VersionEdit(created_trees=(TREE,), added=tables, next_file_number=1_000))
    assert pick_salvage(version, (), ()) is None
    assert pick_salvage(version, {5, 4, 77}, ()) == version.tables[4]
    assert pick_salvage(version, {5, 4}, {4}) == version.tables[5]
    assert pick_salvage(version, {4}, {4}) is None
    lost = tuple(LostRange(number, TreeId(TREE), b"a", b"b") for number in range(100, 100 + LOST_TABLES_MAX))
    full = version.apply(VersionEdit(lost=lost))
    assert pick_salvage(full, {4}, ()) is None, "it waits until something is noted"
    assert pick_salvage(full.apply(VersionEdit(lost_noted=(100,))), {4}, ()) == version.tables[4]
