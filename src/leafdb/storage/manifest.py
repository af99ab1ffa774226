"""The list of what makes up the store: a file of version edits. Drawn in docs/formats/manifest.md.

`CURRENT` names the manifest in use. A manifest begins with the version at its start, as edits from the empty one, and
grows by one record an edit; each is synced before anything relies on it. So a bad record with nothing valid after it is
an edit nobody relied on, and is left out; a bad record before a valid one had been synced, and is damage. So is a bad
record of the version at the start: those were synced before CURRENT named the file, and the header counts them.

Every open of the store writes a new manifest, as does growth beyond a bound: write, sync, then switch CURRENT.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Final

from leafdb.codec import cbor
from leafdb.codec.checksum import crc32c
from leafdb.errors import CorruptionError, UnknownFormat
from leafdb.limits import MANIFEST_RECORD_BYTES_MAX
from leafdb.storage.value_files import ValueMeta
from leafdb.storage.version import TableMeta, Version, VersionEdit
from leafdb.vfs.base import File, FileSystem, read_file, replace_file

CURRENT_PATH: Final = "CURRENT"
MAGIC: Final = b"leafman\n"
FORMAT_VERSION: Final = 1
_PREFIX: Final = "MANIFEST-"

HEADER: Final = Struct(">8sHHI")
"""Magic, format version, records of the version at the start, manifest number; a crc32c of these follows."""
HEADER_BYTES: Final = HEADER.size + 4
RECORD: Final = Struct(">III")
"""Payload length, manifest number, index of the record; before it a crc32c of it and the payload."""
RECORD_BYTES: Final = 4 + RECORD.size

_TABLES_PER_RECORD: Final = 2_000
_ITEMS_PER_RECORD: Final = 40_000
"""A snapshot of more takes several records: what is read back is bounded in items."""
_TABLE_ITEMS: Final = 12
_REFERENCE_ITEMS: Final = 9
"""A table; a reference of it, with the description of the value file where that is the first."""


def manifest_name(number: int) -> str:
    return f"{_PREFIX}{number:010d}"


def manifest_numbers(fs: FileSystem) -> list[int]:
    stems = [name.removeprefix(_PREFIX) for name in fs.list("") if name.startswith(_PREFIX)]
    return sorted(int(stem) for stem in stems if stem.isdigit())


def current_manifest(fs: FileSystem) -> int | None:
    """The number CURRENT names; None when there is no CURRENT."""
    if not fs.exists(CURRENT_PATH):
        return None
    name = read_file(fs, CURRENT_PATH).decode("ascii", "replace")
    stem = name.removeprefix(_PREFIX).removesuffix("\n")
    if name != manifest_name(int(stem) if stem.isdigit() else 0) + "\n":
        raise CorruptionError(f"CURRENT names {name!r:.40}", path=CURRENT_PATH, offset=0)
    return int(stem)


def read_manifest(fs: FileSystem, number: int) -> Version:
    """The version its edits lead to. CorruptionError on damage before the end, or on an edit that does not fit."""
    path = manifest_name(number)
    if not fs.exists(path):
        raise CorruptionError(f"{path}, which CURRENT names, is missing", path=path, offset=0)
    data = read_file(fs, path)
    at_start = _check_header(data, number, path)
    version = Version()
    records = 0
    for offset, payload in _records(data, number, path):
        records += 1
        try:
            version = version.apply(VersionEdit.from_plain(cbor.loads(payload)))
        except ValueError as error:
            raise CorruptionError(f"{path}: record at {offset}: {error}", path=path, offset=offset) from error
    if records < at_start:
        text = f"{path}: {records} good records of the {at_start} it was begun with"
        raise CorruptionError(text, path=path, offset=len(data))
    try:
        version.check()
    except AssertionError as error:
        raise CorruptionError(f"{path}: {error}", path=path, offset=len(data)) from error
    return version


def open_manifest(file: File, path: str) -> tuple[int, int]:
    """The number of a manifest, by its own word, and how many records the version at its start takes.

    For a file of which nothing else is known. Raises CorruptionError and UnknownFormat."""
    head = file.read_at(0, HEADER_BYTES)
    number = HEADER.unpack_from(head)[3] if len(head) == HEADER_BYTES else 0
    return number, _check_header(head, number, path)


def record_at(file: File, offset: int, number: int, index: int) -> bytes | None:
    """The payload of the record there; None when there is no sound one of that number and index."""
    head = file.read_at(offset, RECORD_BYTES)
    if len(head) < RECORD_BYTES:
        return None
    length = RECORD.unpack_from(head, 4)[0]
    if length > min(MANIFEST_RECORD_BYTES_MAX, file.size() - offset - RECORD_BYTES):
        return None
    return _record(head + file.read_at(offset + RECORD_BYTES, length), 0, number, index)


def check_manifest(fs: FileSystem, number: int, size: int) -> None:
    """Read it again as far as it was synced, `size` bytes. CorruptionError when less of that is good."""
    path = manifest_name(number)
    file = fs.open_read(path)
    try:
        data = file.read_at(0, size)
    finally:
        file.close()
    _check_header(data, number, path)
    end = HEADER_BYTES
    for offset, payload in _records(data, number, path):
        end = offset + RECORD_BYTES + len(payload)
    if end != size:
        raise CorruptionError(f"{path}: damaged at offset {end}, where it had been synced", path=path, offset=end)


def _check_header(data: bytes, number: int, path: str) -> int:
    """How many records the version at the start takes."""
    head = data[: HEADER.size]
    if len(data) < HEADER_BYTES or int.from_bytes(data[HEADER.size : HEADER_BYTES], "big") != crc32c(head):
        raise CorruptionError(f"{path}: damaged header", path=path, offset=0)
    magic, version, at_start, named = HEADER.unpack(head)
    if magic != MAGIC or named != number:
        raise CorruptionError(f"{path}: not this manifest", path=path, offset=0)
    if version != FORMAT_VERSION:
        raise UnknownFormat(f"{path}: manifest format {version}, this build knows {FORMAT_VERSION}", path=path)
    return int(at_start)


def _records(data: bytes, number: int, path: str) -> Iterator[tuple[int, bytes]]:
    offset, index = HEADER_BYTES, 0
    while offset < len(data):
        payload = _record(data, offset, number, index)
        if payload is None:
            _judge_damage(data, offset, number, index, path)
            return
        yield offset, payload
        offset += RECORD_BYTES + len(payload)
        index += 1


def _record(data: bytes, offset: int, number: int, index: int) -> bytes | None:
    start = offset + RECORD_BYTES
    if start > len(data):
        return None
    length, named, found = RECORD.unpack_from(data, offset + 4)
    if named != number or found != index or start + length > len(data):
        return None
    if int.from_bytes(data[offset : offset + 4], "big") != crc32c(data[offset + 4 : start + length]):
        return None
    return data[start : start + length]


def _judge_damage(data: bytes, offset: int, number: int, index: int, path: str) -> None:
    """Each record is synced before the next one is written: any valid later record proves damage."""
    needle = number.to_bytes(4, "big")
    position = data.find(needle, offset + 9)
    while position != -1:
        start = position - 8
        if start + RECORD_BYTES <= len(data):
            later = RECORD.unpack_from(data, start + 4)[2]
            if later > index and _record(data, start, number, later) is not None:
                raise CorruptionError(
                    f"{path}: damaged at offset {offset}, where it had been synced", path=path, offset=offset
                )
        position = data.find(needle, position + 1)


class ManifestWriter:
    """Writes the manifest in use. One thread at a time. The first error is final: later edits may be queued behind the
    one that failed, and a record after a torn one would make the manifest unreadable."""

    def __init__(self, fs: FileSystem, *, bytes_max: int) -> None:
        self._fs = fs
        self._file: File | None = None
        self._bytes_max = bytes_max
        self._index = 0
        self.lost: BaseException | None = None
        self.place: tuple[int, int] = (0, 0)
        """Number of the manifest and its size, both of one moment: another thread may ask."""

    @property
    def number(self) -> int:
        return self.place[0]

    @property
    def size(self) -> int:
        return self.place[1]

    def start(self, version: Version, *, first: int = 1) -> None:
        """Begin a new manifest with `version` and make it the one in use. The one before is removed; where there was
        none, its number is `first`."""
        numbers = manifest_numbers(self._fs)
        number = max(numbers, default=first - 1) + 1
        records = [self._encode(number, index, edit) for index, edit in enumerate(_snapshot(version))]
        head = HEADER.pack(MAGIC, FORMAT_VERSION, len(records), number)
        content = [head + crc32c(head).to_bytes(4, "big"), *records]
        file = self._fs.create(manifest_name(number))
        file.append(b"".join(content))
        file.sync()
        self._fs.sync_dir("")
        replace_file(self._fs, CURRENT_PATH, f"{manifest_name(number)}\n".encode("ascii"))
        if self._file is not None:
            self._file.close()
        self._file = file
        self.place = (number, sum(map(len, content)))
        self._index = len(content) - 1
        for old in numbers:
            self._fs.unlink(manifest_name(old))

    def append(self, edit: VersionEdit, version: Version) -> None:
        """Make `edit`, which leads to `version`, durable. After an error: the same error, and nothing is written."""
        if self.lost is not None:
            raise self.lost
        try:
            self._append(edit, version)
        except BaseException as error:
            self.lost = error
            raise

    def _append(self, edit: VersionEdit, version: Version) -> None:
        assert self._file is not None
        if self.size >= self._bytes_max:
            self.start(version)
            return
        record = self._encode(self.number, self._index, edit)
        self._file.append(record)
        self._file.sync()
        self.place = (self.number, self.size + len(record))
        self._index += 1

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    @staticmethod
    def _encode(number: int, index: int, edit: VersionEdit) -> bytes:
        payload = cbor.dumps(edit.to_plain())
        head = RECORD.pack(len(payload), number, index)
        return crc32c(payload, crc32c(head)).to_bytes(4, "big") + head + payload


def _snapshot(version: Version) -> Iterator[VersionEdit]:
    """Edits of bounded size that lead from the empty version to this one."""
    whole = version.snapshot()
    first = VersionEdit(
        created_trees=whole.created_trees,
        flushed_lsn=whole.flushed_lsn,
        next_file_number=whole.next_file_number,
        boot=whole.boot,
        lost=whole.lost,
    )
    yield first
    values = {meta.file_number: meta for meta in whole.values}
    part: list[TableMeta] = []
    items = 0
    for meta in whole.added:
        part.append(meta)
        items += _TABLE_ITEMS + _REFERENCE_ITEMS * len(meta.references)
        if len(part) == _TABLES_PER_RECORD or items >= _ITEMS_PER_RECORD:
            yield _tables_record(part, values)
            part, items = [], 0
    if part:
        yield _tables_record(part, values)


def _tables_record(tables: list[TableMeta], values: dict[int, ValueMeta]) -> VersionEdit:
    """These tables, with the value files they are the first to refer to, which are taken out of `values`."""
    numbers = {number for meta in tables for number, _ in meta.references}
    first = [values.pop(number) for number in sorted(numbers) if number in values]
    return VersionEdit(added=tuple(tables), values=tuple(first))
