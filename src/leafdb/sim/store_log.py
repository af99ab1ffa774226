"""Segments of a log, for who damages them: where frames end, and how much the last one proves to have been synced.

Damage below what a later frame knows to have been synced is never a torn tail. So a store must come back with all of
that, or refuse.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from leafdb.storage.wal import segment_numbers, segment_path
from leafdb.storage.wal_format import HEADER_BYTES, Frame, decode_frame
from leafdb.vfs.base import read_file
from leafdb.vfs.memory import MemoryFileSystem

Place = tuple[str, range]
"""A file, and which of its bytes."""


def _frames(data: bytes, number: int) -> Iterator[tuple[int, Frame]]:
    """Every good frame of segment `number`, with its offset."""
    offset = HEADER_BYTES
    while (frame := decode_frame(data, offset, number)) is not None:
        yield offset, frame
        offset = frame.stop


def frame_edge(data: bytes, number: int, at: int) -> int:
    """The end of the last frame that ends by `at`: segment `number` looks whole when it is cut there."""
    return max((frame.stop for _, frame in _frames(data, number) if frame.stop <= at), default=min(at, HEADER_BYTES))


def proven_writes(disk: MemoryFileSystem, path: str, before: bytes) -> int:
    """How many writes the frames that are left prove to have been synced, given the segment before its damage."""
    number = segment_numbers(disk)[-1]
    if path != segment_path(number):
        return 1 << 63  # a segment is synced before the next one is made
    after = read_file(disk, path)
    frames = list(_frames(before, number))
    left = [frame.synced_upto for at, frame in frames if after[at : frame.stop] == before[at : frame.stop]]
    synced_upto = max(left, default=0)
    return max((frame.first_lsn + frame.writes - 1 for _, frame in frames if frame.stop <= synced_upto), default=0)


def middle(disk: MemoryFileSystem, rng: Random) -> Place | None:
    """What the last segment proves of itself to have been synced."""
    numbers = segment_numbers(disk)
    if not numbers:
        return None
    path = segment_path(numbers[-1])
    synced_upto = max((frame.synced_upto for _, frame in _frames(read_file(disk, path), numbers[-1])), default=0)
    return (path, range(HEADER_BYTES, synced_upto)) if synced_upto > HEADER_BYTES else None


def unflushed(disk: MemoryFileSystem, rng: Random) -> Place | None:
    """A segment that is sealed, and whose writes are in no table yet."""
    places = [
        (path, range(HEADER_BYTES, len(read_file(disk, path)))) for path in map(segment_path, segment_numbers(disk))
    ]
    places = [(path, within) for path, within in places[:-1] if within]
    return rng.choice(places) if places else None
