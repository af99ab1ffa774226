"""Reads one value file, a value at a time.

Safe for the event loop and any number of reader threads at once. Making a reader costs nothing: the file is opened, and
its header and footer are compared with the manifest, by the first read that may wait. So a file that cannot be opened
fails the reads of its values and nothing else, and is tried again by each of them.

Values are not kept in the block cache: one of them would push out as much as many blocks hold, and the kernel's page
cache has it already. A read from there costs a system call, a checksum and, where it was worth it, a decompression.
"""

from __future__ import annotations

from collections.abc import Iterator
from threading import Lock

from leafdb.storage.sstable_reader import WOULD_BLOCK, Wait
from leafdb.storage.value_files import Place, ValueMeta
from leafdb.storage.value_format import (
    FOOTER_BYTES,
    HEADER_BYTES,
    VALUE_HEAD,
    VALUE_OVERHEAD_BYTES,
    check_footer,
    check_header,
    corruption,
    open_value,
)
from leafdb.vfs.base import File, FileSystem


class ValueReader:
    """One value file. Whatever is wrong with it comes out as CorruptionError; UnknownFormat only from `open`, or from
    the read that opens."""

    __slots__ = ("_file", "_fs", "_lock", "meta")

    def __init__(self, fs: FileSystem, meta: ValueMeta) -> None:
        self._fs = fs
        self._file: File | None = None
        self._lock = Lock()
        self.meta = meta

    def open(self) -> None:
        """Open the file now, which may wait for the disk; no-op when it is open."""
        self._opened()

    def close(self) -> None:
        """Close the file; no read may be under way or come after."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def get_now(self, place: Place, key: bytes) -> bytes | Wait:
        """The value of `key`, which lies at `place`, if that takes no waiting for the disk."""
        file = self._file
        if file is None:
            return WOULD_BLOCK
        self._check_place(place)
        try:
            sealed = file.read_nowait(place.offset, place.size)
        except OSError as error:
            raise corruption(self.meta, place.offset, f"unreadable: {error}") from error
        return WOULD_BLOCK if sealed is None else open_value(sealed, key, self.meta, place.offset)[1]

    def get(self, place: Place, key: bytes) -> bytes:
        """The value of `key`, which lies at `place`; may wait for the disk, and may be called from any thread."""
        file = self._opened()
        self._check_place(place)
        return open_value(self._read(file, place.offset, place.size), key, self.meta, place.offset)[1]

    def frames(self) -> Iterator[tuple[bytes, Place, bytes]]:
        """Key, place and value of everything in the file, dead or not, in its order."""
        file, offset, count = self._opened(), HEADER_BYTES, 0
        end = self.meta.size - FOOTER_BYTES
        while offset < end:
            lengths = VALUE_HEAD.unpack(self._read(file, offset, VALUE_HEAD.size))
            size = VALUE_OVERHEAD_BYTES + sum(lengths)
            if offset + size > end:
                raise corruption(self.meta, offset, "a value beyond the end")
            key, value = open_value(self._read(file, offset, size), None, self.meta, offset)
            yield key, Place(self.meta.file_number, offset, size), value
            offset += size
            count += 1
        if count != self.meta.count:
            raise corruption(self.meta, offset, f"{count} values where {self.meta.count} were written")

    def _opened(self) -> File:
        with self._lock:
            if self._file is None:
                self._file = self._open()
            return self._file

    def _open(self) -> File:
        meta = self.meta
        try:
            file = self._fs.open_read(meta.path)
        except OSError as error:
            raise corruption(meta, 0, f"cannot be opened: {error}") from error
        try:
            size = file.size()
            if size != meta.size:
                raise corruption(meta, size, f"{size} bytes long, not {meta.size}")
            check_header(self._read(file, 0, HEADER_BYTES), meta)
            check_footer(self._read(file, size - FOOTER_BYTES, FOOTER_BYTES), meta)
        except BaseException:
            file.close()
            raise
        return file

    def _check_place(self, place: Place) -> None:
        if place.offset < HEADER_BYTES or place.offset + place.size > self.meta.size - FOOTER_BYTES:
            raise corruption(self.meta, place.offset, "a place outside of the values")

    def _read(self, file: File, offset: int, size: int) -> bytes:
        try:
            data = file.read_at(offset, size)
        except OSError as error:
            raise corruption(self.meta, offset, f"unreadable: {error}") from error
        if len(data) != size:
            raise corruption(self.meta, offset, f"{len(data)} bytes where {size} were written")
        return data


def verify_values(fs: FileSystem, meta: ValueMeta) -> None:
    """Re-read a whole value file; CorruptionError or UnknownFormat when it is not sound."""
    reader = ValueReader(fs, meta)
    try:
        for _ in reader.frames():
            pass
    finally:
        reader.close()
