"""A cluster for users' own tests: whole nodes and real clients in one process, under virtual time, from one seed.

`Cluster` is what the fixture `leafdb_cluster` hands out. It runs between calls of nothing: time passes only while
something is awaited, by `run`, by a call of a synchronous client, or by the async test that the plugin runs in it. So
three hours cost what happens in them, and a failure is repeated by its seed.

    with Cluster(nodes=3, seed=0) as cluster:
        n1, n2, n3 = cluster.nodes
        cluster.run(a_test_function, cluster)            # async: `db = await cluster.client()`
        db = cluster.connect()                           # sync: the same world, call by call
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from types import TracebackType
from typing import TypeVar

import trio

from leafdb.client.anyio_driver import AnyioDriver
from leafdb.client.async_client import AsyncClient
from leafdb.client.core import Core
from leafdb.client.options import Seconds
from leafdb.client.sync_client import Client
from leafdb.client.url import Address
from leafdb.limits import REQUEST_TIMEOUT_S_DEFAULT
from leafdb.testing.cluster import CLIENT_HOST, MemoryCluster, host_of, memory_cluster
from leafdb.testing.faults import Faults
from leafdb.testing.real_client import async_client, blocking_client, client_core, dialler
from leafdb.testing.virtual_loop import VirtualLoop
from leafdb.types import NodeId

T = TypeVar("T")

NODES_DEFAULT = 3
END_S = 60.0
"""How long, in virtual time, the nodes may take to end."""


class Cluster:
    """Nodes in this process. Use it as `with`, or let the fixture `leafdb_cluster` do that."""

    def __init__(self, nodes: int = NODES_DEFAULT, seed: int = 0) -> None:
        if nodes < 1:
            raise ValueError(f"a cluster has at least one node, not {nodes}")
        self.seed = seed
        self.nodes: tuple[NodeId, ...] = tuple(NodeId(number) for number in range(1, nodes + 1))
        """The numbers of all nodes, running or not."""
        self._loop = VirtualLoop(seed)
        self._world: MemoryCluster | None = None
        self._leave = trio.Event()
        self._left = trio.Event()
        self._clients = 0
        self._faults: Faults | None = None

    def __enter__(self) -> Cluster:
        self._loop.start()
        try:
            self._loop.run(self._begin)
        except BaseException:
            self._loop.close()
            raise
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(checked=exc is None)

    def close(self, *, checked: bool = True) -> None:
        """End, after a check of every node. Not so after a failure: what it left behind is not what failed."""
        if self._loop.is_over:
            return
        try:
            if self._world is not None:
                for node in self.up:
                    self._world.resume(node)  # what stands still cannot end
                if checked:
                    self._loop.run(self._end)
        finally:
            self._loop.close()

    # -- time

    @property
    def time(self) -> float:
        """Seconds of virtual time since the nodes were started."""
        return self._loop.time

    def run(self, function: Callable[..., Awaitable[T]], *args: object) -> T:
        """Await `function(*args)`, and return what it returns; the nodes, and time, go on until then and no longer.

        For synchronous tests: `cluster.run(trio.sleep, 3600)`, `cluster.run(faults.kill, n1)`.
        """
        __tracebackhide__ = True
        return self._loop.run(function, *args)

    async def sleep(self, seconds: float) -> None:
        """Wait. For most of a long time all nodes sleep, too, and wake now and then for what has become due, so that
        hours cost what a minute does: see `leafdb.testing.patience`. With `trio.sleep` they stay awake."""
        await self.world.pass_time(seconds)

    async def settle(self) -> None:
        """Wait until nobody owes anybody anything: no hints, no repairs. AssertionError, saying who does, if never."""
        await self.world.settle()

    # -- clients

    async def client(self, *, via: int | None = None, timeout: Seconds = REQUEST_TIMEOUT_S_DEFAULT) -> AsyncClient:
        """An open client that routes as usual; `via`: that speaks to this node only. It is closed with the cluster."""
        core = self._core(via, timeout)
        client, driver = async_client(core, dialler(self.world.network, CLIENT_HOST))
        await self._open(driver)
        return client

    def connect(self, *, via: int | None = None, timeout: Seconds = REQUEST_TIMEOUT_S_DEFAULT) -> Client:
        """The same for synchronous tests: each of its calls lets time pass until it is answered."""
        core = self._core(via, timeout)
        _, driver = async_client(core, dialler(self.world.network, CLIENT_HOST))
        self._loop.run(self._open, driver)
        return blocking_client(core, driver, self._loop)

    def _core(self, via: int | None, timeout: Seconds) -> Core:
        if via is not None and via not in self.nodes:
            raise ValueError(f"there is no node {via}: {', '.join(map(str, self.nodes))}")
        self._clients += 1
        return client_core(
            [Address(host_of(node), 1) for node in self.nodes if via in (None, node)],
            Random(f"{self.seed}/client/{self._clients}"),
            clock=lambda: self._loop.time,
            routing="ring" if via is None else "listed",
            timeout=timeout,
        )

    async def _open(self, driver: AnyioDriver) -> None:
        """Open it in a task of its own, so that who asked for it may end, or be cancelled, in any order."""
        opened = trio.Event()

        async def live() -> None:
            await driver.open()
            opened.set()
            try:
                await trio.sleep_forever()
            finally:
                await driver.leave(None, None, None)

        self._loop.spawn(live)
        await opened.wait()

    # -- the nodes

    async def add_node(self, *, name: str = "", host: str = "", zone: str = "default") -> NodeId:
        """Start a blank node beside the others, on a machine of its own, and return the number of that: the next.

        It knows the cluster's secret and waits to be staged by its peer address, "host-N:2". `host` is what it says of
        itself, for placement: nodes that share one are shards of one machine.
        """
        node = await self.world.add_node(name=name, host=host, zone=zone)
        self.nodes = (*self.nodes, node)
        return node

    @property
    def world(self) -> MemoryCluster:
        """The nodes themselves, for what this class does not offer: raw records, disks, links, the code that runs."""
        if self._world is None:
            raise RuntimeError("the cluster does not run: use it as `with`")
        return self._world

    @property
    def faults(self) -> Faults:
        """What can go wrong: what the fixture `leafdb_faults` hands out."""
        if self._faults is None:
            self._faults = Faults(self.world)
        return self._faults

    @property
    def up(self) -> tuple[NodeId, ...]:
        """The nodes that run."""
        return tuple(node for node in self.nodes if node in self.world.nodes)

    async def _begin(self) -> None:
        ready = trio.Event()

        async def live() -> None:
            async with memory_cluster(len(self.nodes), self.seed) as world:
                self._world = world
                ready.set()
                await self._leave.wait()
            self._left.set()

        self._loop.spawn(live)
        await ready.wait()

    async def _end(self) -> None:
        self._leave.set()
        with trio.move_on_after(END_S):
            await self._left.wait()
