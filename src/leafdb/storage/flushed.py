"""What was flushed a moment ago and is in memory still: reads find it here, not in a table that nobody has read yet.

What was written last is read most. A flush puts it behind an index, a filter and blocks that must be read and unpacked
first, and every compaction does so again: for a while each read costs several times what it did. So a generation that
is in tables can be read here, too, until the memtable needs the room. Then it goes some entries at a time: freeing a
hundred thousand of them at once keeps the loop for ten milliseconds.

Entries move from a generation to the one before it, since a read looks into each, and only the oldest loses any. So
what is found first, from the newest on, is the latest that is in tables; of what is not found nothing is known here.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from leafdb.storage.memtable import Memtable, Slot, slot_bytes
from leafdb.types import TreeId

MOVED_MAX: Final = 100
"""Entries, in one call: 0.2 ms, as none of them is in the processor's caches."""
GENERATIONS_MAX: Final = 8


class _Generation:
    """The entries of one flush, and what of older ones was not written again since."""

    __slots__ = ("bytes_used", "trees")

    def __init__(self, memtable: Memtable) -> None:
        self.trees: dict[TreeId, dict[bytes, Slot]] = {
            tree_id: table.entries for tree_id, table in memtable.trees.items() if table.entries
        }
        self.bytes_used: int = memtable.bytes_used

    def let_go(self, excess: int) -> None:
        """Some entries, of so many bytes at the most but for the last one; there must be one."""
        tree_id, entries = next(iter(self.trees.items()))
        freed = 0
        for _ in range(min(MOVED_MAX, len(entries))):
            key, slot = entries.popitem()
            freed += slot_bytes(key, slot)
            if freed >= excess:
                break
        self.bytes_used -= freed
        if not entries:
            del self.trees[tree_id]

    def take_over(self, newer: _Generation) -> None:
        """Some entries of the generation after this one, which has any."""
        tree_id, entries = next(iter(newer.trees.items()))
        mine = self.trees.setdefault(tree_id, {})
        taken = replaced = 0
        for _ in range(min(MOVED_MAX, len(entries))):
            key, slot = entries.popitem()
            old = mine.get(key)
            if old is not None:
                replaced += slot_bytes(key, old)
            mine[key] = slot
            taken += slot_bytes(key, slot)
        self.bytes_used += taken - replaced
        newer.bytes_used -= taken
        if not entries:
            del newer.trees[tree_id]

    def drop(self, tree_id: TreeId) -> None:
        self.bytes_used -= sum(slot_bytes(key, slot) for key, slot in self.trees.pop(tree_id, {}).items())

    def check(self) -> None:
        assert all(self.trees.values()), "a tree without entries"
        slots = [pair for entries in self.trees.values() for pair in entries.items()]
        assert self.bytes_used == sum(slot_bytes(key, slot) for key, slot in slots)


class Flushed:
    """On the loop. `bytes_max`: what this and the memtable may take together; 0: nothing is kept."""

    __slots__ = ("_bytes_max", "_generations")

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._generations: deque[_Generation] = deque()
        """Newest first."""

    def __bool__(self) -> bool:
        return bool(self._generations)

    @property
    def bytes_used(self) -> int:
        return sum(generation.bytes_used for generation in self._generations)

    def add(self, memtable: Memtable) -> None:
        """Take what was flushed last, which reads see in tables from now on; nobody else may use it any more."""
        generation, kept = _Generation(memtable), self._generations
        if generation.bytes_used > self._bytes_max:
            kept.clear()  # what is older must not be found when this is not
            return
        while kept and self.bytes_used + generation.bytes_used > self._bytes_max:
            kept.pop()
        if len(kept) == GENERATIONS_MAX:
            kept.pop()
        kept.appendleft(generation)

    def find(self, tree_id: TreeId, key: bytes) -> Slot | None:
        """The entry of a key that no memtable has; None: look into the tables."""
        for generation in self._generations:
            entries = generation.trees.get(tree_id)
            if entries is not None:
                slot = entries.get(key)
                if slot is not None:
                    return slot
        return None

    def drop(self, tree_id: TreeId) -> None:
        """Forget a tree."""
        for generation in self._generations:
            generation.drop(tree_id)

    def clear(self) -> None:
        """Forget everything: tables have lost some of it."""
        self._generations.clear()

    def on_time(self, memtable_bytes: int) -> None:
        """Do a piece of what is to be done: let entries go, if this and a memtable of that size are too much; else
        bring two generations together. To be called every few milliseconds."""
        kept = self._generations
        if not kept:
            return
        excess = self.bytes_used + memtable_bytes - self._bytes_max
        if not kept[-1].trees:
            kept.pop()
        elif excess > 0:
            kept[-1].let_go(excess)
        elif len(kept) > 1:
            if kept[-2].trees:
                kept[-1].take_over(kept[-2])
            else:
                del kept[-2]

    def check(self) -> None:
        assert len(self._generations) <= GENERATIONS_MAX
        for generation in self._generations:
            generation.check()
