"""The picker's answers: what is wanted most, what must come along, and what guards a tombstone."""

from __future__ import annotations

from random import Random

from leafdb.storage.compaction_picker import PickerLimits, debt_bytes, pick, scores
from leafdb.storage.jobs import CompactionJob
from leafdb.storage.version import TableMeta, Version, VersionEdit
from leafdb.types import TreeId
from support.tables import TREE, meta_of

LIMITS = PickerLimits(level0_tables=3, level1_bytes=1000, fanout=10, table_bytes=100, job_bytes_max=10_000)
OTHER = TreeId(257)


def version_of(*metas: TableMeta) -> Version:
    return Version().apply(VersionEdit(created_trees=(TREE, OTHER), added=metas, next_file_number=1000))


def level0(number: int, smallest: bytes = b"a", largest: bytes = b"z", **changes: int) -> TableMeta:
    return meta_of(number, smallest, largest, sequence_min=number * 10, sequence_max=number * 10 + 9, **changes)


def numbers(job: CompactionJob | None) -> list[int]:
    assert job is not None
    return list(job.input_numbers)


def test_nothing_is_wanted_below_every_measure() -> None:
    version = version_of(level0(1), level0(2), meta_of(3, b"a", b"b", level=1, size=999))
    assert pick(version, (), LIMITS) is None
    assert pick(Version(), (), LIMITS) is None
    assert debt_bytes(version, LIMITS) == 0


def test_level_0_goes_down_with_all_it_touches_newest_first() -> None:
    touched, untouched = meta_of(4, b"b", b"c", level=1), meta_of(5, b"x", b"z", level=1)
    version = version_of(level0(1, b"a", b"m"), level0(2, b"a", b"m"), level0(3, b"a", b"m"), touched, untouched)
    job = pick(version, (), LIMITS)
    assert numbers(job) == [3, 2, 1, 4]
    assert job is not None
    assert (job.output_level, job.below, job.table_bytes, job.outputs) == (1, (), 100, ())
    assert debt_bytes(version, LIMITS) == 300


def test_a_bounded_job_takes_the_oldest_of_level_0() -> None:
    limits = PickerLimits(level0_tables=3, job_bytes_max=250)
    version = version_of(*(level0(number) for number in range(1, 6)))
    assert numbers(pick(version, (), limits)) == [2, 1]
    assert numbers(pick(version, (), PickerLimits(level0_tables=3, job_bytes_max=1))) == [1]


def test_a_busy_table_is_left_alone_and_another_tree_goes_first() -> None:
    mine = [level0(number) for number in (1, 2, 3)]
    theirs = [level0(number, tree_id=OTHER) for number in (4, 5, 6)]
    version = version_of(*mine, *theirs)
    assert numbers(pick(version, {1, 2, 3}, LIMITS)) == [6, 5, 4]
    assert pick(version, {1, 4}, LIMITS) is None


def test_no_table_of_level_0_is_taken_past_a_busy_older_one() -> None:
    version = version_of(*(level0(number) for number in (1, 2, 3, 4)))
    assert numbers(pick(version, {3}, LIMITS)) == [2, 1]
    assert pick(version, {1}, LIMITS) is None


def test_a_job_that_would_drag_a_busy_table_along_is_not_given() -> None:
    lower = meta_of(9, b"c", b"d", level=1, size=10)
    assert pick(version_of(*(level0(number) for number in (1, 2, 3)), lower), {9}, LIMITS) is None
    deep = [
        meta_of(1, b"a", b"c", level=1, size=600),
        meta_of(2, b"d", b"f", level=1, size=600),
        meta_of(3, b"a", b"b", level=2, size=10),
        meta_of(4, b"d", b"e", level=2, size=500),
    ]
    assert numbers(pick(version_of(*deep), (), LIMITS)) == [1, 3]
    assert numbers(pick(version_of(*deep), {3}, LIMITS)) == [2, 4]
    assert pick(version_of(*deep), {3, 4}, LIMITS) is None


def test_the_fullest_level_goes_first() -> None:
    full = [meta_of(number, b"%03d" % number, b"%03d" % number, level=1, size=500) for number in range(10, 20)]
    version = version_of(*(level0(number) for number in (1, 2, 3)), *full)
    assert scores(version.trees[TREE], LIMITS)[:2] == [1.0, 5.0]
    job = pick(version, (), LIMITS)
    assert job is not None
    assert job.output_level == 2


def test_of_a_deep_level_the_table_that_drags_least_along_goes() -> None:
    version = version_of(
        meta_of(1, b"a", b"f", level=1, size=600),
        meta_of(2, b"g", b"m", level=1, size=600),
        meta_of(3, b"b", b"c", level=2, size=900),
        meta_of(4, b"h", b"i", level=2, size=100),
        meta_of(5, b"m", b"p", level=2, size=100),
    )
    assert numbers(pick(version, (), LIMITS)) == [2, 4, 5]


def test_when_nothing_else_is_due_upper_levels_make_way_for_the_deepest() -> None:
    """A million keys overwritten for a quarter of an hour: compaction came to rest with 64 MiB on level 1 over 96 MiB,
    which held all that was alive. Half of the disk was dead."""
    upper = [meta_of(number, b"%03d" % number, b"%03d" % number, level=1, size=100) for number in range(10, 18)]
    deepest = meta_of(30, b"000", b"999", level=2, size=1_600)
    assert numbers(pick(version_of(level0(1), *upper, deepest), (), LIMITS)) == [10, 30]
    assert pick(version_of(level0(1), *upper, deepest), {30}, LIMITS) is None
    assert pick(version_of(level0(1), *upper[:3], deepest), (), LIMITS) is None, "a quarter of the deepest may stay"
    assert pick(version_of(level0(1), *upper), (), LIMITS) is None, "level 1 is the deepest"
    fresh = version_of(level0(1, size=500), *upper[:3], deepest)
    assert numbers(pick(fresh, (), LIMITS)) == [1], "the largest goes first"


def test_everything_below_the_widened_range_guards_tombstones() -> None:
    version = version_of(
        meta_of(1, b"d", b"f", level=1, size=2000),
        meta_of(2, b"a", b"e", level=2),
        meta_of(3, b"a", b"b", level=3),
        meta_of(4, b"c", b"d", level=4),
        meta_of(5, b"x", b"z", level=3),
    )
    job = pick(version, (), LIMITS)
    assert job is not None
    assert numbers(job) == [1, 2]
    assert job.below == ((b"a", b"b"), (b"c", b"d"))


def test_random_trees_settle_and_every_job_keeps_its_promises() -> None:
    rng = Random(11)
    version = Version().apply(VersionEdit(created_trees=(TREE,)))
    number = 0
    for _ in range(60):
        number += 1
        version = version.apply(
            VersionEdit(added=(level0(number, size=rng.randrange(50, 200)),), next_file_number=10_000)
        )
        while (job := pick(version, (), LIMITS)) is not None:
            tree = version.trees[TREE]
            taken = set(job.input_numbers)
            low, high = min(meta.smallest for meta in job.inputs), max(meta.largest for meta in job.inputs)
            left = [meta for meta in tree if meta.file_number not in taken]
            newest = max(meta.sequence_max for meta in job.inputs if meta.level == job.inputs[0].level)
            assert all(meta.sequence_max > newest for meta in left if meta.level == 0)
            assert not any(meta.overlaps(low, high) for meta in left if meta.level == job.output_level)
            assert {
                (meta.smallest, meta.largest)
                for meta in left
                if meta.level > job.output_level and meta.overlaps(low, high)
            } == set(job.below)
            # as if merged: the inputs' bytes, spread evenly over the letters they span
            size = sum(meta.size for meta in job.inputs)
            added, letters = [], [bytes([letter]) for letter in range(low[0], high[0] + 1)]
            for part in range(0, len(letters), 5):
                number += 1
                five = letters[part : part + 5]
                added.append(
                    meta_of(number, five[0], five[-1], level=job.output_level, size=max(1, size * 5 // len(letters)))
                )
            version = version.apply(VersionEdit(added=tuple(added), removed=job.input_numbers))
            version.check()
    assert all(score < 1 for score in scores(version.trees[TREE], LIMITS))
