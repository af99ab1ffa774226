"""Whole nodes in one trio loop: memory files, memory streams, inline workers, any clock. The node code is the real one."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from leafdb.config import Address, Config, ListenConfig, NodeConfig
from leafdb.node.node import Node
from leafdb.node.world import World
from leafdb.ring.member import ProposedMember
from leafdb.ring.metadata import found
from leafdb.storage.executor import Callback
from leafdb.storage.job_runner import InlineJobRunner
from leafdb.transport.memory import MemoryNetwork
from leafdb.types import NodeId
from leafdb.vfs.memory import MemoryFileSystem

T = TypeVar("T")

SECRET = b"a secret only for tests"
CLUSTER_ID = bytes(range(16))


class LoopExecutor:
    """Runs work on the loop itself, one item a turn: virtual time never runs away from it."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()

    def submit(self, work: Callable[[], T], done: Callable[[T | BaseException], None]) -> None:
        def run() -> None:
            try:
                result: T | BaseException = work()
            except OSError as error:
                result = error
            done(result)

        self._token.run_sync_soon(run)

    def call_soon(self, callback: Callback) -> None:
        self._token.run_sync_soon(callback)

    def drain(self) -> None:
        """Nothing runs beside the loop."""

    def close(self) -> None:
        """Nothing to close."""


class MemoryCluster:
    """Nodes 1 to n by number, each with a file system that outlives it."""

    def __init__(self, nursery: trio.Nursery, nodes: int, seed: int) -> None:
        self._nursery = nursery
        self._rng = random.Random(seed)
        self.network = MemoryNetwork()
        self.disks = {NodeId(number): MemoryFileSystem() for number in range(1, nodes + 1)}
        self.nodes: dict[NodeId, Node] = {}
        self._scopes: dict[NodeId, trio.CancelScope] = {}
        self._stops: dict[NodeId, trio.Event] = {}
        self._ended: dict[NodeId, trio.Event] = {}
        self._unix_ms = 1_700_000_000_000

    def world(self, node: NodeId) -> World:
        """The outside of one node."""
        rng = random.Random(self._rng.randrange(1 << 62))
        executor = LoopExecutor()
        fs = self.disks[node]
        return World(
            fs=fs,
            network=self.network.at(f"host-{node}"),
            now=trio.current_time,
            now_ms=lambda: self._unix_ms + int(trio.current_time() * 1000),
            rng=rng,
            random_bytes=rng.randbytes,
            log_executor=executor,
            read_executor=executor,
            jobs=InlineJobRunner(fs, trio.lowlevel.current_trio_token().run_sync_soon),
            boot_id="one boot",
            worker_pid=lambda: None,
        )

    def config(self, node: NodeId) -> Config:
        """The configuration of one node."""
        host = f"host-{node}"
        return Config(
            node=NodeConfig(name=f"n{node}", host=host),
            listen=ListenConfig(client=Address(host, 1), peer=Address(host, 2), http=Address(host, 3)),
        )

    async def start(self, node: NodeId) -> Node:
        """Start a node on its disk; returns when it serves."""
        made = Node(self.config(node), self.world(node), SECRET)
        ready, stop, ended = trio.Event(), trio.Event(), trio.Event()
        scope = trio.CancelScope()
        self.nodes[node], self._scopes[node], self._stops[node], self._ended[node] = made, scope, stop, ended

        async def run() -> None:
            with scope:
                await made.run(drain=trio.Event(), stop=stop, on_ready=ready.set)
            ended.set()

        self._nursery.start_soon(run)
        await ready.wait()
        return made

    async def stop(self, node: NodeId) -> None:
        """Stop a node cleanly."""
        self._stops[node].set()
        await self._ended[node].wait()
        del self.nodes[node]

    async def found(self) -> None:
        """Make the running nodes one cluster."""
        members = [
            ProposedMember(
                name=f"n{node}",
                host=f"host-{node}",
                client_address=f"host-{node}:1",
                peer_address=f"host-{node}:2",
                http_address=f"host-{node}:3",
            )
            for node in self.nodes
        ]
        metadata = found("test", CLUSTER_ID, members)
        for number, node in self.nodes.items():
            synced = trio.Event()
            node.founded(metadata, number, lambda _, synced=synced: synced.set())  # type: ignore[misc]
            await synced.wait()
        while any(len(node.view.usable) < len(self.nodes) - 1 for node in self.nodes.values()):
            await trio.sleep(0.05)


@asynccontextmanager
async def memory_cluster(nodes: int, seed: int = 1) -> AsyncIterator[MemoryCluster]:
    """A founded cluster whose members all reach each other."""
    async with trio.open_nursery() as nursery:
        cluster = MemoryCluster(nursery, nodes, seed)
        for node in list(cluster.disks):
            await cluster.start(node)
        await cluster.found()
        yield cluster
        for node in list(cluster.nodes):
            await cluster.stop(node)
