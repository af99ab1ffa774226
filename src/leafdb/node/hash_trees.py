"""The hash trees of a node, put together: what is kept, who saves it, who builds what is not known."""

from __future__ import annotations

from collections.abc import Callable

import trio

from leafdb.node.kept_trees import KeptTrees
from leafdb.node.metrics import Metrics
from leafdb.node.pace import Pace
from leafdb.node.tree_loader import load
from leafdb.node.tree_rebuild import TreeRebuild
from leafdb.node.tree_saver import SAVE_SHARE, SAVE_SLICE_S, TreeSaver
from leafdb.ring.metadata import ClusterMetadata
from leafdb.storage.engine import Engine


class HashTrees:
    """Made before the store is opened, which is given `kept.replayed` and `saver.before_flush`; then `load`, `run`."""

    def __init__(self, metrics: Metrics, now: Callable[[], float]) -> None:
        self.kept: KeptTrees = KeptTrees(metrics)
        self.saver: TreeSaver = TreeSaver(self.kept, Pace(now, SAVE_SHARE, slice_s=SAVE_SLICE_S))
        self.rebuild: TreeRebuild = TreeRebuild(self.kept, Pace(now))

    async def load(self, engine: Engine, metadata: ClusterMetadata | None) -> None:
        """Take what the store remembers; `metadata` is what it remembers of its cluster. Raises StorageError."""
        await load(self.kept, engine, None if metadata is None else metadata.partitions)

    async def run(self) -> None:
        """Save and build, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.saver.run, name="hash trees to be saved")
            nursery.start_soon(self.rebuild.run, name="hash trees to be built")
