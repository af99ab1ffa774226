"""Power goes after every call a store makes: what was acknowledged is there, nothing else is, and it opens again.

Promises: prefix durability (the state found is the state after some prefix of the writes that holds every acknowledged
one), no phantoms, crash idempotence, and durability rules 1 to 6 of the storage design.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from leafdb.types import Durability, TreeId
from leafdb.vfs.memory import MemoryFileSystem
from support.store import SMALL, TREE, Store

OTHER = TreeId(301)
TINY = replace(SMALL, memtable_bytes=6_000, file_number_lease=4, manifest_bytes_max=700, value_inline_bytes_max=120)

State = dict[TreeId, dict[bytes, bytes]]


class History:
    """A scripted run and, at each moment, what may be found on disk."""

    def __init__(self, seed: int, writes: int) -> None:
        self.rng = Random(seed)
        self.writes = writes
        self.log: list[list[tuple[TreeId, bytes, bytes | None]]] = []  # index 0 is lsn 1
        self.synced = 0
        self.written = 0
        self.verified = 0
        self.trees: set[TreeId] = set()

    def run(self, store: Store) -> None:
        store.engine.create_tree(TREE, lambda: self.trees.add(TREE))
        store.engine.create_tree(OTHER, lambda: self.trees.add(OTHER))
        rng = self.rng
        for number in range(self.writes):
            entries = [
                (rng.choice((TREE, OTHER)), b"key%02d" % rng.randrange(40), self.value(number))
                for _ in range(rng.choice((1, 1, 1, 3)))
            ]
            durability = rng.choice((Durability.ALWAYS, Durability.PERIODIC))
            self.log.append(entries)
            lsn = store.engine.write(entries, durability, self.acknowledger(len(self.log), durability))
            assert lsn == len(self.log)
            if rng.random() < 0.2:
                store.engine.when_safe(lsn, Durability.ALWAYS, self.acknowledger(lsn, Durability.ALWAYS))
            if rng.random() < 0.4:
                store.commit()
            if rng.random() < 0.05:
                store.elapse(0.1)
            if rng.random() < 0.1:
                store.settle()
        store.settle()

    def value(self, number: int) -> bytes | None:
        if self.rng.random() < 0.15:
            return None
        return b"%04d" % number + self.rng.randbytes(self.rng.randrange(200))

    def acknowledger(self, lsn: int, durability: Durability) -> Callable[[object], None]:
        def acknowledged(error: object) -> None:
            assert error is None
            self.written = max(self.written, lsn)
            if durability is Durability.ALWAYS:
                self.synced = max(self.synced, lsn)

        return acknowledged

    def state_at(self, lsn: int) -> State:
        state: State = {TREE: {}, OTHER: {}}
        for entries in self.log[:lsn]:
            for tree, key, value in entries:
                if value is None:
                    state[tree].pop(key, None)
                else:
                    state[tree][key] = value
        return state

    def verify(self, fs: MemoryFileSystem, at_least: int, when: str) -> int:
        """Open what is on `fs` and compare; answers the sequence number the store recovered to."""
        store = Store(fs, TINY)
        recovered = store.engine.stats().last_sequence
        assert at_least <= recovered <= len(self.log), f"{when}: {recovered} recovered, {at_least} acknowledged"
        store.engine.check()
        assert self.trees <= set(store.engine.trees()), f"{when}: a tree is gone"
        self.compare(store, recovered, when)
        self.verified += 1
        if self.verified % 5 == 0:
            store.settle()  # flush what was replayed, compact, unlink
            store.engine.check()
            self.compare(store, recovered, f"{when}, settled")
            again = Store(fs.power_cut(Random(self.verified), keep=0.0), TINY)
            assert again.engine.stats().last_sequence == recovered
            self.compare(again, recovered, f"{when}, settled and cut")
        return recovered

    def compare(self, store: Store, recovered: int, when: str) -> None:
        state = self.state_at(recovered)
        for tree in store.engine.trees():
            page = store.page(tree=tree)
            assert page.next_key is None
            assert dict(page.items) == state[tree], f"{when}: not the state after {recovered} writes"


@pytest.mark.parametrize("seed", range(8))
def test_every_acknowledged_write_survives_a_power_cut_after_any_call(seed: int) -> None:
    history = History(seed, writes=110)
    fs = MemoryFileSystem()
    rng = Random(1000 + seed)
    calls: list[str] = []

    def cut(kind: str, path: str) -> None:
        calls.append(f"{kind} {path}")
        when = f"seed {seed}, call {len(calls)}, after {calls[-1]}"
        history.verify(fs.power_cut(rng), history.synced, when)
        if len(calls) % 8 == 0:
            history.verify(fs.power_cut(rng, keep=1.0), history.written, f"{when}, killed")

    fs.on_call = cut
    store = Store(fs, TINY)
    history.run(store)
    fs.on_call = None
    stats = store.engine.stats()
    assert stats.flushes >= 5, "the history is to pass through flushes"
    assert stats.compactions >= 1, "and compactions"
    assert any("tables" in call and "unlink" in call for call in calls)
    store.engine.check()
    assert history.synced > 0
    assert history.verify(fs.power_cut(rng, keep=1.0), history.written, "at the end") == len(history.log)


@pytest.mark.parametrize("seed", range(3))
def test_power_may_go_again_and_again_while_the_store_recovers(seed: int) -> None:
    history = History(50 + seed, writes=70)
    fs = MemoryFileSystem()
    store = Store(fs, TINY)
    history.run(store)
    for lsn in range(
        len(history.log) + 1, len(history.log) + 4
    ):  # a tail that is in the log alone, some of it unsynced
        history.log.append([(TREE, b"tail%d" % lsn, b"x" * 300)])
        store.engine.write(history.log[-1], Durability.PERIODIC, history.acknowledger(lsn, Durability.PERIODIC))
        store.commit()
    rng = Random(seed)
    first = fs.power_cut(rng, keep=0.5)
    cuts = 0

    def cut(kind: str, path: str) -> None:
        nonlocal cuts
        cuts += 1
        again = first.power_cut(rng)
        third = again.power_cut(rng)
        history.verify(again, history.synced, f"seed {seed}, second cut after {kind} {path}")
        history.verify(third, history.synced, f"seed {seed}, third cut after {kind} {path}")

    first.on_call = cut
    recovered = history.verify(first, history.synced, "first recovery")
    first.on_call = None
    assert cuts > 8
    # what the recovered store showed must not be lost any more
    assert history.verify(first.power_cut(rng, keep=0.0), recovered, "after the recovery") == recovered


@pytest.mark.parametrize("seed", range(2))
def test_power_may_go_while_the_store_is_closed(seed: int) -> None:
    history = History(90 + seed, writes=25)
    fs = MemoryFileSystem()
    store = Store(fs, TINY)
    rng = Random(seed)

    def cut(kind: str, path: str) -> None:
        history.verify(fs.power_cut(rng), history.synced, f"seed {seed}, after {kind} {path}")

    history.run(store)
    store.engine.write(history.log[0], Durability.PERIODIC)
    history.log.append(history.log[0])
    fs.on_call = cut
    store.close()
    fs.on_call = None
    lossless = fs.power_cut(rng, keep=0.0)
    clean = Store(lossless, TINY)
    assert clean.engine.recovery.clean
    assert clean.engine.recovery.torn_bytes == 0
    assert clean.engine.stats().last_sequence == len(history.log)
    # the mark is gone for good before the first write
    assert not Store(lossless.power_cut(rng), TINY).engine.recovery.clean


def test_power_may_go_while_a_cleanly_closed_store_is_opened() -> None:
    history = History(95, writes=25)
    fs = MemoryFileSystem()
    store = Store(fs, TINY)
    history.run(store)
    store.close()
    rng = Random(7)
    for _ in range(3):
        again = fs.power_cut(rng, keep=0.0)

        def cut(kind: str, path: str, again: MemoryFileSystem = again) -> None:
            for _ in range(3):
                history.verify(again.power_cut(rng), history.written, f"after {kind} {path}")

        again.on_call = cut
        Store(again, TINY)


def test_dropping_a_tree_is_all_or_nothing_at_any_call() -> None:
    fs = MemoryFileSystem()
    store = Store(fs, TINY)
    store.engine.create_tree(TREE)
    store.engine.create_tree(OTHER)
    for number in range(30):
        store.put(b"k%d" % number, b"v" * 200)
        store.put(b"k%d" % number, b"v" * 200, tree=OTHER)
        store.settle()
    rng = Random(3)
    dropped: list[bool] = []
    seen: set[bool] = set()

    def cut(kind: str, path: str) -> None:
        again = Store(fs.power_cut(rng), TINY)
        again.engine.check()
        seen.add(OTHER in again.engine.trees())
        if OTHER in again.engine.trees():
            assert not dropped, f"the tree is back after {kind} {path}"
            assert len(again.page(tree=OTHER).items) == 30
        assert len(again.page().items) == 30

    fs.on_call = cut
    store.engine.drop_tree(OTHER, lambda: dropped.append(True))
    for number in range(60):
        store.put(b"k%d" % (number % 30), b"w" * 200)
        store.settle()
    assert dropped
    assert seen == {True, False}


def test_a_write_never_reaches_the_log_before_the_tree_it_is_for_stands_in_the_manifest() -> None:
    """Killed at any call, whatever the log holds of a tree belongs to a tree that is there."""
    store = Store()
    clones: list[MemoryFileSystem] = []
    store.fs.on_call = lambda *_: clones.append(store.fs.power_cut(Random(0), keep=1.0))
    store.engine.create_tree(TREE)
    store.put(b"k", b"v", Durability.PERIODIC)
    store.engine.flush_batch()
    store.settle()
    found = []
    for clone in clones:
        after = Store(clone)
        after.engine.create_tree(TREE)  # refused if it stood in the log alone
        found.append(after.get(b"k"))
    assert found[0] is None
    assert found[-1] == b"v"
