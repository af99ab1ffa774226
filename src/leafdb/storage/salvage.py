"""What can be read of a damaged table, written as another in its place; and which ranges of keys are lost.

One table alone, on its own level: nothing else is touched, so nothing that is sound can be lost with it, and tombstones
stay where they are, since a table that hides what lies below it still has to. Ordinary compactions leave a damaged
table alone until this is done.

Every block is read anew, beside any cache, and several times if it must be. One that could not be read before may be
sound now (a disk that did not answer, a bit that was wrong on the way), and is kept. A table that cannot be opened is
lost whole: where its blocks begin only its index knows.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing

from leafdb.errors import CorruptionError
from leafdb.storage.block_cache import BlockCache
from leafdb.storage.job_execution import TableOutputs, run_slices, table_outputs
from leafdb.storage.jobs import SalvageJob, SalvageResult
from leafdb.storage.lost_ranges import Range, coarsened, insistently, is_damage
from leafdb.storage.sstable_reader import TableReader
from leafdb.vfs.base import FileSystem


def run_salvage(fs: FileSystem, job: SalvageJob) -> SalvageResult:
    """Carry `job` out; the new table and its name are durable on return."""
    return run_slices(salvage_slices(fs, job))


def salvage_slices(fs: FileSystem, job: SalvageJob) -> Generator[None, None, SalvageResult]:
    """`run_salvage` in steps of a few milliseconds. CorruptionError where this process could not get at the bytes, and
    another time may."""
    meta = job.table
    whole = (meta.smallest, meta.largest)
    try:
        reader = insistently(lambda: TableReader.open(fs, meta, BlockCache(0)))
    except CorruptionError as error:
        if not is_damage(error):
            raise
        return SalvageResult(added=None, lost=(whole,))
    with closing(reader), table_outputs(fs) as outputs:
        lost = yield from _copy(reader, job, outputs)
        if outputs.writer is not None:
            outputs.finish()
        added = outputs.publish()
    kept = added[0] if added else None
    if not lost and (kept is None or kept.entries != meta.entries):
        lost = [whole]  # every block is sound and something is missing: nobody can say where
    return SalvageResult(added=kept, lost=coarsened(lost))


def _copy(reader: TableReader, job: SalvageJob, outputs: TableOutputs) -> Generator[None, None, list[Range]]:
    """Write what is sound; answers where the rest lay."""
    meta = job.table
    lost: list[Range] = []
    for piece in reader.pieces():
        if len(piece) == 2:
            lost.append(piece)
        else:
            writer = outputs.writer
            if writer is None:
                writer = outputs.start(file_number=job.output, tree_id=meta.tree_id, level=meta.level)
            writer.append_run(*piece)
        yield
    return lost
