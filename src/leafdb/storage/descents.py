"""Compaction on demand: trees brought down to their last level, one after another, one job at a time.

What the next job is `compaction_picker.descend` decides; here is which tree is on its way, how far it is, and who waits
for the end. `Maintenance` runs the jobs, in turns with those that are due by themselves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from leafdb.errors import StorageError
from leafdb.storage.compaction_picker import Descent, PickerLimits, descend, descent
from leafdb.storage.jobs import CompactionJob
from leafdb.storage.version import Version
from leafdb.types import TreeId


@dataclass(frozen=True, slots=True)
class Compacted:
    """How far it is, or how it ended."""

    running: bool
    trees: int
    """That are done."""
    trees_total: int
    tree_id: TreeId | None
    """The one that is on its way."""
    level: int
    last_level: int
    jobs: int
    bytes_read: int
    bytes_written: int
    skipped: int
    """Tables left where they are, because something there is damaged."""


CompactDone = Callable[[Compacted | StorageError], None]


class Descents:
    """See the module. On the loop; at most one demand at a time."""

    def __init__(self) -> None:
        self._left: deque[TreeId] = deque()
        self._way: Descent | None = None
        self._picked: tuple[CompactionJob, Descent] | None = None
        self._upto_lsn = 0
        self._trees = 0
        self._jobs = 0
        self._bytes_read = 0
        self._bytes_written = 0
        self._skipped = 0
        self._done: CompactDone | None = None
        self._last: Compacted | None = None

    @property
    def running(self) -> bool:
        return self._done is not None

    def progress(self) -> Compacted | None:
        """Of the demand under way; else how the last one ended. None: there was none."""
        return self._told(running=True) if self.running else self._last

    def start(self, trees: Iterable[TreeId], upto_lsn: int, done: CompactDone) -> None:
        """Bring all that these trees hold up to `upto_lsn` down, once it is in tables. `done` is called by `pick`.

        StorageError: that is under way already.
        """
        if self._done is not None:
            raise StorageError("this store is being compacted on demand already")
        self._left = deque(trees)
        self._way = self._picked = None
        self._upto_lsn = upto_lsn
        self._trees = len(self._left)
        self._jobs = self._bytes_read = self._bytes_written = self._skipped = 0
        self._done = done

    def fail(self, failure: StorageError) -> None:
        """The store has ended: who waits is told."""
        done, self._done = self._done, None
        if done is not None:
            done(failure)

    def pick(self, version: Version, busy: Collection[int], limits: PickerLimits) -> CompactionJob | None:
        """The next job, the same until it is `published`; None when there is nothing to do now, or no more."""
        if self._done is None or version.flushed_lsn < self._upto_lsn:
            return None
        while self._left:
            tree = version.trees.get(self._left[0])
            if tree is not None:
                self._way = self._way or descent(tree, self._upto_lsn)
                job, way = descend(tree, self._way, busy, limits)
                if job is not None:
                    self._picked = job, way
                    return job
                self._skipped += way.skipped
            self._left.popleft()
            self._way = None
        self._end()
        return None

    def published(self, job: CompactionJob, bytes_written: int) -> None:
        """A job is done. One that was not picked here is not ours to count."""
        if self._picked is None or self._picked[0].input_numbers != job.input_numbers:
            return
        _, self._way = self._picked
        self._picked = None
        self._jobs += 1
        self._bytes_read += sum(meta.size for meta in job.inputs)
        self._bytes_written += bytes_written

    def _end(self) -> None:
        self._last = self._told(running=False)
        done, self._done = self._done, None
        assert done is not None
        done(self._last)

    def _told(self, *, running: bool) -> Compacted:
        way = self._way
        return Compacted(
            running=running,
            trees=self._trees - len(self._left),
            trees_total=self._trees,
            tree_id=self._left[0] if self._left else None,
            level=way.level if way else 0,
            last_level=way.last_level if way else 0,
            jobs=self._jobs,
            bytes_read=self._bytes_read,
            bytes_written=self._bytes_written,
            skipped=self._skipped + (way.skipped if way else 0),
        )

    def check(self) -> None:
        assert self._way is None or self._left, "a way down of no tree"
        assert len(self._left) <= self._trees
