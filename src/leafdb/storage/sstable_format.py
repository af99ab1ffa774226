"""The parts of a table file that writer and reader must agree on: sealed blocks, properties, footer.

A table is data blocks, filter, index, properties, footer, in this order and without gaps (docs/formats/sstable.md).
Every byte is under some checksum. A block's checksum also covers the file's number and the block's offset, so that a
block read from a wrong place, or written to one, is caught like a flipped bit.

All numbers here are persisted and never change meaning.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Any, Final

from leafdb.codec import cbor
from leafdb.codec.checksum import crc32c
from leafdb.codec.compression import compress, decompress
from leafdb.errors import CorruptionError, UnknownFormat
from leafdb.limits import BLOCK_PAYLOAD_BYTES_MAX
from leafdb.storage.value_files import references_to_plain
from leafdb.storage.version import TableMeta
from leafdb.types import TreeId
from leafdb.vfs.base import File

FORMAT_VERSION: Final = 1
FORMAT_WITH_PLACES: Final = 2
"""A table whose values lie in part in value files; as version 1 otherwise. Written only where there are such values."""
MAGIC: Final = b"LEAFSST\n"

_SALT: Final = Struct("<QQ")
_SEAL: Final = Struct("<BI")
SEAL_BYTES: Final = _SEAL.size
_RAW, _LZ4 = 0, 1
_FOOTER: Final = Struct("<QQIQIQI")
_VERSION: Final = Struct("<HH")
_END: Final = Struct("<I8s")
_TAIL_BYTES: Final = _VERSION.size + _END.size
"""The last bytes of a table, the same in every version: footer size, version, checksum of the footer, magic."""
FOOTER_BYTES: Final = _FOOTER.size + _TAIL_BYTES
FOOTER_READ_BYTES: Final = 1024
"""Footers of any version fit, so that an unknown one can be told from a damaged one."""
INDEX_VALUE: Final = Struct("<QI")
"""What the index holds of a data block: its offset, and its size with the seal."""


class BlockKind(IntEnum):
    """What a sealed block is; part of its seal, so that no block passes for one of another kind."""

    DATA = 0x10
    FILTER = 0x20
    INDEX = 0x30
    PROPERTIES = 0x40


def seal_block(payload: bytes, kind: BlockKind, file_number: int, offset: int) -> bytes:
    """The payload as it is written at `offset`: compressed where that saves an eighth, then kind and checksum."""
    body, coding = payload, _RAW
    compressible = kind is BlockKind.DATA or kind is BlockKind.INDEX
    # A reader decompresses nothing beyond the bound, so what is beyond stays as it is.
    if compressible and len(payload) <= BLOCK_PAYLOAD_BYTES_MAX:
        packed = compress(payload)
        if len(packed) <= len(payload) - len(payload) // 8:
            body, coding = packed, _LZ4
    mark = kind | coding
    crc = crc32c(bytes((mark,)), crc32c(body, crc32c(_SALT.pack(file_number, offset))))
    return body + _SEAL.pack(mark, crc)


def open_block(sealed: bytes, kind: BlockKind, meta: TableMeta, offset: int) -> bytes:
    """The payload of a sealed block; CorruptionError when it is not what was sealed there."""
    if len(sealed) <= SEAL_BYTES:
        raise corruption(meta, offset, "a block too short for its seal")
    body = sealed[:-SEAL_BYTES]
    mark, crc = _SEAL.unpack_from(sealed, len(body))
    if crc != crc32c(sealed[-SEAL_BYTES:][:1], crc32c(body, crc32c(_SALT.pack(meta.file_number, offset)))):
        raise corruption(meta, offset, "checksum mismatch")
    if mark & ~1 != kind:
        raise corruption(meta, offset, f"a block of kind {mark:#x} where {kind.name} was expected")
    if mark & 1 == _RAW:
        return body
    try:
        return decompress(body, BLOCK_PAYLOAD_BYTES_MAX)
    except ValueError as error:
        raise corruption(meta, offset, str(error)) from error


def corruption(meta: TableMeta, offset: int, what: str, cause: OSError | None = None) -> CorruptionError:
    """The error for damage in a table, with the place named.

    `cause` is for modules that can be compiled: what compiles them drops the `from` of a raise, and whether this is
    damage is judged by its cause (`lost_ranges.is_damage`)."""
    error = CorruptionError(f"{meta.path} at {offset}: {what}", path=meta.path, offset=offset)
    error.__cause__ = cause
    return error


@dataclass(frozen=True, slots=True)
class Footer:
    """Where the parts of a table are: (offset, size with seal) each."""

    file_number: int
    filter: tuple[int, int]
    index: tuple[int, int]
    properties: tuple[int, int]
    version: int = FORMAT_VERSION
    """FORMAT_VERSION, or FORMAT_WITH_PLACES for a table that refers to value files."""

    def encode(self) -> bytes:
        body = _FOOTER.pack(self.file_number, *self.filter, *self.index, *self.properties)
        head = body + _VERSION.pack(FOOTER_BYTES, self.version)
        return head + _END.pack(crc32c(head), MAGIC)

    @classmethod
    def decode(cls, tail: bytes, meta: TableMeta) -> Footer:
        """The footer at the end of `tail`, the last bytes of the file; UnknownFormat only when it is undamaged."""
        if len(tail) < _TAIL_BYTES:
            raise corruption(meta, 0, f"a table of {meta.size} bytes")
        size, version = _VERSION.unpack_from(tail, len(tail) - _TAIL_BYTES)
        crc, magic = _END.unpack_from(tail, len(tail) - _END.size)
        at = meta.size - min(size, len(tail))
        if magic != MAGIC:
            raise corruption(meta, at, "not a leafdb table")
        if not _TAIL_BYTES <= size <= len(tail) or crc != crc32c(tail[len(tail) - size : -_END.size]):
            raise corruption(meta, at, "footer checksum mismatch")
        if version not in (FORMAT_VERSION, FORMAT_WITH_PLACES):
            known = f"this build knows {FORMAT_VERSION} and {FORMAT_WITH_PLACES}"
            raise UnknownFormat(f"{meta.path} is of table format {version}, {known}", path=meta.path)
        if size != FOOTER_BYTES:
            raise corruption(meta, at, f"a footer of {size} bytes")
        number, *places = _FOOTER.unpack_from(tail, len(tail) - size)
        footer = cls(number, (places[0], places[1]), (places[2], places[3]), (places[4], places[5]), version)
        end = 0
        for offset, length in (footer.filter, footer.index, footer.properties, (at, size)):
            if offset < end:
                raise corruption(meta, at, "the parts of the table overlap")
            end = offset + length
        if footer.properties[0] + footer.properties[1] != at or number != meta.file_number:
            raise corruption(meta, at, f"the footer of table {number}")
        return footer

    def check_version(self, meta: TableMeta) -> None:
        """CorruptionError when the table refers to value files and its version says that it does not, or the reverse.
        Apart from `decode`: who has nothing but the file learns of its references after its footer."""
        if (self.version == FORMAT_WITH_PLACES) != bool(meta.references):
            said = f"a table of format {self.version} with references to {len(meta.references)} files"
            raise corruption(meta, meta.size - FOOTER_BYTES, said)


def encode_properties(meta: TableMeta) -> bytes:
    """What a table says of itself: enough to list it and to rebuild a manifest."""
    properties: dict[str, Any] = {
        "tree": meta.tree_id,
        "level": meta.level,
        "entries": meta.entries,
        "tombstones": meta.tombstones,
        "smallest": meta.smallest,
        "largest": meta.largest,
        "sequence_min": meta.sequence_min,
        "sequence_max": meta.sequence_max,
        "newest_expiry_ms": meta.newest_expiry_ms,
    }
    if meta.references:
        properties["values"] = references_to_plain(meta.references)
    return cbor.dumps(properties)


def meta_of_file(file: File, path: str) -> TableMeta:
    """What a table says of itself, for a file of which nothing else is known. CorruptionError, UnknownFormat."""
    size = file.size()
    tail = file.read_at(max(0, size - FOOTER_READ_BYTES), FOOTER_READ_BYTES)
    number = _SALT.unpack_from(tail, len(tail) - FOOTER_BYTES)[0] if len(tail) >= FOOTER_BYTES else 1
    meta = TableMeta(number, TreeId(0), 0, size, 1, b"", b"", 0, 0)
    try:
        offset, length = Footer.decode(tail, meta).properties
        payload = open_block(file.read_at(offset, length), BlockKind.PROPERTIES, meta, offset)
    except (CorruptionError, UnknownFormat) as error:
        error.path, error.message = path, error.message.replace(meta.path, path)
        raise
    try:
        found: Any = cbor.loads(payload)
        names = ("smallest", "largest", "sequence_min", "sequence_max", "tombstones", "newest_expiry_ms")
        values = [found["values"]] if "values" in found else []
        fields = [found[name] for name in names]
        return TableMeta.from_plain([number, found["tree"], found["level"], size, found["entries"], *fields, *values])
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptionError(f"{path} at {offset}: malformed properties: {error}", path=path, offset=offset) from error


def check_properties(payload: bytes, meta: TableMeta, offset: int) -> None:
    """CorruptionError when the table's own word and the manifest's differ. The level is where it was born, no more."""
    try:
        found: Any = cbor.loads(payload)
        wanted = cbor.loads(encode_properties(meta))
        differing = [name for name in wanted if name != "level" and found[name] != wanted[name]]
    except (ValueError, KeyError, TypeError) as error:
        raise corruption(meta, offset, f"malformed properties: {error}") from error
    if differing:
        raise corruption(meta, offset, f"properties {differing} are not those of the manifest")
