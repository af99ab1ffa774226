"""A store on memory files whose buckets' hash trees are kept, stepped by the test."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import SimpleNamespace
from typing import Any, Final, TypeVar

import trio
import trio.testing

from leafdb.errors import StorageError
from leafdb.merkle.tree import Tree
from leafdb.node import tree_loader
from leafdb.node.boot import INTERNAL_TREES
from leafdb.node.hash_trees import HashTrees
from leafdb.node.metrics import Metrics
from leafdb.storage.settings import EngineConfig
from leafdb.types import BucketId, Durability, PartitionId, TreeId
from leafdb.vfs.memory import MemoryFileSystem
from support.store import SMALL, Store

PARTITIONS: Final = 8
BUCKET: Final = TreeId(300)
T = TypeVar("T")


def view_of(tree: TreeId) -> Any:
    """As much of a BucketView as an exchange needs."""
    return SimpleNamespace(id=BucketId(tree), tree=tree, durability=Durability.ALWAYS)


class TreeStore:
    """One life of a store, from its opening."""

    def __init__(
        self,
        fs: MemoryFileSystem | None = None,
        config: EngineConfig = SMALL,
        *,
        buckets: tuple[TreeId, ...] = (BUCKET,),
    ) -> None:
        self.metrics = Metrics()
        parts = HashTrees(self.metrics, lambda: 0.0)
        self.trees, self.saver, self.rebuild = parts.kept, parts.saver, parts.rebuild
        self.asked = 0
        self.store = Store(fs, config, replayed=self.trees.replayed, before_flush=self._before_flush)
        self.fs, self.engine = self.store.fs, self.store.engine
        for tree in INTERNAL_TREES:
            self.engine.create_tree(tree)
        self.run(lambda: tree_loader.load(self.trees, self.engine, PARTITIONS))
        self.install(*buckets)

    def _before_flush(self, lsn: int, go_on: Callable[[], None]) -> None:
        self.asked += 1
        self.saver.before_flush(lsn, go_on)

    def install(self, *buckets: TreeId) -> None:
        """These are the buckets from now on."""
        wanted, present = set(buckets), {tree for tree in self.engine.trees() if tree >= 256}
        for tree in sorted(wanted - present):
            self.engine.create_tree(tree)
        for tree in sorted(present - wanted):
            self.engine.drop_tree(tree)
        self.trees.installed(PARTITIONS, wanted, wanted - present)

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run something that waits for the store, which works meanwhile."""

        async def main() -> T | StorageError:
            result: T | StorageError
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump)
                try:
                    result = await work()
                except StorageError as error:
                    result = error
                nursery.cancel_scope.cancel()
            return result

        result = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
        if isinstance(result, StorageError):
            raise result
        return result

    async def _pump(self) -> None:
        while True:
            self.store.settle()
            await trio.sleep(0.001)

    def settle(self) -> None:
        """Let everything that is due happen, flushes too."""
        self.store.settle()
        while self.asked:
            self.asked -= 1
            self.run(self.saver.answer)
            self.store.settle()

    def write(
        self, key: bytes, new: bytes | None, durability: Durability = Durability.ALWAYS, tree: TreeId = BUCKET
    ) -> None:
        """Write a record, or delete it."""
        self.trees.write(tree, key, self.store.get(key, tree), new, durability)

    def build_all(self) -> None:
        """Build every tree that is not known."""
        for place in list(self.trees.unknown):
            self.run(lambda place=place: self.rebuild.tree(view_of(TreeId(place >> 16)), PartitionId(place & 0xFFFF)))  # type: ignore[misc]

    def rebuilt(self, tree: TreeId = BUCKET) -> list[Tree]:
        """The trees of a bucket as the store has it."""
        return rebuilt(dict(self.store_items(tree)))

    def store_items(self, tree: TreeId = BUCKET) -> list[tuple[bytes, bytes]]:
        """Everything in a bucket."""
        items: list[tuple[bytes, bytes]] = []
        start: bytes | None = b""
        while start is not None:
            page = self.store.page(start, tree=tree)
            items += page.items
            start = page.next_key
        return items

    def wrong(self, tree: TreeId = BUCKET) -> list[int]:
        """The partitions whose kept tree is known and is not that of the store, byte for byte."""
        found = []
        for partition, expected in enumerate(self.rebuilt(tree)):
            kept = self.trees.of(tree, PartitionId(partition))
            if kept is not None and kept.encode() != expected.encode():
                found.append(partition)
        return found


def rebuilt(items: Mapping[bytes, bytes]) -> list[Tree]:
    """The tree of each partition."""
    trees = [Tree() for _ in range(PARTITIONS)]
    for key, record in items.items():
        trees[key[0] >> 5].add(key, record)
    return trees
