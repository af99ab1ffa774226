"""Decoded blocks in memory, at most so many bytes of them; those that were not used for long go first.

Shared by the event loop and the reader threads. A hit is one look into a dictionary, atomic under the interpreter lock,
and takes no lock of its own; whatever changes the byte count does.

Room is made by second chance, the clock algorithm: blocks stand in a queue in the order in which they came, a hit marks
its block, and a marked one that reaches the front loses its mark and goes to the back. That is nearly the order of last
use, and a hit writes nothing but the mark; a queue that every hit reorders touches three neighbours, which lie anywhere
in memory.

What was read once has no mark and leaves first. Scans do not fill the cache at all.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from threading import Lock
from typing import Final

from leafdb.storage.block import Block

_SPARED_MAX: Final = 64
"""How many marked blocks one call spares: then the front of the queue goes, marked or not."""
_ENTRY_BYTES: Final = 150
"""What the cache itself spends on an entry: node and key."""


class BlockCache:
    """Blocks by number. A number is unique over all tables of a process: `TableReader` makes it."""

    __slots__ = ("_blocks", "_lock", "bytes_max", "bytes_used", "hits", "misses")

    def __init__(self, bytes_max: int) -> None:
        self._blocks: OrderedDict[int, Block] = OrderedDict()
        self._lock = Lock()
        self.bytes_max = bytes_max
        self.bytes_used = 0
        self.hits = 0
        self.misses = 0

    def get(self, number: int) -> Block | None:
        """The block, which is marked as used; None when it is not here."""
        block = self._blocks.get(number)
        if block is None:
            self.misses += 1
            return None
        self.hits += 1
        block.used = True
        return block

    def put(self, number: int, block: Block) -> None:
        """Keep the block, and let go of others beyond the bound. One over the bound alone is not kept."""
        size = block.memory_bytes + _ENTRY_BYTES
        if size > self.bytes_max:
            return
        with self._lock:
            blocks = self._blocks
            if number in blocks:
                return
            spared = 0
            while self.bytes_used + size > self.bytes_max:
                oldest, held = blocks.popitem(last=False)
                if held.used and spared < _SPARED_MAX:
                    held.used = False
                    blocks[oldest] = held
                    spared += 1
                else:
                    self.bytes_used -= held.memory_bytes + _ENTRY_BYTES
            blocks[number] = block
            self.bytes_used += size

    def forget(self, numbers: Iterable[int]) -> None:
        """Drop these blocks: their table is gone."""
        with self._lock:
            for number in numbers:
                dropped = self._blocks.pop(number, None)
                if dropped is not None:
                    self.bytes_used -= dropped.memory_bytes + _ENTRY_BYTES

    def __len__(self) -> int:
        return len(self._blocks)

    def check(self) -> None:
        with self._lock:
            total = sum(block.memory_bytes + _ENTRY_BYTES for block in self._blocks.values())
            assert total == self.bytes_used <= self.bytes_max, f"{self.bytes_used} accounted, {total} held"
