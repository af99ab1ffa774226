"""What there is to read again of a store, and how each kind of file is read: part by part, beside any cache.

The readers here are generators: each step reads a bounded piece, on whatever thread it runs. They raise nothing of the
world's: what is wrong, and what cannot be read, comes as the `problem` of a part.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from leafdb.errors import CorruptionError, StorageError
from leafdb.storage.block_cache import BlockCache
from leafdb.storage.lost_ranges import insistently
from leafdb.storage.maintenance import Maintenance
from leafdb.storage.manifest import ManifestWriter, check_manifest, manifest_name
from leafdb.storage.memtable import Memtable
from leafdb.storage.sstable_reader import Part, TableReader
from leafdb.storage.tables import Tables
from leafdb.storage.value_files import Place, ValueMeta
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
    """Reads it, as the store is when this is called, on the loop; every step may wait for the disk."""
    in_use: Callable[[], bool]
    """Whether the store still stands on it; asked on the loop. What it left needs no reading, and no judging."""
    tree_id: TreeId | None = None


def targets(fs: FileSystem, tables: Tables, maintenance: Maintenance, manifest: ManifestWriter) -> list[Target]:
    """Every file the store stands on now: tables and value files by number, sealed segments that wait for their flush,
    the manifest."""
    version = tables.version
    files: tuple[Mapping[int, TableMeta | ValueMeta], ...] = version.tables, version.values.metas
    found = [file_target(fs, tables, metas[number]) for metas in files for number in sorted(metas)]
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


def file_target(fs: FileSystem, tables: Tables, meta: TableMeta | ValueMeta) -> Target:
    """One table or value file of the store. Which tables refer to the latter is asked when it has its turn."""

    def parts() -> Generator[Part, None, None]:
        return value_parts(fs, meta, tables.version) if isinstance(meta, ValueMeta) else table_parts(fs, meta)

    return Target(
        path=meta.path,
        size=meta.size,
        parts=parts,
        in_use=lambda: tables.version.has_file(meta.file_number),
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


def value_parts(fs: FileSystem, meta: ValueMeta, version: Version) -> Generator[Part, None, None]:
    """A value file, value by value. Where something of it cannot be read, what the tables of the version refer to there
    is read instead: it is known where that begins, also behind the damage, and nobody is the poorer for the rest."""
    rest = meta.size
    try:
        for _, place, _ in ValueReader(fs, meta, OpenFiles(0)).frames():
            yield Part(place.size)
            rest -= place.size
    except StorageError:
        yield Part(rest)
    else:
        yield Part(rest)
        return
    holders = [
        table for table in version.trees[meta.tree_id] if any(to == meta.file_number for to, _ in table.references)
    ]
    values = ValueReader(fs, meta, OpenFiles(1))
    try:
        insistently(values.check_file)
    except StorageError as error:
        yield Part(0, min(table.smallest for table in holders), max(table.largest for table in holders), error)
        return
    with closing(values):
        for table in holders:
            yield from _referred_parts(fs, table, values)


def _referred_parts(fs: FileSystem, table: TableMeta, values: ValueReader) -> Generator[Part, None, None]:
    """The values that a table has in this file, as far as it can be read itself: that is for its own turn to say."""
    try:
        reader = TableReader.open(fs, table, BlockCache(0))
    except StorageError:
        return
    with closing(reader):
        for _, size, columns in reader.blocks():
            yield Part(size)
            if isinstance(columns, CorruptionError):
                continue
            keys, _, stored = columns
            for key, place in zip(keys, stored, strict=True):
                if isinstance(place, Place) and place.file_number == values.meta.file_number:
                    yield _value_part(values, place, key)


def _value_part(values: ValueReader, place: Place, key: bytes) -> Part:
    try:
        insistently(lambda: values.get(place, key))
    except StorageError as error:
        return Part(place.size, key, key, error)
    return Part(place.size, key, key)


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
