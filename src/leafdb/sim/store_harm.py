"""Harm to one file of a store's disk, and what it comes to: where it is, and what the store still has to know.

Two kinds of damage cannot be told from a torn write, by any store of this design: damage to the end of the log, behind
what a later frame knows to have been synced, and damage to the last record of the manifest. The first makes the store
come back to an earlier prefix, which is allowed here down to what is proven; the second to an earlier set of tables,
which is allowed as far as trees that were made or dropped last are concerned.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

from leafdb.storage.block_cache import BlockCache
from leafdb.storage.lost_ranges import Range, coarsened
from leafdb.storage.manifest import current_manifest, read_manifest
from leafdb.storage.sstable_reader import TableReader
from leafdb.storage.wal import segment_numbers, segment_path
from leafdb.storage.wal_format import HEADER_BYTES, decode_frame
from leafdb.vfs.base import read_file
from leafdb.vfs.memory import MemoryFileSystem

SECTOR_BYTES: Final = 512
KINDS: Final = ("flip", "zeros", "misdirected", "cut", "swapped")


@dataclass(frozen=True, slots=True)
class Damage:
    """What was done to which file."""

    kind: str
    path: str
    offset: int
    proven: int
    """So many writes the store must come back with, or refuse."""
    blocks: tuple[Range, ...] | None = None
    """Of a table: where the keys of the damaged blocks lie; None: it cannot be opened."""

    def __str__(self) -> str:
        return f"{self.kind} in {self.path} at {self.offset}"


def harm_any(disk: MemoryFileSystem, rng: Random, written: int) -> Damage:
    """Harm any file of the store that has bytes."""
    paths = [name for name in disk.list("") if "." not in name and name != "LOCK" and not disk.is_directory(name)]
    directories = ("wal", "tables", "tables", "values")
    paths += [f"{directory}/{name}" for directory in directories for name in disk.list(directory)]
    paths += [segment_path(number) for number in segment_numbers(disk)[-1:] for _ in range(3)]
    path = rng.choice([path for path in paths if read_file(disk, path)])
    return harm(disk, path, paths, rng, written)


def harm(disk: MemoryFileSystem, path: str, others: list[str], rng: Random, written: int) -> Damage:
    """Damage the file, which has bytes; what is misdirected to it was meant for one of the others.

    `written` is how many writes the store must have, were it sound."""
    kind = rng.choice(KINDS)
    data = read_file(disk, path)
    at = rng.randrange(len(data))
    sector = at // SECTOR_BYTES * SECTOR_BYTES
    file = disk.open_append(path)
    if kind == "flip":
        disk.flip(path, at, 1 << rng.randrange(8))
    elif kind == "zeros":
        file.write_at(sector, bytes(len(data[sector : sector + SECTOR_BYTES])))
    elif kind == "misdirected":
        other = read_file(disk, rng.choice(others))
        file.write_at(sector, other[sector : sector + SECTOR_BYTES][: len(data) - sector])
    elif kind == "swapped":
        second = rng.randrange(len(data)) // SECTOR_BYTES * SECTOR_BYTES
        size = min(len(data) - sector, len(data) - second, SECTOR_BYTES)
        file.write_at(sector, data[second : second + size])
        file.write_at(second, data[sector : sector + size])
    else:
        if path.startswith("wal/") and rng.random() < 0.5:
            at = _edge(data, int(path[-14:-4]), at)
        file.truncate(at)
    file.close()
    return damage_seen(disk, kind, path, at, data, written)


def damage_seen(disk: MemoryFileSystem, kind: str, path: str, at: int, before: bytes, written: int) -> Damage:
    """What it comes to that a file, which held `before`, is as it is now."""
    proven = written
    if path.startswith("wal/"):
        proven = min(written, _proven(disk, path, before))
    return Damage(kind, path, at, proven, _damaged_blocks(disk, path, before))


def _damaged_blocks(disk: MemoryFileSystem, path: str, before: bytes) -> tuple[Range, ...] | None:
    """Where the keys lie of those blocks of a table that differ from `before`, those that touch as one."""
    after = read_file(disk, path)
    if not path.startswith("tables/") or len(after) != len(before):
        return None
    number = current_manifest(disk)
    assert number is not None, "a store with tables and no manifest"
    metas = [meta for meta in read_manifest(disk, number).tables.values() if meta.path == path]
    if not metas:
        return ()
    pristine = MemoryFileSystem()
    pristine.mkdir("tables")
    pristine.create(path).append(before)
    reader = TableReader.open(pristine, metas[0], BlockCache(0))
    differs = [at for at, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    places, bounds = reader.places()
    if differs and differs[-1] >= sum(places[-1]):
        return None
    bad = [at for at, (offset, size) in enumerate(places) if any(offset <= each < offset + size for each in differs)]
    return coarsened((bounds[at], bounds[at + 1]) for at in bad)


def _edge(data: bytes, number: int, at: int) -> int:
    """The end of the last frame that ends by `at`: segment `number` looks whole when it is cut there."""
    offset = min(at, HEADER_BYTES)
    while (frame := decode_frame(data, offset, number)) is not None and frame.stop <= at:
        offset = frame.stop
    return offset


def _proven(disk: MemoryFileSystem, path: str, before: bytes) -> int:
    """How many writes the frames that are left prove to have been synced, given the segment before its damage."""
    number = segment_numbers(disk)[-1]
    if path != segment_path(number):
        return 1 << 63  # a segment is synced before the next one is made
    after = read_file(disk, path)
    frames = []
    offset, synced_upto = HEADER_BYTES, 0
    while (frame := decode_frame(before, offset, number)) is not None:
        frames.append(frame)
        if after[offset : frame.stop] == before[offset : frame.stop]:
            synced_upto = max(synced_upto, frame.synced_upto)
        offset = frame.stop
    return max((frame.first_lsn + frame.writes - 1 for frame in frames if frame.stop <= synced_upto), default=0)
