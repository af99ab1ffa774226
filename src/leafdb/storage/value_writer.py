"""Writes one value file: values in the order of their keys in, their places out, and at the end a synced file."""

from __future__ import annotations

from leafdb.storage.file_appender import FileAppender
from leafdb.storage.value_files import Place, ValueMeta, value_path
from leafdb.storage.value_format import encode_footer, encode_header, seal_value
from leafdb.types import TreeId
from leafdb.vfs.base import FileSystem


class ValueWriter:
    """One value file in the making. `add` at least once; then `finish`."""

    __slots__ = ("_count", "_file", "_file_number", "_tree_id")

    def __init__(self, fs: FileSystem, *, file_number: int, tree_id: TreeId) -> None:
        self._file = FileAppender(fs.create(value_path(file_number)))
        self._file_number = file_number
        self._tree_id = tree_id
        self._count = 0
        self._file.append(encode_header(file_number, tree_id))

    def add(self, key: bytes, value: bytes) -> Place:
        """Append a value; where it lies."""
        sealed = seal_value(key, value, self._file_number, self._file.offset)
        place = Place(self._file_number, self._file.offset, len(sealed))
        self._file.append(sealed)
        self._count += 1
        return place

    def finish(self) -> ValueMeta:
        """Write the rest, sync and close the file; what the manifest is to know of it."""
        assert self._count, "a value file without values"
        self._file.append(encode_footer(self._count, self._file.offset))
        return ValueMeta(self._file_number, self._tree_id, self._file.finish(), self._count)

    def abandon(self) -> None:
        """Give up: the file is closed and stays as it is, for its owner to remove."""
        self._file.abandon()
