"""Writes one table: sorted entries in, a synced file and its description out.

Entries come in runs of columns and are cut into blocks by running sums and bisection, so that no Python statement runs
per entry but those of the filter. Nothing is held but the block being gathered, a hash per entry and a line per block.

What is left to do at the end grows with the table, so it is done in slices, between which whoever runs them gives way.

The file is synced by the last of them, its name is not: who publishes it syncs the directory, once for all tables of
a job.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Generator, Sequence
from dataclasses import replace
from itertools import accumulate

from leafdb.codec.checksum import xxh3_64
from leafdb.limits import BLOCK_BYTES, BLOOM_BITS_PER_KEY
from leafdb.storage.block import ENTRY_OVERHEAD_BYTES, PLACE, Stored, encode_block, shared_bytes
from leafdb.storage.bloom import filter_slices
from leafdb.storage.file_appender import FileAppender
from leafdb.storage.sstable_format import (
    FORMAT_VERSION,
    FORMAT_WITH_PLACES,
    INDEX_VALUE,
    BlockKind,
    Footer,
    encode_properties,
    seal_block,
)
from leafdb.storage.value_files import Place
from leafdb.storage.version import TableMeta, table_path
from leafdb.types import TreeId
from leafdb.vfs.base import FileSystem


class TableWriter:
    """One table in the making. `append_run` any number of times, at least one entry in all; then `finish_slices`."""

    __slots__ = (
        "_block_largest",
        "_entries",
        "_file",
        "_file_number",
        "_hashes",
        "_index_keys",
        "_index_values",
        "_keys",
        "_largest",
        "_level",
        "_references",
        "_sequence_max",
        "_sequence_min",
        "_sequences",
        "_sizes",
        "_smallest",
        "_tombstones",
        "_tree_id",
        "_values",
        "newest_expiry_ms",
    )

    def __init__(self, fs: FileSystem, *, file_number: int, tree_id: TreeId, level: int) -> None:
        self._file = FileAppender(fs.create(table_path(file_number)))
        self._file_number = file_number
        self._tree_id = tree_id
        self._level = level
        # The entries of the block being gathered, and what each will cost in it.
        self._keys: list[bytes] = []
        self._sequences: list[int] = []
        self._values: list[Stored] = []
        self._sizes: list[int] = []
        self._block_largest: bytes | None = None
        self._hashes: array[int] = array("Q")
        self._index_keys: list[bytes] = []
        self._index_values: list[bytes] = []
        self._entries = 0
        self._tombstones = 0
        self._references: dict[int, int] = {}
        self._smallest = b""
        self._largest: bytes | None = None
        self._sequence_min = 0
        self._sequence_max = 0
        self.newest_expiry_ms: int = 0
        """As in `TableMeta`; to be set before `finish_slices` by who knows."""

    @property
    def size(self) -> int:
        """Bytes written so far: all full blocks, not the one being gathered."""
        return self._file.offset

    def append_run(self, keys: Sequence[bytes], sequences: Sequence[int], values: Sequence[Stored]) -> None:
        """Add entries, which ascend strictly and lie above all before them."""
        if not keys:
            return
        assert len(keys) == len(sequences) == len(values)
        if self._largest is None:
            self._smallest = keys[0]
            self._sequence_min = self._sequence_max = sequences[0]
        else:
            assert keys[0] > self._largest, "a run that does not lie above the one before it"
        self._largest = keys[-1]
        self._entries += len(keys)
        self._sequence_min = min(self._sequence_min, min(sequences))
        self._sequence_max = max(self._sequence_max, max(sequences))
        self._hashes.extend(map(xxh3_64, keys))
        try:
            lengths = list(map(len, values))  # type: ignore[arg-type]  # another kind in it is what the except is for
        except TypeError:
            lengths = [self._length(value) for value in values]
        self._keys.extend(keys)
        self._sequences.extend(sequences)
        self._values.extend(values)
        self._sizes.extend(
            [len(key) + length + ENTRY_OVERHEAD_BYTES for key, length in zip(keys, lengths, strict=True)]
        )
        self._cut()

    def _length(self, value: Stored) -> int:
        """What the value takes in a block; counts what is none."""
        if value is None:
            self._tombstones += 1
            return 0
        if isinstance(value, Place):
            self._references[value.file_number] = self._references.get(value.file_number, 0) + value.size
            return PLACE.size
        return len(value)

    def _cut(self) -> None:
        """Write every full block; a block is full with the entry that takes it to BLOCK_BYTES."""
        ends = list(accumulate(self._sizes))
        start, written = 0, 0
        while ends[-1] - written >= BLOCK_BYTES:
            stop = bisect_left(ends, written + BLOCK_BYTES, start) + 1
            self._write_data(start, stop)
            start, written = stop, ends[stop - 1]
        if start:
            del self._keys[:start], self._sequences[:start], self._values[:start], self._sizes[:start]

    def _write_data(self, start: int, stop: int) -> None:
        """Write the gathered entries start..stop as one block, and its line in the index.

        The line's key is the shortest that lies above the block before it and not above this one's first key: a reader
        finds the block of a key by bisection either way, and hashes differ early.
        """
        keys = self._keys[start:stop]
        first, before = keys[0], self._block_largest
        payload = encode_block(keys, self._sequences[start:stop], self._values[start:stop])
        place = self._write(payload, BlockKind.DATA)
        self._index_keys.append(first if before is None else first[: shared_bytes(before, first) + 1])
        self._index_values.append(INDEX_VALUE.pack(*place))
        self._block_largest = keys[-1]

    def _write(self, payload: bytes, kind: BlockKind) -> tuple[int, int]:
        """Seal and append a block; its place."""
        sealed = seal_block(payload, kind, self._file_number, self._file.offset)
        place = self._file.offset, len(sealed)
        self._file.append(sealed)
        return place

    def finish_slices(self) -> Generator[None, None, TableMeta]:
        """Write the rest, sync and close the file; what the manifest is to know of it. In steps of less than a
        millisecond, but for the index, which takes as long as a block of one entry for each of the table's blocks."""
        assert self._largest is not None, "a table without entries"
        if self._keys:
            self._write_data(0, len(self._keys))
        meta = self._meta(self._largest)
        built = yield from filter_slices(self._hashes, BLOOM_BITS_PER_KEY)
        filter_place = self._write(built, BlockKind.FILTER)
        yield
        index = encode_block(self._index_keys, [0] * len(self._index_keys), self._index_values)
        index_place = self._write(index, BlockKind.INDEX)
        yield
        footer = Footer(
            file_number=self._file_number,
            filter=filter_place,
            index=index_place,
            properties=self._write(encode_properties(meta), BlockKind.PROPERTIES),
            version=FORMAT_WITH_PLACES if meta.references else FORMAT_VERSION,
        )
        self._file.append(footer.encode())
        return replace(meta, size=self._file.finish())

    def _meta(self, largest: bytes) -> TableMeta:
        """What is known of the table; its size is not, yet."""
        return TableMeta(
            file_number=self._file_number,
            tree_id=self._tree_id,
            level=self._level,
            size=1,
            entries=self._entries,
            smallest=self._smallest,
            largest=largest,
            sequence_min=self._sequence_min,
            sequence_max=self._sequence_max,
            tombstones=self._tombstones,
            newest_expiry_ms=self.newest_expiry_ms,
            references=tuple(sorted(self._references.items())),
        )

    def abandon(self) -> None:
        """Give up: the file is closed and stays as it is, for its owner to remove."""
        self._file.abandon()
