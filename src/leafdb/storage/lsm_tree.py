"""How a tree is read: active memtable, frozen ones from new to old, then tables from new to old.

The memtable part of any read is taken on the loop, at submission; tables are immutable and can be read on any thread as
long as the version that names them is pinned. What comes from a table has sequence 0: its writes were synced long ago.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from leafdb.storage.block import Absent, Entry
from leafdb.storage.memtable import Memtable, Slot
from leafdb.storage.merge_iterator import merge
from leafdb.storage.sstable_reader import TableReader, Wait
from leafdb.storage.tree_search import TreeSearch
from leafdb.storage.value_files import Place
from leafdb.storage.value_reader import ValueReader
from leafdb.storage.version import Version
from leafdb.types import TreeId

NOTHING: Final[Slot] = (None, 0)

SCAN_EXAMINED_MAX: Final = 65_536
"""A page ends after so many entries, deletions among them, even if it shows none."""


class Page(NamedTuple):
    """A part of a scan. `next_key` is None at the end; else the `start` of the next page, or with `reverse` its `stop`.

    The page may be shown once the commit has passed `sequence`.
    """

    items: list[tuple[bytes, bytes]]
    next_key: bytes | None
    sequence: int


def find_frozen(frozen: Sequence[Memtable], tree_id: TreeId, key: bytes) -> Slot | None:
    """What the frozen memtables, newest first, know of `key`."""
    for memtable in frozen:
        table = memtable.trees.get(tree_id)
        if table is not None:
            slot = table.entries.get(key)
            if slot is not None:
                return slot
    return None


def find_now(search: TreeSearch, values: Mapping[int, ValueReader], key: bytes) -> Slot | None:
    """What the tables know of `key`, if no disk has to be waited for; else None."""
    for reader in search.readers_for(key):
        found = reader.get_now(key)
        if type(found) is bytes:  # first, as it is nearly always
            return found, 0
        if isinstance(found, Place):
            loaded = values[found.file_number].get_now(found, key)
            return None if isinstance(loaded, Wait) else (loaded, 0)
        if not isinstance(found, Absent):
            return None if isinstance(found, Wait) else (None, 0)
    return NOTHING


def find(search: TreeSearch, values: Mapping[int, ValueReader], key: bytes) -> Slot:
    """What the tables know of `key`; may wait for the disk, on any thread that has the version pinned."""
    for reader in search.readers_for(key):
        found = reader.get(key)
        if not isinstance(found, Absent):
            return (values[found.file_number].get(found, key) if isinstance(found, Place) else found), 0
    return NOTHING


class Scan:
    """One page of a scan in two steps: built on the loop, where it takes its memtable part; then `run`, anywhere."""

    __slots__ = ("_bytes_max", "_cut", "_limit", "_memory", "_reverse", "_start", "_stop", "sequence", "tree_id")

    def __init__(
        self,
        memtables: Sequence[Memtable],
        tree_id: TreeId,
        start: bytes,
        stop: bytes | None,
        *,
        limit: int,
        bytes_max: int,
        reverse: bool,
    ) -> None:
        assert limit > 0
        self.tree_id: TreeId = tree_id
        self._start, self._stop = start, stop
        self._limit, self._bytes_max, self._reverse = limit, bytes_max, reverse
        self._memory: list[Sequence[Entry]] = []
        self._cut: bytes | None = None
        self.sequence: int = 0
        for memtable in memtables:
            table = memtable.trees.get(tree_id)
            if table is None:
                continue
            part = table.range(start, stop, limit=limit, reverse=reverse)
            if len(part) == limit:
                # There may be more behind its last key, so the page must not go beyond that.
                end = part[-1][0]
                if self._cut is None:
                    self._cut = end
                else:
                    self._cut = max(self._cut, end) if reverse else min(self._cut, end)
            if part:
                self.sequence = max(self.sequence, max(entry[1] for entry in part))
                self._memory.append(part)

    def run(self, version: Version, readers: Mapping[int, TableReader], values: Mapping[int, ValueReader]) -> Page:
        """The page; CorruptionError when a table is damaged where it must be read, or a value that is shown."""
        reverse, cut = self._reverse, self._cut
        sources: list[Iterator[Entry]] = [iter(part) for part in self._memory]
        tree = version.trees.get(self.tree_id)
        if tree is not None:
            sources += [
                readers[meta.file_number].iterate(self._start, self._stop, reverse)
                for meta in tree.tables_between(self._start, self._stop)
            ]
        items: list[tuple[bytes, bytes]] = []
        room = self._bytes_max
        last: bytes | None = None
        for examined, (key, _, value) in enumerate(merge(sources, reverse=reverse) if sources else ()):
            beyond = cut is not None and (key < cut if reverse else key > cut)
            if beyond or len(items) == self._limit or room <= 0 or examined == SCAN_EXAMINED_MAX:
                assert last is not None, "a page that advances by nothing"
                return Page(items, self._after(last), self.sequence)
            last = key
            if value is not None:
                shown = values[value.file_number].get(value, key) if isinstance(value, Place) else value
                items.append((key, shown))
                room -= len(key) + len(shown)
        return Page(items, None if cut is None else self._after(cut), self.sequence)

    def _after(self, key: bytes) -> bytes:
        """Where the next page goes on when `key` was the last one examined."""
        return key if self._reverse else key + b"\0"
