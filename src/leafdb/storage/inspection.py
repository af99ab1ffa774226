"""What there is to read again of a store, and how each kind of file is read: part by part, beside any cache.

The readers here are generators: each step reads a bounded piece, on whatever thread it runs. They raise nothing of the
world's: what is wrong, and what cannot be read, comes as the `problem` of a part.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial

from leafdb.errors import CorruptionError, StorageError
from leafdb.storage.block_cache import BlockCache
from leafdb.storage.lost_ranges import Range
from leafdb.storage.maintenance import Maintenance
from leafdb.storage.manifest import ManifestWriter, check_manifest, manifest_name
from leafdb.storage.memtable import Memtable
from leafdb.storage.sstable_reader import Part, TableReader
from leafdb.storage.tables import Tables
from leafdb.storage.value_files import ValueMeta
from leafdb.storage.value_reader import OpenFiles, ValueReader
from leafdb.storage.version import TableMeta, Version
from leafdb.storage.wal import segment_path
from leafdb.storage.wal_stream import SegmentStream
from leafdb.types import TreeId
from leafdb.vfs.base import FileSystem


@dataclass(frozen=True, slots=True)
class Target:
    """A file to be read again."""

    path: str
    size: int
    """Of a log segment about."""
    parts: Callable[[], Generator[Part, None, None]]
    """Reads it; every step may wait for the disk."""
    in_use: Callable[[], bool]
    """Whether the store still stands on it; asked on the loop. What it left needs no reading, and no judging."""
    tree_id: TreeId | None = None


def targets(fs: FileSystem, tables: Tables, maintenance: Maintenance, manifest: ManifestWriter) -> list[Target]:
    """Every file the store stands on now: tables and value files by number, sealed segments that wait for their flush,
    the manifest."""
    version = tables.version
    found = [table_target(fs, tables, version.tables[number]) for number in sorted(version.tables)]
    held = _ranges_of_values(version)
    found += [_value_target(fs, tables, meta, held[number]) for number, meta in sorted(version.values.metas.items())]
    for memtable in maintenance.sealed_memtables():
        found += _segment_targets(fs, maintenance, memtable)
    number, size = manifest.place
    found.append(
        Target(
            path=manifest_name(number),
            size=size,
            parts=partial(manifest_parts, fs, number, size),
            in_use=lambda: manifest.place[0] == number,
        )
    )
    return found


def table_target(fs: FileSystem, tables: Tables, meta: TableMeta) -> Target:
    """One table of the store."""
    return Target(
        path=meta.path,
        size=meta.size,
        parts=partial(table_parts, fs, meta),
        in_use=lambda: meta.file_number in tables.version.tables,
        tree_id=meta.tree_id,
    )


def _ranges_of_values(version: Version) -> dict[int, Range]:
    """Of each value file the keys that may have values there: those of the tables that refer to it."""
    found: dict[int, Range] = {}
    for meta in version.tables.values():
        for number, _ in meta.references:
            smallest, largest = found.get(number, (meta.smallest, meta.largest))
            found[number] = min(smallest, meta.smallest), max(largest, meta.largest)
    return found


def _value_target(fs: FileSystem, tables: Tables, meta: ValueMeta, held: Range) -> Target:
    """One value file of the store."""
    return Target(
        path=meta.path,
        size=meta.size,
        parts=partial(value_parts, fs, meta, held),
        in_use=lambda: meta.file_number in tables.version.values.metas,
        tree_id=meta.tree_id,
    )


def _segment_targets(fs: FileSystem, maintenance: Maintenance, memtable: Memtable) -> Iterator[Target]:
    """The segments of a generation. What the last one must end with is known."""
    for number in memtable.segments:
        last_lsn = memtable.last_lsn if number == memtable.segments[-1] else None
        yield Target(
            path=segment_path(number),
            size=memtable.bytes_used // len(memtable.segments),
            parts=partial(segment_parts, fs, number, last_lsn),
            in_use=lambda: memtable in maintenance.frozen,
        )


def table_parts(fs: FileSystem, meta: TableMeta) -> Generator[Part, None, None]:
    """A table: its end, which is read to open it, and then block by block. One that cannot be opened is one part."""
    try:
        reader = TableReader.open(fs, meta, BlockCache(0))
    except StorageError as error:
        yield Part(meta.size, meta.smallest, meta.largest, error)
        return
    try:
        yield from reader.inspect()
    finally:
        reader.close()


def value_parts(fs: FileSystem, meta: ValueMeta, held: Range) -> Generator[Part, None, None]:
    """A value file, value by value, up to where it is damaged: what lies behind is not known to begin anywhere.

    `held` is the range of keys that may have values there.
    """
    rest = meta.size
    try:
        for key, place, _ in ValueReader(fs, meta, OpenFiles(0)).frames():
            yield Part(place.size, key, key)
            rest -= place.size
    except StorageError as error:
        yield Part(rest, *held, error)
    else:
        yield Part(rest)


def segment_parts(fs: FileSystem, number: int, last_lsn: int | None) -> Generator[Part, None, None]:
    """A sealed segment, frame by frame, up to where it is damaged. None: its last sequence is not known."""
    path = segment_path(number)
    try:
        file = fs.open_read(path)
        try:
            stream = SegmentStream(file, path)
            yield Part(stream.end)
            for offset, _, _ in stream.frames():
                yield Part(stream.end - offset)
        finally:
            file.close()
    except (OSError, StorageError) as error:
        yield Part(0, problem=_as_corruption(path, error))
        return
    if stream.header.number != number:
        yield Part(0, problem=CorruptionError(f"{path}: is segment {stream.header.number}", path=path, offset=0))
    elif last_lsn is not None and stream.next_lsn - 1 != last_lsn:
        what = f"{path}: ends at sequence {stream.next_lsn - 1}, where {last_lsn} was written"
        yield Part(0, problem=CorruptionError(what, path=path, offset=stream.end))


def manifest_parts(fs: FileSystem, number: int, size: int) -> Generator[Part, None, None]:
    """A manifest as far as it was synced. It is small, and one part."""
    try:
        check_manifest(fs, number, size)
    except (OSError, StorageError) as error:
        yield Part(size, problem=_as_corruption(manifest_name(number), error))
    else:
        yield Part(size)


def _as_corruption(path: str, error: OSError | StorageError) -> StorageError:
    if isinstance(error, StorageError):
        return error
    return CorruptionError(f"{path}: unreadable: {error}", path=path, offset=0)
