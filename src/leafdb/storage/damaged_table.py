"""The reader of a table that cannot be opened: every read of its range is answered with what is wrong with it.

So a store opens with such a table, and gives no wrong answer for it: newer writes over it are served, keys outside of
its range are, and what may be in it is not known until a salvage has said what was lost.
"""

from __future__ import annotations

from collections.abc import Iterator

from leafdb.errors import CorruptionError
from leafdb.storage.block import Absent, Columns, Entry, Stored
from leafdb.storage.block_cache import BlockCache
from leafdb.storage.bloom import EVERY_BIT
from leafdb.storage.lost_ranges import insistently, is_damage
from leafdb.storage.sstable_reader import TableReader, Wait
from leafdb.storage.version import TableMeta
from leafdb.vfs.base import FileSystem


class DamagedTable(TableReader):
    """In the place of a TableReader."""

    __slots__ = ("_error",)

    def __init__(self, meta: TableMeta, error: CorruptionError) -> None:
        self.meta = meta
        self.filter_lines: list[int] = [EVERY_BIT]
        self.memory_bytes = 0
        self._error = error

    def _again(self) -> CorruptionError:
        """A fresh error each time: one shared instance would collect tracebacks for ever."""
        error = CorruptionError(self._error.message, path=self._error.path, offset=self._error.offset)
        error.__cause__ = self._error.__cause__
        return error

    def close(self) -> None:
        """Nothing is open."""

    def may_contain(self, key: bytes) -> bool:
        return True

    def get_now(self, key: bytes) -> Stored | Absent | Wait:
        raise self._again()

    def get(self, key: bytes) -> Stored | Absent:
        raise self._again()

    def iterate(self, start: bytes, stop: bytes | None, reverse: bool = False) -> Iterator[Entry]:
        raise self._again()

    def runs(self, blocks: int) -> Iterator[Columns]:
        raise self._again()

    def check(self) -> None:
        raise self._again()


def open_or_damaged(fs: FileSystem, meta: TableMeta, cache: BlockCache) -> TableReader:
    """The reader of a table, or of a damaged one. Raises UnknownFormat; CorruptionError only where this process could
    not get at the bytes, which says nothing of them."""
    try:
        return insistently(lambda: TableReader.open(fs, meta, cache))
    except CorruptionError as error:
        if not is_damage(error):
            raise
        return DamagedTable(meta, error)
