"""Reads one value file, a value at a time.

Safe for the event loop and any number of reader threads at once. Making a reader costs nothing: the file is opened, and
its header and footer are compared with the manifest, by the first read that may wait. So a file that cannot be opened
fails the reads of its values and nothing else, and is tried again by each of them.

There are more value files in a large store than descriptors. Only so many are kept open (`OpenFiles`), those that were
read first; of the others each read opens the file and closes it again, on a thread that waits for the disk anyway.

Values are not kept in the block cache: one of them would push out as much as many blocks hold, and the kernel's page
cache has it already. A read from there costs a system call, a checksum and, where it was worth it, a decompression.
"""

from __future__ import annotations

from collections.abc import Iterator
from threading import Lock

from leafdb.limits import VALUE_FILES_OPEN_MAX
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


class OpenFiles:
    """How many value files the readers of a store keep open between them."""

    __slots__ = ("_lock", "files_max", "kept")

    def __init__(self, files_max: int = VALUE_FILES_OPEN_MAX) -> None:
        self._lock = Lock()
        self.files_max: int = files_max
        self.kept: int = 0

    def take(self) -> bool:
        """Whether one more may be kept; it counts from here on."""
        with self._lock:
            if self.kept >= self.files_max:
                return False
            self.kept += 1
            return True

    def give_back(self) -> None:
        with self._lock:
            assert self.kept > 0, "more files are closed than were open"
            self.kept -= 1


class ValueReader:
    """One value file. Whatever is wrong with it comes out as CorruptionError; UnknownFormat only when it is
    opened."""

    __slots__ = ("_file", "_fs", "_lock", "_open_files", "meta")

    def __init__(self, fs: FileSystem, meta: ValueMeta, open_files: OpenFiles) -> None:
        self._fs = fs
        self._file: File | None = None
        self._lock = Lock()
        self._open_files = open_files
        self.meta: ValueMeta = meta

    def check_file(self) -> None:
        """Open the file and close it again: raises unless it is the one the manifest speaks of. Reads no value."""
        self._open().close()

    def close(self) -> None:
        """Close the file; no read may be under way or come after."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._open_files.give_back()

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
        self._check_place(place)
        file = self._file
        if file is not None:
            return open_value(self._read(file, place.offset, place.size), key, self.meta, place.offset)[1]
        file = self._open()
        try:
            return open_value(self._read(file, place.offset, place.size), key, self.meta, place.offset)[1]
        finally:
            self._keep_or_close(file)

    def frames(self) -> Iterator[tuple[bytes, Place, bytes]]:
        """Key, place and value of everything in the file, dead or not, in its order."""
        file = self._open()
        try:
            yield from self._frames(file)
        finally:
            file.close()

    def _frames(self, file: File) -> Iterator[tuple[bytes, Place, bytes]]:
        offset, count = HEADER_BYTES, 0
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

    def _keep_or_close(self, file: File) -> None:
        """Keep it for the reads to come, unless another thread was first or too many are kept already."""
        with self._lock:
            if self._file is None and self._open_files.take():
                self._file = file
                return
        file.close()

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
    for _ in ValueReader(fs, meta, OpenFiles(0)).frames():
        pass
