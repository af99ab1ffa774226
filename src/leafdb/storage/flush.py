"""From sealed WAL segments to level-0 tables: one table per tree, the newest write of each key.

Large values go to a value file beside the table, in the order of their keys; the table holds their places.

The worker reads the log instead of being sent the memtable: the bytes are on disk already (or in the page cache), and
the parent, whose interpreter serves requests, spends nothing on it. The memory needed is that of the segments' content,
which is what a memtable may hold.

The parent says which write is the last one. A sealed segment can lose its end at the edge of a frame and still look
whole; what is missing would then be dropped with the memtable, unnoticed.

Tombstones are kept: older data may lie in deeper levels.

Of trees that are kept by time the table says when all of it has expired. That is told here, where the values are.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Final

from leafdb.errors import CorruptionError
from leafdb.storage.block import Stored
from leafdb.storage.expiry import DELETED_MS, load_expiry, newest, newest_of
from leafdb.storage.job_execution import TableOutputs, run_slices, table_outputs
from leafdb.storage.jobs import FlushJob, FlushResult
from leafdb.storage.sliced_sort import sort_slices
from leafdb.storage.wal import SegmentScan
from leafdb.types import TreeId
from leafdb.vfs.base import FileSystem

_SLICE_WRITES: Final = 256
_SLICE_VALUE_BYTES: Final = 1 << 20

_Newest = dict[bytes, tuple[int, bytes | None]]


def run_flush(fs: FileSystem, job: FlushJob) -> FlushResult:
    """Write the files of `job`; they and their names are durable on return.

    Raises CorruptionError when the segments are damaged or do not hold every write up to `job.upto_lsn`.
    """
    return run_slices(flush_slices(fs, job))


def flush_slices(fs: FileSystem, job: FlushJob) -> Generator[None, None, FlushResult]:
    """`run_flush` in steps of less than a millisecond, as a rule."""
    trees = yield from _newest(fs, job)
    value_numbers = dict(job.values)
    expiry = load_expiry(job.expiry) if job.expiring else None
    with table_outputs(fs) as outputs:
        for tree_id, file_number in job.outputs:
            entries = trees.pop(tree_id)
            if not entries:
                continue
            writer = outputs.start(file_number=file_number, tree_id=tree_id, level=0)
            newest_expiry_ms = DELETED_MS if tree_id in job.expiring else 0
            for part in (yield from sort_slices(entries)):
                sequences, values = zip(*[entries[key] for key in part], strict=True)
                if expiry is not None and newest_expiry_ms:
                    newest_expiry_ms = newest(newest_expiry_ms, newest_of(expiry, values))
                if tree_id in value_numbers:
                    stored = yield from _separated(outputs, tree_id, value_numbers[tree_id], job, part, values)
                    writer.append_run(part, sequences, stored)
                else:
                    writer.append_run(part, sequences, values)
                yield
            writer.newest_expiry_ms = newest_expiry_ms
            outputs.finish_values()
            yield from outputs.finish_slices()
            yield
        return FlushResult(tuple(outputs.publish()), tuple(outputs.values))


def _separated(
    outputs: TableOutputs,
    tree_id: TreeId,
    file_number: int,
    job: FlushJob,
    keys: Sequence[bytes],
    values: Sequence[bytes | None],
) -> Generator[None, None, Sequence[Stored]]:
    """The values with places for the large ones, which are written to the tree's value file."""
    bound = job.inline_bytes_max
    if not any(value is not None and len(value) > bound for value in values):
        return values
    stored: list[Stored] = []
    written = 0
    for key, value in zip(keys, values, strict=True):
        if value is None or len(value) <= bound:
            stored.append(value)
            continue
        writer = outputs.value_writer or outputs.start_values(file_number=file_number, tree_id=tree_id)
        stored.append(writer.add(key, value))
        written += len(value)
        if written >= _SLICE_VALUE_BYTES:
            written = 0
            yield
    return stored


def _newest(fs: FileSystem, job: FlushJob) -> Generator[None, None, dict[TreeId, _Newest]]:
    """The newest write of each key of each tree."""
    trees: dict[TreeId, _Newest] = {tree_id: {} for tree_id, _ in job.outputs}
    last = job.after_lsn
    for path in job.segments:
        for batch in SegmentScan(fs, path).batches():
            first, latest = batch[0][0], batch[-1][0]
            if latest // _SLICE_WRITES != (first - 1) // _SLICE_WRITES:
                yield
            if latest <= job.after_lsn:
                continue
            if first <= job.after_lsn:
                batch = batch[job.after_lsn + 1 - first :]
                first = job.after_lsn + 1
            if first != last + 1:
                raise CorruptionError(f"{path}: sequence {first}, where {last + 1} was due", path=path)
            for lsn, entries, _ in batch:
                for tree_id, key, value in entries:
                    newest = trees.get(tree_id)
                    if newest is not None:
                        newest[key] = (lsn, value)
            last = latest
    if last != job.upto_lsn:
        path = job.segments[-1] if job.segments else ""
        raise CorruptionError(f"{path}: the log ends at sequence {last}, where {job.upto_lsn} was written", path=path)
    return trees
