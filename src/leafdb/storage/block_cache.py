"""Decoded blocks in memory, at most so many bytes of them; those that were not used for long go first.

A block is kept where it is used: in its table's `Blocks`, a list with a place for each block of the table. The cache
says which of all places may be filled. So a hit is one look into a list, which takes no lock and makes no number; what
changes the byte count takes the cache's lock. Lists and cache are shared by the event loop and the reader threads.

Room is made by second chance, the clock algorithm: blocks stand in a queue in the order in which they came, a reader
marks what it uses, and a marked block that reaches the front loses its mark and goes to the back. That is nearly the
order of last use, and a hit writes nothing but the mark; a queue that every hit reorders touches three neighbours,
which lie anywhere in memory. What was read once has no mark and leaves first. Scans neither fill the cache nor mark.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from threading import Lock
from typing import Final

from leafdb.storage.block import Block

Blocks = list[Block | None]
"""Of one table, by index; None: not in memory."""

BLOCKS_BITS: Final = 32
"""A block's number is its table's file number and then its index, in this many bits: unique in a process."""
_INDEX_MASK: Final = (1 << BLOCKS_BITS) - 1
_SPARED_MAX: Final = 64
"""How many marked blocks one call spares: then the front of the queue goes, marked or not."""
_ENTRY_BYTES: Final = 150
"""What the cache itself spends on an entry: node and number."""


class BlockCache:
    """See the module."""

    __slots__ = ("_lock", "_queue", "bytes_max", "bytes_used", "hits", "misses")

    def __init__(self, bytes_max: int) -> None:
        self._queue: OrderedDict[int, Blocks] = OrderedDict()
        self._lock = Lock()
        self.bytes_max = bytes_max
        self.bytes_used = 0
        self.hits = 0
        """Counted by the readers, as are misses."""
        self.misses = 0

    def put(self, number: int, blocks: Blocks, block: Block) -> None:
        """Keep the block in its place, and let go of others beyond the bound. One over the bound alone is not kept."""
        size = block.memory_bytes + _ENTRY_BYTES
        if size > self.bytes_max:
            return
        with self._lock:
            if number in self._queue:
                return
            spared = 0
            while self.bytes_used + size > self.bytes_max:
                oldest, home = self._queue.popitem(last=False)
                held = home[oldest & _INDEX_MASK]
                assert held is not None
                if held.used and spared < _SPARED_MAX:
                    held.used = False
                    self._queue[oldest] = home
                    spared += 1
                else:
                    self._release(oldest, home)
            self._queue[number] = blocks
            blocks[number & _INDEX_MASK] = block
            self.bytes_used += size

    def forget(self, numbers: Iterable[int]) -> None:
        """Drop these blocks: their table is gone."""
        with self._lock:
            for number in numbers:
                home = self._queue.pop(number, None)
                if home is not None:
                    self._release(number, home)

    def _release(self, number: int, home: Blocks) -> None:
        """Empty a place that has left the queue."""
        dropped, home[number & _INDEX_MASK] = home[number & _INDEX_MASK], None
        assert dropped is not None
        self.bytes_used -= dropped.memory_bytes + _ENTRY_BYTES

    def __len__(self) -> int:
        return len(self._queue)

    def check(self) -> None:
        with self._lock:
            held = [home[number & _INDEX_MASK] for number, home in self._queue.items()]
            total = sum(block.memory_bytes + _ENTRY_BYTES for block in held if block is not None)
            assert None not in held, "a place in the queue that is empty"
            assert total == self.bytes_used <= self.bytes_max, f"{self.bytes_used} accounted, {total} held"
