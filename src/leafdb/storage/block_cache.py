"""Decoded blocks in memory, at most so many bytes of them, the least recently used going first.

Shared by the event loop and the reader threads. A hit is two dictionary operations, each atomic under the interpreter
lock, and takes no lock of its own; whatever changes the byte count does. Blocks are immutable, so handing one out needs
no more.

Left out: resistance to scans. Scans do not fill the cache at all, which does for now.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from threading import Lock
from typing import Final

from leafdb.storage.block import Block

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
        """The block, which becomes the most recently used; None when it is not here."""
        block = self._blocks.get(number)
        if block is None:
            self.misses += 1
            return None
        self.hits += 1
        try:
            self._blocks.move_to_end(number)
        except KeyError:
            return block  # another thread dropped it in between; what we hold is still right
        return block

    def put(self, number: int, block: Block) -> None:
        """Keep the block, and let go of the oldest ones beyond the bound. One over the bound alone is not kept."""
        size = block.memory_bytes + _ENTRY_BYTES
        if size > self.bytes_max:
            return
        with self._lock:
            blocks = self._blocks
            if number in blocks:
                return
            blocks[number] = block
            self.bytes_used += size
            while self.bytes_used > self.bytes_max:
                _, dropped = blocks.popitem(last=False)
                self.bytes_used -= dropped.memory_bytes + _ENTRY_BYTES

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
