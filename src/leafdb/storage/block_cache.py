"""Decoded blocks in memory, at most so many bytes of them; what was read once goes before what is read again.

Shared by the event loop and the reader threads. A hit is one look into a dictionary or two, atomic under the
interpreter lock, and takes no lock of its own; whatever moves a block or changes the byte count does.

Two queues (after S3-FIFO; Yang, Zhang, Qiu, Yue, Vinayak 2023). A block comes into the *young* one. When it reaches the
front there, it moves into the *old* one if it was read again meanwhile, and leaves if it was not; so any number of
blocks that are read once pass through a quarter of the cache, and leave the rest alone. The old queue gives second
chances: a block that was read since it last stood in front goes to the back. Of those that left the young queue the
numbers are remembered for as long as they would have stayed in a cache of twice the size; who comes back by then is old
at once, so that a new working set drives out one of before.

A hit moves nothing, it sets a mark: a queue that every hit reorders touches three neighbours, which lie anywhere in
memory. Scans read what is here and leave nothing behind.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from threading import Lock
from typing import Final

from leafdb.storage.block import Block

_YOUNG_SHARE: Final = 4
"""The young queue keeps this part of the bytes to itself: a quarter."""
_SPARED_MAX: Final = 64
"""How many blocks one call gives a second chance: then the front of the old queue goes, marked or not."""
_ENTRY_BYTES: Final = 150
"""What the cache itself spends on an entry: node and key."""


class BlockCache:
    """Blocks by number. A number is unique over all tables of a process: `TableReader` makes it."""

    __slots__ = ("_left", "_lock", "_old", "_young", "_young_bytes", "bytes_max", "bytes_used", "hits", "misses")

    def __init__(self, bytes_max: int) -> None:
        self._young: OrderedDict[int, Block] = OrderedDict()
        self._old: OrderedDict[int, Block] = OrderedDict()
        self._left: OrderedDict[int, None] = OrderedDict()
        """The numbers of what left the young queue, the latest last; not more than there are blocks."""
        self._lock = Lock()
        self._young_bytes = 0
        self.bytes_max = bytes_max
        self.bytes_used = 0
        self.hits = 0
        self.misses = 0

    def get(self, number: int) -> Block | None:
        """The block, which is marked as used; None when it is not here, or just on its way from queue to queue."""
        block = self._old.get(number)
        if block is None:
            block = self._young.get(number)
            if block is None:
                self.misses += 1
                return None
        self.hits += 1
        block.used = True
        return block

    def put(self, number: int, block: Block) -> None:
        """Keep the block, and let go of others beyond the bound. One over the bound alone is not kept."""
        size = _size(block)
        if size > self.bytes_max:
            return
        with self._lock:
            if number in self._young or number in self._old:
                return
            self._make_room(size)
            if number in self._left:
                del self._left[number]
                self._old[number] = block
            else:
                self._young[number] = block
                self._young_bytes += size
            self.bytes_used += size

    def _make_room(self, size: int) -> None:
        spared = 0
        while self.bytes_used + size > self.bytes_max:
            if self._young and (self._young_bytes > self.bytes_max // _YOUNG_SHARE or not self._old):
                self._pass_youngest_on()
                continue
            number, block = self._old.popitem(last=False)
            if block.used and spared < _SPARED_MAX:
                spared += 1
                block.used = False
                self._old[number] = block
            else:
                self.bytes_used -= _size(block)

    def _pass_youngest_on(self) -> None:
        """What stands in front of the young queue grows old, or leaves."""
        number, block = self._young.popitem(last=False)
        self._young_bytes -= _size(block)
        if block.used:
            self._old[number] = block
            return
        self.bytes_used -= _size(block)
        self._left[number] = None
        while len(self._left) > len(self):
            self._left.popitem(last=False)

    def forget(self, numbers: Iterable[int]) -> None:
        """Drop these blocks: their table is gone."""
        with self._lock:
            for number in numbers:
                young = self._young.pop(number, None)
                if young is not None:
                    self._young_bytes -= _size(young)
                dropped = young or self._old.pop(number, None)
                if dropped is not None:
                    self.bytes_used -= _size(dropped)

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def check(self) -> None:
        with self._lock:
            young, old = (sum(map(_size, queue.values())) for queue in (self._young, self._old))
            assert young == self._young_bytes, f"{self._young_bytes} accounted in the young queue, {young} held"
            assert young + old == self.bytes_used <= self.bytes_max, f"{self.bytes_used} accounted, {young + old} held"
            assert not self._young.keys() & self._old.keys(), "a block in both queues"


def _size(block: Block) -> int:
    return block.memory_bytes + _ENTRY_BYTES
