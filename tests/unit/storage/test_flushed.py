"""Promises: what was flushed is read from memory until the memtable needs the room, and it is always the latest;
entries go some at a time; nothing is kept that was dropped, or where nothing may be."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from leafdb.storage.flushed import GENERATIONS_MAX, MOVED_MAX, Flushed
from leafdb.storage.memtable import Memtable, Slot
from leafdb.types import TreeId
from leafdb.vfs.memory import Fault
from support.store import SMALL, TREE, Store

OTHER = TreeId(TREE + 1)
KEEPING = replace(SMALL, flushed_bytes_max=SMALL.memtable_bytes)


def generation(entries: dict[tuple[TreeId, bytes], Slot], first_lsn: int) -> Memtable:
    memtable = Memtable((TREE, OTHER), segments=[1], first_lsn=first_lsn)
    for (tree_id, key), (value, lsn) in entries.items():
        memtable.put(tree_id, key, value, lsn)
    return memtable


def drawn(rng: Random, lsn: int) -> dict[tuple[TreeId, bytes], Slot]:
    count = rng.choice((0, 1, 30, 2 * MOVED_MAX))
    found: dict[tuple[TreeId, bytes], Slot] = {}
    for _ in range(count):
        value = None if rng.random() < 0.2 else rng.randbytes(rng.choice((0, 10, 300)))
        lsn += 1
        found[rng.choice((TREE, OTHER)), b"%d" % rng.randrange(400)] = (value, lsn)
    return found


@pytest.mark.parametrize("seed", range(30))
def test_what_is_found_is_the_latest_that_is_in_tables(seed: int) -> None:
    rng = Random(seed)
    bytes_max = rng.choice((20_000, 100_000, 1_000_000))
    flushed, latest, lsn, found = Flushed(bytes_max), dict[tuple[TreeId, bytes], Slot](), 0, 0
    for _ in range(60):
        match rng.randrange(4):
            case 0:
                entries = drawn(rng, lsn)
                flushed.add(generation(entries, lsn + 1))
                latest |= entries
                lsn += len(entries) + 1_000
            case 1 if rng.random() < 0.2:
                flushed.drop(OTHER)
                latest = {place: slot for place, slot in latest.items() if place[0] != OTHER}
            case _:
                before = flushed.bytes_used
                flushed.on_time(rng.choice((0, bytes_max // 2, bytes_max)))
                assert flushed.bytes_used <= before
        flushed.check()
        assert flushed.bytes_used <= bytes_max
        for tree_id in (TREE, OTHER):
            for number in range(400):
                slot = flushed.find(tree_id, b"%d" % number)
                assert slot is None or slot == latest[tree_id, b"%d" % number]
                found += slot is not None
    assert found


def test_it_makes_room_for_the_memtable_some_entries_at_a_time() -> None:
    flushed = Flushed(1_000_000)
    flushed.add(generation({(TREE, b"%d" % number): (b"value", number + 1) for number in range(1_000)}, 1))
    held = flushed.bytes_used
    flushed.on_time(1_000_000 - held)
    assert flushed.bytes_used == held
    flushed.on_time(1_000_000 - held + 1)
    assert 0 < held - flushed.bytes_used < 1_000, "no more goes than must"
    steps = 0
    while flushed:
        steps += 1
        flushed.on_time(1_000_000)
    assert 1_000 // MOVED_MAX <= steps <= 1_000 // MOVED_MAX + 2


def test_generations_become_one() -> None:
    flushed = Flushed(1_000_000)
    for lsn in range(1, 2 * GENERATIONS_MAX):
        flushed.add(generation({(TREE, b"key"): (b"%d" % lsn, lsn)}, lsn))
        assert flushed.find(TREE, b"key") == (b"%d" % lsn, lsn)
    for _ in range(3 * GENERATIONS_MAX):
        flushed.on_time(0)
        flushed.check()
    assert len(flushed._generations) == 1
    assert flushed.find(TREE, b"key") == (b"%d" % lsn, lsn)


def test_one_that_does_not_fit_takes_the_older_ones_along() -> None:
    flushed = Flushed(1_000)
    flushed.add(generation({(TREE, b"key"): (b"old", 1)}, 1))
    assert flushed.find(TREE, b"key") == (b"old", 1)
    flushed.add(generation({(TREE, b"key"): (bytes(1_000), 2)}, 2))
    assert flushed.find(TREE, b"key") is None
    assert not flushed


def test_a_store_reads_what_it_has_flushed_from_memory() -> None:
    store = Store(config=KEEPING)
    store.engine.create_tree(TREE)
    store.put(b"key", b"value")
    store.put(b"gone", b"value")
    store.put(b"gone", None)
    store.engine.flush_soon()
    store.settle()
    assert store.engine.stats().memtable_bytes == 0
    assert store.engine.stats().flushed_bytes > 0
    store.fs.faults.append(Fault("read", path_prefix="tables/"))
    assert store.get(b"key") == b"value"
    assert store.get(b"gone") is None
    store.fs.faults.clear()
    store.engine.check()


def test_what_is_written_again_is_read_from_the_memtable_and_from_tables_when_the_room_is_needed() -> None:
    store = Store(config=KEEPING)
    store.engine.create_tree(TREE)
    store.put(b"key", b"old")
    store.engine.flush_soon()
    store.settle()
    store.put(b"key", b"new")
    assert store.get(b"key") == b"new"
    for number in range(70):
        store.put(b"other-%d" % number, bytes(200))
        store.elapse(0.02)
    store.settle()
    assert store.engine.stats().flushes >= 2
    assert store.get(b"key") == b"new"
    store.engine.check()


def test_a_tree_that_is_dropped_and_made_again_is_empty() -> None:
    store = Store(config=KEEPING)
    store.engine.create_tree(TREE)
    store.put(b"key", b"value")
    store.engine.flush_soon()
    store.settle()
    store.engine.drop_tree(TREE)
    store.settle()
    store.engine.flush_soon()
    store.settle()
    store.engine.create_tree(TREE)
    assert store.get(b"key") is None


def test_nothing_is_kept_where_nothing_may_be() -> None:
    store = Store()
    store.engine.create_tree(TREE)
    store.put(b"key", b"value")
    store.engine.flush_soon()
    store.settle()
    assert store.engine.stats().flushed_bytes == 0
    assert store.get(b"key") == b"value"
