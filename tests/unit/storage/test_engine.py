"""What the engine promises its callers when all goes well."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from random import Random

import pytest

from leafdb.errors import StorageError, StoreFailed, StoreLocked
from leafdb.storage.lsm_tree import Page
from leafdb.storage.reads import ReadsOverloaded
from leafdb.types import Durability, TreeId
from leafdb.vfs.base import read_file
from leafdb.vfs.memory import MemoryFileSystem
from support.store import SMALL, TREE, Store

OTHER = TreeId(301)
ALWAYS, PERIODIC = Durability.ALWAYS, Durability.PERIODIC


@pytest.fixture
def store() -> Store:
    made = Store()
    made.engine.create_tree(TREE)
    made.settle()
    return made


def fill(store: Store, count: int, *, size: int = 100) -> None:
    for number in range(count):
        store.put(b"%05d" % number, bytes([number % 256]) * size)
        if number % 50 == 0:
            store.settle()
    store.settle()


def test_a_write_is_read_at_once_and_told_when_durable(store: Store) -> None:
    outcome = store.put(b"k", b"v")
    assert store.engine.get_now(TREE, b"k") == (b"v", 1)
    assert store.engine.safe_sequence(ALWAYS) == 0
    assert outcome == []
    store.commit()
    assert outcome == [None]
    assert store.engine.safe_sequence(ALWAYS) == 1
    store.put(b"k", None)
    assert store.engine.get_now(TREE, b"k") == (None, 2)
    assert store.engine.get_now(TREE, b"other") == (None, 0)


def test_a_write_over_several_trees_has_one_sequence(store: Store) -> None:
    store.engine.create_tree(OTHER)
    assert store.engine.write([(TREE, b"a", b"1"), (OTHER, b"a", b"2")]) == 1
    assert store.engine.get_now(TREE, b"a") == (b"1", 1)
    assert store.engine.get_now(OTHER, b"a") == (b"2", 1)


def test_unknown_trees_are_refused_before_anything_happens(store: Store) -> None:
    with pytest.raises(StorageError, match="no tree 999"):
        store.engine.write([(TREE, b"a", b"1"), (TreeId(999), b"a", b"1")])
    with pytest.raises(StorageError, match="no tree 999"):
        store.engine.get_now(TreeId(999), b"a")
    with pytest.raises(StorageError, match="no tree 999"):
        store.page(tree=TreeId(999))
    assert store.engine.stats().last_sequence == 0
    assert store.engine.get_now(TREE, b"a") == (None, 0)


def test_data_moves_to_tables_and_segments_are_freed(store: Store) -> None:
    fill(store, 500)
    stats = store.engine.stats()
    assert stats.flushes >= 5
    assert stats.compactions >= 1
    assert stats.frozen_memtables == 0
    assert store.fs.list("wal") == [f"{store.engine._segment:010d}.log"]
    assert len(store.fs.list("tables")) == stats.tables
    assert store.engine.get_now(TREE, b"00001") == (b"\1" * 100, 0)
    assert store.get(b"00499") == bytes([499 % 256]) * 100
    store.engine.check()


def test_flush_soon_brings_everything_into_tables(store: Store) -> None:
    told: list[str] = []
    store.engine.flush_soon(lambda: told.append("nothing to do"))
    assert told == []
    store.settle()
    store.put(b"k", b"v")
    store.engine.flush_soon(lambda: told.append("flushed"))
    store.put(b"later", b"v")
    store.settle()
    assert told == ["nothing to do", "flushed"]
    assert store.engine.get_now(TREE, b"k") == (b"v", 0)
    assert store.engine.stats().tables == 1


def test_a_flush_waits_until_its_segment_is_sealed(store: Store) -> None:
    store.put(b"k", b"v")
    store.engine.flush_soon()
    store.engine._maintenance.pump()
    assert not store.jobs._jobs, "the segment is still being written"
    store.settle()
    assert store.engine.stats().flushes == 1


def test_overwriting_few_keys_bounds_the_log_all_the_same() -> None:
    store = Store(config=replace(SMALL, wal_segment_bytes=5_000))
    store.engine.create_tree(TREE)
    for _ in range(300):
        store.put(b"same", b"x" * 100)
        store.settle()
    assert store.engine.stats().flushes >= 5
    store.engine.check()


def test_periodic_writes_are_synced_within_the_interval(store: Store) -> None:
    store.put(b"k", b"v", PERIODIC)
    store.commit()
    assert store.engine.safe_sequence(PERIODIC) == 1
    assert store.engine.deadline() <= store.now_s
    store.elapse(0.0)
    assert store.engine.safe_sequence(ALWAYS) == 0
    assert store.engine.deadline() <= store.now_s + 0.05
    store.elapse(0.05)
    assert store.engine.safe_sequence(ALWAYS) == 1
    assert store.engine.deadline() > store.now_s


def test_scans_page_through_memory_and_tables_in_both_directions(store: Store) -> None:
    fill(store, 300)
    for number in range(0, 300, 7):
        store.put(b"%05d" % number, None)
    store.put(b"00003x", b"new")
    wanted = [(b"%05d" % n, bytes([n % 256]) * 100) for n in range(300) if n % 7]
    wanted = sorted([*wanted, (b"00003x", b"new")])
    assert store.items(limit=11) == wanted
    assert store.items(limit=11, reverse=True) == wanted[::-1]
    assert store.items(b"00003", b"00006") == [item for item in wanted if b"00003" <= item[0] < b"00006"]
    assert store.page(limit=1000).next_key is None
    assert store.page(b"00003x", b"00003x").items == []


def test_a_page_ends_at_its_bytes_and_says_what_must_be_safe_to_show_it(store: Store) -> None:
    fill(store, 20)
    store.engine.flush_soon()
    store.settle()
    assert store.page(limit=5).sequence == 0
    store.put(b"00000", b"x" * 1000)
    page = store.page(bytes_max=1001)
    assert len(page.items) == 1
    assert page.sequence == 21
    assert page.next_key == b"00000\0"
    assert store.page(page.next_key, limit=3).sequence == 0


def test_a_scan_shows_the_moment_of_its_submission(store: Store) -> None:
    fill(store, 100)
    answers: list[Page | StorageError] = []
    store.engine.scan_soon(TREE, b"", None, limit=1000, bytes_max=1 << 20, done=answers.append)
    store.engine.write([(TREE, b"00000", b"changed"), (TREE, b"zzz", b"new")])
    store.commit()
    (page,) = answers
    assert isinstance(page, Page)
    assert page.items[0] == (b"00000", b"\0" * 100)
    assert len(page.items) == 100


def test_a_pinned_version_keeps_its_files(store: Store) -> None:
    fill(store, 200)
    pin = store.engine._tables.pin()
    before = set(store.fs.list("tables"))
    fill(store, 400, size=150)
    assert store.engine.stats().compactions > 1
    assert before <= set(store.fs.list("tables"))
    for meta in pin.version.tables.values():
        assert list(store.engine._tables.readers[meta.file_number].iterate(b"", None))
    store.engine._tables.release(pin)
    store.settle()
    assert len(store.fs.list("tables")) == store.engine.stats().tables


def test_reads_of_cold_blocks_wait_beside_the_loop(store: Store) -> None:
    fill(store, 200)
    store.engine.flush_soon()
    store.settle()
    store.fs.cold = True
    store.engine._parts.cache.bytes_max = 0
    assert store.engine.get_now(TREE, b"00007") is None
    assert store.get(b"00007") == b"\7" * 100
    answers: list[object] = []
    for number in range(50):
        store.engine.get_soon(TREE, b"%05d" % number, answers.append)
    assert store.engine.stats().reads_pending == 50
    store.put(b"hot", b"v")
    store.engine.get_soon(TREE, b"hot", answers.append)
    assert answers == []
    store.commit()
    expected = [(b"v", 201), *((bytes([n]) * 100, 0) for n in range(50))]
    assert sorted(answers, key=str) == sorted(expected, key=str)
    assert store.engine.stats().reads_pending == 0


def test_too_many_waiting_reads_are_refused_at_once() -> None:
    store = Store(config=replace(SMALL, reads_queued_max=5))
    store.engine.create_tree(TREE)
    fill(store, 100)
    store.engine.flush_soon()
    store.settle()
    store.fs.cold = True
    for _ in range(5):
        store.engine.get_soon(TREE, b"00001", lambda _: None)
    with pytest.raises(ReadsOverloaded):
        store.engine.get_soon(TREE, b"00001", lambda _: None)
    with pytest.raises(ReadsOverloaded):
        store.page()
    store.commit()
    assert store.get(b"00001") == b"\1" * 100


def test_trees_are_created_and_dropped_for_good(store: Store) -> None:
    told: list[str] = []
    store.engine.create_tree(OTHER, lambda: told.append("created"))
    store.engine.create_tree(OTHER, lambda: told.append("there already"))
    assert store.engine.trees() == [TREE, OTHER]
    for number in range(100):
        store.put(b"%d" % number, b"x" * 300, tree=OTHER)
        store.put(b"%d" % number, b"x" * 10)
    store.settle()
    assert told == ["created", "there already"]
    files = len(store.fs.list("tables"))
    store.put(b"fresh", b"x", tree=OTHER)
    store.engine.drop_tree(OTHER, lambda: told.append("dropped"))
    store.engine.drop_tree(OTHER)
    with pytest.raises(StorageError):
        store.engine.get_now(OTHER, b"1")
    with pytest.raises(StorageError, match="not yet out of the store"):
        store.engine.create_tree(OTHER)
    store.settle()
    assert told[-1] == "dropped"
    assert len(store.fs.list("tables")) < files
    store.engine.check()
    store.engine.flush_soon()
    store.settle()
    store.engine.create_tree(OTHER)
    store.settle()
    assert store.items() == sorted((b"%d" % n, b"x" * 10) for n in range(100))
    assert store.page(tree=OTHER).items == []
    again = Store(store.fs.power_cut(Random(0), keep=1.0))
    assert again.page(tree=OTHER).items == []


def test_a_tree_dropped_while_its_flush_and_its_compaction_run_leaves_no_file(store: Store) -> None:
    store.engine.create_tree(OTHER)
    for rest in range(60):
        fill_other = rest % 10
        for number in range(30):
            store.put(b"%d" % number, b"%d" % rest * 50, tree=OTHER)
            store.put(b"%d" % number, b"x")
        for _ in range(rest % 7):
            store.executor.run_pending()
            store.jobs.step()
        if fill_other == 9:
            store.engine.drop_tree(OTHER)
            store.settle()
            store.engine.flush_soon()
            store.settle()
            store.engine.check()
            assert len(store.fs.list("tables")) == store.engine.stats().tables
            store.engine.create_tree(OTHER)
    assert store.engine.stats().failed_jobs == 0


def test_a_dropped_number_is_not_taken_again_while_its_tables_can_be_read(store: Store) -> None:
    """Seed 910003563 of the simulation: made again at once, the tree showed what its namesake had held."""
    store.engine.create_tree(OTHER)
    store.put(b"k", b"old", tree=OTHER)
    store.engine.flush_soon()
    store.settle()
    store.engine.drop_tree(OTHER)
    with pytest.raises(StorageError, match="was dropped and its records are not yet out of"):
        store.engine.create_tree(OTHER)
    store.settle()
    store.engine.create_tree(OTHER)
    assert store.page(tree=OTHER).items == []
    assert store.get(b"k", tree=OTHER) is None


def test_a_tree_made_again_while_a_compaction_of_its_namesake_runs_is_left_alone() -> None:
    """Seed 910001686: the compaction's edit removed tables that had gone with the tree before."""
    config = replace(SMALL, compaction=replace(SMALL.compaction, level0_tables=2))
    for steps in range(40):
        store = Store(config=config)
        store.engine.create_tree(OTHER)
        for number in range(2):
            store.put(b"k", b"%d" % number * 1000, tree=OTHER)
            store.engine.flush_soon()
            store.commit()
            while store.engine.stats().frozen_memtables:
                store.jobs.step()
                store.commit()
        for _ in range(steps):
            store.jobs.step()
        store.engine.drop_tree(OTHER)
        store.commit()
        store.engine.create_tree(OTHER)
        store.put(b"k", b"new", tree=OTHER)
        store.settle()
        assert not store.failures
        assert store.get(b"k", tree=OTHER) == b"new"
        store.engine.check()
        assert len(store.fs.list("tables")) == store.engine.stats().tables
        store.close()


def test_one_process_at_a_time(store: Store) -> None:
    with pytest.raises(StoreLocked):
        Store(store.fs)
    store.close()
    Store(store.fs).close()


def test_a_closed_store_answers_everyone_and_serves_nothing(store: Store) -> None:
    waiting = store.put(b"k", b"v", PERIODIC)
    late: list[StorageError | None] = []

    def write_again(error: StorageError | None) -> None:
        with pytest.raises(StoreFailed, match="closed"):
            store.engine.write([(TREE, b"too late", b"v")])
        late.append(error)

    store.engine.write([(TREE, b"k2", b"v")], ALWAYS, write_again)
    store.close()
    store.engine.close()
    assert waiting == [None]
    assert late == [None]
    for call in (
        lambda: store.engine.get_now(TREE, b"k"),
        lambda: store.engine.write([(TREE, b"k", b"v")]),
        lambda: store.engine.admit(),
        lambda: store.engine.create_tree(OTHER),
        lambda: store.engine.flush_soon(),
    ):
        with pytest.raises(StoreFailed, match="the store is closed"):
            call()
    assert not store.failures
    assert store.fs.open_files == 0
    again = Store(store.fs)
    assert again.engine.recovery.clean
    assert again.get(b"k") == b"v"


def test_each_open_counts_and_only_a_clean_one_is_clean(store: Store) -> None:
    assert (store.engine.recovery.boot, store.engine.recovery.clean, store.engine.recovery.created) == (1, True, True)
    store.engine.stamp(cluster_id=b"c" * 16, node_id=3, incarnation=2)
    killed = Store(store.fs.power_cut(Random(0), keep=1.0))
    report = killed.engine.recovery
    assert (report.boot, report.clean, report.created) == (2, False, False)
    killed.close()
    third = Store(killed.fs)
    assert (third.engine.recovery.boot, third.engine.recovery.clean) == (3, True)
    identity = third.engine.identity
    assert (identity.store_id, identity.cluster_id, identity.node_id) == (b"s" * 16, b"c" * 16, 3)
    assert (identity.incarnation, identity.boot) == (2, 3)


def test_restarting_again_and_again_piles_nothing_up(store: Store) -> None:
    store.put(b"k", b"v")
    store.close()
    fs = store.fs
    for _ in range(12):
        again = Store(fs)
        assert again.get(b"k") == b"v"
        again.close()
    assert len(fs.list("wal")) <= 14
    last = Store(fs)
    last.settle()
    assert len(fs.list("wal")) == 1
    assert len(fs.list("")) == 8
    assert read_file(fs, "CURRENT").startswith(b"MANIFEST-")


def test_the_same_calls_make_the_same_files() -> None:
    def run() -> dict[str, bytes]:
        store = Store()
        store.engine.create_tree(TREE)
        fill(store, 300)
        store.close()
        names = [*store.fs.list(""), *(f"tables/{n}" for n in store.fs.list("tables"))]
        names += [f"values/{n}" for n in store.fs.list("values")]
        return {name: read_file(store.fs, name) for name in names if not store.fs.is_directory(name)}

    assert run() == run()


def test_a_memtable_counts_about_what_python_spends() -> None:
    store = Store(MemoryFileSystem(), replace(SMALL, memtable_bytes=1 << 30))
    store.engine.create_tree(TREE)
    store.settle()
    rng = Random(1)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    held = 20_000
    memtable = store.engine._memtable
    for lsn in range(1, held + 1):
        memtable.put(TREE, rng.randbytes(30), rng.randbytes(100), lsn + 1000)
    memtable.trees[TREE].range(b"", None, limit=1)
    spent = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert 0.8 * memtable.bytes_used < spent < 1.1 * memtable.bytes_used, (
        f"{spent} spent, {memtable.bytes_used} counted"
    )
