"""What the engine does when the world fails it: final where it must be, patient where it may be, never wrong."""

from __future__ import annotations

import errno
from dataclasses import replace
from random import Random

import pytest

from leafdb.errors import CorruptionError, DiskFull, StorageError, StoreFailed
from leafdb.storage.version import table_path
from leafdb.types import Durability, TreeId
from leafdb.vfs.memory import Fault, MemoryFileSystem
from support.store import SMALL, TREE, Store

ALWAYS, PERIODIC = Durability.ALWAYS, Durability.PERIODIC


@pytest.fixture
def store() -> Store:
    made = Store()
    made.engine.create_tree(TREE)
    made.settle()
    return made


def assert_dead(store: Store) -> None:
    assert len(store.failures) == 1
    assert isinstance(store.failures[0], StoreFailed)
    calls: list[object] = []
    store.fs.on_call = lambda kind, path: calls.append((kind, path))
    for call in (
        lambda: store.engine.get_now(TREE, b"k"),
        lambda: store.engine.get_soon(TREE, b"k", print),
        lambda: store.page(),
        lambda: store.put(b"k", b"v"),
        lambda: store.engine.admit(),
        lambda: store.engine.flush_soon(),
        lambda: store.engine.stamp(cluster_id=b"", node_id=1, incarnation=1),
    ):
        with pytest.raises(StoreFailed):
            call()
    told: list[StorageError | None] = []
    store.engine.when_safe(1, PERIODIC, told.append)
    assert isinstance(told[0], StoreFailed)
    store.elapse(10.0)
    store.settle()
    assert calls == [], "nothing more is written, synced or removed"
    store.fs.on_call = None


@pytest.mark.parametrize(
    ("kind", "error", "short"),
    [
        ("sync", errno.EIO, False),
        ("sync", errno.ENOSPC, False),
        ("append", errno.EIO, False),
        ("append", errno.ENOSPC, True),
        ("append", errno.EIO, True),
    ],
)
def test_an_error_on_the_log_is_the_end(store: Store, kind: str, error: int, short: bool) -> None:
    before = store.put(b"before", b"v")
    store.commit()
    store.fs.faults.append(Fault(kind, error=error, short=short, path_prefix="wal/"))
    outcomes = [store.put(b"k", b"v", ALWAYS), store.put(b"k2", b"v", PERIODIC)]
    store.commit()
    assert before == [None]
    assert [type(outcome[0]) for outcome in outcomes] == [StoreFailed, StoreFailed]
    assert_dead(store)
    store.close()
    again = Store(store.fs.power_cut(Random(1)))
    assert again.get(b"before") == b"v"
    assert not again.engine.recovery.clean


def test_a_failed_sync_is_not_tried_again_even_by_closing(store: Store) -> None:
    store.fs.faults.append(Fault("sync", path_prefix="wal/"))
    store.put(b"k", b"v", PERIODIC)
    store.close()
    assert len(store.failures) == 1
    assert not store.fs.exists("CLEAN")
    Store(store.fs)


@pytest.mark.parametrize("kind", ["append", "sync"])
def test_an_error_on_the_manifest_is_the_end(store: Store, kind: str) -> None:
    store.put(b"k", b"v")
    store.commit()
    store.fs.faults.append(Fault(kind, path_prefix="MANIFEST"))
    store.engine.flush_soon()
    store.settle()
    assert_dead(store)
    again = Store(store.fs.power_cut(Random(0), keep=1.0))
    assert again.get(b"k") == b"v"
    again.settle()
    again.engine.check()


def test_an_io_error_while_flushing_is_the_end(store: Store) -> None:
    store.put(b"k", b"v")
    store.fs.faults.append(Fault("sync", path_prefix="tables/"))
    store.engine.flush_soon()
    store.settle()
    assert_dead(store)


def test_a_flush_without_room_is_tried_again_and_leaves_nothing_behind(store: Store) -> None:
    for number in range(20):
        store.put(b"%d" % number, b"v" * 100)
    store.fs.faults.append(Fault("append", error=errno.ENOSPC, count=2, short=True, path_prefix="tables/"))
    told: list[str] = []
    store.engine.flush_soon(lambda: told.append("flushed"))
    store.settle()
    assert store.engine.stats().failed_jobs == 1
    assert store.fs.list("tables") == []
    assert store.engine.deadline() <= store.now_s + 0.5
    store.elapse(0.4)
    store.settle()
    assert store.engine.stats().failed_jobs == 1, "it waits"
    store.elapse(0.2)
    store.settle()
    assert store.engine.stats().failed_jobs == 2
    store.elapse(1.1)
    store.settle()
    assert told == ["flushed"]
    assert not store.failures
    assert len(store.fs.list("tables")) == 1
    assert store.get(b"7") == b"v" * 100


def test_frozen_memtables_that_cannot_be_flushed_stop_writers_and_memory_stays_bounded(store: Store) -> None:
    store.fs.faults.append(Fault("create", error=errno.ENOSPC, count=10_000, path_prefix="tables/"))
    admitted = 0
    for number in range(3000):
        if store.engine.admit() == 0.0:
            admitted += 1
            store.put(b"%d" % number, b"v" * 300)
        store.elapse(0.005)
        store.settle()
    stats = store.engine.stats()
    assert admitted < 600
    assert stats.frozen_memtables == SMALL.frozen_memtables_max
    assert stats.frozen_bytes + stats.memtable_bytes < (SMALL.frozen_memtables_max + 1) * 21_000
    store.fs.faults.clear()
    store.elapse(31.0)
    store.settle()
    assert store.engine.admit() == 0.0
    store.engine.check()


def test_a_filling_disk_is_foreseen_and_room_is_noticed() -> None:
    config = replace(SMALL, disk_free_bytes_low=40_000, disk_free_bytes_high=60_000)
    store = Store(MemoryFileSystem(quota_bytes=150_000), config)
    store.engine.create_tree(TREE)
    store.settle()
    for number in range(2000):
        try:
            store.engine.admit()
        except DiskFull:
            break
        assert store.put(b"%d" % number, Random(number).randbytes(200)) == []
        store.elapse(0.3)
        store.settle()
    else:
        pytest.fail("the disk was never found full")
    assert not store.failures
    assert store.get(b"0") == Random(0).randbytes(200), "reading goes on"
    store.put(b"a lease", b"v")  # what must happen happens
    store.elapse(5.0)
    store.settle()
    assert store.fs.free_bytes() > 0
    store.fs.quota_bytes = 300_000
    store.elapse(1.1)
    assert store.engine.admit() == 0.0
    assert not store.failures


def test_a_real_end_of_room_in_the_log_is_the_end_and_loses_nothing_acknowledged() -> None:
    config = replace(SMALL, memtable_bytes=1 << 20, disk_free_bytes_low=0, disk_free_bytes_high=0)
    store = Store(MemoryFileSystem(quota_bytes=12_000), config)
    store.engine.create_tree(TREE)
    acknowledged = []
    while not store.failures:
        key = b"%03d" % store.engine.stats().last_sequence
        outcome = store.put(key, b"v" * 100)
        store.commit()
        if outcome == [None]:
            acknowledged.append(key)
    assert len(acknowledged) > 20
    assert_dead(store)
    store.close()
    store.fs.quota_bytes = None
    again = Store(store.fs)
    assert all(again.get(key) == b"v" * 100 for key in acknowledged)


def test_a_damaged_block_is_reported_by_the_reads_that_need_it_and_by_no_other(store: Store) -> None:
    for number in range(2000):
        store.put(b"%05d" % number, Random(number).randbytes(40))
    store.engine.flush_soon()
    store.settle()
    tables = store.engine._tables.version.tables.values()
    meta = next(table for table in tables if table.smallest <= b"00000" <= table.largest)
    store.fs.flip(table_path(meta.file_number), 40)
    told: list[tuple[TreeId, bytes, bytes]] = []
    store.engine.on_damage = lambda tree, smallest, largest: told.append((tree, smallest, largest))
    with pytest.raises(CorruptionError) as caught:
        store.get(b"00000")
    assert caught.value.path == table_path(meta.file_number)
    with pytest.raises(CorruptionError):
        store.page()
    assert told == [(meta.tree_id, meta.smallest, meta.largest)] * 2
    assert store.get(b"01999") == Random(1999).randbytes(40)
    store.put(b"00000", b"healed")
    assert store.get(b"00000") == b"healed"
    assert not store.failures


def test_a_compaction_that_meets_damage_has_it_salvaged_and_the_store_goes_on(store: Store) -> None:
    for round_number in range(3):
        for number in range(40):
            store.put(b"%d" % number, b"%d" % round_number * 30)
        store.engine.flush_soon()
        store.settle()
    number = min(store.engine._tables.version.tables)
    store.fs.flip(table_path(number), 60)
    told: list[TreeId] = []
    store.engine.on_damage = lambda tree, smallest, largest: told.append(tree)
    for _ in range(4):
        for key in range(40):
            store.put(b"%d" % key, b"new" * 30)
        store.engine.flush_soon()
        store.settle()
    stats = store.engine.stats()
    assert (stats.failed_jobs, stats.salvages) == (1, 1)
    assert told == [TREE]
    assert not store.failures
    assert store.get(b"1") == b"new" * 30
    assert len(store.fs.list("tables")) == stats.tables


def test_a_table_that_could_not_be_read_once_loses_nothing(store: Store) -> None:
    for round_number in range(8):
        for number in range(40):
            store.put(b"%d" % number, b"%d" % round_number * 30)
        if round_number == 3:
            first = table_path(min(store.engine._tables.version.tables))
            store.fs.faults.append(Fault("open", path_prefix=first))
        store.engine.flush_soon()
        store.settle()
    stats = store.engine.stats()
    assert (stats.failed_jobs, stats.salvages, stats.lost_ranges) == (1, 1, 0)
    assert not store.fs.exists(first)
    assert not store.failures


def test_damage_of_a_tree_that_nobody_may_salvage_stays_and_is_tried_again_by_compactions() -> None:
    store = Store(config=replace(SMALL, salvages=lambda tree: tree != TREE))
    store.engine.create_tree(TREE)
    store.settle()
    for round_number in range(8):
        for number in range(40):
            store.put(b"%d" % number, b"%d" % round_number * 30)
        if round_number == 3:
            first = table_path(min(store.engine._tables.version.tables))
            store.fs.faults.append(Fault("open", path_prefix=first))
        store.engine.flush_soon()
        store.settle()
    assert store.engine.stats().failed_jobs == 1
    assert store.fs.exists(first)
    store.elapse(61)
    store.settle()
    assert not store.fs.exists(first)
    stats = store.engine.stats()
    assert (stats.failed_jobs, stats.salvages) == (1, 0)
    assert not store.failures


def test_a_damaged_segment_that_a_flush_needs_is_the_end(store: Store) -> None:
    store.put(b"k", b"v" * 100)
    store.engine.flush_soon()
    store.executor.run_pending()
    store.fs.flip("wal/0000000001.log", 90)
    store.settle()
    assert_dead(store)
    with pytest.raises(CorruptionError, match=r"wal/0000000001\.log: damaged at offset 32"):
        Store(store.fs.power_cut(Random(0), keep=1.0))


def test_the_log_thread_failing_in_the_middle_of_a_seal_is_the_end(store: Store) -> None:
    store.put(b"k", b"v")
    store.fs.faults.append(Fault("create", error=errno.ENOSPC, path_prefix="wal/"))
    store.engine.flush_soon()
    store.settle()
    assert_dead(store)
    assert Store(store.fs.power_cut(Random(0), keep=1.0)).get(b"k") == b"v"
