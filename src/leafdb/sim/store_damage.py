"""What is done to the bytes of a store's files: one place of one file, and what it comes to.

That is which keys may have lain there, and how many writes the store still has to know. Two kinds of damage cannot be
told from a torn write, by any store of this design: damage to the end of the log, behind what a later frame knows to
have been synced, and damage to the last record of the manifest. The first makes the store come back to an earlier
prefix, which is allowed down to what is proven (`store_log`); the second to an earlier set of tables, which is allowed
as far as trees that were made or dropped last are concerned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from leafdb.sim.store_log import Place, frame_edge, proven_writes
from leafdb.storage.block_cache import BlockCache
from leafdb.storage.lost_ranges import Range, coarsened
from leafdb.storage.manifest import current_manifest, read_manifest
from leafdb.storage.sstable_reader import TableReader
from leafdb.storage.value_files import ValueMeta
from leafdb.storage.value_reader import OpenFiles, ValueReader
from leafdb.storage.version import TableMeta, Version
from leafdb.storage.wal import segment_numbers, segment_path
from leafdb.vfs.base import parent_of, read_file
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
    ranges: tuple[Range, ...] | None = None
    """Of a table or value file: where the keys of what was damaged lie; None: it cannot be opened."""

    @property
    def heals(self) -> bool:
        """Whether the store mends it by itself, but for what is lost."""
        return self.path.startswith(("tables/", "values/"))

    @property
    def refusable(self) -> bool:
        """Whether it may keep the store from starting; what heals does not, and what is no part of what is served."""
        return not self.heals and not self.path.startswith(("snapshots/", "quarantine/"))

    def __str__(self) -> str:
        return f"{self.kind} in {self.path} at {self.offset}"


def anywhere(disk: MemoryFileSystem, rng: Random) -> Place:
    """Any file that has bytes, whole."""
    path = rng.choice([path for path in store_files(disk) if read_file(disk, path)])
    return path, range(len(read_file(disk, path)))


def store_files(disk: MemoryFileSystem) -> list[str]:
    """The files of a store, each as often as it is worth being damaged."""
    paths = [name for name in disk.list("") if "." not in name and name != "LOCK" and not disk.is_directory(name)]
    directories = ("wal", "tables", "tables", "values")
    paths += [f"{directory}/{name}" for directory in directories for name in disk.list(directory)]
    return paths + [segment_path(number) for number in segment_numbers(disk)[-1:] for _ in range(3)]


def harm(
    disk: MemoryFileSystem, place: Place, others: Sequence[str], rng: Random, *, kind: str, written: int
) -> Damage:
    """Damage the file at one of the bytes of `place`; what is misdirected to it was meant for one of the others.

    `written` is how many writes the store must have, were it sound."""
    path, within = place
    data = read_file(disk, path)
    at = rng.choice(within)
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
            at = frame_edge(data, int(path[-14:-4]), at)
        file.truncate(at)
    file.close()
    return damage_seen(disk, kind, path, at, data, written)


def damage_seen(disk: MemoryFileSystem, kind: str, path: str, at: int, before: bytes, written: int) -> Damage:
    """What it comes to that a file, which held `before`, is as it is now."""
    proven = written
    if path.startswith("wal/"):
        proven = min(written, proven_writes(disk, path, before))
    return Damage(kind, path, at, proven, _damaged_ranges(disk, path, before))


def version_on(disk: MemoryFileSystem) -> Version:
    """What the manifest in use says."""
    number = current_manifest(disk)
    assert number is not None, "a store with tables and no manifest"
    return read_manifest(disk, number)


def _damaged_ranges(disk: MemoryFileSystem, path: str, before: bytes) -> tuple[Range, ...] | None:
    """Where the keys lie of those parts of a table or value file that differ from `before`, those that touch as one."""
    if not path.startswith(("tables/", "values/")):
        return None
    after = read_file(disk, path) if disk.exists(path) else b""
    version = version_on(disk)
    files: list[TableMeta | ValueMeta] = [*version.tables.values(), *version.values.metas.values()]
    metas = [meta for meta in files if meta.path == path]
    if not metas:
        return ()
    if len(after) != len(before):
        return None
    differs = [at for at, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    parts = parts_of(metas[0], before)
    if differs and (differs[0] < parts[0][0] or differs[-1] >= sum(parts[-1][:2])):
        return None
    return coarsened(keys for start, size, keys in parts if any(start <= at < start + size for at in differs))


def parts_of(meta: TableMeta | ValueMeta, content: bytes) -> list[tuple[int, int, Range]]:
    """Offset, size and range of keys of each block of a table, or of each value of a value file, given its bytes."""
    disk = MemoryFileSystem()
    disk.mkdir(parent_of(meta.path))
    disk.create(meta.path).append(content)
    if isinstance(meta, ValueMeta):
        frames = ValueReader(disk, meta, OpenFiles(0)).frames()
        return [(place.offset, place.size, (key, key)) for key, place, _ in frames]
    places, bounds = TableReader.open(disk, meta, BlockCache(0)).places()
    return [(*place, (bounds[at], bounds[at + 1])) for at, place in enumerate(places)]
