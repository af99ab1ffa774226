"""Whole nodes in one trio loop: memory files, memory streams, inline workers, any clock. The node code is the real one.

What can be done to them is what happens to real ones: a clean stop, SIGKILL (`kill`: written bytes stay, nothing else
does), a power cut (`power_cut`: unsynced bytes may be torn or gone, another boot id), links cut loudly or silently, a
disk that fails or fills (through `disks`, before or while a node runs), wall clocks that are wrong (`skew_ms`).
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

import trio

from leafdb.config import Address, Config, ListenConfig, NodeConfig, RepairConfig, StorageConfig
from leafdb.limits import DISK_FREE_BYTES_LOW
from leafdb.model.bucket import BucketProperties
from leafdb.node.node import Node
from leafdb.node.world import World
from leafdb.ring.member import ProposedMember
from leafdb.ring.metadata import found
from leafdb.ring.placement import claim
from leafdb.storage.job_runner import InlineJobRunner
from leafdb.testing.cluster_inside import Inside
from leafdb.testing.cluster_process import OnWrite, Process, WatchedNode
from leafdb.testing.network import MemoryNetwork
from leafdb.testing.patience import pass_time
from leafdb.testing.process import Latency, Life, MemoryExecutor
from leafdb.testing.raw_client import RawClient, Severed
from leafdb.testing.stores import pair
from leafdb.testing.virtual_time import current_schedule
from leafdb.types import BucketId, NodeId
from leafdb.vfs.memory import MemoryFileSystem
from leafdb.wire.registry import Lane

SECRET = b"a secret only for tests"
CLUSTER_ID = bytes(range(16))
CLIENT_HOST = "client"
FIRST = NodeId(1)
UNIX_MS = 1_700_000_000_000


class MemoryCluster(Inside):
    """Nodes by the numbers of their machines, 1 to n, each with a file system that outlives it.

    Those a cluster is founded with have the same numbers as members. One that is added is blank, and gets its number
    as a member when it is admitted: mostly that of its machine as well, but not if it is staged again after a join that
    was given up. `Inside.machine_of` tells.
    """

    repair: RepairConfig = RepairConfig()

    def __init__(
        self,
        nursery: trio.Nursery,
        nodes: int,
        seed: int,
        *,
        disk_latency_s: Latency | None = None,
        partitions: int = 64,
        owners: Collection[NodeId] | None = None,
        storage: StorageConfig | None = None,
        network: MemoryNetwork | None = None,
    ) -> None:
        self._nursery = nursery
        self._owners = owners
        self._rng = random.Random(seed)
        self._partitions = partitions
        self.network: MemoryNetwork = network or MemoryNetwork(random.Random(f"{seed}/network"))
        self.disks: dict[NodeId, MemoryFileSystem] = {NodeId(at): MemoryFileSystem() for at in range(1, nodes + 1)}
        self.nodes: dict[NodeId, Node] = {}
        """Those that run."""
        self.skew_ms: dict[NodeId, int] = dict.fromkeys(self.disks, 0)
        self.settings: dict[NodeId, NodeConfig] = {}
        """Name, host and zone of those that were added."""
        self._usual_latency_s = disk_latency_s
        self.storage: StorageConfig = storage or StorageConfig()
        self.processes: dict[NodeId, Process] = {}
        """The newest run of each node, over or not."""
        self.twins: list[Process] = []
        self._watchers: list[OnWrite] = []
        self._latencies: dict[NodeId, Latency | None] = dict.fromkeys(self.disks, disk_latency_s)
        self._boots = dict.fromkeys(self.disks, 0)
        self._runs = 0
        self._cuts: dict[tuple[str, str], None] = {}

    # -- a node's life

    def world(self, node: NodeId, life: Life) -> World:
        """The outside of one run of a node."""
        rng = random.Random(self._rng.randrange(1 << 62))
        fs = self.disks[node]
        return World(
            fs=fs,
            network=self.network.at(host_of(node)),
            now=trio.current_time,
            now_ms=lambda: self.now_ms() + self.skew_ms[node],
            rng=rng,
            random_bytes=rng.randbytes,
            log_executor=MemoryExecutor(life, self._latencies[node]),
            read_executor=MemoryExecutor(life, self._latencies[node]),
            jobs=InlineJobRunner(fs, life.soon),
            boot_id=f"boot {self._boots[node]}",
            worker_pid=lambda: None,
            pid=int(node),
        )

    def now_ms(self) -> int:
        """The true time."""
        return UNIX_MS + int(trio.current_time() * 1000)

    def config(self, node: NodeId) -> Config:
        """The configuration of one node."""
        host = host_of(node)
        settings = self.settings.get(node, NodeConfig(name=f"n{node}", host=host))
        return Config(node=settings, listen=listen_at(host), storage=self.storage, repair=self.repair, auth=self.auth)

    async def start(self, node: NodeId, limit_s: float = 60.0) -> Node:
        """Start a node on its disk; returns when it serves. Raises StorageError or Expelled when it ends instead."""
        assert node not in self.nodes
        life = self._life(host_of(node))
        process = self._process(node, life, self.config(node), self.world(node, life), host_of(node))
        self.processes[node] = process
        self.nodes[node] = process.node

        def over() -> None:
            if self.nodes.get(node) is process.node:
                del self.nodes[node]

        def anew(blank: Node) -> None:
            self.nodes[node] = blank

        self._nursery.start_soon(process.run, over, anew)
        with trio.fail_after(limit_s):
            return await process.started()

    async def add_node(self, *, name: str = "", host: str = "", zone: str = "default") -> NodeId:
        """Start a blank node on a machine and a disk of its own, beside whatever runs; the number of its machine.

        It knows the cluster's secret and waits to be staged, as `address_of` its machine. `host` is what it says of
        itself, for placement: nodes that share one are shards of one machine.
        """
        node = NodeId(max(self.disks) + 1)
        self.disks[node] = MemoryFileSystem()
        self.skew_ms[node] = 0
        self._latencies[node] = self._usual_latency_s
        self._boots[node] = 0
        self.settings[node] = NodeConfig(name=name or f"n{node}", host=host or host_of(node), zone=zone)
        await self.start(node)
        return node

    async def start_twin(self, node: NodeId, disk: MemoryFileSystem, limit_s: float = 60.0) -> Node:
        """Start a second process of a node on another disk, a copy of its own, as an operator does who clones a
        machine. It lives on a host of its own (`twin_of`). Returns when it serves; it ends with `stop_twins`, or with
        the cluster."""
        host = twin_of(node)
        life = self._life(host)
        config = replace(self.config(node), listen=listen_at(host))
        world = replace(
            self.world(node, life), fs=disk, network=self.network.at(host), jobs=InlineJobRunner(disk, life.soon)
        )
        process = self._process(node, life, config, world, host)
        self.twins.append(process)
        self._nursery.start_soon(process.run, lambda: None)
        with trio.fail_after(limit_s):
            return await process.started()

    async def stop_twins(self) -> None:
        """SIGKILL to every twin."""
        twins, self.twins = self.twins, []
        await self._kill(twins, vanish=False)

    def _life(self, host: str) -> Life:
        self._runs += 1
        self.network.appear(host)
        return Life(self._nursery, f"{host} run {self._runs}")

    def _process(self, node: NodeId, life: Life, config: Config, world: World, host: str) -> Process:
        assert isinstance(world.fs, MemoryFileSystem)
        return Process(lambda: WatchedNode(node, config, world, SECRET, self._watchers), life, host, world.fs)

    async def stop(self, *nodes: NodeId) -> None:
        """Stop nodes cleanly."""
        processes = [self.processes[node] for node in nodes]
        for process in processes:
            process.stop.set()
        for process in processes:
            await process.ended.wait()

    def pause(self, node: NodeId) -> None:
        """SIGSTOP: nothing of the node runs, its connections stay, time passes. Harmless when it is stopped already."""
        current_schedule().freeze(self.processes[node].life.owner)

    def resume(self, node: NodeId) -> None:
        """SIGCONT. Harmless when it was not stopped."""
        current_schedule().thaw(self.processes[node].life.owner)

    def is_paused(self, node: NodeId) -> bool:
        """Whether the node is stopped."""
        return current_schedule().is_frozen(self.processes[node].life.owner)

    async def kill(self, *nodes: NodeId, vanish: bool = False) -> None:
        """SIGKILL, to all of them in the same instant: no byte more is written or sent.

        With `vanish` nobody is told, as when the machine is gone: its connections stay half open until it is back."""
        await self._kill([self.processes[node] for node in nodes], vanish=vanish)

    async def _kill(self, processes: Iterable[Process], *, vanish: bool) -> None:
        running = [process for process in processes if not process.ended.is_set()]
        for process in running:
            process.kill(self.network, vanish=vanish)
        for process in running:
            await process.ended.wait()
        for process in processes:
            process.disk.locks.clear()

    async def power_cut(self, *nodes: NodeId, keep: float | None = None, vanish: bool = False) -> None:
        """The power of these nodes goes in the same instant; their disks are what it left. `vanish` as in `kill`."""
        left = {node: self.disks[node].power_cut(self._rng, keep=keep) for node in nodes}
        await self.kill(*nodes, vanish=vanish)
        for node in nodes:
            self.disks[node] = left[node]
            self._boots[node] += 1

    async def restart(self, *nodes: NodeId) -> None:
        """Start nodes again, one after the other."""
        for node in nodes:
            await self.start(node)

    def observe_writes(self, callback: OnWrite) -> None:
        """Tell what every node, those that run and those to come, writes to its own store."""
        self._watchers.append(callback)

    # -- disks

    def wipe(self, node: NodeId) -> None:
        """Give a node that is down an empty disk."""
        assert node not in self.nodes
        disk = MemoryFileSystem()
        disk.cold = self.disks[node].cold
        self.disks[node] = disk

    def clone_disk(self, node: NodeId) -> MemoryFileSystem:
        """A copy of a disk as it is now: to go back to later, or to start a twin on."""
        return self.disks[node].copy()

    def slow_disk(self, node: NodeId, latency_s: Latency | None) -> None:
        """From now on each call to the node's disk takes what `latency_s()` draws; None: no time."""
        self._latencies[node] = latency_s
        process = self.processes.get(node)
        if process is not None:
            for executor in (process.node.world.log_executor, process.node.world.read_executor):
                assert isinstance(executor, MemoryExecutor)
                executor.latency_s = latency_s

    def fill_disk(self, node: NodeId) -> None:
        """Leave less room on a disk than a node needs to take writes; what it must write for itself still fits."""
        disk = self.disks[node]
        disk.quota_bytes = disk.used_bytes() + DISK_FREE_BYTES_LOW // 2

    def free_disk(self, node: NodeId) -> None:
        """Make room again."""
        self.disks[node].quota_bytes = None

    # -- links

    def cut(self, one: NodeId, others: Iterable[NodeId], *, silently: bool = False) -> None:
        """Separate a node from others."""
        for other in others:
            if other != one:
                self._cuts[pair(host_of(one), host_of(other))] = None
                self.network.cut(host_of(one), host_of(other), silently=silently)

    @contextmanager
    def held(self, one: NodeId, other: NodeId) -> Iterator[None]:
        """What these two say to each other waits until the block ends; nothing, when they are cut from each other."""
        hosts = pair(host_of(one), host_of(other))
        if hosts not in self._cuts:
            self.network.cut(*hosts, silently=True)
        try:
            yield
        finally:
            if hosts not in self._cuts:
                self.network.heal(*hosts)

    def heal(self) -> None:
        """Join everybody again."""
        for one, other in sorted(self._cuts):
            self.network.heal(one, other)
        self._cuts.clear()

    # -- the cluster as a whole

    async def found(self) -> None:
        """Make the running nodes one cluster."""
        members = [
            ProposedMember(
                name=f"n{node}",
                host=host_of(node),
                zone=self.config(node).node.zone,
                client_address=f"{host_of(node)}:1",
                peer_address=f"{host_of(node)}:2",
                http_address=f"{host_of(node)}:3",
            )
            for node in self.nodes
        ]
        metadata = found("test", CLUSTER_ID, members, partitions=self._partitions)
        if self._owners is not None:
            owning = [metadata.members[node] for node in self._owners]
            metadata = replace(metadata, owners=claim(owning, self._partitions))
            problems = metadata.check()
            assert not problems, problems
        for number, node in self.nodes.items():
            synced = trio.Event()
            node.founded(metadata, number, lambda _, synced=synced: synced.set())  # type: ignore[misc]
            await synced.wait()
        await self.meet()

    async def meet(self, limit_s: float = 60.0) -> None:
        """Wait until all running members can use each other, on every lane."""

        def apart() -> bool:
            return any(
                not others <= node.view.usable or any(not others <= set(node.peers.connected(lane)) for lane in Lane)
                for node, others in self.members()
            )

        with trio.fail_after(limit_s):
            while apart():  # noqa: ASYNC110  # nothing tells when everybody has met
                await trio.sleep(0.05)

    async def settle(self, limit_s: float = 300.0) -> None:
        """Wait until nobody owes anybody anything: no hints, no exchanges, nothing incomplete, nothing under way."""
        await self.meet()
        with trio.move_on_after(limit_s):
            while self.unsettled():  # noqa: ASYNC110  # nothing tells when a cluster is quiet
                await trio.sleep(0.25)
        assert not self.unsettled(), self.unsettled()

    async def pass_time(self, seconds: float) -> None:
        """Let hours pass in which nobody asks anything, at the price of a few seconds of them; see `patience`."""
        await pass_time(self, seconds)

    # -- its clients

    async def client(self, node: NodeId) -> RawClient:
        """A connection to a node's client port. Raises Severed."""
        try:
            stream = await self.network.at(CLIENT_HOST).dial(host_of(node), 1)
        except OSError as error:
            raise Severed(str(error)) from None
        client = RawClient(stream)
        try:
            await client.greet()
        except BaseException:
            client.close()
            raise
        self._nursery.start_soon(client.listen)
        return client

    async def create_bucket(self, name: str = "b", *, via: NodeId = FIRST, **properties: Any) -> BucketProperties:
        """Create a bucket through a node."""
        wanted = BucketProperties(id=BucketId(256), name=name, generation=0, **properties)
        client = await self.client(via)
        made = await client.admin("bucket.create", properties=wanted.to_wire())
        client.close()
        return BucketProperties.from_wire(made)


@asynccontextmanager
async def memory_cluster(
    nodes: int,
    seed: int = 1,
    *,
    disk_latency_s: Latency | None = None,
    partitions: int = 64,
    owners: Collection[NodeId] | None = None,
    storage: StorageConfig | None = None,
    network: MemoryNetwork | None = None,
) -> AsyncIterator[MemoryCluster]:
    """A founded cluster whose members all reach each other. Leaving it checks every node and stops it.

    With `owners` only these members own anything: the others are there for a plan to move things to.
    """
    async with trio.open_nursery() as nursery:
        cluster = MemoryCluster(
            nursery, nodes, seed, disk_latency_s=disk_latency_s, partitions=partitions, owners=owners, storage=storage,
            network=network,
        )  # fmt: skip
        for node in cluster.disks:
            await cluster.start(node)
        await cluster.found()
        yield cluster
        await cluster.check()
        await cluster.stop_twins()
        await cluster.stop(*cluster.nodes)
        nursery.cancel_scope.cancel()


def host_of(node: NodeId) -> str:
    """A node's name in the network."""
    return f"host-{node}"


def address_of(node: NodeId) -> str:
    """Where other nodes reach a machine's: its peer address."""
    return f"{host_of(node)}:2"


def twin_of(node: NodeId) -> str:
    """The host of a second process of a node."""
    return f"twin-{node}"


def listen_at(host: str) -> ListenConfig:
    """The ports of a node."""
    return ListenConfig(client=Address(host, 1), peer=Address(host, 2), http=Address(host, 3))
