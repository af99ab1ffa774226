"""What was written and is not yet in tables: one generation, over all trees.

A generation belongs to one WAL segment (decision 0004) and is frozen with it. Frozen or not, a memtable never forgets a
key; it only gains or overwrites.

A tree's entries are a plain dict, because nearly all use is by key and a dict insert is ten times cheaper than one into
a sorted structure; flushes read the segment and need no order here. Scans do: the first scan of a tree builds a sorted
index, later ones add what came since. A dict keeps insertion order and loses no key, so "what came since" is its tail.

`bytes_used` counts what Python spends, not only the payload.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

from sortedcontainers import SortedList

from leafdb.storage.wal_format import WalEntry
from leafdb.types import TreeId

Slot = tuple[bytes | None, int]
"""Value (None: deleted) and the sequence number of its write."""

ENTRY_OVERHEAD_BYTES: Final = 240
"""Per key: two headers of bytes (66), tuple (56), int (32), dict slot with room to grow (35-75), index entry (16)."""


SAMPLE: Final = 1_000
"""Entries that are looked at to tell how large a tree is: exactly, while it has no more."""


class TreeTable:
    """The entries of one tree in one generation."""

    __slots__ = ("_index", "entries")

    def __init__(self) -> None:
        self.entries: dict[bytes, Slot] = {}
        self._index: SortedList | None = None  # most trees are never scanned within a generation

    def range(
        self, start: bytes, stop: bytes | None, *, limit: int, reverse: bool = False
    ) -> list[tuple[bytes, int, bytes | None]]:
        """The first `limit` entries with start <= key < stop in scan order, deletions among them."""
        index = self._index
        if index is None:
            index = self._index = SortedList()
        missing = len(self.entries) - len(index)
        if missing:
            index.update(islice(reversed(self.entries), missing))
        keys: Iterable[bytes] = index.irange(start, stop, inclusive=(True, False), reverse=reverse)
        entries = self.entries
        found = []
        for key in islice(keys, limit):
            value, sequence = entries[key]
            found.append((key, sequence, value))
        return found

    def bytes_about(self) -> int:
        """The bytes of keys and values, told from a sample of them: counting all would take the loop's time."""
        sample = [len(key) + len(slot[0] or b"") for key, slot in islice(reversed(self.entries.items()), SAMPLE)]
        return len(self.entries) * sum(sample) // max(1, len(sample))


class Memtable:
    """One generation. `segments` are the WAL segments it stands for, `last_lsn` is set when it is frozen."""

    __slots__ = ("bytes_used", "first_lsn", "last_lsn", "segments", "trees")

    def __init__(self, trees: Iterable[TreeId], *, segments: Sequence[int], first_lsn: int) -> None:
        self.trees: dict[TreeId, TreeTable] = {tree_id: TreeTable() for tree_id in trees}
        self.segments: list[int] = list(segments)
        self.first_lsn: int = first_lsn
        self.last_lsn: int = first_lsn - 1
        self.bytes_used: int = 0

    def put(self, tree_id: TreeId, key: bytes, value: bytes | None, lsn: int) -> None:
        """One entry; a later lsn overwrites an earlier one. The engine's `write` has this inlined."""
        entries = self.trees[tree_id].entries
        old = entries.get(key)
        entries[key] = (value, lsn)
        size = 0 if value is None else len(value)
        if old is None:
            self.bytes_used += size + len(key) + ENTRY_OVERHEAD_BYTES
        else:
            self.bytes_used += size - (0 if old[0] is None else len(old[0]))

    def replay(self, lsn: int, write: Sequence[WalEntry]) -> None:
        """Apply a logged write; entries of trees that are no more are skipped."""
        for tree_id, key, value in write:
            if tree_id in self.trees:
                self.put(tree_id, key, value, lsn)
        self.last_lsn = lsn

    def tree_ids(self) -> list[TreeId]:
        """The trees that have entries here."""
        return sorted(tree_id for tree_id, table in self.trees.items() if table.entries)

    def add(self, tree_id: TreeId) -> None:
        """Make room for a tree that is new."""
        assert tree_id not in self.trees
        self.trees[tree_id] = TreeTable()

    def drop(self, tree_id: TreeId) -> None:
        """Forget a tree; what it used is not counted any more."""
        table = self.trees.pop(tree_id, None)
        if table is not None:
            self.bytes_used -= sum(slot_bytes(key, slot) for key, slot in table.entries.items())

    def let_go(self) -> None:
        """All that is here is in tables that reads see; what is left is to say so."""
        self.trees = {tree_id: TreeTable() for tree_id in self.trees}
        self.bytes_used = 0

    def check(self) -> None:
        used = 0
        for table in self.trees.values():
            for key, slot in table.entries.items():
                used += slot_bytes(key, slot)
                assert slot[1] >= self.first_lsn, f"sequence {slot[1]} before the generation began"
            keys = [key for key, _, _ in table.range(b"", None, limit=len(table.entries))]
            assert keys == sorted(table.entries), "the index is not the keys in order"
        assert used == self.bytes_used, f"{self.bytes_used} accounted, {used} held"


def slot_bytes(key: bytes, slot: Slot) -> int:
    """What an entry of that key takes in memory."""
    value = slot[0]
    return ENTRY_OVERHEAD_BYTES + len(key) + (0 if value is None else len(value))
