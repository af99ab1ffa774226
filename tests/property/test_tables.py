"""Laws of tables: what goes in comes out, merging equals a model, and no damage gives other bytes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from random import Random
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from leafdb.errors import CorruptionError, UnknownFormat
from leafdb.storage.block import ABSENT, Absent, Stored
from leafdb.storage.block_cache import BlockCache
from leafdb.storage.compaction import run_compaction
from leafdb.storage.compaction_picker import PickerLimits, pick
from leafdb.storage.flush import run_flush
from leafdb.storage.jobs import FlushJob
from leafdb.storage.lsm_tree import find
from leafdb.storage.sstable_reader import TableReader, verify
from leafdb.storage.tree_search import TreeSearch
from leafdb.storage.value_reader import OpenFiles, ValueReader
from leafdb.storage.version import Version, VersionEdit
from leafdb.vfs.memory import MemoryFileSystem
from support.tables import TREE, Model, entries_of, read_table, store, write_segment, write_table

T = TypeVar("T")

bounded = settings(max_examples=60, deadline=None, derandomize=True)

# Short keys of few letters meet, are prefixes of each other and share prefixes; long ones do the last at length.
keys = st.one_of(st.binary(max_size=3), st.text("ab\0", max_size=40).map(str.encode), st.binary(max_size=300))
values = st.one_of(st.none(), st.binary(max_size=40), st.integers(0, 30_000).map(bytes))
models = st.dictionaries(keys, st.tuples(st.integers(0, (1 << 64) - 1), values), min_size=1, max_size=120)


@bounded
@given(models, st.integers(1, 130), st.lists(keys, max_size=20))
def test_a_table_equals_the_dict_it_was_written_from(model: Model, run: int, others: list[bytes]) -> None:
    fs = store()
    meta = write_table(fs, model, run=run)
    verify(fs, meta)
    reader = TableReader.open(fs, meta, BlockCache(100_000))
    for key in [*model, *others]:
        expected = model[key][1] if key in model else ABSENT
        assert reader.get_now(key) == expected
        assert reader.get(key) == expected
    assert list(reader.iterate(b"", None)) == entries_of(model)
    for start, stop in pairwise(others):
        part = [entry for entry in entries_of(model) if start <= entry[0] < stop]
        assert list(reader.iterate(start, stop)) == part
        assert list(reader.iterate(start, stop, reverse=True)) == part[::-1]


def outcome(look: Callable[[], T]) -> T | None:
    """What a look at a table gives, or None for an error of the two kinds that damage may give."""
    try:
        return look()
    except (CorruptionError, UnknownFormat):
        return None


@bounded
@given(models, st.randoms(use_true_random=False))
def test_damage_is_an_error_or_harmless_and_never_other_bytes(model: Model, rng: Random) -> None:
    fs = store()
    meta = write_table(fs, model)
    entries = entries_of(model)
    for _ in range(6):
        damaged = fs.power_cut(rng, keep=1.0)
        for _ in range(rng.randrange(1, 4)):
            damaged.flip(meta.path, rng.randrange(meta.size), rng.randrange(1, 256))
        assert outcome(partial(read_table, damaged, meta)) in (None, entries)
        reader = outcome(partial(TableReader.open, damaged, meta, BlockCache(0)))
        if reader is not None:
            for key, (_, value) in model.items():
                found: list[Stored | Absent] | None = outcome(partial(list, map(reader.get, [key])))
                assert found in (None, [value]), "in a list, as None alone may be a tombstone"


steps = st.lists(st.dictionaries(st.binary(max_size=2), values, min_size=1, max_size=40), min_size=1, max_size=14)


@bounded
@given(steps, st.integers(1, 4), st.sampled_from((0, 30, 1 << 20)), st.integers(2, 6))
def test_flushes_and_compactions_keep_the_newest_of_every_key(
    batches: list[dict[bytes, bytes | None]], level0: int, inline_bytes_max: int, value_files_max: int
) -> None:
    """A store grown by flushes and compacted to rest equals a dict; at rest in the last level no tombstone is left,
    mostly dead value files have less that is dead than tables are large, and no table refers to too many."""
    fs = store()
    limits = PickerLimits(
        level0_tables=level0,
        level1_bytes=3_000,
        fanout=3,
        table_bytes=2_000,
        job_bytes_max=20_000,
        value_files_max=value_files_max,
    )
    version = Version().apply(VersionEdit(created_trees=(TREE,)))
    model: dict[bytes, bytes | None] = {}
    lsn, number = 1, 1
    for segment, batch in enumerate(batches, 1):
        path = write_segment(fs, segment, lsn, [(TREE, key, value) for key, value in batch.items()])
        flush = FlushJob(
            segments=(path,),
            outputs=((TREE, number),),
            upto_lsn=lsn + len(batch) - 1,
            after_lsn=lsn - 1,
            values=((TREE, number + 1),),
            inline_bytes_max=inline_bytes_max,
        )
        done = run_flush(fs, flush)
        lsn += len(batch)
        number += 2
        edit = VersionEdit(added=done.added, values=done.values, flushed_lsn=lsn - 1, next_file_number=number)
        version = version.apply(edit)
        model.update(batch)
        while (job := pick(version, (), limits)) is not None:
            outputs = tuple(range(number, number + job.numbers_wanted))
            number += len(outputs)
            result = run_compaction(fs, job.with_outputs(outputs))
            version = version.apply(result.edit()).apply(VersionEdit(next_file_number=number))
            version.check()
        check_equal(fs, version, model)
        files = version.values
        poor = [number for number in files.metas if files.share(number) < limits.value_live_share_min]
        dead = sum(files.metas[number].value_bytes - files.live[number] for number in poor)
        assert not poor or dead < sum(meta.size for meta in version.tables.values() if meta.level)
        assert all(len(meta.references) <= value_files_max for meta in version.tables.values() if meta.level)
    tree = version.trees[TREE]
    deepest = max(level for level, tables in enumerate(tree.levels) if tables) if list(tree) else 0
    if deepest > 0:
        assert not any(meta.tombstones for meta in tree.levels[deepest])


def check_equal(fs: MemoryFileSystem, version: Version, model: dict[bytes, bytes | None]) -> None:
    readers = {number: TableReader.open(fs, meta, BlockCache(0)) for number, meta in version.tables.items()}
    values = {number: ValueReader(fs, meta, OpenFiles(0)) for number, meta in version.values.metas.items()}
    search = TreeSearch(version.trees[TREE], readers)
    search.check()
    for key, value in model.items():
        assert find(search, values, key) == (value, 0), f"{key!r}"
    for reader in readers.values():
        reader.close()
