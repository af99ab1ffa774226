"""Promises: of every key a backup gives what its replicas would have made of it: writes that only one store has, or a
hint, are there, siblings are kept, and what was deleted and forgotten by right does not return from an older copy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from leafdb.backup.merging import Merger, living
from leafdb.backup.store_copy import HINTS_TREE, MARK, META_TREE, METADATA_KEY, PURGE_TREE, StoreCopy
from leafdb.backup.verifying import open_stores
from leafdb.errors import CorruptionError
from leafdb.model.record import decode
from leafdb.node import hint_keeper, horizons, register
from leafdb.storage.lost_ranges import LostRange
from leafdb.storage.version import Version
from leafdb.types import TreeId
from leafdb.vfs.disk import DiskFileSystem
from support.backups import (
    CARTS,
    NEWEST,
    PARTITIONS,
    NodeStore,
    metadata,
    opened_below,
    place,
    record,
    write_backup,
)

Values = dict[bytes, list[bytes | None]]


def merged(root: Path, nodes: Sequence[NodeStore], bucket: object = CARTS, start: bytes = b"") -> Values:
    """Values by storage key, as they come."""
    assert bucket in (CARTS, NEWEST)
    used = CARTS if bucket is CARTS else NEWEST
    found = {}
    for key, data in opened(root, nodes).records(used, start):
        found[key] = [sibling.value for sibling in decode(data).siblings.values()]
    assert list(found) == sorted(found)
    return found


def opened(root: Path, nodes: Sequence[NodeStore]) -> Merger:
    listing = write_backup(root, {node.node: node.at_rest() for node in nodes}, [CARTS, NEWEST])
    return opened_below(root, listing)


def test_trees_are_those_of_a_node() -> None:
    assert (HINTS_TREE, META_TREE, METADATA_KEY) == (
        hint_keeper.HINTS_TREE, register.META_TREE, register.METADATA_KEY
    )  # fmt: skip
    assert (PURGE_TREE, MARK) == (horizons.PURGE_TREE, horizons.MARK)


def test_what_any_store_has_is_there_once_and_in_order(tmp_path: Path) -> None:
    one, two, three = (NodeStore(node) for node in (1, 2, 3))
    for at in range(50):
        (one, two, three)[at % 3].has(f"k{at}", record((1, 1, at + 1, b"v%d" % at)))
        one.has(f"k{at}", record((1, 1, at + 1, b"v%d" % at)))
    assert merged(tmp_path, [one, two, three]) == {place(f"k{at}"): [b"v%d" % at] for at in range(50)}


def test_concurrent_values_are_siblings_and_what_is_covered_is_not_there(tmp_path: Path) -> None:
    one = NodeStore(1).has("both", record((1, 1, 5, b"one"))).has("over", record((1, 1, 5, b"old")))
    two = NodeStore(2).has("both", record((2, 1, 6, b"two")))
    two.has("over", record((2, 1, 6, b"new"), knows=[(1, 1)]))
    assert merged(tmp_path, [one, two]) == {place("both"): [b"one", b"two"], place("over"): [b"new"]}


def test_the_newest_wins_where_a_bucket_wants_that(tmp_path: Path) -> None:
    one = NodeStore(1).has("k", record((1, 1, 5, b"old")), NEWEST)
    two = NodeStore(2).has("k", record((2, 1, 6, b"new")), NEWEST)
    assert merged(tmp_path, [one, two], NEWEST) == {place("k", NEWEST): [b"new"]}


def test_what_only_a_hint_has_is_there(tmp_path: Path) -> None:
    one = NodeStore(1).has("k", record((1, 1, 5, b"here")))
    one.hints(2, "k", record((3, 1, 6, b"hinted"))).hints(3, "other", record((3, 1, 7, b"alone")))
    one.hints(3, "newest", record((3, 1, 7, b"elsewhere")), NEWEST)
    assert merged(tmp_path, [one]) == {place("k"): [b"here", b"hinted"], place("other"): [b"alone"]}


def test_what_was_on_its_way_while_the_stores_were_copied_is_there(tmp_path: Path) -> None:
    before = NodeStore(1, empty=True).hints(2, "k", record((3, 1, 6, b"hinted"))).at_rest()
    whole = {1: NodeStore(1).at_rest(), 2: NodeStore(2).at_rest()}
    listing = write_backup(tmp_path, whole, [CARTS], {1: before, 2: NodeStore(2, empty=True).at_rest()})
    assert [key for key, _ in opened_below(tmp_path, listing).records(CARTS)] == [place("k")]


def test_large_values_come_from_their_files_and_these_are_part_of_the_store(tmp_path: Path) -> None:
    values = {f"k{at}": bytes((at,)) * 5_000 for at in range(20)}
    one = NodeStore(1)
    for at, (key, value) in enumerate(values.items()):
        one.has(key, record((1, 1, at + 1, value)))
    assert merged(tmp_path, [one]) == {place(key): [value] for key, value in values.items()}
    assert list((tmp_path / "node-1" / "values").iterdir())


def test_a_deletion_is_kept_as_such(tmp_path: Path) -> None:
    one = NodeStore(1).has("k", record((1, 1, 5, b"old")))
    two = NodeStore(2).has("k", record((2, 1, 6, None), knows=[(1, 1)]))
    assert merged(tmp_path, [one, two]) == {place("k"): [None]}


def test_what_was_forgotten_by_right_does_not_return_from_an_older_copy(tmp_path: Path) -> None:
    older = NodeStore(1, metadata(), mark=0).has("gone", record((1, 1, 5, b"deleted since")))
    older.has("kept", record((1, 1, 6, b"kept"))).has("new", record((1, 1, 200, b"new")))
    newer = [NodeStore(node, metadata(horizon=100), mark=100) for node in (2, 3)]
    for store in newer:
        store.has("kept", record((1, 1, 6, b"kept")))
    assert merged(tmp_path, [older, *newer]) == {place("kept"): [b"kept"], place("new"): [b"new"]}


def test_nor_from_a_hint(tmp_path: Path) -> None:
    one = NodeStore(1, metadata(horizon=100), mark=100)
    one.hints(2, "gone", record((1, 1, 5, b"deleted since"))).hints(2, "late", record((1, 1, 150, b"late")))
    assert merged(tmp_path, [one]) == {place("late"): [b"late"]}


def test_what_one_that_vouches_has_is_believed_though_the_others_have_lost_it(tmp_path: Path) -> None:
    one = NodeStore(1, metadata(horizon=100), mark=100).has("k", record((1, 1, 5, b"only here")))
    two = NodeStore(2, metadata(horizon=100), mark=100)
    assert merged(tmp_path, [one, two]) == {place("k"): [b"only here"]}


def test_who_has_lost_something_with_a_damaged_table_vouches_for_nothing(tmp_path: Path) -> None:
    one = NodeStore(1, metadata(), mark=0).has("k", record((1, 1, 5, b"v")))
    two = NodeStore(2, metadata(horizon=100), mark=100)
    listing = write_backup(tmp_path, {node.node: node.at_rest() for node in (one, two)}, [CARTS, NEWEST])
    stores = open_stores(DiskFileSystem(tmp_path), listing)
    assert list(Merger(stores.whole, stores.hints, PARTITIONS).records(CARTS)) == [], "forgotten, says who vouches"
    (lossy,) = (store for store in stores.whole if store.marks())
    before = lossy.version
    hole = LostRange(before.next_file_number, TreeId(CARTS.id), b"a", b"z")
    lossy.version = Version(
        before.trees, next_file_number=before.next_file_number + 1, values=before.values, lost=(hole,)
    )
    merger = Merger(stores.whole, stores.hints, PARTITIONS)
    assert [key for key, _ in merger.records(CARTS)] == [place("k")]


def test_where_nobody_vouches_everything_is_taken_and_said(tmp_path: Path) -> None:
    nodes = [NodeStore(node, metadata(horizon=100), mark=0).has("k", record((1, 1, 5, b"v"))) for node in (1, 2)]
    merger = opened(tmp_path, nodes)
    assert merger.unsure == set(range(PARTITIONS))
    assert [key for key, _ in merger.records(CARTS)] == [place("k")]


def test_it_goes_on_from_a_key(tmp_path: Path) -> None:
    one = NodeStore(1)
    for at in range(30):
        one.has(f"k{at}", record((1, 1, 5, b"v"))).hints(2, f"k{at}", record((1, 1, 5, b"v")))
    keys = sorted(place(f"k{at}") for at in range(30))
    assert list(merged(tmp_path, [one], start=keys[11])) == keys[11:]


def test_a_record_that_cannot_be_read_is_named_by_its_store(tmp_path: Path) -> None:
    one = NodeStore(1)
    one.put(TreeId(CARTS.id), place("k"), b"no record")
    with pytest.raises(CorruptionError, match="node-1") as caught:
        list(opened(tmp_path, [one]).records(CARTS))
    assert caught.value.path == "node-1"


@pytest.mark.parametrize("tree", [META_TREE, PURGE_TREE, HINTS_TREE])
def test_what_a_store_says_of_itself_is_not_believed_when_it_is_nonsense(tmp_path: Path, tree: TreeId) -> None:
    one = NodeStore(1)
    key = METADATA_KEY if tree == META_TREE else bytes((MARK, 0)) if tree == PURGE_TREE else b"short"
    one.put(tree, key, b"nonsense")
    with pytest.raises(CorruptionError) as caught:
        list(opened(tmp_path, [one]).records(CARTS))
    assert caught.value.path == "node-1"


def test_what_lives_is_what_a_reader_would_be_shown() -> None:
    assert living(record((1, 1, 5, b"v")), 1) == 1
    assert living(record((1, 1, 5, None)), 1) == 0
    assert living(record((1, 1, 5, b"v"), expires_ms=100), 99) == 1
    assert living(record((1, 1, 5, b"v"), expires_ms=100), 100) == 0
    assert living(record((1, 1, 5, None), (2, 1, 6, b"v"), (3, 1, 7, b"w")), 1) == 2


def test_no_table_stays_open_between_reads(tmp_path: Path) -> None:
    listing = write_backup(tmp_path, {1: NodeStore(1).has("k", record((1, 1, 5, b"v"))).at_rest()}, [CARTS])
    ((store,), _) = open_stores(DiskFileSystem(tmp_path), listing)
    assert isinstance(store, StoreCopy)
    assert store.files() == {
        file.path.removeprefix("node-1/") for file in listing.files if file.path.startswith("node-1/")
    }
    assert store.metadata() == metadata()
