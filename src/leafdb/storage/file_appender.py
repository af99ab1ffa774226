"""Writes a new file from its beginning to its end, in large pieces; it is synced in steps, and at the end, and closed.

Its name is not synced: who publishes the file syncs the directory.
"""

from __future__ import annotations

from contextlib import suppress

from leafdb.limits import TABLE_APPEND_BYTES, TABLE_SYNC_BYTES
from leafdb.vfs.base import File


class FileAppender:
    """One file in the making. `append` any number of times; then `finish`, or `abandon`."""

    __slots__ = ("_buffer", "_buffer_bytes", "_file", "_synced_upto", "offset")

    def __init__(self, file: File) -> None:
        self._file = file
        self._buffer: list[bytes] = []
        self._buffer_bytes = 0
        self._synced_upto = 0
        self.offset: int = 0
        """Where the next byte lies: the size so far."""

    def append(self, data: bytes) -> None:
        """Add these bytes; they go to the file when enough have come together."""
        self._buffer.append(data)
        self._buffer_bytes += len(data)
        self.offset += len(data)
        if self._buffer_bytes >= TABLE_APPEND_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._file.append(b"".join(self._buffer))
        self._buffer.clear()
        self._buffer_bytes = 0
        if self.offset - self._synced_upto >= TABLE_SYNC_BYTES:
            self._file.sync()
            self._synced_upto = self.offset

    def finish(self) -> int:
        """Write the rest, sync and close the file; its size."""
        self._flush()
        self._file.sync()
        self._file.close()
        return self.offset

    def abandon(self) -> None:
        """Give up: the file is closed and stays as it is, for its owner to remove. That it does not close is nobody's
        loss."""
        with suppress(OSError):
            self._file.close()
