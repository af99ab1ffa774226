"""Kept trees: true after any writes, saved in time, not believed where they cannot be, found out if they are wrong."""

from __future__ import annotations

from random import Random

import pytest
import trio

from leafdb.errors import CorruptionError, StorageError
from leafdb.merkle.kept import bucket_key, tree_key
from leafdb.merkle.tree import Tree, leaf_of, record_digest
from leafdb.node.boot import CHECKPOINTS_TREE
from leafdb.node.kept_trees import TREES_TREE, KeptRange, KeptTrees, place_of
from leafdb.node.metrics import Metrics
from leafdb.node.tree_doubts import listing
from leafdb.storage.lsm_tree import Page
from leafdb.storage.wal_format import WalEntry
from leafdb.types import BucketId, Durability, PartitionId, TreeId
from support.tree_stores import BUCKET, PARTITIONS, TreeStore, view_of

OTHER = TreeId(301)
P0 = PartitionId(0)
KEY = b"\0key"


def filled(life: TreeStore, count: int = 60, seed: int = 1) -> TreeStore:
    rng = Random(seed)
    for _ in range(count):
        key = bytes((rng.randrange(256),)) + b"%04d" % rng.randrange(30)
        life.write(key, None if rng.random() < 0.2 else rng.randbytes(30))
    life.settle()
    return life


def again(life: TreeStore, *buckets: TreeId) -> TreeStore:
    return TreeStore(life.fs.power_cut(Random(0), keep=1.0), buckets=buckets or (BUCKET,))


def tree_in(life: TreeStore, partition: int = 0) -> Tree:
    tree = life.trees.of(BUCKET, PartitionId(partition))
    assert tree is not None
    return tree


# -- writes


def test_the_trees_follow_every_write() -> None:
    life = TreeStore()
    life.write(KEY, b"one")
    life.write(b"\xffkey", b"two")
    assert life.wrong() == []
    assert [tree_in(life, partition).keys for partition in range(PARTITIONS)] == [1, 0, 0, 0, 0, 0, 0, 1]
    life.write(KEY, b"other")
    assert life.wrong() == []
    life.write(KEY, None)
    assert life.wrong() == []
    assert tree_in(life).encode() == Tree().encode()
    life.trees.check()


def test_what_goes_with_a_record_is_written_with_it() -> None:
    life = TreeStore(buckets=(BUCKET, OTHER))
    life.trees.write(BUCKET, KEY, None, b"record", Durability.ALWAYS, None, ((CHECKPOINTS_TREE, b"k", b"x"),))
    life.settle()
    after = again(life, BUCKET, OTHER)
    assert after.wrong() == []
    assert tree_in(after).keys == 1
    assert after.store.get(b"k", CHECKPOINTS_TREE) == b"x"


def test_a_write_that_the_store_refuses_changes_no_tree() -> None:
    life = TreeStore()
    life.write(KEY, b"one")
    before = tree_in(life).encode()
    life.store.close()
    with pytest.raises(StorageError):
        life.trees.write(BUCKET, KEY, b"one", b"two", Durability.ALWAYS)
    assert tree_in(life).encode() == before


# -- starts


def test_a_start_needs_no_scan_after_flushes_and_after_none() -> None:
    for flushes in (False, True):
        life = filled(TreeStore())
        if flushes:
            life.engine.flush_soon()
            life.settle()
            filled(life, 10, seed=2)
        after = again(life)
        assert after.wrong() == []
        assert not after.trees.unknown
        assert bool(after.trees.dirty)
        assert after.metrics.hash_trees_rebuilt_total == 0


def test_only_what_has_changed_since_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    life = filled(TreeStore())
    life.engine.flush_soon()
    life.settle()
    saved: list[int] = []
    as_saved = life.trees.as_saved

    def noted(place: int, kept: KeptRange) -> WalEntry:
        saved.append(place)
        return as_saved(place, kept)

    monkeypatch.setattr(life.trees, "as_saved", noted)
    life.engine.flush_soon()
    life.settle()
    assert saved == []
    life.write(KEY, b"more")
    life.engine.flush_soon()
    life.settle()
    assert saved == [place_of(BucketId(BUCKET), P0)]


def test_a_log_without_marks_makes_its_trees_unknown_and_they_are_built_beside_writes() -> None:
    life = filled(TreeStore())
    life.engine.write(((BUCKET, b"\0old", b"of a version that keeps no trees"),), Durability.ALWAYS)
    life.settle()
    after = again(life)
    assert list(after.trees.unknown) == [place_of(BucketId(BUCKET), P0)]
    assert after.wrong() == []
    after.write(KEY, b"meanwhile")
    after.build_all()
    assert not after.trees.unknown
    assert after.wrong() == []
    assert after.metrics.hash_trees_rebuilt_total == 1
    assert not again(after).trees.unknown


def test_trees_of_a_bucket_nobody_kept_are_all_built() -> None:
    life = filled(TreeStore())
    life.engine.flush_soon()
    life.settle()
    life.engine.write(((TREES_TREE, bucket_key(BucketId(BUCKET)), None),), Durability.ALWAYS)
    life.settle()
    after = again(life)
    assert len(after.trees.unknown) == PARTITIONS
    after.build_all()
    assert after.wrong() == []
    last = again(after)
    assert not last.trees.unknown
    assert last.wrong() == []


@pytest.mark.parametrize("damage", [b"", b"\2" + bytes(20), b"\1" + bytes(8) + b"\1\0\0\0\1"])
def test_a_saved_tree_that_cannot_be_read_is_built(damage: bytes) -> None:
    life = filled(TreeStore())
    life.engine.flush_soon()
    life.settle()
    life.engine.write(((TREES_TREE, tree_key(BucketId(BUCKET), P0), damage),), Durability.ALWAYS)
    life.settle()
    after = again(life)
    assert list(after.trees.unknown) == [place_of(BucketId(BUCKET), P0)]
    after.build_all()
    assert after.wrong() == []


@pytest.mark.parametrize("error", [CorruptionError("a damaged table", path="x"), None])
def test_saved_trees_that_cannot_be_read_at_all_are_all_built(
    error: CorruptionError | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = filled(TreeStore())
    life.engine.write(((TREES_TREE, b"\7" if error is None else b"\1\0\0\1\1", b"nonsense"),), Durability.ALWAYS)
    life.settle()
    if error is not None:

        async def damaged(*_: object, **__: object) -> Page:
            assert error is not None
            raise error

        monkeypatch.setattr("leafdb.node.tree_loader.read_page", damaged)
    after = again(life)
    monkeypatch.undo()
    assert len(after.trees.unknown) == PARTITIONS
    after.build_all()
    assert after.wrong() == []


# -- memory


def test_a_range_that_is_one_too_many_is_scanned_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    life = TreeStore()
    life.write(KEY, b"one")
    monkeypatch.setattr(life.trees, "_bytes_max", life.trees.held_bytes())
    life.write(b"\xffkey", b"two")
    last = PartitionId(PARTITIONS - 1)
    assert life.trees.of(BUCKET, last) is None
    life.write(b"\xffother", b"three")
    life.settle()
    tree = life.run(lambda: life.rebuild.tree(view_of(BUCKET), last))
    assert tree.encode() == life.rebuilt()[last].encode()
    assert life.trees.of(BUCKET, last) is None
    assert place_of(BucketId(BUCKET), last) in again(life).trees.unknown
    monkeypatch.setattr(life.trees, "_bytes_max", 1 << 20)
    life.run(lambda: life.rebuild.tree(view_of(BUCKET), last))
    assert life.trees.of(BUCKET, last) is not None
    life.trees.check()


def test_the_memory_of_trees_is_told_and_given_back() -> None:
    life = filled(TreeStore(buckets=(BUCKET, OTHER)))
    life.engine.flush_soon()
    life.settle()
    held = life.trees.held_bytes()
    assert held == sum(kept.held_bytes for kept in life.trees.ranges.values()) > 5_000
    life.install(OTHER)
    assert life.trees.held_bytes() == 0
    assert not life.trees.dirty
    life.trees.check()


# -- exchanges


def test_an_exchange_is_given_a_copy_when_all_of_it_may_be_shown() -> None:
    life = filled(TreeStore())
    life.write(KEY, b"not synced yet", Durability.PERIODIC)
    safe = life.engine.safe_sequence(Durability.ALWAYS)
    assert safe < life.engine.last_sequence
    tree = life.run(lambda: life.rebuild.tree(view_of(BUCKET), P0))
    assert life.engine.safe_sequence(Durability.ALWAYS) > safe
    before = tree.encode()
    assert before == life.rebuilt()[0].encode()
    life.write(KEY, b"later")
    assert tree.encode() == before


def test_two_who_need_a_tree_that_is_not_known_have_it_built_once() -> None:
    life = filled(TreeStore())
    life.trees.doubt(BUCKET, P0, "the test says so")
    found: list[bytes] = []

    async def ask() -> None:
        found.append((await life.rebuild.tree(view_of(BUCKET), P0)).encode())

    async def both() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)

    life.run(both)
    assert found == [life.rebuilt()[0].encode()] * 2
    assert life.metrics.hash_trees_rebuilt_total == 1


def test_a_tree_of_a_bucket_that_is_gone_is_an_error() -> None:
    life = TreeStore()
    with pytest.raises(StorageError, match="gone"):
        life.run(lambda: life.rebuild.tree(view_of(OTHER), P0))


# -- trees that are wrong


def lists_of(life: TreeStore, partition: int = 0) -> dict[int, list[tuple[bytes, bytes]]]:
    lists: dict[int, list[tuple[bytes, bytes]]] = {leaf: [] for leaf in range(1_024)}
    for key, record in life.store_items():
        if key[0] >> 5 == partition:
            lists[leaf_of(key)].append((key, record_digest(key, record)))
    return lists


def test_lists_that_add_up_raise_no_doubt_and_one_that_does_not_does() -> None:
    life = filled(TreeStore())
    with listing(life.trees, BUCKET, P0) as listed:
        listed.judge(lists_of(life))
    assert life.metrics.hash_trees_doubted_total == 0
    tree_in(life).change(leaf_of(KEY), 0x55, 0)
    with listing(life.trees, BUCKET, P0) as listed:
        listed.judge(lists_of(life))
    assert life.metrics.hash_trees_doubted_total == 1
    assert life.trees.of(BUCKET, P0) is None
    life.settle()
    assert again(life).trees.unknown
    life.build_all()
    assert life.wrong() == []


def test_a_leaf_that_is_written_to_meanwhile_is_not_judged() -> None:
    life = filled(TreeStore())
    with listing(life.trees, BUCKET, P0) as listed:
        lists = lists_of(life)
        life.write(KEY, b"meanwhile")
        listed.judge(lists)
    assert life.metrics.hash_trees_doubted_total == 0
    assert life.wrong() == []


def test_a_range_that_is_taken_for_empty_and_is_not_is_found_out() -> None:
    life = TreeStore()
    life.engine.write(((BUCKET, KEY, b"behind its back"),), Durability.ALWAYS)
    life.settle()
    with listing(life.trees, BUCKET, P0) as listed:
        listed.judge(lists_of(life))
    assert life.metrics.hash_trees_doubted_total == 1
    life.build_all()
    assert life.wrong() == []


def test_a_tree_with_fewer_keys_than_none_is_not_saved() -> None:
    life = filled(TreeStore())
    tree_in(life).change(1, 2, -100)
    life.write(KEY, b"something")
    life.engine.flush_soon()
    life.settle()
    assert life.metrics.hash_trees_doubted_total == 1
    assert life.engine.stats().flushes == 1
    life.build_all()
    assert life.wrong() == []


def test_a_write_to_a_bucket_nobody_told_of_is_a_bug() -> None:
    trees = KeptTrees(Metrics())
    with pytest.raises(AssertionError, match="nobody has told"):
        trees._begin(place_of(BucketId(BUCKET), P0))
