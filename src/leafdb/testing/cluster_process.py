"""One run of a node on a disk that outlives it, from its start to its end, however it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import trio

from leafdb.config import Config
from leafdb.errors import StorageError
from leafdb.node.endings import Expelled
from leafdb.node.node import Node
from leafdb.node.tenure import empty_store
from leafdb.node.world import World
from leafdb.storage.committer import Waiter
from leafdb.storage.engine import Engine
from leafdb.storage.wal_format import WalEntry
from leafdb.testing.network import MemoryNetwork
from leafdb.testing.process import Life
from leafdb.testing.stores import first_of
from leafdb.testing.virtual_time import current_schedule, may_freeze, own_tasks
from leafdb.types import Durability, NodeId, TreeId
from leafdb.vfs.memory import MemoryFileSystem

OnWrite: TypeAlias = Callable[[NodeId, TreeId, bytes, bytes | None], None]
"""A node has written to its store: node, tree, key, value; None deletes."""


class WatchedNode(Node):
    """A node whose writes to its own store somebody sees."""

    def __init__(self, number: NodeId, config: Config, world: World, secret: bytes, watchers: list[OnWrite]) -> None:
        super().__init__(config, world, secret)
        self._number = number
        self._watchers = watchers

    def _open_engine(self) -> Engine:
        engine = super()._open_engine()
        number, watchers, write = self._number, self._watchers, engine.write

        def watched(
            writes: Sequence[WalEntry],
            durability: Durability = Durability.ALWAYS,
            done: Waiter | None = None,
            mark: bytes = b"",
        ) -> int:
            for watcher in watchers:
                for tree, key, value in writes:
                    watcher(number, tree, key, value)
            return write(writes, durability, done, mark)

        engine.write = watched  # type: ignore[method-assign]
        return engine


class Process:
    """One run of a node. `host` is where it lives in the network, `disk` what it writes to.

    `make` makes the node: once, or again when it begins anew, as `leafdbd` does in the same process.
    """

    def __init__(self, make: Callable[[], Node], life: Life, host: str, disk: MemoryFileSystem) -> None:
        self._make = make
        self.node: Node = make()
        self.life = life
        self.host = host
        self.disk = disk
        self.scope: trio.CancelScope = trio.CancelScope()
        self.ready: trio.Event = trio.Event()
        self.drain: trio.Event = trio.Event()
        self.stop: trio.Event = trio.Event()
        self.ended: trio.Event = trio.Event()
        self.failure: StorageError | Expelled | None = None

    async def run(self, over: Callable[[], None], anew: Callable[[Node], None] = lambda _: None) -> None:
        """The whole life; `over` is called when it is, before anybody who waits for that goes on; `anew` with the node
        that takes the place of the one before."""
        own_tasks(self.life.owner)
        try:
            with self.scope:
                await self.node.run(drain=self.drain, stop=self.stop, on_ready=self.ready.set)
                while self.node.tenure.begins_anew:
                    empty_store(self.node)
                    self.node = self._make()
                    anew(self.node)
                    await self.node.run(drain=self.drain, stop=self.stop, on_ready=self.ready.set)
        except (StorageError, Expelled) as error:
            self.failure = error
        except BaseExceptionGroup as errors:
            failed, rest = errors.split((StorageError, Expelled))
            if rest is not None or failed is None:
                raise
            self.failure = first_of(failed)
        finally:
            over()
            if self.failure is None:
                self.life.finish()
            else:
                self.life.end()
                self.disk.locks.clear()
            self.ended.set()

    async def started(self) -> Node:
        """Wait until it serves; raises StorageError or Expelled when it ends instead."""
        async with trio.open_nursery() as nursery:
            for event in (self.ready, self.ended):
                nursery.start_soon(_cancel_when, event, nursery.cancel_scope)
        if self.failure is not None:
            raise self.failure
        return self.node

    def kill(self, network: MemoryNetwork, *, vanish: bool) -> None:
        """SIGKILL: from this instant nothing more is written or sent."""
        self.life.end()
        engine = getattr(self.node, "engine", None)
        if engine is not None:
            engine.close = lambda: None
        (network.vanish if vanish else network.host_died)(self.host)
        if may_freeze():
            current_schedule().thaw(self.life.owner)  # what was stopped must run to its end
        self.scope.cancel()
        self.disk.on_call = None


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
