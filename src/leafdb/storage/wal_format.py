"""Bytes of a WAL segment: header, frames, entries. Drawn in docs/formats/wal.md; numbers never change meaning.

A segment is a header and then frames. A frame is one group commit: the writes of one batch, with consecutive sequence
numbers (lsn). It says which segment it belongs to (a block left over from a recycled file is never taken for ours), its
first lsn (records are contiguous, so a hole shows), and up to which offset the segment was synced when the frame was
written. The last is how a lost record is told from a torn tail: a record below an offset that a later frame knows to be
synced cannot have been torn.

The first entry of a write may carry a mark: eight bytes that its writer wants back when the log is replayed, and that
mean nothing here.

Pure of I/O; `wal` reads and writes.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from leafdb.codec.checksum import crc32c
from leafdb.errors import CorruptionError, UnknownFormat
from leafdb.types import TreeId

WalEntry = tuple[TreeId, bytes, bytes | None]
"""Tree, key, value; None deletes."""

MAGIC: Final = b"leafwal\n"
FORMAT_VERSION: Final = 2
FORMATS_READ: Final = (1, FORMAT_VERSION)
"""Segments of version 1 have no marks."""
FRAME_BATCH: Final = 1

DELETION: Final = 1
CONTINUES: Final = 2
"""Flag of an entry: the next entry belongs to the same write."""
MARKED: Final = 4
"""Flag of the first entry of a write: a mark follows its value."""
MARK_BYTES: Final = 8

HEADER: Final = Struct(">8sHHIQI")
"""Magic, format version, zero, segment number, first lsn, zero; a crc32c of these follows."""
HEADER_BYTES: Final = HEADER.size + 4
FRAME: Final = Struct(">IBIQIQ")
"""Payload length, type, segment, first lsn, count of writes, synced offset; before it a crc32c of both."""
FRAME_BYTES: Final = 4 + FRAME.size
ENTRY: Final = Struct(">BIHI")
"""Flags, tree, key length, value length; key and value follow."""
_CRC: Final = Struct(">I")


class SegmentHeader(NamedTuple):
    number: int
    first_lsn: int
    version: int = FORMAT_VERSION


class Frame(NamedTuple):
    """A frame whose checksum held. `payload` lies at `start`..`stop` of the segment."""

    first_lsn: int
    writes: int
    synced_upto: int
    start: int
    stop: int


def encode_header(number: int, first_lsn: int) -> bytes:
    head = HEADER.pack(MAGIC, FORMAT_VERSION, 0, number, first_lsn, 0)
    return head + _CRC.pack(crc32c(head))


def decode_header(data: bytes, path: str) -> SegmentHeader:
    """The header of a segment; CorruptionError when it is damaged or cut short, UnknownFormat when it is newer."""
    head = data[: HEADER.size]
    if len(data) < HEADER_BYTES or _CRC.unpack_from(data, HEADER.size)[0] != crc32c(head):
        raise CorruptionError(f"{path}: damaged segment header", path=path, offset=0)
    magic, version, _, number, first_lsn, _ = HEADER.unpack(head)
    if magic != MAGIC:
        raise CorruptionError(f"{path}: not a WAL segment", path=path, offset=0)
    if version not in FORMATS_READ:
        raise UnknownFormat(f"{path}: WAL format {version}, this build knows {FORMAT_VERSION}", path=path)
    return SegmentHeader(number, first_lsn, version)


def is_unborn(data: bytes, segment: int) -> bool:
    """Whether these bytes may be a segment that was never synced: a header that power kept from the disk, and no frame
    that knows of a sync. One that is sound and another segment's is damage."""
    head = data[: HEADER.size]
    if len(data) >= HEADER_BYTES and _CRC.unpack_from(data, HEADER.size)[0] == crc32c(head):
        return False
    return proof_of_sync(data, 0, segment, 0) is None


def encode_frame(segment: int, first_lsn: int, count: int, synced_upto: int, payload: bytes) -> bytes:
    head = FRAME.pack(len(payload), FRAME_BATCH, segment, first_lsn, count, synced_upto)
    return b"".join((_CRC.pack(crc32c(payload, crc32c(head))), head, payload))


def decode_frame(data: bytes, offset: int, segment: int, base: int = 0) -> Frame | None:
    """The frame at `offset`, or None when there is no whole and undamaged frame of this segment.

    `base` is where in the segment `data` begins."""
    start = offset + FRAME_BYTES
    if start > len(data):
        return None
    length, kind, number, first_lsn, count, synced_upto = FRAME.unpack_from(data, offset + 4)
    stop = start + length
    if kind != FRAME_BATCH or number != segment or stop > len(data) or synced_upto > base + offset:
        return None
    if _CRC.unpack_from(data, offset)[0] != crc32c(data[offset + 4 : stop]):
        return None
    return Frame(first_lsn, count, synced_upto, start, stop)


def proof_of_sync(data: bytes, offset: int, segment: int, lsn: int) -> int | None:
    """Where a frame lies that proves the damaged bytes at `offset` to have been synced; None: there is no such frame.

    Damage leaves no length to trust, so the rest is searched for anything that is a valid later frame.
    """
    needle = bytes((FRAME_BATCH,)) + segment.to_bytes(4, "big")
    position = data.find(needle, offset + 8)
    while position != -1:
        frame = decode_frame(data, position - 8, segment)
        if frame is not None and frame.first_lsn >= lsn and frame.synced_upto > offset:
            return position - 8
        position = data.find(needle, position + 1)
    return None


def decode_writes(
    data: bytes, frame: Frame, path: str, version: int = FORMAT_VERSION
) -> list[tuple[int, list[WalEntry], bytes]]:
    """The writes of a frame: sequence number, entries, mark (empty: none). CorruptionError when its inside does not
    add up. `version` is that of the segment's header."""
    writes: list[tuple[int, list[WalEntry], bytes]] = []
    lsn = frame.first_lsn
    write: list[WalEntry] = []
    mark = b""
    first_flags = DELETION | CONTINUES if version == 1 else DELETION | CONTINUES | MARKED
    offset, stop = frame.start, frame.stop
    unpack, head_bytes = ENTRY.unpack_from, ENTRY.size
    while offset < stop:
        if offset + head_bytes > stop:
            break
        flags, tree, key_bytes, value_bytes = unpack(data, offset)
        key_start = offset + head_bytes
        value_start = key_start + key_bytes
        offset = value_start + value_bytes
        if offset > stop:
            break
        value = None if flags & DELETION else data[value_start:offset]
        if flags & ~CONTINUES & ~DELETION:
            if write or flags & ~first_flags or offset + MARK_BYTES > stop:
                break
            mark = data[offset : offset + MARK_BYTES]
            offset += MARK_BYTES
        write.append((TreeId(tree), data[key_start:value_start], value))
        if not flags & CONTINUES:
            writes.append((lsn, write, mark))
            lsn += 1
            write = []
            mark = b""
    if offset != stop or write or len(writes) != frame.writes:
        raise CorruptionError(f"{path}: malformed frame at {frame.start}", path=path, offset=frame.start)
    return writes
