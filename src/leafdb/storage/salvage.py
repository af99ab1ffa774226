"""What can be read of a damaged table, written as another in its place; and which ranges of keys are lost.

One table alone, on its own level: nothing else is touched, so nothing that is sound can be lost with it, and tombstones
stay where they are, since a table that hides what lies below it still has to. Ordinary compactions leave a damaged
table alone until this is done.

Every block is read anew, beside any cache, and several times if it must be. One that could not be read before may be
sound now (a disk that did not answer, a bit that was wrong on the way), and is kept. A table that cannot be opened is
lost whole: where its blocks begin only its index knows.

Of a value file in which something could not be read every value is read that the table has there; where one cannot be,
its entry is lost like an entry of a damaged block. The file stays for as long as any table refers to it.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, closing
from itertools import compress

from leafdb.errors import CorruptionError
from leafdb.storage.block import Columns
from leafdb.storage.block_cache import BlockCache
from leafdb.storage.job_execution import TableOutputs, run_slices, table_outputs
from leafdb.storage.jobs import SalvageJob, SalvageResult
from leafdb.storage.lost_ranges import Range, coarsened, insistently, is_damage
from leafdb.storage.sstable_reader import TableReader
from leafdb.storage.value_files import Place
from leafdb.storage.value_reader import OpenFiles, ValueReader
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
        lost = yield from _copy(fs, reader, job, outputs)
        if outputs.writer is not None:
            yield from outputs.finish_slices()
        added = outputs.publish()
    kept = added[0] if added else None
    if not lost and (kept is None or kept.entries != meta.entries):
        lost = [whole]  # every block is sound and something is missing: nobody can say where
    return SalvageResult(added=kept, lost=coarsened(lost))


def _copy(
    fs: FileSystem, reader: TableReader, job: SalvageJob, outputs: TableOutputs
) -> Generator[None, None, list[Range]]:
    """Write what is sound; answers where the rest lay."""
    meta = job.table
    lost: list[Range] = []
    open_files = OpenFiles(len(job.doubted))
    doubted = {values.file_number: ValueReader(fs, values, open_files) for values in job.doubted}
    with ExitStack() as closed:
        for values in doubted.values():
            closed.callback(values.close)
        for piece in reader.pieces():
            if len(piece) == 2:
                lost.append(piece)
            elif columns := _with_sound_values(piece, doubted, lost):
                writer = outputs.writer
                if writer is None:
                    writer = outputs.start(file_number=job.output, tree_id=meta.tree_id, level=meta.level)
                    writer.newest_expiry_ms = meta.newest_expiry_ms
                writer.append_run(*columns)
            yield
    return lost


def _with_sound_values(piece: Columns, doubted: dict[int, ValueReader], lost: list[Range]) -> Columns | None:
    """The entries whose values can be read, as far as that is doubted; None: there are none. The others are lost."""
    keys, sequences, values = piece
    sound = []
    for key, value in zip(keys, values, strict=True):
        found = not isinstance(value, Place) or value.file_number not in doubted or _is_sound(doubted, value, key)
        sound.append(found)
        if not found:
            lost.append((key, key))
    if all(sound):
        return piece
    if not any(sound):
        return None
    return list(compress(keys, sound)), list(compress(sequences, sound)), list(compress(values, sound))


def _is_sound(doubted: dict[int, ValueReader], place: Place, key: bytes) -> bool:
    try:
        insistently(lambda: doubted[place.file_number].get(place, key))
    except CorruptionError as error:
        if not is_damage(error):
            raise
        return False
    return True
