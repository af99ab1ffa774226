"""A WAL segment read a window at a time, for who must not hold it whole: verification, and people who look at a file.

Recovery and flushes read segments with `wal.SegmentScan`, which judges whether damage can be a torn tail. Here nothing
is judged: frames come as long as they are sound, and then CorruptionError says where that ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from leafdb.errors import CorruptionError
from leafdb.limits import WAL_FRAME_BYTES_MAX
from leafdb.storage.wal_format import (
    FRAME,
    FRAME_BYTES,
    HEADER_BYTES,
    Frame,
    SegmentHeader,
    WalEntry,
    decode_frame,
    decode_header,
    decode_writes,
)
from leafdb.vfs.base import File

_WINDOW_BYTES: Final = 256 * 1024

Write = tuple[int, list[WalEntry], bytes]
"""Sequence number, entries, mark (empty: none)."""


class SegmentStream:
    """The frames of one open segment. `end` is up to where it was sound, `next_lsn` what should follow there."""

    def __init__(self, file: File, path: str) -> None:
        """Raises CorruptionError or UnknownFormat for a header that is none, OSError for a file that cannot be read."""
        self._file = file
        self._path = path
        self.size: int = file.size()
        self.header: SegmentHeader = decode_header(file.read_at(0, HEADER_BYTES), path)
        self.next_lsn: int = self.header.first_lsn
        self.end: int = HEADER_BYTES
        self._window = b""
        self._base = 0

    def frames(self) -> Iterator[tuple[int, Frame, list[Write]]]:
        """Offset, frame and writes of each, in order. CorruptionError where the sound part ends before the file."""
        while self.end < self.size:
            frame = self._frame()
            if frame is None:
                raise self._damage(f"damaged at offset {self.end}")
            if frame.first_lsn != self.next_lsn:
                raise self._damage(f"sequence {frame.first_lsn} at offset {self.end}, where {self.next_lsn} was due")
            try:
                writes = decode_writes(self._window, frame, self._path, self.header.version)
            except CorruptionError:
                raise self._damage(f"a malformed frame at offset {self.end}") from None
            offset, self.end = self.end, self._base + frame.stop
            self.next_lsn += frame.writes
            yield offset, frame, writes

    def _frame(self) -> Frame | None:
        """The frame at `end`, with the window over it; None when there is none."""
        number = self.header.number
        frame = decode_frame(self._window, self.end - self._base, number, self._base) if self._window else None
        if frame is None:
            self._move(_WINDOW_BYTES)
            frame = decode_frame(self._window, 0, number, self._base)
        if frame is None and len(self._window) >= FRAME_BYTES:
            wanted = FRAME_BYTES + int(FRAME.unpack_from(self._window, 4)[0])
            if len(self._window) < wanted <= min(self.size - self.end, WAL_FRAME_BYTES_MAX):
                self._move(wanted)
                frame = decode_frame(self._window, 0, number, self._base)
        return frame

    def _move(self, size: int) -> None:
        self._base = self.end
        self._window = self._file.read_at(self.end, min(size, self.size - self.end))

    def _damage(self, what: str) -> CorruptionError:
        return CorruptionError(f"{self._path}: {what}", path=self._path, offset=self.end)
