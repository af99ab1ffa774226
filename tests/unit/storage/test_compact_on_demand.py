"""Compaction on demand brings everything down, shows how far it is, and keeps nobody out."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from leafdb.errors import StorageError, StoreFailed
from leafdb.storage.compaction_picker import Descent, PickerLimits, descend, descent
from leafdb.storage.descents import Compacted
from leafdb.storage.settings import EngineConfig
from leafdb.storage.version import TreeVersion
from leafdb.types import TreeId
from support.store import SMALL, TREE, Store
from support.tables import TREE as TABLES_TREE
from support.tables import meta_of

LIMITS = PickerLimits(level0_tables=4, level1_bytes=30_000, fanout=4, table_bytes=4_000, job_bytes_max=50_000)
CONFIG = replace(SMALL, compaction=LIMITS)
OTHER = TreeId(301)
Told = list[Compacted | StorageError]


def filled(rounds: int = 14, config: EngineConfig = CONFIG) -> Store:
    store = Store(config=config)
    store.engine.create_tree(TREE)
    store.engine.create_tree(OTHER)
    store.settle()
    rng = Random(1)
    for round_number in range(rounds):
        for _ in range(60):
            store.put(b"%05d" % rng.randrange(2_000), rng.randbytes(150))
        store.put(b"%d" % round_number, b"v", tree=OTHER)
        store.engine.flush_soon()
        store.settle()
    return store


def levels(store: Store, tree: TreeId = TREE) -> list[int]:
    return [len(tables) for tables in store.engine._tables.version.trees[tree].levels]


def compact(store: Store, tree: TreeId | None = None) -> Compacted:
    told: Told = []
    store.engine.compact_soon(tree, told.append)
    assert not told, "answered inside the call"
    store.settle()
    (outcome,) = told
    assert isinstance(outcome, Compacted)
    return outcome


def test_everything_goes_to_the_last_level_and_nothing_is_lost() -> None:
    store = filled()
    before = store.items(limit=100)
    deepest = max(level for level, count in enumerate(levels(store)) if count)
    assert deepest >= 2
    store.put(b"newest", b"in memory")
    outcome = compact(store)
    assert not outcome.running
    assert outcome.trees == outcome.trees_total == 2
    assert outcome.jobs > 0
    assert outcome.skipped == 0
    for tree in (TREE, OTHER):
        held = [level for level, count in enumerate(levels(store, tree)) if count]
        assert len(held) == 1
    assert levels(store)[deepest]
    assert store.items(limit=100) == sorted([*before, (b"newest", b"in memory")])
    assert store.engine.descents.progress() == outcome
    store.engine.check()
    again = compact(store)
    assert again.jobs == 0, "there is nothing left to do"


def test_tombstones_go_where_nothing_lies_below() -> None:
    store = filled()
    for key, _ in store.items(limit=100):
        store.put(key, None)
    compact(store, TREE)
    assert store.items() == []
    assert sum(levels(store)) == 0
    assert sum(levels(store, OTHER)) > 0


def test_one_tree_leaves_the_others_alone() -> None:
    store = filled(rounds=3)
    before = levels(store, OTHER)
    outcome = compact(store, TREE)
    assert outcome.trees_total == 1
    assert levels(store, OTHER) == before
    assert levels(store)[0] == 0
    with pytest.raises(StorageError, match="no tree"):
        store.engine.compact_soon(TreeId(999), lambda _: None)


def test_one_at_a_time_and_progress_is_seen() -> None:
    store = filled()
    told: Told = []
    store.engine.compact_soon(None, told.append)
    with pytest.raises(StorageError, match="already"):
        store.engine.compact_soon(TREE, told.append)
    seen = []
    while not told:
        store.executor.run_pending()
        store.jobs.step()
        progress = store.engine.descents.progress()
        assert progress is not None
        seen.append((progress.trees, progress.level, progress.jobs))
        compacting = store.engine._maintenance.compacting
        assert compacting is None or compacting.asked
    assert seen == sorted(seen)
    assert len(set(seen)) > 2


def test_it_takes_turns_with_what_is_due_by_itself() -> None:
    store = Store(config=replace(CONFIG, compaction=replace(LIMITS, level0_tables=2)))
    asked = [TreeId(number) for number in range(400, 412)]
    for tree in (OTHER, *asked):
        store.engine.create_tree(tree)
    store.settle()
    for tree in asked:
        store.put(b"k", b"v" * 300, tree=tree)
    store.engine.flush_soon()
    store.settle()
    told: Told = []
    store.engine.compact_soon(None, told.append)
    turns: list[bool] = []
    while not told:
        if store.engine.admit() == 0.0:  # another tree wants to be compacted all the time
            store.put(b"k", b"v" * 200, tree=OTHER)
            store.engine.flush_soon()
        store.executor.run_pending()
        store.jobs.step()
        compacting = store.engine._maintenance.compacting
        if compacting is not None and (not turns or compacting.asked != turns[-1]):
            turns.append(compacting.asked)
            assert compacting.asked or compacting.job.tree_id == OTHER
    assert turns.count(True) > 2
    assert turns.count(False) > 2
    store.settle()
    store.engine.check()


def test_a_damaged_table_is_salvaged_on_the_way_down() -> None:
    store = filled()
    damaged = store.engine._tables.version.trees[TREE].levels[1][0]
    store.fs.flip(damaged.path, 20)
    assert compact(store).skipped == 0
    assert damaged.file_number not in store.engine._tables.version.tables
    assert store.engine.lost
    store.engine.check()


def test_a_damaged_table_that_may_not_be_salvaged_stays_and_the_rest_goes_down() -> None:
    store = filled(config=replace(CONFIG, salvages=lambda tree: False))
    damaged = store.engine._tables.version.trees[TREE].levels[1][0]
    store.fs.flip(damaged.path, 20)
    outcome = compact(store)
    assert outcome.skipped >= 1
    assert damaged.file_number in store.engine._tables.version.tables
    assert not store.failures
    store.engine.check()


def test_a_lost_worker_costs_time_only() -> None:
    store = filled()
    told: Told = []
    store.engine.compact_soon(None, told.append)
    store.commit()
    while store.engine._maintenance.compacting is None:
        store.jobs.step()
        store.commit()
    _, done = store.jobs._jobs.popleft()
    done(StorageError("the worker ended"))
    assert not told
    store.elapse(1.0)
    store.settle()
    (outcome,) = told
    assert isinstance(outcome, Compacted)
    assert (outcome.skipped, levels(store)[0]) == (0, 0)


def test_the_end_of_the_store_and_of_a_tree_end_it() -> None:
    store = filled(rounds=3)
    told: Told = []
    store.engine.compact_soon(TREE, told.append)
    store.engine.drop_tree(TREE)
    store.settle()
    assert isinstance(told[0], Compacted)
    store.engine.compact_soon(OTHER, told.append)
    store.close()
    assert isinstance(told[1], StoreFailed)


def test_the_way_down_is_decided_table_by_table() -> None:
    tables = [
        meta_of(1, b"a", b"c", level=1), meta_of(2, b"d", b"f", level=1), meta_of(3, b"g", b"i", level=1),
        meta_of(4, b"a", b"e", level=2),
    ]  # fmt: skip
    tree = TreeVersion(TABLES_TREE, tables)
    way = descent(tree, 10)
    assert way == Descent(TABLES_TREE, last_level=2, upto_lsn=10)
    job, way = descend(tree, way, {2}, PickerLimits())
    assert job is not None
    assert (job.input_numbers, job.output_level) == ((1, 4), 2)
    job, way = descend(tree, way, {2}, PickerLimits())
    assert job is not None
    assert (job.input_numbers, way.skipped) == ((3,), 1)
    assert descend(tree, way, {2}, PickerLimits())[0] is None
    assert descent(TreeVersion(TABLES_TREE, []), 0).last_level == 1
