"""The parts of a value file that writer and reader must agree on: header, sealed values, footer.

A file is header, values, footer, in this order and without gaps (docs/formats/values.md). A value is stored with its
key, so that the file can be read without the tables that refer to it, and its checksum covers the file's number and its
offset as well: a place that points at another value, or at the bytes of another file, is damage and not a wrong answer.

All numbers here are persisted and never change meaning.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from leafdb.codec.checksum import crc32c
from leafdb.codec.compression import compress, decompress
from leafdb.errors import CorruptionError, UnknownFormat
from leafdb.limits import BLOCK_PAYLOAD_BYTES_MAX
from leafdb.storage.value_files import FILE_OVERHEAD_BYTES, ValueMeta
from leafdb.types import TreeId
from leafdb.vfs.base import File

FORMAT_VERSION: Final = 1
MAGIC: Final = b"LEAFVAL\n"

_HEADER: Final = Struct("<8sHHQQ")
"""Magic, format version, size of the header, file number, tree; a crc32c of these follows."""
_FOOTER: Final = Struct("<QQHH")
"""Count of values, offset of the footer, size of the footer, format version."""
_END: Final = Struct("<I8s")
HEADER_BYTES: Final = _HEADER.size + 4
FOOTER_BYTES: Final = _FOOTER.size + _END.size
assert HEADER_BYTES + FOOTER_BYTES == FILE_OVERHEAD_BYTES

_SALT: Final = Struct("<QQ")
VALUE_HEAD: Final = Struct("<II")
"""Length of the key, and of the stored value."""
_MARK: Final = 0x50
_LZ4: Final = 1
_SEAL: Final = Struct("<BI")
VALUE_OVERHEAD_BYTES: Final = VALUE_HEAD.size + _SEAL.size


def encode_header(file_number: int, tree_id: int) -> bytes:
    head = _HEADER.pack(MAGIC, FORMAT_VERSION, HEADER_BYTES, file_number, tree_id)
    return head + crc32c(head).to_bytes(4, "little")


def encode_footer(count: int, offset: int) -> bytes:
    head = _FOOTER.pack(count, offset, FOOTER_BYTES, FORMAT_VERSION)
    return head + _END.pack(crc32c(head), MAGIC)


def check_header(head: bytes, meta: ValueMeta) -> None:
    """Raises unless `head`, the first HEADER_BYTES, begins this file; UnknownFormat only when it is undamaged."""
    if len(head) != HEADER_BYTES or int.from_bytes(head[-4:], "little") != crc32c(head[:-4]):
        raise corruption(meta, 0, "damaged header")
    magic, version, size, number, tree_id = _HEADER.unpack_from(head)
    if magic != MAGIC:
        raise corruption(meta, 0, "not a leafdb value file")
    if version != FORMAT_VERSION or size != HEADER_BYTES:
        known = f"this build knows {FORMAT_VERSION}"
        raise UnknownFormat(f"{meta.path} is of value format {version}, {known}", path=meta.path)
    if (number, tree_id) != (meta.file_number, meta.tree_id):
        raise corruption(meta, 0, f"the header of file {number} of tree {tree_id}")


def check_footer(tail: bytes, meta: ValueMeta) -> None:
    """CorruptionError unless `tail` ends this file as the manifest describes it."""
    if tail != encode_footer(meta.count, meta.size - FOOTER_BYTES):
        raise corruption(meta, meta.size - FOOTER_BYTES, "not the footer of this file")


def meta_of_value_file(file: File, path: str) -> ValueMeta:
    """What a value file says of itself, for one of which nothing else is known. CorruptionError, UnknownFormat."""
    size = file.size()
    head = file.read_at(0, HEADER_BYTES)
    tail = file.read_at(max(0, size - FOOTER_BYTES), FOOTER_BYTES)
    if len(head) < HEADER_BYTES or size < HEADER_BYTES + FOOTER_BYTES:
        raise CorruptionError(f"{path} at 0: too short for a value file", path=path, offset=0)
    *_, number, tree_id = _HEADER.unpack_from(head)
    meta = ValueMeta(number, TreeId(tree_id), size, _FOOTER.unpack_from(tail)[0])
    try:
        check_header(head, meta)
        check_footer(tail, meta)
    except (CorruptionError, UnknownFormat) as error:
        error.path, error.message = path, error.message.replace(meta.path, path)
        raise
    return meta


def seal_value(key: bytes, value: bytes, file_number: int, offset: int) -> bytes:
    """The value as it is written at `offset`: compressed where that saves an eighth, behind its key, and sealed."""
    body, mark = value, _MARK
    if len(value) <= BLOCK_PAYLOAD_BYTES_MAX:  # a reader decompresses nothing beyond it
        packed = compress(value)
        if len(packed) <= len(value) - len(value) // 8:
            body, mark = packed, _MARK | _LZ4
    head = VALUE_HEAD.pack(len(key), len(body)) + key
    crc = crc32c(bytes((mark,)), crc32c(body, crc32c(head, crc32c(_SALT.pack(file_number, offset)))))
    return b"".join((head, body, _SEAL.pack(mark, crc)))


def open_value(sealed: bytes, key: bytes | None, meta: ValueMeta, offset: int) -> tuple[bytes, bytes]:
    """Key and value of what is sealed at `offset`; CorruptionError when it is not that, or of another key than `key`.

    A key of None: whatever it is.
    """
    if len(sealed) < VALUE_OVERHEAD_BYTES:
        raise corruption(meta, offset, "too short for a value")
    mark, crc = _SEAL.unpack_from(sealed, len(sealed) - _SEAL.size)
    if crc != crc32c(sealed[:-4], crc32c(_SALT.pack(meta.file_number, offset))):
        raise corruption(meta, offset, "checksum mismatch")
    key_bytes, body_bytes = VALUE_HEAD.unpack_from(sealed)
    if VALUE_OVERHEAD_BYTES + key_bytes + body_bytes != len(sealed) or mark & ~_LZ4 != _MARK:
        raise corruption(meta, offset, "not a value")
    start = VALUE_HEAD.size + key_bytes
    found = sealed[VALUE_HEAD.size : start]
    if key is not None and found != key:
        raise corruption(meta, offset, "the value of another key")
    body = sealed[start : -_SEAL.size]
    if not mark & _LZ4:
        return found, body
    try:
        return found, decompress(body, BLOCK_PAYLOAD_BYTES_MAX)
    except ValueError as error:
        raise corruption(meta, offset, str(error)) from error


def corruption(meta: ValueMeta, offset: int, what: str) -> CorruptionError:
    """The error for damage in a value file, with the place named."""
    return CorruptionError(f"{meta.path} at {offset}: {what}", path=meta.path, offset=offset)
