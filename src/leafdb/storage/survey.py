"""A store as a person wants to see it: every tree by level, what the log holds, what is being done. Of one moment."""

from __future__ import annotations

from dataclasses import dataclass

from leafdb.storage.block_cache import BlockCache
from leafdb.storage.committer import Committer
from leafdb.storage.compaction_picker import PickerLimits, debt_bytes
from leafdb.storage.maintenance import Compacting, Maintenance
from leafdb.storage.version import TreeVersion, Version
from leafdb.types import TreeId


@dataclass(frozen=True, slots=True)
class LevelShape:
    """The tables of one level of a tree."""

    level: int
    tables: int
    bytes: int
    entries: int
    tombstones: int


@dataclass(frozen=True, slots=True)
class TreeShape:
    """A tree, by those levels that hold something."""

    tree_id: TreeId
    levels: tuple[LevelShape, ...]

    @property
    def bytes(self) -> int:
        return sum(level.bytes for level in self.levels)


@dataclass(frozen=True, slots=True)
class Survey:
    """Beside `EngineStats`: what takes longer to gather, or is for people."""

    trees: tuple[TreeShape, ...]
    """The largest first."""
    wal_segments: int
    """The present one, and those that wait for their flush."""
    segment_bytes: int
    """Of the present one."""
    debt_bytes: int
    """Above the measure of their level: what compaction has to rewrite."""
    cache_hits: int
    cache_misses: int
    cache_bytes_max: int
    flushed_bytes: int
    compaction_bytes_read: int
    compaction_bytes_written: int
    compacting: Compacting | None


def survey(
    version: Version, committer: Committer, maintenance: Maintenance, cache: BlockCache, limits: PickerLimits
) -> Survey:
    shapes = (shape_of(tree) for tree in version.trees.values())
    return Survey(
        trees=tuple(sorted(shapes, key=lambda shape: (-shape.bytes, shape.tree_id))),
        wal_segments=1 + sum(len(memtable.segments) for memtable in maintenance.frozen),
        segment_bytes=committer.segment_bytes,
        debt_bytes=debt_bytes(version, limits, maintenance.windows.trees),
        cache_hits=cache.hits,
        cache_misses=cache.misses,
        cache_bytes_max=cache.bytes_max,
        flushed_bytes=maintenance.flushed_bytes,
        compaction_bytes_read=maintenance.compaction_bytes_read,
        compaction_bytes_written=maintenance.compaction_bytes_written,
        compacting=maintenance.compacting,
    )


def shape_of(tree: TreeVersion) -> TreeShape:
    levels = (
        LevelShape(
            level=level,
            tables=len(tables),
            bytes=sum(meta.size for meta in tables),
            entries=sum(meta.entries for meta in tables),
            tombstones=sum(meta.tombstones for meta in tables),
        )
        for level, tables in enumerate(tree.levels)
        if tables
    )
    return TreeShape(tree.tree_id, tuple(levels))
