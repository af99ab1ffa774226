"""How a job's files come to be trusted: written, synced, and then their names synced, before anyone hears of them.

Shared by flush and compaction. A job that fails closes the file it was writing and leaves all its files behind,
complete or not: only the parent unlinks, and it trusts no file that no answer named.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

from leafdb.storage.sstable_writer import TableWriter
from leafdb.storage.value_files import ValueMeta, value_path
from leafdb.storage.value_writer import ValueWriter
from leafdb.storage.version import TableMeta, table_path
from leafdb.types import TreeId
from leafdb.vfs.base import FileSystem, parent_of

T = TypeVar("T")


class TableOutputs:
    """The tables and value files of one job, one of each being written at a time."""

    __slots__ = ("_fs", "_tables", "value_writer", "values", "writer")

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        self._tables: list[TableMeta] = []
        self.writer: TableWriter | None = None
        self.value_writer: ValueWriter | None = None
        self.values: list[ValueMeta] = []
        """The value files that are complete and synced."""

    def start(self, *, file_number: int, tree_id: TreeId, level: int) -> TableWriter:
        assert self.writer is None, "the table before is not finished"
        self.writer = TableWriter(self._fs, file_number=file_number, tree_id=tree_id, level=level)
        return self.writer

    def finish_slices(self) -> Generator[None, None, None]:
        """Complete and sync the table being written."""
        assert self.writer is not None
        self._tables.append((yield from self.writer.finish_slices()))
        self.writer = None

    def start_values(self, *, file_number: int, tree_id: TreeId) -> ValueWriter:
        assert self.value_writer is None, "the value file before is not finished"
        self.value_writer = ValueWriter(self._fs, file_number=file_number, tree_id=tree_id)
        return self.value_writer

    def finish_values(self) -> None:
        """Complete and sync the value file being written, if there is one."""
        if self.value_writer is not None:
            self.values.append(self.value_writer.finish())
            self.value_writer = None

    def publish(self) -> list[TableMeta]:
        """Sync the names; from here on the tables and value files may be trusted."""
        assert self.writer is None, "a table is not finished"
        assert self.value_writer is None, "a value file is not finished"
        paths = [table_path(meta.file_number) for meta in self._tables]
        paths += [value_path(meta.file_number) for meta in self.values]
        for directory in sorted(set(map(parent_of, paths))):
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
        if outputs.value_writer is not None:
            outputs.value_writer.abandon()


def run_slices(slices: Generator[None, None, T]) -> T:
    """Run a sliced job to its end."""
    while True:
        try:
            next(slices)
        except StopIteration as end:
            result: T = end.value
            return result
