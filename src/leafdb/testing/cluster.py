"""Whole nodes in one trio loop: memory files, memory streams, inline workers, any clock. The node code is the real one.

What can be done to them is what happens to real ones: a clean stop, SIGKILL (`kill`: written bytes stay, nothing else
does), a power cut (`power_cut`: unsynced bytes may be torn or gone, another boot id), links cut loudly or silently, a
disk that fails or fills (through `disks`, before or while a node runs), wall clocks that are wrong (`skew_ms`).
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import trio

from leafdb.config import Address, Config, ListenConfig, NodeConfig, StorageConfig
from leafdb.errors import StorageError
from leafdb.limits import DISK_FREE_BYTES_LOW
from leafdb.model.bucket import BucketProperties
from leafdb.model.key import encode_key
from leafdb.model.record import describe
from leafdb.node.boot import read_value
from leafdb.node.hint_keeper import HINTS_TREE
from leafdb.node.node import Node
from leafdb.node.world import World
from leafdb.ring.member import ProposedMember
from leafdb.ring.metadata import found
from leafdb.ring.token import storage_key
from leafdb.storage.job_runner import InlineJobRunner
from leafdb.testing.network import MemoryNetwork
from leafdb.testing.process import Latency, Life, MemoryExecutor
from leafdb.testing.raw_client import RawClient, Severed
from leafdb.testing.stores import first_of, pair, tree_of
from leafdb.testing.virtual_time import current_schedule, may_freeze, own_tasks
from leafdb.types import BucketId, Key, NodeId, Token, TreeId
from leafdb.vfs.memory import MemoryFileSystem
from leafdb.wire.registry import Lane

SECRET = b"a secret only for tests"
CLUSTER_ID = bytes(range(16))
CLIENT_HOST = "client"
FIRST = NodeId(1)
UNIX_MS = 1_700_000_000_000


class Process:
    """One run of a node."""

    def __init__(self, node: Node, life: Life) -> None:
        self.node = node
        self.life = life
        self.scope = trio.CancelScope()
        self.ready = trio.Event()
        self.drain = trio.Event()
        self.stop = trio.Event()
        self.ended = trio.Event()
        self.failure: StorageError | None = None


class MemoryCluster:
    """Nodes 1 to n by number, each with a file system that outlives it."""

    def __init__(
        self,
        nursery: trio.Nursery,
        nodes: int,
        seed: int,
        *,
        disk_latency_s: Latency | None = None,
        partitions: int = 64,
        storage: StorageConfig | None = None,
        network: MemoryNetwork | None = None,
    ) -> None:
        self._nursery = nursery
        self._rng = random.Random(seed)
        self._latency_s = disk_latency_s
        self._partitions = partitions
        self.network = network or MemoryNetwork(random.Random(f"{seed}/network"))
        self.disks = {NodeId(number): MemoryFileSystem() for number in range(1, nodes + 1)}
        self.nodes: dict[NodeId, Node] = {}
        """Those that run."""
        self.skew_ms = dict.fromkeys(self.disks, 0)
        self.storage = storage or StorageConfig()
        self.processes: dict[NodeId, Process] = {}
        """The newest run of each node, over or not."""
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
            log_executor=MemoryExecutor(life, self._latency_s),
            read_executor=MemoryExecutor(life, self._latency_s),
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
        return Config(
            node=NodeConfig(name=f"n{node}", host=host),
            listen=ListenConfig(client=Address(host, 1), peer=Address(host, 2), http=Address(host, 3)),
            storage=self.storage,
        )

    async def start(self, node: NodeId, limit_s: float = 60.0) -> Node:
        """Start a node on its disk; returns when it serves. Raises StorageError when it ends instead."""
        assert node not in self.nodes
        self._runs += 1
        life = Life(self._nursery, f"{host_of(node)} run {self._runs}")
        self.network.appear(host_of(node))
        process = Process(Node(self.config(node), self.world(node, life), SECRET), life)
        self.processes[node] = process
        self.nodes[node] = process.node

        async def run() -> None:
            own_tasks(life.owner)
            try:
                with process.scope:
                    await process.node.run(drain=process.drain, stop=process.stop, on_ready=process.ready.set)
            except StorageError as error:
                process.failure = error
            except BaseExceptionGroup as errors:
                failed, rest = errors.split(StorageError)
                if rest is not None or failed is None:
                    raise
                process.failure = first_of(failed)
            finally:
                if self.nodes.get(node) is process.node:
                    del self.nodes[node]
                if process.failure is None:
                    process.life.finish()
                else:
                    process.life.end()
                    process.node.world.fs.locks.clear()  # type: ignore[attr-defined]  # it is ours
                process.ended.set()

        self._nursery.start_soon(run)
        with trio.fail_after(limit_s):
            async with trio.open_nursery() as nursery:
                for event in (process.ready, process.ended):
                    nursery.start_soon(_cancel_when, event, nursery.cancel_scope)
        if process.failure is not None:
            raise process.failure
        return process.node

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
        processes = []
        for node in nodes:
            process = self.processes[node]
            if process.ended.is_set():
                continue
            processes.append(process)
            process.life.end()
            engine = getattr(process.node, "engine", None)
            if engine is not None:
                engine.close = lambda: None
            (self.network.vanish if vanish else self.network.host_died)(host_of(node))
            self._thaw(process)
            process.scope.cancel()
            self.disks[node].on_call = None
        for process in processes:
            await process.ended.wait()
        for node in nodes:
            self.disks[node].locks.clear()

    async def power_cut(self, *nodes: NodeId, keep: float | None = None, vanish: bool = False) -> None:
        """The power of these nodes goes in the same instant; their disks are what it left. `vanish` as in `kill`."""
        left = {node: self.disks[node].power_cut(self._rng, keep=keep) for node in nodes}
        await self.kill(*nodes, vanish=vanish)
        for node in nodes:
            self.disks[node] = left[node]
            self._boots[node] += 1

    def _thaw(self, process: Process) -> None:
        """What was stopped must run to its end."""
        if may_freeze():
            current_schedule().thaw(process.life.owner)

    async def restart(self, *nodes: NodeId) -> None:
        """Start nodes again, one after the other."""
        for node in nodes:
            await self.start(node)

    # -- disks

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
                client_address=f"{host_of(node)}:1",
                peer_address=f"{host_of(node)}:2",
                http_address=f"{host_of(node)}:3",
            )
            for node in self.nodes
        ]
        metadata = found("test", CLUSTER_ID, members, partitions=self._partitions)
        for number, node in self.nodes.items():
            synced = trio.Event()
            node.founded(metadata, number, lambda _, synced=synced: synced.set())  # type: ignore[misc]
            await synced.wait()
        await self.meet()

    async def meet(self, limit_s: float = 60.0) -> None:
        """Wait until all running nodes can use each other, on every lane."""

        def apart() -> bool:
            others = len(self.nodes) - 1
            return any(
                len(node.view.usable) < others or any(len(node.peers.connected(lane)) < others for lane in Lane)
                for node in self.nodes.values()
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

    def unsettled(self) -> list[str]:
        """Who still owes what."""
        left = []
        for number, node in self.nodes.items():
            owed = {
                "hints": sum(summary.records for summary in node.hints.ledger.summaries()),
                "exchanges": node.anti_entropy.pending,
                "incomplete": len(node.completeness.incomplete),
                "operations": len(node.coordinator.operations),
                "unreachable": len(self.nodes) - 1 - len(node.view.usable),
            }
            left += [f"n{number}: {count} {what}" for what, count in owed.items() if count]
        return left

    async def check(self) -> None:
        """Every invariant that a running node can check of itself."""
        self.network.check()
        for node in self.nodes.values():
            node.coordinator.check()
            node.wheel.check()
            node.peers.check()
            node.pump.check()
            node.engine.check()
            node.leases.epochs.check()
            node.leases.clock.check()
            node.anti_entropy.check()
            node.hints.ledger.check((await tree_of(node, HINTS_TREE)).items())

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

    # -- looking inside

    def walk(self, bucket: BucketProperties, key: Key) -> tuple[NodeId, ...]:
        """Who holds the key by right, and then who stands in for them."""
        ring = next(node.view.ring for node in self.nodes.values() if node.view.ring is not None)
        token = int.from_bytes(storage_key(bucket.id, encode_key(key))[:8], "big")
        return ring.walk(ring.partition_of(Token(token)))

    def primaries(self, bucket: BucketProperties, key: Key) -> tuple[NodeId, ...]:
        """Who holds the key by right."""
        return self.walk(bucket, key)[: bucket.n]

    def key_of(self, bucket: BucketProperties, *nodes: NodeId, stem: str = "key") -> str:
        """A key whose primaries begin with these nodes."""
        return next(
            f"{stem}{number}"
            for number in range(10_000)
            if self.primaries(bucket, f"{stem}{number}")[: len(nodes)] == nodes
        )

    async def record(self, node: NodeId, bucket: BucketProperties, key: Key) -> bytes | None:
        """What a node's own replica holds of a key."""
        return await read_value(self.nodes[node].engine, TreeId(bucket.id), storage_key(bucket.id, encode_key(key)))

    async def hints(self, node: NodeId) -> dict[bytes, bytes]:
        """All hints a node keeps."""
        return await tree_of(self.nodes[node], HINTS_TREE)

    async def assert_replicas_equal(self, bucket: BucketProperties) -> None:
        """Every primary of every key holds the same bytes; nobody else holds any."""
        trees = {number: await tree_of(node, TreeId(bucket.id)) for number, node in self.nodes.items()}
        ring = next(node.view.ring for node in self.nodes.values() if node.view.ring is not None)
        for key in sorted(set().union(*trees.values())):
            owners = ring.primaries(ring.partition_of(Token(int.from_bytes(key[:8], "big"))), bucket.n)
            held = {number: tree.get(key) for number, tree in trees.items()}
            lines = [f"n{number}: {describe(data) if data else None}" for number, data in held.items()]
            story = "\n".join([f"{key!r} of {owners}", *lines])
            assert len({held[owner] for owner in owners}) == 1, story
            assert all(held[number] is None for number in held if number not in owners), story


@asynccontextmanager
async def memory_cluster(
    nodes: int,
    seed: int = 1,
    *,
    disk_latency_s: Latency | None = None,
    partitions: int = 64,
    storage: StorageConfig | None = None,
    network: MemoryNetwork | None = None,
) -> AsyncIterator[MemoryCluster]:
    """A founded cluster whose members all reach each other. Leaving it checks every node and stops it."""
    async with trio.open_nursery() as nursery:
        cluster = MemoryCluster(
            nursery,
            nodes,
            seed,
            disk_latency_s=disk_latency_s,
            partitions=partitions,
            storage=storage,
            network=network,
        )
        for node in cluster.disks:
            await cluster.start(node)
        await cluster.found()
        yield cluster
        await cluster.check()
        await cluster.stop(*cluster.nodes)
        nursery.cancel_scope.cancel()


def host_of(node: NodeId) -> str:
    """A node's name in the network."""
    return f"host-{node}"


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
