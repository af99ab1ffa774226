"""Snapshots: what is in them, what they cost, who may open them, and that nothing of theirs harms the store."""

from __future__ import annotations

from dataclasses import replace

import pytest

from leafdb.codec.checksum import crc32c
from leafdb.errors import CorruptionError, StorageError, UnknownFormat
from leafdb.limits import SNAPSHOT_NAME_BYTES_MAX, SNAPSHOTS_MAX
from leafdb.storage.identity import IDENTITY_PATH, read_identity
from leafdb.storage.manifest import CURRENT_PATH
from leafdb.storage.snapshot_files import Snapshot, SnapshotRefused, read_snapshot, snapshot_path
from leafdb.storage.sstable_reader import verify
from leafdb.types import TreeId
from leafdb.vfs.base import read_file
from leafdb.vfs.below import Below
from leafdb.vfs.memory import MemoryFileSystem
from support.snapshots import OF_SNAPSHOT, OTHER, ask, copied, drop, fill, filled, opened, take
from support.store import TREE, Store


def test_a_copy_of_it_opens_with_everything_written_before_it_was_asked_for_and_nothing_newer() -> None:
    store = filled()
    before = {tree: store.page(tree=tree).items for tree in (TREE, OTHER)}
    answers = ask(store, "monday")
    store.put(b"k000", b"written while it was made")
    store.settle()
    fill(store, 30, b"w")
    store.settle()
    copy = opened(store, "monday")
    assert answers == [store.engine.snapshots()[0]]
    assert {tree: copy.page(tree=tree).items for tree in (TREE, OTHER)} == before
    assert copy.engine.stats().last_sequence == store.engine.snapshots()[0].sequence == 60
    copy.engine.check()
    copy.put(b"k000", b"it is a store like any other")
    copy.settle()
    assert copy.get(b"k000") == b"it is a store like any other"
    assert store.get(b"k000") == b"w" * 300
    copy.close()
    assert Store(copy.fs, OF_SNAPSHOT).engine.recovery.clean


def test_it_holds_what_was_in_memory_only_and_says_what_is_in_it() -> None:
    store = filled(1)
    assert not store.engine.stats().tables
    snapshot = take(store, "a.b-c_1")
    assert snapshot.trees == (TREE, OTHER)
    assert snapshot.sequence == 2
    assert snapshot.taken_ms == 77
    assert snapshot.bytes_named == sum(snapshot.files.values()) > 600
    assert not snapshot.problem
    assert opened(store, "a.b-c_1").get(b"k000") == b"v" * 300


def test_of_an_empty_store() -> None:
    store = Store()
    assert take(store, "empty").files == {}
    copy = opened(store, "empty")
    assert copy.engine.trees() == []
    assert copy.engine.recovery.boot == 1
    assert not copy.engine.recovery.created


def test_of_some_trees() -> None:
    store = filled()
    snapshot = take(store, "half", {OTHER})
    assert snapshot.trees == (OTHER,)
    copy = opened(store, "half")
    assert copy.engine.trees() == [OTHER]
    assert len(copy.page(tree=OTHER).items) == 30
    assert len(store.fs.list(f"{snapshot_path('half')}/tables")) == len(snapshot.files) < store.engine.stats().tables
    with pytest.raises(StorageError, match="there is no tree 999"):
        ask(store, "none", {TreeId(999)})
    assert len(store.engine.snapshots()) == 1


def test_a_snapshot_costs_no_data_until_the_store_moves_on() -> None:
    store = filled()
    store.engine.flush_soon()
    store.settle()
    used = store.fs.used_bytes()
    take(store, "s")
    assert store.fs.used_bytes() - used < 2_000
    assert store.engine.stats().snapshots == 1
    assert store.engine.stats().snapshot_bytes_held == 0
    for _ in range(6):
        fill(store, 30, b"w")
        store.engine.flush_soon()
        store.settle()
    assert store.engine.stats().compactions
    held = store.engine.stats().snapshot_bytes_held
    assert held > 0
    used = store.fs.used_bytes()
    drop(store, "s")
    assert used - store.fs.used_bytes() >= held
    assert store.engine.stats().snapshot_bytes_held == store.engine.stats().snapshots == 0
    assert store.fs.list("snapshots") == []
    assert len(store.page().items) == 30, "dropping a snapshot takes nothing from the store"
    Store(store.fs.copy()).engine.check()


def test_files_that_a_compaction_replaces_are_held_until_they_are_linked() -> None:
    store = filled()
    for _ in range(3):
        store.engine.flush_soon()
        store.settle()
        fill(store, 30)
    answers = ask(store, "pinned")
    while not store.engine._snapshots._tables._pins:  # until the moment at which it is planned
        if not store.executor.run_pending(1):
            store.jobs.step()
    taken = dict(store.engine._tables.version.files())
    # The link is queued behind what the store does now: a compaction that replaces all of it and lets go of it.
    queued = store.executor._queue
    link = queued.popleft()
    for _ in range(6):
        fill(store, 30, b"w")
        store.engine.flush_soon()
        store.settle()
    assert not set(taken) <= set(store.engine._tables.version.files())
    queued.append(link)
    store.settle()
    (snapshot,) = answers
    assert isinstance(snapshot, Snapshot)
    assert snapshot.files == taken
    assert dict(opened(store, "pinned").page().items) == {b"k%03d" % number: b"v" * 300 for number in range(30)}
    assert not [name for name in store.fs.list("tables") if f"tables/{name}" in taken], "let go once it was linked"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/a", "a\\b", "-a", ".a", "a b", "ä", "a\n", "x.part", "a" * 65, "a\0"]
)
def test_names_that_are_none(name: str) -> None:
    store = filled(1)
    with pytest.raises(SnapshotRefused):
        ask(store, name)
    with pytest.raises(SnapshotRefused):
        store.engine.drop_snapshot_soon(name, lambda error: None)
    assert store.fs.list("snapshots") == []


def test_names_are_taken_once_and_are_as_many_as_the_bound() -> None:
    store = filled(1)
    for number in range(SNAPSHOTS_MAX - 1):
        take(store, f"{number}" * SNAPSHOT_NAME_BYTES_MAX if number < 10 else f"n{number}")
    making = ask(store, "last")
    for name in ("n10", "last"):
        with pytest.raises(SnapshotRefused, match="already"):
            ask(store, name)
    with pytest.raises(SnapshotRefused, match="drop one first"):
        ask(store, "one-more")
    with pytest.raises(SnapshotRefused, match="no snapshot"):
        store.engine.drop_snapshot_soon("last", lambda error: None)  # not yet
    store.settle()
    assert isinstance(making[0], Snapshot)
    store.engine.drop_snapshot_soon("last", lambda error: None)
    with pytest.raises(SnapshotRefused, match="being dropped"):
        store.engine.drop_snapshot_soon("last", lambda error: None)
    with pytest.raises(SnapshotRefused, match="already"):
        ask(store, "last")
    store.settle()
    take(store, "last")
    store.engine.check()


def test_it_is_refused_as_a_store_and_a_store_is_refused_as_a_snapshot() -> None:
    store = filled(1)
    take(store, "s")
    with pytest.raises(SnapshotRefused, match="snapshot s, and none was meant"):
        Store(copied(store, "s"))
    store.close()
    with pytest.raises(SnapshotRefused, match="not a snapshot"):
        Store(store.fs, OF_SNAPSHOT)
    with pytest.raises(SnapshotRefused, match="not a snapshot"):
        Store(MemoryFileSystem(), OF_SNAPSHOT)
    assert Store(store.fs).get(b"k000") == b"v" * 300, "an attempt leaves the store as it was"


def test_builds_that_know_no_snapshots_refuse_its_stamp() -> None:
    store = filled(1)
    take(store, "s")
    inside = Below(store.fs, snapshot_path("s"))
    assert read_file(inside, IDENTITY_PATH)[8:10] == b"\0\2"
    assert read_file(store.fs, IDENTITY_PATH)[8:10] == b"\0\1"
    stamp = read_identity(inside)
    assert stamp == replace(store.engine.identity, boot=0, snapshot="s", taken_ms=77)


def test_it_is_read_where_it_lies_without_being_changed() -> None:
    store = filled()
    take(store, "s")
    inside = Below(store.fs, snapshot_path("s"))
    before = store.fs.paths()
    identity, version = read_snapshot(inside)
    assert identity.snapshot == "s"
    for meta in version.tables.values():
        verify(inside, meta)
    assert store.fs.paths() == before
    with pytest.raises(SnapshotRefused):
        read_snapshot(store.fs)


def test_a_snapshot_without_its_list_of_tables_is_damaged_not_empty() -> None:
    store = filled()
    take(store, "s")
    copy = copied(store, "s")
    copy.unlink(CURRENT_PATH)
    with pytest.raises(CorruptionError, match="CURRENT is missing"):
        Store(copy, OF_SNAPSHOT)
    with pytest.raises(CorruptionError, match="CURRENT is missing"):
        read_snapshot(copy)


def test_the_list_of_tables_of_another_snapshot_is_damage() -> None:
    """Seed 104 of tier damage: one snapshot's manifest was written over another's, and that opened with it."""
    store = Store()
    store.engine.create_tree(TREE)
    take(store, "first")
    store.put(b"k", b"v")
    store.settle()
    take(store, "second")
    first, second = (Below(store.fs, snapshot_path(name)) for name in ("first", "second"))
    ours, theirs = (next(name for name in fs.list("") if name.startswith("MANIFEST")) for fs in (first, second))
    file = store.fs.open_append(f"{first.directory}/{ours}")
    file.truncate(0)
    file.append(read_file(second, theirs))
    with pytest.raises(CorruptionError):
        read_snapshot(first)
    assert read_snapshot(second)


def test_the_next_open_knows_them_and_sweeps_what_was_never_finished() -> None:
    store = filled()
    take(store, "one")
    snapshot = take(store, "two", {TREE})
    store.close()
    store.fs.mkdir("snapshots/three.part/tables")
    store.fs.link(next(path for path in store.fs.paths() if "/one/tables/" in path), "snapshots/three.part/tables/x")
    store.fs.create("snapshots/left by somebody").close()
    again = Store(store.fs)
    assert [each.name for each in again.engine.snapshots()] == ["one", "two"]
    assert again.engine.snapshots()[1] == snapshot
    assert again.fs.list("snapshots") == ["left by somebody", "one", "two"]
    with pytest.raises(SnapshotRefused, match="already"):
        ask(again, "one")


def test_one_that_is_damaged_says_so_and_can_be_dropped() -> None:
    store = filled(2)
    for name in ("current", "stamp", "renamed", "sound"):
        take(store, name)
    store.close()
    store.fs.unlink(f"{snapshot_path('current')}/{CURRENT_PATH}")
    store.fs.flip(f"{snapshot_path('stamp')}/{IDENTITY_PATH}", 30)
    store.fs.rename(snapshot_path("renamed"), snapshot_path("other"))
    again = Store(store.fs)
    problems = {each.name: each.problem for each in again.engine.snapshots()}
    assert list(problems) == ["current", "other", "sound", "stamp"]
    assert "CURRENT is missing" in problems["current"]
    assert "damaged" in problems["stamp"]
    assert "somebody renamed it" in problems["other"]
    assert not problems["sound"]
    for name in ("current", "other", "stamp"):
        drop(again, name)
    assert again.fs.list("snapshots") == ["sound"]


def test_a_newer_stamp_is_refused_by_name() -> None:
    store = filled(1)
    take(store, "s")
    copy = copied(store, "s")
    file = copy.open_append(IDENTITY_PATH)
    content = bytearray(file.read_at(0, file.size()))
    content[9] = 3
    file.write_at(0, bytes(content[:-4]) + crc32c(bytes(content[:-4])).to_bytes(4, "big"))
    with pytest.raises(UnknownFormat, match="format 3"):
        Store(copy, OF_SNAPSHOT)
