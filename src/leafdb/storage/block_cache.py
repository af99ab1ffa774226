"""Decoded blocks in memory, at most so many bytes of them; what was read once goes before what is read again.

A block is kept where it is used: in its table's `Blocks`, a list with a place for each block of the table. The cache
says which of all places may be filled. So a hit is one look into a list, which takes no lock and makes no number; what
changes the byte count takes the cache's lock. Lists and cache are shared by the event loop and the reader threads.

Two queues (after S3-FIFO; Yang, Zhang, Qiu, Yue, Vinayak 2023). A block comes into the *young* one. When it reaches the
front there, it moves into the *old* one if it was read again meanwhile, and leaves if it was not; so any number of
blocks that are read once pass through a quarter of the cache, and leave the rest alone. The old queue gives second
chances: a block that was read since it last stood in front goes to the back. The numbers of those that left the young
queue are remembered, as many as there are blocks; who comes back by then is old at once, so that a new working set
drives out one of before.

A hit moves nothing, it sets a mark: a queue that every hit reorders touches three neighbours, which lie anywhere in
memory. Scans neither fill the cache nor mark.
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
_YOUNG_SHARE: Final = 4
"""The young queue keeps this part of the bytes to itself: a quarter."""
_SPARED_MAX: Final = 64
"""How many blocks one call gives a second chance: then the front of the old queue goes, marked or not."""
_ENTRY_BYTES: Final = 150
"""What the cache itself spends on an entry: node and number."""

_Queue = OrderedDict[int, Blocks]


class BlockCache:
    """See the module."""

    __slots__ = ("_left", "_lock", "_old", "_young", "_young_bytes", "bytes_max", "bytes_used", "hits", "misses")

    def __init__(self, bytes_max: int) -> None:
        self._young: _Queue = OrderedDict()
        self._old: _Queue = OrderedDict()
        self._left: OrderedDict[int, None] = OrderedDict()
        """The numbers of what left the young queue, the latest last."""
        self._lock = Lock()
        self._young_bytes = 0
        self.bytes_max: int = bytes_max
        self.bytes_used: int = 0
        self.hits: int = 0
        """Counted by the readers, as are misses."""
        self.misses: int = 0

    def put(self, number: int, blocks: Blocks, block: Block) -> None:
        """Keep the block in its place, and let go of others beyond the bound. One over the bound alone is not kept."""
        size = _size(block)
        if size > self.bytes_max:
            return
        with self._lock:
            if number in self._young or number in self._old:
                return
            self._make_room(size)
            if number in self._left:
                del self._left[number]
                self._old[number] = blocks
            else:
                self._young[number] = blocks
                self._young_bytes += size
            blocks[number & _INDEX_MASK] = block
            self.bytes_used += size

    def _make_room(self, size: int) -> None:
        spared = 0
        while self.bytes_used + size > self.bytes_max:
            if self._young and (self._young_bytes > self.bytes_max // _YOUNG_SHARE or not self._old):
                self._pass_youngest_on()
                continue
            number, blocks = self._old.popitem(last=False)
            block = _held(number, blocks)
            if block.used and spared < _SPARED_MAX:
                spared += 1
                block.used = False
                self._old[number] = blocks
            else:
                self._release(number, blocks)

    def _pass_youngest_on(self) -> None:
        """What stands in front of the young queue grows old, or leaves."""
        number, blocks = self._young.popitem(last=False)
        block = _held(number, blocks)
        self._young_bytes -= _size(block)
        if block.used:
            self._old[number] = blocks
            return
        self._release(number, blocks)
        self._left[number] = None
        while len(self._left) > len(self):
            self._left.popitem(last=False)

    def forget(self, numbers: Iterable[int]) -> None:
        """Drop these blocks: their table is gone."""
        with self._lock:
            for number in numbers:
                blocks = self._young.pop(number, None)
                if blocks is not None:
                    self._young_bytes -= _size(_held(number, blocks))
                else:
                    blocks = self._old.pop(number, None)
                if blocks is not None:
                    self._release(number, blocks)

    def _release(self, number: int, blocks: Blocks) -> None:
        """Empty a place that has left its queue."""
        self.bytes_used -= _size(_held(number, blocks))
        blocks[number & _INDEX_MASK] = None

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def check(self) -> None:
        with self._lock:
            young, old = (
                sum(_size(_held(number, blocks)) for number, blocks in queue.items())
                for queue in (self._young, self._old)
            )
            assert young == self._young_bytes, f"{self._young_bytes} accounted in the young queue, {young} held"
            assert young + old == self.bytes_used <= self.bytes_max, f"{self.bytes_used} accounted, {young + old} held"
            assert not self._young.keys() & self._old.keys(), "a block in both queues"


def _held(number: int, blocks: Blocks) -> Block:
    """The block of a number that stands in a queue."""
    block = blocks[number & _INDEX_MASK]
    assert block is not None, "a place in a queue that is empty"
    return block


def _size(block: Block) -> int:
    return block.memory_bytes + _ENTRY_BYTES
