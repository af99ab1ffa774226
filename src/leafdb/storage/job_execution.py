"""How a job's tables come to be trusted: written, synced, and then their names synced, before anyone hears of them.

Shared by flush and compaction. A job that fails closes the file it was writing and leaves all its files behind,
complete or not: only the parent unlinks, and it trusts no file that no answer named.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

from leafdb.storage.sstable_writer import TableWriter
from leafdb.storage.version import TableMeta, table_path
from leafdb.types import TreeId
from leafdb.vfs.base import FileSystem, parent_of

T = TypeVar("T")


class TableOutputs:
    """The tables of one job, one being written at a time."""

    __slots__ = ("_fs", "_tables", "writer")

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        self._tables: list[TableMeta] = []
        self.writer: TableWriter | None = None

    def start(self, *, file_number: int, tree_id: TreeId, level: int) -> TableWriter:
        assert self.writer is None, "the table before is not finished"
        self.writer = TableWriter(self._fs, file_number=file_number, tree_id=tree_id, level=level)
        return self.writer

    def finish(self) -> None:
        """Complete and sync the table being written."""
        assert self.writer is not None
        self._tables.append(self.writer.finish())
        self.writer = None

    def publish(self) -> list[TableMeta]:
        """Sync the names; from here on the tables may be trusted."""
        assert self.writer is None, "a table is not finished"
        for directory in sorted({parent_of(table_path(meta.file_number)) for meta in self._tables}):
            self._fs.sync_dir(directory)
        return self._tables


@contextmanager
def table_outputs(fs: FileSystem) -> Iterator[TableOutputs]:
    """Outputs that are closed whatever happens."""
    outputs = TableOutputs(fs)
    try:
        yield outputs
    finally:
        if outputs.writer is not None:
            outputs.writer.abandon()


def run_slices(slices: Generator[None, None, T]) -> T:
    """Run a sliced job to its end."""
    while True:
        try:
            next(slices)
        except StopIteration as end:
            result: T = end.value
            return result
