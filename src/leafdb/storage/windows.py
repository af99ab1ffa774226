"""Trees that are kept by time: which they are, what their owner has forgotten, what was dropped whole.

The owner tells which trees these are, when it knows: after the store was opened, since it reads that in the store. A
store whose owner will tell merges nothing before: windows would be merged down that are to stay.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from leafdb.storage.compaction_picker import PickerLimits, pick
from leafdb.storage.forgotten import Forgotten
from leafdb.storage.jobs import CompactionJob
from leafdb.storage.version import TableMeta, Version
from leafdb.storage.window_picker import dead_tables
from leafdb.types import TreeId


class Windows:
    """Of one engine."""

    __slots__ = ("_limits", "_trees", "dropped_bytes", "dropped_tables", "expiry", "forgotten", "merged")

    def __init__(self, limits: PickerLimits, expiry: str) -> None:
        self._limits = limits
        self._trees: frozenset[TreeId] | None = None if expiry else frozenset()
        self.expiry: str = expiry
        """The name of the filter that tells when a value expires (`expiry`); empty: no tree is kept by time."""
        self.forgotten: Forgotten = Forgotten()
        self.merged: int = 0
        """Compactions that made one window of several."""
        self.dropped_tables: int = 0
        self.dropped_bytes: int = 0
        """Of what was dropped whole: tables, and values that they referred to."""

    @property
    def trees(self) -> frozenset[TreeId]:
        """Those that are kept by time, as far as that was told."""
        return self._trees or frozenset()

    def keep(self, trees: Collection[TreeId]) -> None:
        """These are kept by time, and no others."""
        self._trees = frozenset(trees)

    def level0_tables(self, version: Version) -> int:
        """The most tables on level 0 that any tree has; of one that is kept by time, or may be, without its windows."""
        most = 0
        room = max(0, self._limits.window_tables - self._limits.level0_tables)
        for number, tree in version.trees.items():
            by_time = self._trees is None or number in self._trees
            most = max(most, len(tree.levels[0]) - (room if by_time else 0))
        return most

    def dead(self, version: Version, busy: Collection[int]) -> list[TableMeta]:
        """The tables to be dropped whole."""
        self.forgotten.flushed(version.flushed_lsn)
        trees = [version.trees[number] for number in sorted(self.trees) if number in version.trees]
        return [meta for tree in trees for meta in dead_tables(tree, busy, self.forgotten)]

    def dropped(self, tables: Collection[TableMeta]) -> None:
        """These were."""
        self.dropped_tables += len(tables)
        self.dropped_bytes += sum(meta.size + meta.value_bytes for meta in tables)

    def pick(self, version: Version, busy: Collection[int]) -> CompactionJob | None:
        """The compaction that is due."""
        if self._trees is None:
            return None
        return pick(version, busy, self._limits, self._trees, self.forgotten)

    def with_forgotten(self, job: CompactionJob) -> CompactionJob:
        """The job, which is told what was forgotten of its tree, if that is kept by time."""
        if job.tree_id not in self.trees:
            return job
        smallest, largest = min(meta.smallest for meta in job.inputs), max(meta.largest for meta in job.inputs)
        return replace(job, forgotten=self.forgotten.within(smallest, largest), expiry=self.expiry)

    def check(self) -> None:
        self.forgotten.check()
