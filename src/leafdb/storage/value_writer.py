"""Writes one value file: values in the order of their keys in, their places out, and at the end a synced file.

The file is synced by `finish`, its name is not: who publishes it syncs the directory, as for tables.
"""

from __future__ import annotations

from leafdb.limits import TABLE_APPEND_BYTES
from leafdb.storage.value_files import Place, ValueMeta, value_path
from leafdb.storage.value_format import encode_footer, encode_header, seal_value
from leafdb.types import TreeId
from leafdb.vfs.base import FileSystem


class ValueWriter:
    """One value file in the making. `add` at least once; then `finish`."""

    __slots__ = ("_buffer", "_buffer_bytes", "_count", "_file", "_file_number", "_offset", "_tree_id")

    def __init__(self, fs: FileSystem, *, file_number: int, tree_id: TreeId) -> None:
        self._file = fs.create(value_path(file_number))
        self._file_number = file_number
        self._tree_id = tree_id
        self._count = 0
        self._buffer: list[bytes] = []
        self._buffer_bytes = 0
        self._offset = 0
        self._append(encode_header(file_number, tree_id))

    def add(self, key: bytes, value: bytes) -> Place:
        """Append a value; where it lies."""
        sealed = seal_value(key, value, self._file_number, self._offset)
        place = Place(self._file_number, self._offset, len(sealed))
        self._append(sealed)
        self._count += 1
        return place

    def _append(self, data: bytes) -> None:
        self._buffer.append(data)
        self._buffer_bytes += len(data)
        self._offset += len(data)
        if self._buffer_bytes >= TABLE_APPEND_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._file.append(b"".join(self._buffer))
        self._buffer.clear()
        self._buffer_bytes = 0

    def finish(self) -> ValueMeta:
        """Write the rest, sync and close the file; what the manifest is to know of it."""
        assert self._count, "a value file without values"
        self._append(encode_footer(self._count, self._offset))
        self._flush()
        self._file.sync()
        self._file.close()
        return ValueMeta(self._file_number, self._tree_id, self._offset, self._count)

    def abandon(self) -> None:
        """Give up: the file is closed and stays as it is, for its owner to remove."""
        self._file.close()
