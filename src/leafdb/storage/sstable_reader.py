"""Reads one table. Index and filter stay in memory from `open` on; data blocks come through the block cache.

Safe for the event loop and any number of reader threads at once: after `open` nothing of a reader changes, files are
read by position, and the cache guards itself. `get_now` never waits for the disk, everything else may.

Whatever is wrong with the bytes, or with reading them, comes out as CorruptionError with file and offset: a table gives
the entries that were written or an error, never other bytes. Only `open` raises UnknownFormat.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from enum import Enum
from functools import partial
from operator import lt
from typing import Final, NamedTuple

from leafdb.codec.checksum import xxh3_64
from leafdb.errors import CorruptionError, StorageError
from leafdb.storage.block import ABSENT, Absent, Block, Columns, Entry, Stored, concatenate
from leafdb.storage.block_cache import BLOCKS_BITS, BlockCache, Blocks
from leafdb.storage.bloom import BloomFilter
from leafdb.storage.lost_ranges import Range, insistently, is_damage
from leafdb.storage.sstable_format import (
    FOOTER_READ_BYTES,
    INDEX_VALUE,
    BlockKind,
    Footer,
    check_properties,
    corruption,
    open_block,
)
from leafdb.storage.value_files import Place
from leafdb.storage.version import TableMeta
from leafdb.vfs.base import File, FileSystem


class Wait(Enum):
    """The answer of a read that must not wait and would have to."""

    WOULD_BLOCK = 1


WOULD_BLOCK: Final = Wait.WOULD_BLOCK


class Part(NamedTuple):
    """A part of a file that was read again: how many bytes, the closed range of keys it may hold, what is wrong."""

    size: int
    smallest: bytes = b""
    largest: bytes = b""
    problem: StorageError | None = None


def no_rest() -> None:
    """Nobody waits for this thread."""


class TableReader:
    """One open table."""

    __slots__ = (
        "_blocks",
        "_cache",
        "_file",
        "_filter",
        "_first_number",
        "_lower_bounds",
        "_places",
        "filter_lines",
        "memory_bytes",
        "meta",
    )

    def __init__(self, meta: TableMeta, file: File, cache: BlockCache, rest: Callable[[], None] = no_rest) -> None:
        """Use `open`; this reads what `open` promises and leaves the file to its caller when that fails."""
        self.meta: TableMeta = meta
        self._file = file
        self._cache = cache
        self._first_number = meta.file_number << BLOCKS_BITS
        tail_at = max(0, meta.size - FOOTER_READ_BYTES)
        footer = Footer.decode(self._read(tail_at, meta.size - tail_at), meta)
        footer.check_version(meta)
        start = footer.filter[0]
        parts = self._read(start, footer.properties[0] + footer.properties[1] - start)

        def part(place: tuple[int, int], kind: BlockKind) -> bytes:
            offset = place[0] - start
            return open_block(parts[offset : offset + place[1]], kind, meta, place[0])

        check_properties(part(footer.properties, BlockKind.PROPERTIES), meta, footer.properties[0])
        index = part(footer.index, BlockKind.INDEX)
        rest()
        try:
            self._filter = BloomFilter(part(footer.filter, BlockKind.FILTER))
            self.filter_lines: list[int] = self._filter.lines
            rest()
            self._lower_bounds, _, values = Block(index).columns()
            rest()
            self._places = [INDEX_VALUE.unpack(value) for value in values]  # type: ignore[arg-type]  # damage, if not
        except Exception as error:
            raise corruption(meta, footer.index[0], f"malformed index or filter: {error}") from error
        rest()
        self._check_places(footer)
        self._blocks: Blocks = [None] * len(self._places)
        # Per index line: a key of its own size and three lists' and a tuple's overhead.
        self.memory_bytes: int = self._filter.memory_bytes + sum(map(len, self._lower_bounds)) + 188 * len(self._places)

    def _check_places(self, footer: Footer) -> None:
        """The data blocks must lie end to end from the start of the file to the filter."""
        end = 0
        for offset, size in self._places:
            if offset != end:
                raise corruption(self.meta, footer.index[0], f"the index leaves a gap at {end}")
            end = offset + size
        if end != footer.filter[0]:
            raise corruption(self.meta, footer.index[0], f"the index ends at {end}")

    @classmethod
    def open(
        cls, fs: FileSystem, meta: TableMeta, cache: BlockCache, rest: Callable[[], None] = no_rest
    ) -> TableReader:
        """Open the table `meta` speaks of; CorruptionError when the file is another, or damaged, or not there.

        `rest` is called between steps of some tenths of a millisecond (`Executor.rest`).
        """
        try:
            file = fs.open_read(meta.path)
        except OSError as error:
            raise corruption(meta, 0, f"cannot be opened: {error}", error) from error
        try:
            size = file.size()
            if size != meta.size:
                raise corruption(meta, size, f"{size} bytes long, not {meta.size}")
            return cls(meta, file, cache, rest)
        except BaseException:
            file.close()
            raise

    def close(self) -> None:
        """Close the file; no read may be under way or come after."""
        first = self._first_number
        self._cache.forget([first + index for index, block in enumerate(self._blocks) if block is not None])
        self._file.close()

    def may_contain(self, key: bytes) -> bool:
        """False: the key is not in this table."""
        return self._filter.may_contain(xxh3_64(key))

    def get_now(self, key: bytes) -> Stored | Absent | Wait:
        """What the table holds under `key`, which its filter does not deny, if that takes no waiting for the disk."""
        index = bisect_right(self._lower_bounds, key) - 1
        if index < 0:
            return ABSENT
        block = self._blocks[index]
        if block is not None:
            block.used = True
            self._cache.hits += 1
        else:
            self._cache.misses += 1
            offset, size = self._places[index]
            try:
                sealed = self._file.read_nowait(offset, size)
            except OSError as error:
                raise corruption(self.meta, offset, f"unreadable: {error}", error) from error
            if sealed is None:
                return WOULD_BLOCK
            block = self._decode(sealed, offset)
            self._cache.put(self._first_number + index, self._blocks, block)
        return block.find(key)

    def get(self, key: bytes) -> Stored | Absent:
        """As `get_now`; may wait for the disk, and may be called from any thread."""
        found = self.get_now(key)
        if not isinstance(found, Wait):
            return found
        index = bisect_right(self._lower_bounds, key) - 1
        block = self._load(index)
        self._cache.put(self._first_number + index, self._blocks, block)
        return block.find(key)

    def iterate(self, start: bytes, stop: bytes | None, reverse: bool = False) -> Iterator[Entry]:
        """Entries with start <= key < stop (None: to the end), tombstones among them. Does not fill the cache."""
        last = len(self._places) if stop is None else bisect_left(self._lower_bounds, stop)
        indexes = range(max(0, bisect_right(self._lower_bounds, start) - 1), last)
        for index in reversed(indexes) if reverse else indexes:
            block = self._blocks[index] or self._load(index)
            keys, sequences, values = block.columns()
            low = bisect_left(keys, start)
            high = len(keys) if stop is None else bisect_left(keys, stop)
            positions = range(low, high)
            for position in reversed(positions) if reverse else positions:
                yield keys[position], sequences[position], values[position]

    def runs(self, blocks: int) -> Iterator[Columns]:
        """All entries, `blocks` blocks at a time and one read for them; beside the cache. For compaction."""
        for first in range(0, len(self._places), blocks):
            places = self._places[first : first + blocks]
            start = places[0][0]
            data = self._read(start, places[-1][0] + places[-1][1] - start)
            yield concatenate(
                [
                    self._decode(data[offset - start : offset - start + size], offset).columns()
                    for offset, size in places
                ]
            )

    def places(self) -> tuple[list[tuple[int, int]], list[bytes]]:
        """Offset and size of each block; and the bounds between which their keys lie, one more than blocks."""
        return list(self._places), [*self._lower_bounds, self.meta.largest]

    def pieces(self) -> Iterator[Columns | Range]:
        """Block by block what can be read, beside the cache; in the place of a block that cannot, where its keys lay:
        from a bound that is not above its first one to a bound that is above its last. For salvage. CorruptionError
        only where this process could not get at the bytes."""
        meta = self.meta
        for index in range(len(self._places)):
            lost = self._range_of(index)
            try:
                columns = insistently(partial(self._load, index)).columns()
            except CorruptionError as error:
                if not is_damage(error):
                    raise
                yield lost
                continue
            keys, sequences, _ = columns
            ascending = all(map(lt, keys, keys[1:]))
            fitting = lost[0] <= keys[0] and (keys[-1] < lost[1] or keys[-1] == meta.largest)
            known = meta.sequence_min <= min(sequences) and max(sequences) <= meta.sequence_max
            yield columns if ascending and fitting and known else lost

    def _load(self, index: int) -> Block:
        offset, size = self._places[index]
        return self._decode(self._read(offset, size), offset)

    def _decode(self, sealed: bytes, offset: int) -> Block:
        payload = open_block(sealed, BlockKind.DATA, self.meta, offset)
        try:
            return Block(payload)
        except ValueError as error:
            raise corruption(self.meta, offset, str(error)) from error

    def _read(self, offset: int, size: int) -> bytes:
        try:
            data = self._file.read_at(offset, size)
        except OSError as error:
            raise corruption(self.meta, offset, f"unreadable: {error}", error) from error
        if len(data) != size:
            raise corruption(self.meta, offset, f"{len(data)} bytes where {size} were written")
        return data

    def blocks(self) -> Iterator[tuple[int, int, Columns | CorruptionError]]:
        """Offset and size of each block, with its entries, or with what is wrong with it."""
        for index, (offset, size) in enumerate(self._places):
            try:
                yield offset, size, self._load(index).columns()
            except CorruptionError as error:
                yield offset, size, error

    def inspect(self) -> Iterator[Part]:
        """Everything a table promises, by reading all of it: a part for each block, then one for the rest."""
        meta = self.meta
        entries = tombstones = data_bytes = 0
        references: dict[int, int] = {}
        previous: bytes | None = None
        sound = True
        for index, (offset, size) in enumerate(self._places):
            data_bytes += size
            try:
                keys, _, values = self._inspected(index, offset, previous)
            except CorruptionError as error:
                sound, previous = False, None
                yield Part(size, *self._range_of(index), error)
                continue
            previous = keys[-1]
            entries += len(keys)
            tombstones += values.count(None)
            for value in values:
                if isinstance(value, Place):
                    references[value.file_number] = references.get(value.file_number, 0) + value.size
            yield Part(size, keys[0], previous)
        problem = None
        if sound and (previous != meta.largest or entries != meta.entries or tombstones != meta.tombstones):
            problem = corruption(meta, meta.size, "the entries are not those the properties count")
        elif sound and references != dict(meta.references):
            problem = corruption(meta, meta.size, "the places are not in the value files the properties name")
        yield Part(meta.size - data_bytes, meta.smallest, meta.largest, problem)

    def _inspected(self, index: int, offset: int, previous: bytes | None) -> Columns:
        """A block that holds what it must, after one that ends with `previous` (None: not known)."""
        meta, bound = self.meta, self._lower_bounds[index]
        columns = keys, sequences, _ = self._load(index).columns()
        if (previous is not None and not previous < bound) or bound > keys[0]:
            raise corruption(meta, offset, "the index does not separate this block from the one before it")
        for key, sequence in zip(keys, sequences, strict=True):
            if previous is not None and key <= previous:
                raise corruption(meta, offset, "keys do not ascend")
            if not meta.sequence_min <= sequence <= meta.sequence_max:
                raise corruption(meta, offset, f"sequence {sequence} is outside of the table's range")
            if not self.may_contain(key):
                raise corruption(meta, offset, "the filter denies a key that is here")
            previous = key
        if index == 0 and keys[0] != meta.smallest:
            raise corruption(meta, offset, "the first key is not the table's smallest")
        return columns

    def _range_of(self, index: int) -> tuple[bytes, bytes]:
        """A closed range that holds every key of a block, told by the index alone."""
        bounds = self._lower_bounds
        smallest = max(bounds[index], self.meta.smallest)
        return smallest, bounds[index + 1] if index + 1 < len(bounds) else self.meta.largest

    def check(self) -> None:
        """CorruptionError for the first part where the table does not hold what it promises."""
        for part in self.inspect():
            if part.problem is not None:
                raise part.problem


def verify(fs: FileSystem, meta: TableMeta) -> None:
    """Re-read a whole table from the file, beside any cache; CorruptionError or UnknownFormat when it is not sound."""
    reader = TableReader.open(fs, meta, BlockCache(0))
    try:
        reader.check()
    finally:
        reader.close()
