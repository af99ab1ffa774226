"""Tables and WAL segments made to order, for the tests of the storage engine's lower half."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from leafdb.storage.block import Entry
from leafdb.storage.block_cache import BlockCache
from leafdb.storage.job_execution import run_slices
from leafdb.storage.sstable_reader import TableReader
from leafdb.storage.sstable_writer import TableWriter
from leafdb.storage.version import TableMeta
from leafdb.storage.wal import WalWriter, segment_path
from leafdb.storage.wal_format import DELETION, ENTRY
from leafdb.types import TreeId
from leafdb.vfs.base import FileSystem
from leafdb.vfs.memory import MemoryFileSystem

TREE = TreeId(256)

Model = Mapping[bytes, tuple[int, bytes | None]]
"""What a table should hold: sequence and value by key."""


def store() -> MemoryFileSystem:
    """An empty store in memory."""
    fs = MemoryFileSystem()
    prepare(fs)
    return fs


def prepare(fs: FileSystem) -> None:
    fs.mkdir("tables")
    fs.mkdir("values")
    fs.mkdir("wal")


def write_table(
    fs: FileSystem, model: Model, *, file_number: int = 1, level: int = 0, tree_id: TreeId = TREE, run: int = 7
) -> TableMeta:
    """The model as a table, given to the writer `run` entries at a time."""
    writer = TableWriter(fs, file_number=file_number, tree_id=tree_id, level=level)
    keys = sorted(model)
    for start in range(0, len(keys), run):
        part = keys[start : start + run]
        writer.append_run(part, [model[key][0] for key in part], [model[key][1] for key in part])
    return run_slices(writer.finish_slices())


def write_segment(
    fs: FileSystem, number: int, first_lsn: int, writes: Iterable[tuple[TreeId, bytes, bytes | None]]
) -> str:
    """A sealed WAL segment with these writes, one sequence number each; its path."""
    writer = WalWriter(fs)
    writer.start_segment(number, first_lsn)
    for lsn, (tree_id, key, value) in enumerate(writes, first_lsn):
        flags = DELETION if value is None else 0
        writer.append(lsn, 1, [ENTRY.pack(flags, tree_id, len(key), len(value or b"")), key, value or b""])
    writer.seal()
    return segment_path(number)


def entries_of(model: Model) -> list[Entry]:
    return [(key, *model[key]) for key in sorted(model)]


def read_table(fs: FileSystem, meta: TableMeta) -> list[Entry]:
    """Every entry of a table."""
    reader = TableReader.open(fs, meta, BlockCache(0))
    try:
        return list(reader.iterate(b"", None))
    finally:
        reader.close()


def meta_of(file_number: int, smallest: bytes, largest: bytes, **changes: int) -> TableMeta:
    """A description without a file behind it, for versions and the picker."""
    fields = {"tree_id": TREE, "level": 0, "size": 100, "entries": 10, "sequence_min": 1, "sequence_max": 10, **changes}
    return TableMeta(
        file_number=file_number,
        smallest=smallest,
        largest=largest,
        tree_id=TreeId(fields["tree_id"]),
        level=fields["level"],
        size=fields["size"],
        entries=fields["entries"],
        sequence_min=fields["sequence_min"],
        sequence_max=fields["sequence_max"],
        tombstones=fields.get("tombstones", 0),
        newest_expiry_ms=fields.get("newest_expiry_ms", 0),
    )
