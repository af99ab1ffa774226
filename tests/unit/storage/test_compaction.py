"""A compaction keeps the newest of each key, drops only what may go, and splits its output where it should."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest

from leafdb.errors import CorruptionError
from leafdb.storage.block import Stored
from leafdb.storage.compaction import compaction_slices, run_compaction
from leafdb.storage.jobs import CompactionJob
from leafdb.storage.lost_ranges import Range
from leafdb.storage.sstable_reader import verify
from leafdb.storage.version import TableMeta
from leafdb.vfs.memory import MemoryFileSystem
from support.tables import TREE, Model, entries_of, read_table, store, write_table


def job_of(
    *inputs: TableMeta, level: int = 1, below: tuple[Range, ...] = (), table_bytes: int = 1 << 20
) -> CompactionJob:
    job = CompactionJob(tree_id=TREE, inputs=inputs, output_level=level, below=below, table_bytes=table_bytes)
    return job.with_outputs(tuple(range(100, 100 + job.outputs_wanted)))


def compacted(fs: MemoryFileSystem, job: CompactionJob) -> dict[bytes, tuple[int, Stored]]:
    result = run_compaction(fs, job)
    assert result.removed == job.input_numbers
    found = {}
    for meta in result.added:
        verify(fs, meta)
        assert meta.level == job.output_level
        found.update({key: (sequence, value) for key, sequence, value in read_table(fs, meta)})
    assert result.entries_written == len(found) == sum(meta.entries for meta in result.added)
    assert result.entries_read == sum(meta.entries for meta in job.inputs)
    return found


def test_the_newest_of_each_key_is_kept() -> None:
    fs = store()
    new = write_table(fs, {b"a": (21, b"new"), b"c": (22, b"c")}, file_number=1)
    old = write_table(fs, {b"a": (11, b"old"), b"b": (12, b"b")}, file_number=2)
    base = write_table(fs, {b"a": (1, b"oldest"), b"d": (2, b"d")}, file_number=3, level=1)
    expected = {b"a": (21, b"new"), b"b": (12, b"b"), b"c": (22, b"c"), b"d": (2, b"d")}
    assert compacted(fs, job_of(new, old, base)) == expected
    assert fs.list("tables")[:3] == ["0000000001.sst", "0000000002.sst", "0000000003.sst"], "inputs are not touched"


def test_spent_tombstones_go_and_those_with_older_data_below_stay() -> None:
    fs = store()
    model: Model = {b"%02d" % n: (n + 10, None) for n in range(30)}
    meta = write_table(fs, {**model, b"x": (9, b"alive")}, file_number=1)
    found = compacted(fs, job_of(meta, below=((b"05", b"08"), (b"07", b"10"), (b"20", b"20"))))
    assert sorted(found) == [b"05", b"06", b"07", b"08", b"09", b"10", b"20", b"x"]


def test_deleting_everything_leaves_no_table_and_no_space() -> None:
    fs = store()
    dead = write_table(fs, {b"%03d" % n: (n + 1000, None) for n in range(500)}, file_number=1)
    data = write_table(fs, {b"%03d" % n: (n, b"x" * 100) for n in range(500)}, file_number=2, level=1)
    result = run_compaction(fs, job_of(dead, data))
    assert (result.added, result.removed, result.entries_written) == ((), (1, 2), 0)
    assert len(fs.list("tables")) == 2


def test_outputs_are_split_and_disjoint() -> None:
    fs, rng = store(), Random(5)
    model: Model = {rng.randbytes(8): (n, rng.randbytes(200)) for n in range(2000)}
    job = job_of(write_table(fs, model), table_bytes=100_000)
    result = run_compaction(fs, job)
    assert 4 <= len(result.added) <= len(job.outputs)
    assert all(left.largest < right.smallest for left, right in pairwise(result.added))
    assert all(meta.size < 250_000 for meta in result.added)
    assert [entry for meta in result.added for entry in read_table(fs, meta)] == entries_of(model)


def test_with_too_few_numbers_the_last_table_takes_the_rest() -> None:
    fs, rng = store(), Random(5)
    model: Model = {rng.randbytes(8): (n, rng.randbytes(200)) for n in range(2000)}
    job = job_of(write_table(fs, model), table_bytes=100_000).with_outputs((7, 8))
    result = run_compaction(fs, job)
    assert [meta.file_number for meta in result.added] == [7, 8]
    assert [entry for meta in result.added for entry in read_table(fs, meta)] == entries_of(model)


def test_a_damaged_input_fails_the_job_and_leaves_the_inputs() -> None:
    fs, rng = store(), Random(5)
    meta = write_table(fs, {rng.randbytes(8): (n, rng.randbytes(100)) for n in range(1000)})
    fs.flip(meta.path, 50_000)
    open_files = fs.open_files
    with pytest.raises(CorruptionError) as caught:
        run_compaction(fs, job_of(meta))
    assert caught.value.path == meta.path
    assert fs.open_files == open_files, "whatever happens, files are closed"
    assert fs.exists(meta.path)


def test_a_job_is_cut_into_slices_and_streams() -> None:
    fs, rng = store(), Random(5)
    new = write_table(fs, {rng.randbytes(8): (n + 5000, rng.randbytes(100)) for n in range(2000)}, file_number=1)
    old = write_table(fs, {rng.randbytes(8): (n, rng.randbytes(100)) for n in range(2000)}, file_number=2, level=1)
    slices = compaction_slices(fs, job_of(new, old))
    steps = sum(1 for _ in slices)
    assert steps > 4000 / 800


def test_outputs_survive_the_power_with_their_names() -> None:
    fs = store()
    fs.sync_dir("")
    meta = write_table(fs, {b"a": (1, b"x")})
    result = run_compaction(fs, job_of(meta))
    after = fs.power_cut(Random(1), keep=0.0)
    verify(after, result.added[0])
