"""A store that sweeps: `TreeStore` with a replica, horizons that come as metadata do, and a sweeper, step by step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Final

import trio

from leafdb.errors import StorageError
from leafdb.model.hlc import LOGICAL_BITS
from leafdb.model.purge import NEVER, record_death
from leafdb.model.record_format import first
from leafdb.node.boot import open_leases
from leafdb.node.deaths import DEATH, note_key, split_note
from leafdb.node.horizons import PURGE_TREE, Horizons
from leafdb.node.pace import Pace
from leafdb.node.register import META_TREE
from leafdb.node.replica import Replica
from leafdb.node.sweeper import Sweeper
from leafdb.storage.settings import EngineConfig
from leafdb.types import Conflict, Durability, NodeId, PartitionId, TreeId
from leafdb.vfs.memory import MemoryFileSystem
from support.repairs import WRITER
from support.store import SMALL
from support.tree_stores import BUCKET, PARTITIONS, TreeStore, view_of

HORIZON_KEY: Final = b"horizon of the test"
MS: Final = 1 << LOGICAL_BITS


def record(stamp: int, expires_ms: int = 0, value: bytes | None = b"v", counter: int = 1) -> bytes:
    """One sibling."""
    return first(WRITER.actor(counter), stamp, expires_ms, b"o" * 16, value)


class SweptStore(TreeStore):
    """One life of a store of one node; `held` are the partitions that are its to hold."""

    def __init__(
        self,
        fs: MemoryFileSystem | None = None,
        config: EngineConfig = SMALL,
        *,
        buckets: tuple[TreeId, ...] = (BUCKET,),
    ) -> None:
        self.held = set(range(PARTITIONS))
        self.view: Any
        self.view = SimpleNamespace(
            self_id=NodeId(1), metadata=SimpleNamespace(partitions=PARTITIONS), buckets={}, on_install=[],
            ring=SimpleNamespace(is_primary=lambda node, partition, n: partition in self.held),
        )  # fmt: skip
        super().__init__(fs, config, buckets=buckets)
        self.horizons = Horizons(self.engine)
        self.run(self.horizons.load)
        leases = self.run(lambda: open_leases(self.engine, lambda: 1_000))
        self.replica = Replica(
            self.engine, leases, self.trees, horizon_at=self.horizons.at, doubted=self.horizons.doubted
        )
        self.replica.identify(WRITER)
        self.sweeper = Sweeper(
            engine=self.engine, view=self.view, replica=self.replica, horizons=self.horizons, deaths=self.trees.deaths,
            pace=Pace(lambda: 0.0), metrics=self.metrics,
        )  # fmt: skip
        stored = self.store.get(HORIZON_KEY, META_TREE)
        self._installed(int.from_bytes(stored or b"", "big"))

    def install(self, *buckets: TreeId) -> None:
        """As a node does when metadata name these buckets."""
        super().install(*buckets)
        self.view.buckets = {
            tree: SimpleNamespace(**vars(view_of(tree)), properties=SimpleNamespace(n=3), conflict=Conflict.SIBLINGS)
            for tree in buckets
        }

    def learn(self, horizon: int) -> None:
        """A horizon of all partitions arrives as metadata do: synced, then in force."""

        def synced(error: StorageError | None) -> None:
            assert error is None
            self._installed(horizon)

        value = horizon.to_bytes(8, "big")
        self.engine.write(((META_TREE, HORIZON_KEY, value),), Durability.ALWAYS, synced)

    def _installed(self, horizon: int) -> None:
        if horizon:
            metadata: Any = SimpleNamespace(
                partitions=PARTITIONS, horizons=[SimpleNamespace(stamp=horizon)] * PARTITIONS
            )
            self.horizons.installed(metadata)
            for callback in self.view.on_install:
                callback(metadata)

    def sweep(self) -> None:
        """Let the sweeper run until it has nothing to do."""

        async def until_quiet() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.sweeper.run)
                while not self.sweeper.quiet:  # the store is stepped beside this, and its flushes here
                    if self.asked:
                        self.asked -= 1
                        await self.saver.answer()
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()

        self.run(until_quiet)
        self.sweeper.check()

    def notes(self) -> set[bytes]:
        """Those that are there."""
        return {key for key, _ in self.store_items(PURGE_TREE) if key[0] == DEATH}

    def unnoted(self, tree: TreeId = BUCKET) -> list[bytes]:
        """Keys of records that die and have no note, or of which the partition's oldest death is not known."""
        notes, found = self.notes(), []
        for key, data in self.store_items(tree):
            death = record_death(data)
            if death != NEVER and note_key(key[0] >> 5, death, tree, key) not in notes:
                found.append(key)
        return found

    def unknown(self) -> list[bytes]:
        """Notes that are older than what is said to be the oldest of their partitions."""
        found = []
        for note in self.notes():
            partition, death, _, _ = split_note(note)
            oldest = self.sweeper.oldest_death(PartitionId(partition))
            if oldest is None or oldest > death:
                found.append(note)
        return found
