"""Trees of ranges for exchanges; and the building of those that are not known, by a scan beside traffic.

An exchange takes a copy of the tree as it is and may say its root when the last write in it may be shown. Where the
tree is not known it is built first: by this exchange, or by the task that works through all of them at the pace of
background work. How a scan and the writes beside it make one tree is in `merkle.building`.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

import trio

from leafdb.errors import StorageError
from leafdb.merkle.building import Building
from leafdb.merkle.tree import Tree
from leafdb.node.kept_trees import KeptRange, KeptTrees, place_of, span_of, split
from leafdb.node.logs import Log
from leafdb.node.pace import Pace
from leafdb.node.range_scanner import (
    OVERLOADED_TRIES,
    OVERLOADED_WAIT_S,
    PAGE_BYTES_MAX,
    PAGE_KEYS_MAX,
    SCAN_COST_S,
)
from leafdb.node.view import BucketView
from leafdb.storage.lsm_tree import Page
from leafdb.storage.reads import ReadsOverloaded
from leafdb.types import Durability, PartitionId, TreeId

T = TypeVar("T")

HASH_COST_S: Final = 1e-6
"""What the loop takes to put one key into a tree, about."""
FAILED_WAIT_S: Final = 10.0

log: Log = Log("trees")


class TreeRebuild:
    """See the top of this file. `run` is its one task."""

    def __init__(self, trees: KeptTrees, pace: Pace) -> None:
        self.trees = trees
        self.pace = pace
        """Of this work, and of whoever has such work to do."""
        self._running: dict[int, trio.Event] = {}
        """The ranges somebody is building, with what is set when that is over."""
        self._wanted = trio.Event()
        trees.on_unknown = lambda: self._wanted.set()

    async def tree(self, bucket: BucketView, partition: PartitionId) -> Tree:
        """The tree of a range as of now, when all of it may be shown. Raises StorageError."""
        trees, place = self.trees, place_of(bucket.id, partition)
        while True:
            if bucket.tree not in trees.buckets:
                raise StorageError(f"bucket {bucket.id} is gone")
            kept = trees.ranges.get(place)
            if kept is None:
                return Tree()
            if kept.tree is not None:
                tree = kept.tree.copy()
                break
            built = await self._build(place, kept)
            if built is not None:
                tree = built.copy()
                break
        await self._safe(kept.lsn, bucket.durability)
        return tree

    async def run(self) -> None:
        """Build what is not known while there is room for it, until cancelled."""
        trees = self.trees
        while True:
            self._wanted = trio.Event()
            place = next((place for place in trees.unknown if place not in self._running), None)
            if place is None or not trees.room:
                await self._wanted.wait()
                continue
            kept = trees.unknown.pop(place)
            trees.unknown[place] = kept  # at the end: one that cannot be built keeps nobody waiting
            try:
                await self._build(place, kept)
            except StorageError as error:
                if trees.ranges.get(place) is kept:
                    bucket, partition = map(int, split(place))
                    log.error("a hash tree cannot be built", bucket=bucket, partition=partition, reason=str(error))
                    await trio.sleep(FAILED_WAIT_S)

    async def _build(self, place: int, kept: KeptRange) -> Tree | None:
        """Build the tree of a range, and keep it if there is room; None: somebody else has. Raises StorageError."""
        running = self._running.get(place)
        if running is not None:
            await running.wait()
            return None
        over = self._running[place] = trio.Event()
        building = kept.building = Building()
        try:
            start: bytes | None
            start, stop = span_of(self.trees, place)
            while True:
                page = await self._page(building, TreeId(split(place)[0]), start, stop)
                if kept.building is not building:  # the store has lost something of what was read
                    building = kept.building
                    start, _ = span_of(self.trees, place)
                    continue
                start = page.next_key
                if start is None:
                    break
                await self.pace.spent(self.pace.begin(), (SCAN_COST_S + HASH_COST_S) * len(page.items))
            # Not a step of the loop between the last page and this.
            self._keep(place, kept, building.tree)
            return building.tree
        finally:
            kept.building = None
            del self._running[place]
            over.set()
            if kept.tree is None:
                self._wanted.set()  # it failed, and the next to try may be the background task

    def _keep(self, place: int, kept: KeptRange, tree: Tree) -> None:
        trees = self.trees
        if trees.ranges.get(place) is kept and kept.tree is None and trees.room:
            trees.keep(place, tree)
            trees.save(place, kept)
            trees.metrics.hash_trees_rebuilt_total += 1

    async def _page(self, building: Building, tree: TreeId, start: bytes, stop: bytes) -> Page:
        """The next page, which the building has taken in. Raises StorageError."""
        for _ in range(OVERLOADED_TRIES):
            waiting: _Waiting[Page] = _Waiting()
            scan = self.trees.engine.scan_soon
            try:
                scan(tree, start, stop, limit=PAGE_KEYS_MAX, bytes_max=PAGE_BYTES_MAX, done=waiting.done)
            except ReadsOverloaded:
                await trio.sleep(OVERLOADED_WAIT_S)
                continue
            building.page_asked()
            page = await waiting.result()
            if isinstance(page, StorageError):
                raise page
            if building.page_came(page.items, page.next_key):
                return page
        raise StorageError("too many reads wait for the disk, or too much is written")

    async def _safe(self, lsn: int, durability: Durability) -> None:
        waiting: _Waiting[None] = _Waiting()
        self.trees.engine.when_safe(lsn, durability, waiting.done)
        error = await waiting.result()
        if error is not None:
            raise error


class _Waiting(Generic[T]):
    """For one callback of the store."""

    def __init__(self) -> None:
        self._over = trio.Event()
        self._found: list[T | StorageError] = []

    def done(self, found: T | StorageError) -> None:
        """It came."""
        self._found.append(found)
        self._over.set()

    async def result(self) -> T | StorageError:
        """What came."""
        await self._over.wait()
        return self._found[0]
