"""Values are moved out of files that are mostly dead, or too many; otherwise they stay where they are."""

from __future__ import annotations

from dataclasses import replace

from leafdb.storage.compaction_picker import PickerLimits, pick
from leafdb.storage.value_files import References, ValueMeta
from leafdb.storage.version import TableMeta, Version, VersionEdit
from support.tables import TREE, meta_of

LIMITS = PickerLimits(level0_tables=2, level1_bytes=10_000, table_bytes=1_000, job_bytes_max=5_000, value_files_max=4)


def table(number: int, *references: tuple[int, int], level: int = 1, smallest: bytes = b"a") -> TableMeta:
    meta = meta_of(
        number, smallest, smallest + b"z", level=level, sequence_min=number * 10, sequence_max=number * 10 + 9
    )
    return replace(meta, references=references)


def values(number: int, value_bytes: int = 1_000) -> ValueMeta:
    return ValueMeta(number, TREE, value_bytes + 64, 10)


def version_of(files: list[ValueMeta], *metas: TableMeta) -> Version:
    version = Version().apply(VersionEdit(created_trees=(TREE,)))
    version = version.apply(VersionEdit(added=metas, values=tuple(files), next_file_number=1000))
    version.check()
    return version


def moved(
    version: Version, busy: tuple[int, ...] = (), limits: PickerLimits = LIMITS
) -> tuple[list[int], list[int]] | None:
    """The tables of the job that is picked, and the files it moves values out of."""
    job = pick(version, busy, limits)
    return None if job is None else (list(job.input_numbers), [meta.file_number for meta in job.move_from])


def test_what_is_half_live_stays() -> None:
    version = version_of([values(50)], table(1, (50, 500)))
    assert moved(version) is None


def test_a_mostly_dead_file_gets_a_job_on_the_level_of_the_table_that_holds_it() -> None:
    version = version_of([values(50), values(51)], table(1, (50, 499)), table(2, (51, 900), smallest=b"c"))
    job = pick(version, (), LIMITS)
    assert job is not None
    assert (job.input_numbers, job.output_level, [meta.file_number for meta in job.move_from]) == ((1,), 1, [50])
    assert job.numbers_wanted == job.outputs_wanted + 1
    allotted = job.with_outputs(tuple(range(100, 100 + job.numbers_wanted)))
    assert (allotted.outputs, allotted.value_output) == (
        tuple(range(100, 100 + job.outputs_wanted)),
        allotted.numbers[-1],
    )
    assert moved(version, busy=(1,)) is None
    assert moved(version, busy=(50,)) is None, "a damaged value file is left alone"


def test_a_job_of_its_own_frees_more_than_it_writes() -> None:
    """What is dead in the file is shared out over its two tables as they hold what is live of it."""
    large = replace(table(1, (50, 100)), size=2_000)
    assert moved(version_of([values(50, 8_000)], large, table(2, (50, 3_800), smallest=b"c"))) == ([2], [50])
    assert moved(version_of([values(50, 8_000)], large)) == ([1], [50])
    assert moved(version_of([values(50, 2_000)], large)) is None


def test_a_job_of_its_own_keeps_tombstones_that_have_something_under_them() -> None:
    version = version_of([values(50)], table(1, (50, 10)), table(2, level=3), table(3, level=3, smallest=b"x"))
    job = pick(version, (), LIMITS)
    assert job is not None
    assert job.below == ((b"a", b"az"),)


def test_the_deadest_file_goes_first() -> None:
    version = version_of([values(50), values(51)], table(1, (50, 400)), table(2, (51, 100), smallest=b"c"))
    assert moved(version) == ([2], [51])


def test_a_merge_of_levels_moves_on_its_way() -> None:
    version = version_of(
        [values(50), values(51), values(52)],
        table(3, (51, 1_000), level=0),
        table(4, (52, 1_000), level=0),
        table(1, (50, 100)),
    )
    assert moved(version) == ([4, 3, 1], [50])


def test_a_job_moves_no_more_than_its_bytes_but_always_one_file() -> None:
    files = [values(50, 100_000), values(51, 100_000)]
    version = version_of(files, table(1, (50, 20_000), (51, 10_000)))
    assert moved(version) == ([1], [51])
    assert moved(version, limits=replace(LIMITS, job_bytes_max=1 << 20)) == ([1], [50, 51])


def test_no_table_is_left_with_more_files_than_allowed() -> None:
    references: References = tuple((number, 1_000 - number) for number in range(50, 54))
    files = [values(number) for number in range(50, 56)]
    upper = [table(3, (54, 1_000), level=0), table(4, (55, 1_000), level=0)]
    version = version_of(files, *upper, table(1, *references))
    found = moved(version)
    assert found is not None
    assert found[1] == [51, 52, 53], "the smallest: three stay and one is new"
    assert moved(version, limits=replace(LIMITS, value_files_max=6)) == ([4, 3, 1], [])
    assert moved(version, busy=(53,)) == ([4, 3, 1], [50, 51, 52]), "a damaged one stays, and counts"
