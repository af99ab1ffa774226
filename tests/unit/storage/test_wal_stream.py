"""A segment read by windows gives what it gives when it is read whole, and says where it stops being sound."""

from __future__ import annotations

from random import Random

import pytest

from leafdb.errors import CorruptionError
from leafdb.storage.wal import SegmentScan, WalWriter, segment_path
from leafdb.storage.wal_format import ENTRY
from leafdb.storage.wal_stream import SegmentStream, Write
from leafdb.vfs.memory import MemoryFileSystem
from support.tables import TREE, store

SIZES = (10, 200_000, 70_000, 300_000, 5, 1_000_000, 10, 262_144, 1)
"""Of values; the window is 256 KiB."""


def segment() -> tuple[MemoryFileSystem, str]:
    fs, rng = store(), Random(1)
    writer = WalWriter(fs)
    writer.start_segment(1, 5)
    for lsn, size in enumerate(SIZES, 5):
        writer.append(lsn, 1, [ENTRY.pack(0, TREE, 3, size), b"key", rng.randbytes(size)])
        if lsn % 2:
            writer.sync()
    writer.seal()
    return fs, segment_path(1)


def streamed(fs: MemoryFileSystem, path: str) -> tuple[list[Write], SegmentStream, CorruptionError | None]:
    found: list[Write] = []
    stream = SegmentStream(fs.open_read(path), path)
    try:
        for _, _, writes in stream.frames():
            found += writes
    except CorruptionError as error:
        return found, stream, error
    return found, stream, None


def test_frames_of_every_size_come_back() -> None:
    fs, path = segment()
    found, stream, error = streamed(fs, path)
    assert error is None
    assert found == list(SegmentScan(fs, path).writes())
    assert (stream.end, stream.next_lsn) == (stream.size, 5 + len(SIZES))


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.8, 0.999])
def test_a_flipped_byte_ends_it_before_its_frame(share: float) -> None:
    fs, path = segment()
    whole = list(SegmentScan(fs, path).writes())
    at = int(streamed(fs, path)[1].size * share)
    fs.flip(path, at)
    found, stream, error = streamed(fs, path)
    assert error is not None
    assert (error.path, error.offset) == (path, stream.end)
    assert stream.end <= at
    assert found == whole[: len(found)]
    assert len(found) == stream.next_lsn - 5 < len(whole)


def test_a_length_that_leads_beyond_the_file_is_damage() -> None:
    fs, path = segment()
    file = fs.open_append(path)
    file.write_at(32 + 4, b"\xff\xff\xff\xff")
    _, stream, error = streamed(fs, path)
    assert error is not None
    assert stream.end == 32
