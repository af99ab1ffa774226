"""Merges tables of one tree into new ones on the next level: the execution; `compaction_picker` decides.

Streams: at any moment it holds a few blocks of each input and one block of output, whatever the tables' sizes. Of each
key the entry of the highest sequence is kept. A tombstone is dropped when nothing older can lie under it: the picker
promises that older data of the inputs' range is either an input or in a range of `job.below`, so a tombstone outside
all of those has done its work. What its owner has forgotten is taken for a tombstone (`forgetting`).

What is merged has expired when all inputs have: no value is looked at for that.

Values that lie in value files stay where they are; their places are carried. Only those in the files the job names are
moved: read, and written to a value file of the job's own, in the order of their keys.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from itertools import chain, compress, groupby
from typing import Final

from leafdb.limits import COMPACTION_CHUNK_BLOCKS
from leafdb.storage.block import Columns, Stored
from leafdb.storage.block_cache import BlockCache
from leafdb.storage.expiry import newest
from leafdb.storage.forgetting import Forgetting
from leafdb.storage.job_execution import TableOutputs, run_slices, table_outputs
from leafdb.storage.jobs import CompactionJob, CompactionResult
from leafdb.storage.lost_ranges import Range
from leafdb.storage.merge_iterator import merge_columns
from leafdb.storage.sstable_format import corruption
from leafdb.storage.sstable_reader import TableReader
from leafdb.storage.value_files import Place
from leafdb.storage.value_reader import OpenFiles, ValueReader
from leafdb.storage.version import TableMeta
from leafdb.vfs.base import FileSystem

_SLICE_VALUE_BYTES: Final = 1 << 20


def run_compaction(fs: FileSystem, job: CompactionJob) -> CompactionResult:
    """Write the tables of `job`; they and their names are durable on return."""
    return run_slices(compaction_slices(fs, job))


def compaction_slices(fs: FileSystem, job: CompactionJob) -> Generator[None, None, CompactionResult]:
    """`run_compaction` in steps of less than a millisecond, as a rule."""
    assert job.outputs, "no file number is allotted"
    assert all(meta.tree_id == job.tree_id for meta in job.inputs), "a compaction of two trees"
    numbers = list(job.outputs)
    forgetting = Forgetting(job.forgotten, job.expiry) if job.forgotten else None
    deletions = forgetting is not None or any(meta.tombstones for meta in job.inputs)
    covered = _Covered(job.below) if deletions else None
    newest_expiry_ms = reduce(newest, (meta.newest_expiry_ms for meta in job.inputs))
    written = 0
    with table_outputs(fs) as outputs, _values_to_move(fs, job) as values_to_move:
        for columns in merge_columns(_sources(fs, job.inputs)):
            yield
            if columns is None:
                continue
            if forgetting is not None:
                columns = forgetting.applied(columns)
            keys, sequences, values = columns if covered is None else covered.without_spent_tombstones(columns)
            writer = outputs.writer
            if keys:
                if writer is None:
                    writer = outputs.start(file_number=numbers.pop(0), tree_id=job.tree_id, level=job.output_level)
                    writer.newest_expiry_ms = newest_expiry_ms
                if values_to_move:
                    values = yield from _moved(job, values_to_move, outputs, keys, values)
                writer.append_run(keys, sequences, values)
                written += len(keys)
                if writer.size >= job.table_bytes and numbers:
                    yield from outputs.finish_slices()
            yield
        outputs.finish_values()
        if outputs.writer is not None:
            yield from outputs.finish_slices()
        added = outputs.publish()
    return CompactionResult(
        added=tuple(added),
        removed=job.input_numbers,
        entries_read=sum(meta.entries for meta in job.inputs),
        entries_written=written,
        values=tuple(outputs.values),
    )


@contextmanager
def _values_to_move(fs: FileSystem, job: CompactionJob) -> Iterator[dict[int, ValueReader]]:
    """The value files to move out of, by number; closed in the end."""
    assert bool(job.move_from) == bool(job.value_output), "a file to move values to is wanted, and only then"
    open_files = OpenFiles()
    readers = {meta.file_number: ValueReader(fs, meta, open_files) for meta in job.move_from}
    try:
        yield readers
    finally:
        for reader in readers.values():
            reader.close()


def _moved(
    job: CompactionJob,
    readers: dict[int, ValueReader],
    outputs: TableOutputs,
    keys: Sequence[bytes],
    values: Sequence[Stored],
) -> Generator[None, None, Sequence[Stored]]:
    """The values, those in files to be moved out of with new places."""
    stored: list[Stored] = []
    moved = 0
    for key, value in zip(keys, values, strict=True):
        if not isinstance(value, Place) or value.file_number not in readers:
            stored.append(value)
            continue
        found = readers[value.file_number].get(value, key)
        writer = outputs.value_writer or outputs.start_values(file_number=job.value_output, tree_id=job.tree_id)
        stored.append(writer.add(key, found))
        moved += len(found)
        if moved >= _SLICE_VALUE_BYTES:
            moved = 0
            yield
    return stored


def _sources(fs: FileSystem, inputs: Iterable[TableMeta]) -> list[Iterator[Columns]]:
    """One source per table of level 0; the tables of a deeper level, which are disjoint, make one together."""
    sources: list[Iterator[Columns]] = []
    for level, tables in groupby(inputs, key=lambda meta: meta.level):
        if level == 0:
            sources.extend(_table_runs(fs, meta) for meta in tables)
        else:
            ordered = sorted(tables, key=lambda meta: meta.smallest)
            sources.append(chain.from_iterable(_table_runs(fs, meta) for meta in ordered))
    return sources


def _table_runs(fs: FileSystem, meta: TableMeta) -> Iterator[Columns]:
    """The entries of one table, opened when it is reached; CorruptionError unless there are as many as it claims."""
    reader = TableReader.open(fs, meta, BlockCache(0))
    try:
        entries = 0
        for columns in reader.runs(COMPACTION_CHUNK_BLOCKS):
            entries += len(columns[0])
            yield columns
        if entries != meta.entries:
            raise corruption(meta, 0, f"{entries} entries where {meta.entries} were written")
    finally:
        reader.close()


class _Covered:
    """The key ranges under which older data may lie, made disjoint for bisection."""

    __slots__ = ("_ends", "_starts")

    def __init__(self, ranges: Iterable[Range]) -> None:
        self._starts: list[bytes] = []
        self._ends: list[bytes] = []
        for start, end in sorted(ranges):
            if self._ends and start <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end)
            else:
                self._starts.append(start)
                self._ends.append(end)

    def covers(self, key: bytes) -> bool:
        index = bisect_right(self._starts, key) - 1
        return index >= 0 and key <= self._ends[index]

    def without_spent_tombstones(self, columns: Columns) -> Columns:
        """The entries without those tombstones under which nothing older can lie."""
        keys, sequences, values = columns
        if None not in values:
            return columns
        kept = [value is not None or self.covers(key) for key, value in zip(keys, values, strict=True)]
        return list(compress(keys, kept)), list(compress(sequences, kept)), list(compress(values, kept))
