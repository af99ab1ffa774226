"""Versions: an edit leads to exactly one next version, and what does not fit is refused, not applied in part."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from leafdb.codec import cbor
from leafdb.storage.value_files import ValueMeta
from leafdb.storage.version import TableMeta, TreeVersion, Version, VersionEdit
from leafdb.types import TreeId
from support.tables import TREE, meta_of

OTHER = TreeId(257)


def version_of(*metas: TableMeta) -> Version:
    version = Version().apply(VersionEdit(created_trees=(TREE,)))
    return version.apply(VersionEdit(added=metas, next_file_number=100))


def test_level_0_is_in_order_of_age_and_deeper_levels_are_in_order_of_keys() -> None:
    old = meta_of(1, b"a", b"m", sequence_max=10)
    new = meta_of(2, b"a", b"z", sequence_min=11, sequence_max=20)
    left, right = meta_of(3, b"a", b"f", level=1), meta_of(4, b"h", b"z", level=1)
    version = version_of(old, left, right, new)
    version.check()
    assert [meta.file_number for meta in version.trees[TREE]] == [2, 1, 3, 4]


def test_a_range_touches_the_tables_that_may_hold_a_key_of_it() -> None:
    tree = TreeVersion(TREE, [meta_of(1, b"a", b"c", level=1), meta_of(2, b"e", b"g", level=1)])
    assert [meta.file_number for meta in tree.tables_between(b"c", b"e")] == [1]
    assert [meta.file_number for meta in tree.tables_between(b"c", None)] == [1, 2]
    assert [meta.file_number for meta in tree.tables_between(b"d", b"e")] == []
    assert [meta.file_number for meta in tree.overlapping(1, b"c", b"e")] == [1, 2]


def test_applying_leaves_the_version_before_untouched() -> None:
    before = version_of(meta_of(1, b"a", b"c"))
    after = before.apply(VersionEdit(removed=(1,), added=(meta_of(2, b"a", b"c", level=1),), flushed_lsn=7))
    assert list(before.tables) == [1]
    assert list(after.tables) == [2]
    assert (before.flushed_lsn, after.flushed_lsn) == (0, 7)
    after.check()


def test_a_table_changes_level_when_removed_and_added_at_once() -> None:
    meta = meta_of(1, b"a", b"c")
    after = version_of(meta).apply(VersionEdit(removed=(1,), added=(replace(meta, level=2),)))
    assert after.trees[TREE].levels[2][0].file_number == 1
    after.check()


def test_a_value_file_comes_with_its_table_and_leaves_with_the_last_one() -> None:
    first, second = replace(meta_of(1, b"a", b"c"), references=((9, 60),)), meta_of(2, b"d", b"e")
    before = version_of(second).apply(VersionEdit(added=(first,), values=(ValueMeta(9, TREE, 164, 3),)))
    before.check()
    assert before.has_file(9)
    assert before.values.share(9) == 0.6
    deeper = before.apply(VersionEdit(removed=(1,), added=(replace(first, level=3),)))
    assert deeper.values.live == {9: 60}, "a table that changes its level keeps what it refers to"
    for edit in (VersionEdit(removed=(1,)), VersionEdit(dropped_trees=(TREE,))):
        after = before.apply(edit)
        after.check()
        assert not after.has_file(9)
    again = Version().apply(VersionEdit.from_plain(cbor.loads(cbor.dumps(before.snapshot().to_plain()))))
    again.check()
    assert again.snapshot() == before.snapshot()
    assert VersionEdit(added=(second,)).to_plain()["added"][0] == second.to_plain()[:11], "nothing is added for no file"


def test_dropping_a_tree_drops_its_tables() -> None:
    version = version_of(meta_of(1, b"a", b"c")).apply(VersionEdit(dropped_trees=(TREE,)))
    assert not version.tables
    assert not version.trees


@pytest.mark.parametrize(
    "edit",
    [
        VersionEdit(removed=(9,)),
        VersionEdit(added=(meta_of(1, b"x", b"y"),)),
        VersionEdit(added=(meta_of(2, b"x", b"y", tree_id=OTHER),)),
        VersionEdit(created_trees=(TREE,)),
        VersionEdit(dropped_trees=(OTHER,)),
        VersionEdit(dropped_trees=(TREE,), added=(meta_of(2, b"x", b"y"),)),
        VersionEdit(added=(replace(meta_of(2, b"x", b"y"), references=((9, 5),)),)),
        VersionEdit(
            values=(ValueMeta(9, OTHER, 164, 3),), added=(replace(meta_of(2, b"x", b"y"), references=((9, 5),)),)
        ),
    ],
)
def test_an_edit_that_does_not_fit_is_refused(edit: VersionEdit) -> None:
    with pytest.raises(ValueError):
        version_of(meta_of(1, b"a", b"c")).apply(edit)


def test_numbers_never_go_back() -> None:
    version = Version().apply(VersionEdit(flushed_lsn=5, next_file_number=9, boot=3))
    version = version.apply(VersionEdit(flushed_lsn=4, next_file_number=2, boot=1))
    assert (version.flushed_lsn, version.next_file_number, version.boot) == (5, 9, 3)


def test_a_snapshot_leads_from_nothing_to_the_same_version() -> None:
    version = version_of(meta_of(1, b"a", b"c"), meta_of(2, b"d", b"e", level=3)).apply(
        VersionEdit(created_trees=(OTHER,), flushed_lsn=8, boot=2)
    )
    edit = VersionEdit.from_plain(cbor.loads(cbor.dumps(version.snapshot().to_plain())))
    again = Version().apply(edit)
    assert again.snapshot() == version.snapshot()
    assert list(again.trees) == [TREE, OTHER]


@pytest.mark.parametrize(
    "plain",
    [
        [],
        {"added": [[1, 2, 3]]},
        {"added": 7},
        {"removed": [-1]},
        {"removed": "ab"},
        {"next": "9"},
        {"flushed": True},
        {"surprise": 1},
        {"added": [[1, 256, 0, 10, 0, b"a", b"b", 0, 0, 0, 0]]},
        {"added": [[1, 256, 0, 10, 1, b"a", b"b", 0, 0, 0, 0, [[9]]]]},
        {"values": 7},
        {"values": [[9, 256, 64, 1]]},
        {"added": [[1, 256, 0, 10, 1, b"b", b"a", 0, 0, 0, 0]]},
        {"added": [[1, 256, 99, 10, 1, b"a", b"b", 0, 0, 0, 0]]},
        {"added": [[1, 256, 0, 10, 1, "a", b"b", 0, 0, 0, 0]]},
    ],
)
def test_malformed_edits_are_refused(plain: Any) -> None:
    with pytest.raises(ValueError):
        VersionEdit.from_plain(plain)


@pytest.mark.parametrize(
    "metas",
    [
        (meta_of(1, b"a", b"m", level=1), meta_of(2, b"m", b"z", level=1)),
        (meta_of(100, b"a", b"m"),),
        (replace(meta_of(1, b"a", b"m"), tombstones=11),),
    ],
)
def test_check_finds_what_cannot_be(metas: tuple[TableMeta, ...]) -> None:
    with pytest.raises(AssertionError):
        version_of(*metas).check()
