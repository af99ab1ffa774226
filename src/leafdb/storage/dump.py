"""Files of a store as lines that a person or a program can read: one file, no store, no lock, nothing written.

Each reader is a generator of `Dumped` and holds one frame, block, value or record at a time. It gives what is sound and
says where it is not. A damaged block of a table and a damaged value are passed over; a log and a manifest end at the
first damage, for nothing after it can be trusted to be the next. UnknownFormat is raised: another build can read that
file. OSError is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from leafdb.codec import cbor
from leafdb.errors import CorruptionError
from leafdb.storage.block_cache import BlockCache
from leafdb.storage.manifest import HEADER_BYTES, RECORD_BYTES, open_manifest, record_at
from leafdb.storage.sstable_format import meta_of_file
from leafdb.storage.sstable_reader import TableReader
from leafdb.storage.value_files import Place
from leafdb.storage.value_format import (
    FOOTER_BYTES,
    VALUE_HEAD,
    VALUE_OVERHEAD_BYTES,
    meta_of_value_file,
    open_value,
)
from leafdb.storage.value_format import HEADER_BYTES as HEADER_BYTES_OF_VALUES
from leafdb.storage.version import TableMeta, VersionEdit
from leafdb.storage.wal_stream import SegmentStream
from leafdb.types import TreeId
from leafdb.vfs.base import File


class What(StrEnum):
    """What a line is about."""

    HEADER = "header"
    ENTRY = "entry"
    EDIT = "edit"
    DAMAGE = "damage"
    END = "end"


@dataclass(frozen=True, slots=True)
class Dumped:
    """One line. The tree and the key are those of an entry, its value None where it deletes, a place where it lies in a
    value file."""

    what: What
    offset: int
    fields: dict[str, Any]
    tree_id: TreeId | None = None
    key: bytes = b""
    value: bytes | Place | None = None


def dump_wal(file: File, path: str) -> Iterator[Dumped]:
    """A log segment: its header, then every entry of every write."""
    entries = 0
    try:
        stream = SegmentStream(file, path)
    except CorruptionError as error:
        yield _damage(error)
        yield _end(0, file.size(), entries=0)
        return
    header = stream.header
    yield Dumped(
        What.HEADER, 0, {"format": header.version, "segment": header.number, "first_sequence": header.first_lsn}
    )
    try:
        for offset, _, writes in stream.frames():
            for sequence, write, mark in writes:
                for tree_id, key, value in write:
                    entries += 1
                    fields: dict[str, Any] = {"sequence": sequence}
                    if mark:
                        fields["mark"] = mark.hex()
                    yield Dumped(What.ENTRY, offset, fields, tree_id, key, value)
    except CorruptionError as error:
        yield _damage(error)
    yield _end(stream.end, stream.size, entries=entries, next_sequence=stream.next_lsn)


def dump_sstable(file: File, path: str) -> Iterator[Dumped]:
    """A table: what it says of itself, then every entry of every sound block."""
    try:
        meta = meta_of_file(file, path)
        reader = TableReader(meta, file, BlockCache(0))
    except CorruptionError as error:
        yield _damage(error)
        yield _end(0, file.size(), entries=0)
        return
    yield Dumped(What.HEADER, 0, table_fields(meta))
    entries = lost_bytes = 0
    for offset, size, found in reader.blocks():
        if isinstance(found, CorruptionError):
            lost_bytes += size
            yield _damage(found)
            continue
        for key, sequence, value in zip(*found, strict=True):
            entries += 1
            fields: dict[str, Any] = {"sequence": sequence}
            if isinstance(value, Place):
                fields |= {"value_file": value.file_number, "value_offset": value.offset, "stored_bytes": value.size}
            yield Dumped(What.ENTRY, offset, fields, meta.tree_id, key, value)
    yield _end(meta.size - lost_bytes, meta.size, entries=entries)


def dump_values(file: File, path: str) -> Iterator[Dumped]:
    """A value file: what it says of itself, then every sound value, those included that no table refers to any more.

    A damaged value is passed over by its length; where that cannot be right, what follows cannot be found.
    """
    try:
        meta = meta_of_value_file(file, path)
    except CorruptionError as error:
        yield _damage(error)
        yield _end(0, file.size(), entries=0)
        return
    header = {"value_file": meta.file_number, "tree": int(meta.tree_id), "bytes": meta.size, "entries": meta.count}
    yield Dumped(What.HEADER, 0, header)
    offset, end = HEADER_BYTES_OF_VALUES, meta.size - FOOTER_BYTES
    entries = lost_bytes = 0
    while offset < end:
        lengths = VALUE_HEAD.unpack(file.read_at(offset, VALUE_HEAD.size))
        size = VALUE_OVERHEAD_BYTES + sum(lengths)
        if offset + size > end:
            yield _damage(CorruptionError(f"{path} at {offset}: a value beyond the end", path=path, offset=offset))
            lost_bytes += end - offset
            break
        try:
            key, value = open_value(file.read_at(offset, size), None, meta, offset)
        except CorruptionError as error:
            lost_bytes += size
            yield _damage(error)
        else:
            entries += 1
            yield Dumped(What.ENTRY, offset, {"stored_bytes": size}, meta.tree_id, key, value)
        offset += size
    yield _end(meta.size - lost_bytes, meta.size, entries=entries)


def dump_manifest(file: File, path: str) -> Iterator[Dumped]:
    """A manifest: its header, then every edit."""
    size, offset, index = file.size(), HEADER_BYTES, 0
    try:
        number, at_start = open_manifest(file, path)
    except CorruptionError as error:
        yield _damage(error)
        yield _end(0, size, edits=0)
        return
    yield Dumped(What.HEADER, 0, {"manifest": number, "records_at_start": at_start})
    while offset < size:
        payload = record_at(file, offset, number, index)
        if payload is None:
            yield _damage(CorruptionError(f"{path}: no sound record at {offset}", path=path, offset=offset))
            break
        try:
            edit = VersionEdit.from_plain(cbor.loads(payload))
        except ValueError as error:
            yield _damage(CorruptionError(f"{path}: record at {offset}: {error}", path=path, offset=offset))
            break
        yield Dumped(What.EDIT, offset, {"edit": index, **edit_fields(edit)})
        offset += RECORD_BYTES + len(payload)
        index += 1
    yield _end(offset, size, edits=index)


def edit_fields(edit: VersionEdit) -> dict[str, Any]:
    """What an edit says, and nothing of what it does not."""
    plain = edit.to_plain()
    if edit.added:
        plain["added"] = [table_fields(meta) for meta in edit.added]
    return plain


def table_fields(meta: TableMeta) -> dict[str, Any]:
    """What is known of a table. Its keys are bytes here."""
    return {
        "table": meta.file_number,
        "tree": int(meta.tree_id),
        "level": meta.level,
        "bytes": meta.size,
        "entries": meta.entries,
        "tombstones": meta.tombstones,
        "sequence_min": meta.sequence_min,
        "sequence_max": meta.sequence_max,
        "smallest": meta.smallest,
        "largest": meta.largest,
    }


def _damage(error: CorruptionError) -> Dumped:
    return Dumped(What.DAMAGE, error.offset, {"problem": error.message})


def _end(sound_bytes: int, total_bytes: int, **counts: int) -> Dumped:
    return Dumped(What.END, total_bytes, {"sound_bytes": sound_bytes, "bytes": total_bytes, **counts})
