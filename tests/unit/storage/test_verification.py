"""Verification reads everything once, says what is damaged and where, and disturbs nobody."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from leafdb.errors import StorageError, StoreFailed
from leafdb.limits import VERIFY_SLICE_BYTES
from leafdb.storage.verification import Verified, VerifyState
from leafdb.storage.version import table_path
from leafdb.storage.wal_format import ENTRY, FRAME_BYTES
from leafdb.types import TreeId
from leafdb.vfs.memory import Fault
from support.store import SMALL, TREE, Store

OTHER = TreeId(301)
Told = list[Verified | StorageError]


def filled(rounds: int = 3, keys: int = 200) -> Store:
    """A store with several tables and two trees."""
    store = Store(config=SMALL)
    store.engine.create_tree(TREE)
    store.engine.create_tree(OTHER)
    store.settle()
    for round_number in range(rounds):
        for number in range(keys):
            store.put(b"%05d" % number, Random(number + round_number).randbytes(200))
        store.put(b"one", b"v" * 50, tree=OTHER)
        store.engine.flush_soon()
        store.settle()
    return store


def verify(store: Store, bytes_per_s: int = 0) -> Verified:
    told: Told = []
    store.engine.verify_soon(bytes_per_s=bytes_per_s, done=told.append)
    assert not told, "answered inside the call"
    store.settle()
    (found,) = told
    assert isinstance(found, Verified)
    return found


def test_a_sound_store_is_read_to_its_last_byte() -> None:
    store = filled()
    stats = store.engine.stats()
    _, manifest_bytes = store.engine._parts.manifest.place
    found = verify(store)
    assert found.state is VerifyState.DONE
    assert found.files == found.files_total == stats.tables + 1
    assert found.bytes_read == found.bytes_total == stats.table_bytes + manifest_bytes
    assert (found.damages, found.damages_found, found.damaged_files) == ((), 0, 0)
    assert store.engine.verifier.progress() == found
    assert store.engine.verifier.bytes_read == found.bytes_read
    assert store.engine.stats().block_cache_bytes == 0, "it goes beside the cache"
    store.engine.check()
    store.close()
    assert store.fs.open_files == 0


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9, 0.99, 1.0])
def test_every_flipped_byte_of_a_table_is_found_and_told_once(share: float) -> None:
    store = filled()
    meta = max(store.engine._tables.version.trees[TREE], key=lambda meta: meta.size)
    store.fs.flip(meta.path, int((meta.size - 1) * share))
    told: list[tuple[TreeId, bytes, bytes]] = []
    store.engine.on_damage = lambda tree, smallest, largest: told.append((tree, smallest, largest))
    found = verify(store)
    assert found.state is VerifyState.DONE
    assert found.files == found.files_total, "the others are read all the same"
    assert (found.damages_found, found.damaged_files) == (1, 1)
    (damage,) = found.damages
    assert (damage.path, damage.tree_id) == (meta.path, TREE)
    assert meta.smallest <= damage.smallest <= damage.largest <= meta.largest
    assert told == [(TREE, meta.smallest, meta.largest)]
    assert not store.failures
    store.engine.check()


def test_a_damaged_block_is_named_by_its_keys_and_the_rest_of_the_table_is_sound() -> None:
    store = Store(config=replace(SMALL, memtable_bytes=1_000_000))
    store.engine.create_tree(TREE)
    store.settle()
    for number in range(60):
        store.put(b"%05d" % number, Random(number).randbytes(1_000))
    store.engine.flush_soon()
    store.settle()
    (meta,) = store.engine._tables.version.trees[TREE]
    reader = store.engine._tables.readers[meta.file_number]
    places = reader._places
    assert len(places) > 2
    store.fs.flip(meta.path, places[0][0] + 10)
    store.fs.flip(meta.path, places[-1][0] + 10)
    found = verify(store)
    first, last = found.damages
    assert found.damaged_files == 1
    assert (first.offset, first.smallest) == (0, meta.smallest)
    assert first.largest <= last.smallest
    assert (last.offset, last.largest) == (places[-1][0], b"00059")
    assert "checksum" in first.what


def test_a_table_that_is_gone_or_unreadable_is_damage() -> None:
    store = filled()
    metas = sorted(store.engine._tables.version.trees[TREE], key=lambda meta: meta.file_number)
    store.fs.unlink(metas[0].path)
    store.fs.faults.append(Fault("open", path_prefix=metas[-1].path))
    found = verify(store)
    assert [damage.path for damage in found.damages] == [metas[0].path, metas[-1].path]
    assert [(damage.smallest, damage.largest) for damage in found.damages] == [
        (meta.smallest, meta.largest) for meta in (metas[0], metas[-1])
    ]
    assert not store.failures


def test_a_segment_that_waits_for_its_flush_is_read_too() -> None:
    store = filled(rounds=1)
    store.put(b"late", b"v" * 500)
    store.engine.flush_soon()
    store.commit()  # sealed; no job has run
    (segment,) = store.engine._maintenance.sealed_memtables()[0].segments
    store.fs.flip(f"wal/{segment:010d}.log", 60)
    told: Told = []
    store.engine.verify_soon(bytes_per_s=0, done=told.append)
    store.commit()
    (found,) = told
    assert isinstance(found, Verified)
    (damage,) = found.damages
    assert (damage.path, damage.offset, damage.tree_id) == (f"wal/{segment:010d}.log", 32, None)
    assert not store.failures


def test_a_segment_that_lost_its_end_at_the_edge_of_a_frame_is_damaged() -> None:
    store = filled(rounds=1)
    for number in range(2):
        store.put(b"late%d" % number, b"v" * 500)
        store.commit()
    store.engine.flush_soon()
    store.commit()
    (memtable,) = store.engine._maintenance.sealed_memtables()
    path = f"wal/{memtable.segments[-1]:010d}.log"
    file = store.fs.open_append(path)
    file.truncate(file.size() - FRAME_BYTES - ENTRY.size - 505)
    file.close()
    told: Told = []
    store.engine.verify_soon(bytes_per_s=0, done=told.append)
    store.commit()
    (found,) = told
    assert isinstance(found, Verified)
    assert [damage.path for damage in found.damages] == [path]
    assert f"where {memtable.last_lsn} was written" in found.damages[0].what


def test_what_a_restart_brought_back_is_sound_while_it_waits_for_its_flush() -> None:
    store = filled(rounds=1)
    for number in range(40):
        store.put(b"late%d" % number, b"v" * 100)
        store.commit()
    again = store
    for _ in range(3):  # starts that die before a job is done: a generation of several segments, one of them empty
        again = Store(again.fs.power_cut(Random(1), keep=1.0))
        again.commit()
    (memtable,) = again.engine._maintenance.sealed_memtables()
    assert len(memtable.segments) > 1
    told: Told = []
    again.engine.verify_soon(bytes_per_s=0, done=told.append)
    again.commit()
    (found,) = told
    assert isinstance(found, Verified)
    assert (found.damages, found.state) == ((), VerifyState.DONE)
    assert found.files == again.engine.stats().tables + len(memtable.segments) + 1


def test_a_damaged_manifest_is_found_even_in_its_last_record() -> None:
    store = filled(rounds=1)
    number, size = store.engine._parts.manifest.place
    path = f"MANIFEST-{number:010d}"
    store.fs.flip(path, size - 1)
    found = verify(store)
    assert [damage.path for damage in found.damages] == [path]
    assert not store.failures


def test_it_reads_no_faster_than_it_may() -> None:
    store = filled()
    total = verify(store).bytes_total
    assert total > VERIFY_SLICE_BYTES / 8
    told: Told = []
    store.engine.verify_soon(bytes_per_s=total // 10, done=told.append)
    begun_s = store.now_s
    while not told:
        store.commit()
        spent_s = store.now_s - begun_s
        progress = store.engine.verifier.progress()
        assert progress is not None
        assert progress.bytes_read <= spent_s * total / 10 + VERIFY_SLICE_BYTES + total / 10
        assert store.engine.deadline() <= store.now_s + 60
        store.elapse(max(0.02, store.engine.deadline() - store.now_s))
    assert 5.0 <= store.now_s - begun_s <= 15.0


def test_one_at_a_time_and_cancelled_with_what_was_found() -> None:
    store = filled()
    store.fs.flip(table_path(min(store.engine._tables.version.tables)), 10)
    told: Told = []
    store.engine.verify_soon(bytes_per_s=1, done=told.append)
    store.commit()
    assert store.engine.verifier.running
    with pytest.raises(StorageError, match="already"):
        store.engine.verify_soon(bytes_per_s=0, done=told.append)
    store.engine.verifier.cancel()
    store.commit()
    (found,) = told
    assert isinstance(found, Verified)
    assert found.state is VerifyState.CANCELLED
    assert found.damages_found == 1
    assert found.files < found.files_total
    assert store.engine.verifier.progress() == found
    store.engine.check()
    assert verify(store).state is VerifyState.DONE
    store.engine.verifier.cancel()
    store.close()
    assert store.fs.open_files == 0


def test_what_compaction_replaces_meanwhile_is_passed_over_and_not_kept() -> None:
    store = filled(rounds=1)
    told: Told = []
    store.engine.verify_soon(bytes_per_s=1, done=told.append)
    store.commit()
    before = set(store.engine._tables.version.tables)
    for round_number in range(6):
        for number in range(200):
            store.put(b"%05d" % number, b"%d" % round_number * 200)
        store.engine.flush_soon()
        store.settle()
    gone = before - set(store.engine._tables.version.tables)
    assert gone
    while not told:
        store.elapse(100_000)
        store.settle()
    (found,) = told
    assert isinstance(found, Verified)
    assert (found.state, found.damages) == (VerifyState.DONE, ())
    assert not any(store.fs.exists(table_path(number)) for number in gone)
    store.engine.check()


@pytest.mark.parametrize("in_flight", [False, True])
def test_the_end_of_the_store_ends_it(in_flight: bool) -> None:
    store = filled()
    told: Told = []
    store.engine.verify_soon(bytes_per_s=1, done=told.append)
    if in_flight:
        store.executor.run_pending(1)
    else:
        store.commit()
    store.close()
    assert len(told) == 1
    assert isinstance(told[0], StoreFailed)
    store.executor.run_pending()
    assert store.fs.open_files == 0
