"""Hash trees after any power cut are those of the store, byte for byte; and known without reading it."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from leafdb.node.kept_trees import TREES_TREE
from leafdb.node.tree_saver import synced
from leafdb.types import Durability, PartitionId, TreeId
from leafdb.vfs.memory import MemoryFileSystem
from support.store import SMALL
from support.tree_stores import BUCKET, TreeStore

TINY = replace(SMALL, memtable_bytes=6_000, frozen_memtables_max=2)
TIGHT = replace(TINY, memtable_bytes=1_500)
"""For recoveries that find more than they may hold in memory."""
OTHER = TreeId(301)


def verified(
    fs: MemoryFileSystem, what: str, config: object = TINY, buckets: tuple[TreeId, ...] = (BUCKET,)
) -> TreeStore:
    """Open what a power cut left; every tree of a bucket that stands there must be known and true."""
    assert config in (TINY, TIGHT)
    life = TreeStore(fs, TINY if config is TINY else TIGHT, buckets=buckets)
    for tree in buckets:
        assert life.wrong(tree) == [], f"{what}: bucket {tree}"
    life.trees.check()
    return life


def some_writes(life: TreeStore, rng: Random, count: int) -> None:
    for _ in range(count):
        key = bytes((rng.randrange(256),)) + b"%06d" % rng.randrange(40)
        new = None if rng.random() < 0.25 else rng.randbytes(rng.randrange(120))
        life.write(key, new, rng.choice((Durability.ALWAYS, Durability.PERIODIC)))
        if rng.random() < 0.3:
            life.store.commit()
        if rng.random() < 0.1:
            life.settle()


class Cuts:
    """Disks as power cuts leave them, taken at calls of another."""

    def __init__(self, fs: MemoryFileSystem, rng: Random, share: float = 1.0) -> None:
        self.taken: list[tuple[str, MemoryFileSystem]] = []
        self._fs, self._rng, self._share = fs, rng, share
        fs.on_call = self._cut

    def _cut(self, kind: str, path: str) -> None:
        if self._rng.random() < self._share:
            self.taken.append((f"cut {len(self.taken)}, after {kind} {path}", self._fs.power_cut(self._rng)))

    def over(self) -> list[tuple[str, MemoryFileSystem]]:
        """All of them."""
        self._fs.on_call = None
        return self.taken


@pytest.mark.parametrize("seed", range(3))
def test_trees_are_true_and_known_after_a_power_cut_at_any_call(seed: int) -> None:
    rng = Random(seed)
    life = TreeStore(config=TINY)
    life.run(lambda: synced(life.trees))  # that its trees are kept from the beginning
    cuts = Cuts(life.fs, rng, 0.35)
    some_writes(life, rng, 220)
    life.settle()
    flushes = life.engine.stats().flushes
    life.store.close()
    taken = cuts.over()
    assert len(taken) > 50
    assert flushes > 3, "nothing was ever saved"
    for what, fs in taken:
        assert not verified(fs, what).trees.unknown
    again = verified(life.fs.power_cut(rng, keep=0.0), "after a clean end")
    assert again.engine.recovery.clean
    assert not again.trees.unknown


@pytest.mark.parametrize("seed", range(2))
def test_power_may_go_again_and_again_while_the_store_recovers_and_saves(seed: int) -> None:
    rng = Random(seed)
    life = TreeStore(config=TINY)
    life.run(lambda: synced(life.trees))
    some_writes(life, rng, 60)
    life.settle()
    some_writes(life, rng, 60)
    for _ in range(40):  # nobody answers the store: more and more is only in the log
        life.write(bytes((rng.randrange(256),)) + b"%06d" % rng.randrange(40), rng.randbytes(150))
        life.store.settle()
    first = life.fs.power_cut(rng, keep=0.5)
    cuts = Cuts(first, rng)
    recovered = TreeStore(first, TIGHT)
    assert recovered.engine.stats().tables > 0
    recovered.settle()
    assert recovered.wrong() == []
    assert not recovered.trees.unknown
    taken = cuts.over()
    assert len(taken) > 15
    for what, fs in taken:
        second = verified(fs, f"second {what}", TIGHT)
        some_writes(second, rng, 3)
        second.settle()
        assert second.wrong() == []
        verified(second.fs.power_cut(rng), f"after the second {what}", TIGHT)


def test_buckets_come_and_go_at_any_call() -> None:
    rng = Random(5)
    life = TreeStore(config=TINY)
    life.settle()
    taken: list[tuple[tuple[TreeId, ...], str, MemoryFileSystem]] = []
    for number in range(40):
        buckets: tuple[TreeId, ...] = (BUCKET, OTHER) if 10 <= number < 30 else (BUCKET,)
        cuts = Cuts(life.fs, rng)
        life.install(*buckets)
        key = bytes((rng.randrange(256),)) + b"%06d" % rng.randrange(20)
        for tree in buckets:
            life.write(key, rng.randbytes(100), rng.choice((Durability.ALWAYS, Durability.PERIODIC)), tree)
        life.settle()
        taken += [(buckets, what, fs) for what, fs in cuts.over()]
    stale = [key for key, _ in life.store_items(TREES_TREE) if key[1:5] == OTHER.to_bytes(4, "big")]
    assert not stale, "saved trees of a bucket that is gone"
    for buckets, what, fs in taken:
        left = verified(fs, what, buckets=buckets)
        left.build_all()
        assert all(left.wrong(tree) == [] for tree in buckets)


def test_a_tree_that_was_doubted_stays_so_until_it_is_built_whatever_the_power_does() -> None:
    rng = Random(6)
    life = TreeStore(config=TINY)
    some_writes(life, rng, 50)
    life.settle()
    place = next(place for place, kept in life.trees.ranges.items() if kept.tree is not None and kept.tree.keys)
    tree = life.trees.ranges[place].tree
    assert tree is not None
    tree.change(5, 0x1234, 0)
    cuts = Cuts(life.fs, rng)
    life.trees.doubt(BUCKET, PartitionId(place & 0xFFFF), "the test says so")
    some_writes(life, rng, 60)
    life.settle()
    life.build_all()
    assert life.wrong() == []
    some_writes(life, rng, 60)
    life.settle()
    states = [bool(verified(fs, what).trees.unknown) for what, fs in cuts.over()]
    assert any(states)
    assert not states[-1]
    assert life.metrics.hash_trees_rebuilt_total == life.metrics.hash_trees_doubted_total == 1
