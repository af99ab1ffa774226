"""Trees kept by time: which tables leave whole, which become one, which go down after all."""

from __future__ import annotations

from functools import partial
from random import Random

import pytest

from leafdb.storage.compaction_picker import PickerLimits, debt_bytes, pick
from leafdb.storage.forgotten import Forgotten, Told
from leafdb.storage.jobs import CompactionJob
from leafdb.storage.version import TableMeta, TreeVersion, Version, VersionEdit
from leafdb.storage.window_picker import dead_tables, tables_to_settle, windows_to_merge
from support.tables import TREE, meta_of

LIMITS = PickerLimits(
    level0_tables=3, level1_bytes=1000, table_bytes=100, windows=3, window_tables=6, window_bytes_max=10_000
)
LSN = 10_000


def version_of(*metas: TableMeta) -> Version:
    return Version().apply(VersionEdit(created_trees=(TREE,), added=metas, next_file_number=1000))


def tree_of(*metas: TableMeta) -> TreeVersion:
    return version_of(*metas).trees[TREE]


def window(
    number: int, expires_ms: int, smallest: bytes = b"a", largest: bytes = b"z", level: int = 0, size: int = 100
) -> TableMeta:
    return meta_of(
        number, smallest, largest, level=level, size=size, sequence_min=number * 10, sequence_max=number * 10 + 9,
        newest_expiry_ms=expires_ms,
    )  # fmt: skip


def said(*told: Told) -> Forgotten:
    forgotten = Forgotten()
    for each in told:
        forgotten.tell(each)
    assert forgotten.flushed(LSN) == bool(told)
    forgotten.check()
    return forgotten


def everywhere(expires_ms: int, upto_lsn: int = LSN) -> Forgotten:
    return said(Told(b"", None, expires_ms, upto_lsn))


def numbers(tables: list[TableMeta] | CompactionJob | None) -> list[int]:
    assert tables is not None
    return list(tables.input_numbers) if isinstance(tables, CompactionJob) else [meta.file_number for meta in tables]


def test_what_was_forgotten_must_reach_over_the_whole_table_its_newest_entry_and_its_last_write() -> None:
    meta = window(1, 500, b"c", b"m")
    assert everywhere(501, 19).has(meta)
    assert not everywhere(500).has(meta), "one entry expires at that time"
    assert not everywhere(501, 18).has(meta), "one entry was written later"
    assert not Forgotten().has(meta)
    low, high = Told(b"", b"h", 501, LSN), Told(b"h", None, 501, LSN)
    assert said(high, low).has(meta)
    assert not said(low).has(meta)
    assert not said(high).has(meta)
    assert not said(low, high._replace(expires_ms=500)).has(meta), "the least of all ranges that it touches"
    assert not said(low, Told(b"i", None, 501, LSN)).has(meta), "nothing was said between h and i"
    assert said(low._replace(stop=b"m\0")).has(meta)
    assert not said(low._replace(stop=b"m")).has(meta), "a range ends before its end"


def test_what_is_said_again_counts_and_what_is_cleared_does_not() -> None:
    forgotten = everywhere(501)
    forgotten.tell(Told(b"", None, 400, LSN))
    assert forgotten.has(window(1, 500)), "that does not count yet"
    assert forgotten.flushed(LSN)
    assert not forgotten.has(window(1, 500))
    assert forgotten.has(window(1, 300))
    forgotten.clear()
    assert not forgotten.has(window(1, 1))


def test_what_is_said_counts_when_it_is_in_tables_however_often_more_is_said() -> None:
    forgotten = everywhere(100)
    for number in range(1, 10):
        forgotten.tell(Told(b"", None, 100 + number, LSN + number))
        assert not forgotten.flushed(LSN)
        forgotten.check()
    assert not forgotten.has(window(1, 100))
    assert forgotten.flushed(LSN + 1), "the first of them, though more was said since"
    assert not forgotten.flushed(LSN + 1)
    assert forgotten.has(window(1, 100))
    assert not forgotten.has(window(1, 101))
    assert forgotten.flushed(LSN + 9)
    assert forgotten.has(window(1, 108))
    forgotten.check()


def test_dead_windows_go_oldest_first_and_none_goes_while_something_older_lies_in_its_range() -> None:
    dead = [window(number, 500) for number in (1, 2, 3)]
    assert numbers(dead_tables(tree_of(*dead, window(4, 700)), (), everywhere(600))) == [1, 2, 3]
    assert numbers(dead_tables(tree_of(*dead), {2}, everywhere(600))) == [1], "the third lies on a busy one"
    assert numbers(dead_tables(tree_of(window(1, 700), *dead[1:]), (), everywhere(600))) == []
    beside = window(1, 700, b"x", b"z"), window(2, 500, b"a", b"m"), window(3, 500, b"m", b"y")
    assert numbers(dead_tables(tree_of(*beside), (), everywhere(600))) == [2]
    deep = window(9, 0, b"a", b"c", level=1)
    assert numbers(dead_tables(tree_of(*dead, deep), (), everywhere(600))) == []
    assert numbers(dead_tables(tree_of(window(1, 500, b"d", b"f"), deep), (), everywhere(600))) == [1]
    deep = window(9, 500, b"a", b"c", level=1)
    assert numbers(dead_tables(tree_of(window(1, 500), deep), (), everywhere(600))) == [9, 1]


def test_a_table_of_which_nothing_is_known_is_never_dead() -> None:
    assert dead_tables(tree_of(window(1, 0)), (), everywhere(1 << 60)) == []


def test_what_lasts_goes_down_when_it_is_the_oldest_and_there_is_enough_of_it_or_something_has_expired() -> None:
    def settled(*metas: TableMeta, busy: tuple[int, ...] = ()) -> list[int]:
        return numbers(tables_to_settle(tree_of(*metas), busy, everywhere(600), lasting_max=3))

    lasting = [window(number, 0) for number in (1, 2, 3)]
    live = window(4, 700)
    assert settled(*lasting[:2], live) == []
    assert settled(*lasting, live) == [3, 2, 1]
    assert settled(lasting[0], window(2, 500), live) == [2, 1]
    assert settled(window(1, 700), *lasting[1:], live) == []
    assert settled(*lasting, live, busy=(1,)) == []


def test_neighbours_become_one_where_that_costs_least_and_never_more_than_their_share() -> None:
    def merged(*sizes: int, busy: tuple[int, ...] = (), bytes_max: int = 10_000) -> list[int]:
        metas = [window(number, 700, size=size) for number, size in enumerate(sizes, 1)]
        return numbers(windows_to_merge(tree_of(*metas), busy, windows=3, tables_max=6, bytes_max=bytes_max))

    assert merged(100, 100, 100, 100, 100, 100) == [], "few enough"
    assert merged(300, 300, 300, 300, 10, 10, 10) == [7, 6, 5]
    assert merged(300, 300, 300, 300, 10, 10, 10, busy=(6,)) == [5, 4], "none is skipped: time would be out of order"
    assert merged(100, 100, 100, 100, 100, 100, 100, bytes_max=150) == []
    assert len(merged(100, 100, 100, 100, 100, 100, 100)) == 2, "a third of all, at most"


def test_what_lasts_is_merged_with_what_expires_only_where_nothing_else_can_be() -> None:
    kinds = (700, 700, 0, 0, 700, 700, 700)
    metas = [window(number, kind, size=10 if number in (2, 3) else 100) for number, kind in enumerate(kinds, 1)]
    assert numbers(windows_to_merge(tree_of(*metas), (), windows=3, tables_max=6, bytes_max=10_000)) == [4, 3]
    metas = [window(number, 700 if number % 2 else 0) for number in range(1, 8)]
    assert len(windows_to_merge(tree_of(*metas), (), windows=3, tables_max=6, bytes_max=10_000)) == 2


def test_merged_windows_stay_on_level_0_as_one_table_over_all_that_is_older() -> None:
    metas = [window(number, 700, size=10 if number in (3, 4) else 100) for number in range(1, 8)]
    deep, far = meta_of(20, b"a", b"b", level=2), window(0, 700, b"zz", b"zzz")
    version = version_of(*metas, deep, far)
    job = pick(version, (), LIMITS, (TREE,), Forgotten())
    assert job is not None
    assert (numbers(job), job.output_level) == ([4, 3], 0)
    assert job.below == ((b"a", b"b"), (b"a", b"z"), (b"a", b"z")), "an older table elsewhere guards nothing"
    assert job.table_bytes > 1 << 40
    assert debt_bytes(version, LIMITS, (TREE,)) == 0
    assert debt_bytes(version, LIMITS) == 620, "were it kept by level"


def test_a_tree_whose_windows_are_too_large_is_kept_by_level_behind_them() -> None:
    metas = [window(number, 700, size=8_000) for number in range(1, 8)]
    job = pick(version_of(*metas), (), LIMITS, (TREE,), Forgotten())
    assert job is not None
    assert (numbers(job)[-1], job.output_level) == (1, 1)


def test_a_tree_that_is_not_kept_by_time_any_more_goes_down_as_any_other() -> None:
    metas = [window(number, 500) for number in range(1, 5)]
    assert pick(version_of(*metas), (), LIMITS, (TREE,), Forgotten()) is None
    assert numbers(pick(version_of(*metas), (), LIMITS)) == [4, 3, 2, 1]


@pytest.mark.parametrize("seed", range(4))
def test_windows_are_few_whatever_comes_and_their_order_is_that_of_time(seed: int) -> None:
    rng = Random(seed)
    version = version_of()
    written = 0
    for number in range(1, 400):
        size = rng.choice((5, 50, 500))
        version = version.apply(VersionEdit(added=(window(number, number * 10, size=size),)))
        forgotten = everywhere((number - 60) * 10 + 1) if number > 60 else Forgotten()
        dead = dead_tables(version.trees[TREE], (), forgotten)
        version = version.apply(VersionEdit(removed=tuple(numbers(dead))))
        while (job := pick(version, (), LIMITS, (TREE,), forgotten)) is not None:
            assert job.output_level == 0
            tables = version.trees[TREE].levels[0]
            at = tables.index(job.inputs[0])
            assert tables[at : at + len(job.inputs)] == job.inputs, "neighbours, in their order"
            size = sum(meta.size for meta in job.inputs)
            written += size
            one = meta_of(
                1000 * number + len(tables), b"a", b"z", size=size, sequence_min=job.inputs[-1].sequence_min,
                sequence_max=job.inputs[0].sequence_max,
                newest_expiry_ms=max(meta.newest_expiry_ms for meta in job.inputs),
            )  # fmt: skip
            version = version.apply(VersionEdit(added=(one,), removed=job.input_numbers))
            version.trees[TREE].check()
        assert len(version.trees[TREE].levels[0]) <= LIMITS.window_tables
    assert written / 400 < 5 * 185, "each byte is written a few times"


def test_tables_of_one_time_become_one_before_any_is_merged_with_others() -> None:
    """Two recoveries wrote one log to tables, with other borders. The upper two would have been merged, and what they
    become would have lain above what is between them."""

    def written(number: int, first: int, last: int) -> TableMeta:
        return meta_of(number, b"a", b"z", sequence_min=first, sequence_max=last, newest_expiry_ms=1)

    older = [written(number, number * 10, number * 10 + 9) for number in range(1, 9)]
    twins = [written(20, 106, 113), written(21, 109, 113), written(22, 100, 105), written(23, 100, 108)]
    tree = tree_of(*older, *twins, written(30, 115, 120))
    merge = partial(windows_to_merge, windows=3, tables_max=6, bytes_max=150)
    assert numbers(merge(tree, ())) == [21, 20, 23, 22]
    assert merge(tree, {22}) == [], "nor is anything else while one of them is busy"
    assert numbers(windows_to_merge(tree_of(*older[:2], *twins), (), windows=3, tables_max=6, bytes_max=1)) == [
        21, 20, 23, 22,
    ], "however few there are, and however large"  # fmt: skip
