"""The log gives back what was written, accepts a torn tail where one may be, and names every other damage."""

from __future__ import annotations

import pytest

from leafdb.codec.checksum import crc32c
from leafdb.errors import CorruptionError, UnknownFormat
from leafdb.storage import wal_format
from leafdb.storage.wal import SegmentScan, WalWriter, read_segment, segment_numbers, segment_path
from leafdb.storage.wal_format import CONTINUES, DELETION, ENTRY
from leafdb.types import TreeId
from leafdb.vfs.base import read_file
from leafdb.vfs.memory import MemoryFileSystem

TREE = TreeId(7)


def entry(key: bytes, value: bytes | None, *, more: bool = False) -> list[bytes]:
    flags = (DELETION if value is None else 0) | (CONTINUES if more else 0)
    return [ENTRY.pack(flags, TREE, len(key), len(value or b"")), key, value or b""]


def log() -> tuple[MemoryFileSystem, WalWriter]:
    fs = MemoryFileSystem()
    fs.mkdir("wal")
    writer = WalWriter(fs)
    writer.start_segment(1, 1)
    return fs, writer


def damage(fs: MemoryFileSystem, path: str, offset: int) -> None:
    fs.flip(path, offset, 0x40)


def test_writes_come_back_in_order_with_their_sequence_numbers() -> None:
    fs, writer = log()
    writer.append(1, 2, entry(b"a", b"1") + entry(b"b", None))
    writer.append(3, 1, entry(b"c", b"3", more=True) + entry(b"d", b"", more=True) + entry(b"e", None))
    writer.seal()
    assert list(read_segment(fs, segment_path(1))) == [
        (1, [(TREE, b"a", b"1")]),
        (2, [(TREE, b"b", None)]),
        (3, [(TREE, b"c", b"3"), (TREE, b"d", b""), (TREE, b"e", None)]),
    ]
    assert segment_numbers(fs) == [1]


def test_a_tail_torn_at_any_byte_is_cut_where_the_good_bytes_end() -> None:
    fs, writer = log()
    writer.append(1, 1, entry(b"a", b"1"))
    good = writer.size
    writer.append(2, 1, entry(b"b", b"2"))
    whole = read_file(fs, segment_path(1))
    for size in range(good, len(whole)):
        torn = MemoryFileSystem()
        torn.mkdir("wal")
        file = torn.create(segment_path(1))
        file.append(whole[:size])
        scan = SegmentScan(torn, segment_path(1), last=True)
        assert [lsn for lsn, _, _ in scan.writes()] == [1]
        assert (scan.end, scan.torn_bytes) == (good, size - good)
        if size > good:
            with pytest.raises(CorruptionError, match=f"damaged at offset {good}, and later segments exist"):
                list(read_segment(torn, segment_path(1)))


@pytest.mark.parametrize("offset_in_frame", [0, 5, 8, 10, 15, 30, wal_format.FRAME_BYTES, wal_format.FRAME_BYTES + 12])
def test_damage_that_a_later_frame_proves_synced_is_no_torn_tail(offset_in_frame: int) -> None:
    fs, writer = log()
    start = writer.size
    writer.append(1, 1, entry(b"a", b"1"))
    writer.sync()
    writer.append(2, 1, entry(b"b", b"2"))
    damage(fs, segment_path(1), start + offset_in_frame)
    with pytest.raises(CorruptionError, match="had been synced") as caught:
        list(read_segment(fs, segment_path(1), last=True))
    assert caught.value.path == segment_path(1)
    assert caught.value.offset == start


def test_an_unsynced_write_that_overtook_another_proves_nothing() -> None:
    fs, writer = log()
    writer.append(1, 1, entry(b"a", b"1"))
    writer.sync()
    second = writer.size
    writer.append(2, 1, entry(b"b", b"2"))
    writer.append(3, 1, entry(b"c", b"3"))
    damage(fs, segment_path(1), second + 6)
    scan = SegmentScan(fs, segment_path(1), last=True)
    assert [lsn for lsn, _, _ in scan.writes()] == [1]
    assert scan.end == second


def test_a_clean_shutdown_proves_the_last_frame() -> None:
    fs, writer = log()
    writer.append(1, 1, entry(b"a", b"1"))
    writer.sync()
    damage(fs, segment_path(1), writer.size - 1)
    assert list(read_segment(fs, segment_path(1), last=True)) == []
    with pytest.raises(CorruptionError, match="had been synced"):
        list(SegmentScan(fs, segment_path(1), last=True, synced_upto=writer.size).writes())
    file = fs.open_append(segment_path(1))
    file.truncate(wal_format.HEADER_BYTES)
    with pytest.raises(CorruptionError, match="had been synced"):
        list(SegmentScan(fs, segment_path(1), last=True, synced_upto=writer.size).writes())


def test_a_gap_in_the_sequence_is_damage_even_in_the_last_segment() -> None:
    fs, writer = log()
    writer.append(1, 1, entry(b"a", b"1"))
    writer.append(3, 1, entry(b"c", b"3"))
    with pytest.raises(CorruptionError, match="sequence 3 at offset"):
        list(read_segment(fs, segment_path(1), last=True))


def test_frames_of_another_segment_are_not_ours() -> None:
    fs, writer = log()
    writer.append(1, 1, entry(b"a", b"1"))
    writer.seal()
    ghost = wal_format.encode_frame(9, 2, 1, 0, b"".join(entry(b"ghost", b"9")))
    fs.open_append(segment_path(1)).append(ghost)
    assert [lsn for lsn, _ in read_segment(fs, segment_path(1), last=True)] == [1]


def test_headers_are_judged() -> None:
    fs, writer = log()
    writer.seal()
    header = read_file(fs, segment_path(1))
    fs.link(segment_path(1), segment_path(2))
    with pytest.raises(CorruptionError, match="is segment 1"):
        SegmentScan(fs, segment_path(2))
    damage(fs, segment_path(1), 3)
    with pytest.raises(CorruptionError, match="damaged segment header"):
        SegmentScan(fs, segment_path(1))
    head = wal_format.HEADER.pack(wal_format.MAGIC, 99, 0, 1, 1, 0)
    with pytest.raises(UnknownFormat, match="format 99"):
        wal_format.decode_header(head + crc32c(head).to_bytes(4, "big"), "x")
    with pytest.raises(CorruptionError):
        wal_format.decode_header(header[:-1], "x")


def test_a_frame_whose_inside_does_not_add_up_is_damage() -> None:
    fs, writer = log()
    writer.append(1, 2, entry(b"a", b"1"))
    with pytest.raises(CorruptionError, match="malformed frame"):
        list(read_segment(fs, segment_path(1), last=True))
    for payload in (entry(b"a", b"1", more=True), [b"\0\0"], [ENTRY.pack(0, 7, 50, 50)]):
        fs, writer = log()
        writer.append(1, 1, payload)
        with pytest.raises(CorruptionError, match="malformed frame"):
            list(read_segment(fs, segment_path(1), last=True))
