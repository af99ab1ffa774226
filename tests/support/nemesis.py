"""Clients that do as they like and a nemesis that does its worst, all from one seed.

Writers share a few keys and write with whatever context they last saw, or none; sequential writers have keys of their
own and always read before they go on after anything but an acknowledgement. The nemesis kills, cuts and heals, one
thing after another, and may leave the cluster without a quorum for a while. At the end everything is mended.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from random import Random

import trio

from leafdb.config import StorageConfig
from leafdb.errors import LeafdbError, StorageError
from leafdb.model.bucket import BucketProperties
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.final_record import check_final
from leafdb.testing.history import History
from leafdb.testing.raw_client import RawClient, Severed
from leafdb.types import Durability, NodeId
from leafdb.vfs.memory import Fault

SHARED_KEYS = 5
WRITERS = 4
SEQUENTIAL_WRITERS = 2


@dataclass(frozen=True)
class Plan:
    """What a run is like. `power` allows power cuts: only for buckets that sync before they acknowledge."""

    nodes: int = 3
    seconds: float = 12.0
    durability: Durability = Durability.PERIODIC
    power: bool = False
    skew_ms: int = 0
    cold: bool = False
    """Memtables are tiny and nothing is ever in the page cache: most records are waited for."""
    disks: bool = False
    """Disks fill up, fail and are well again."""


class Workload:
    """The clients of one run."""

    def __init__(self, cluster: MemoryCluster, bucket: BucketProperties, history: History, rng: Random) -> None:
        self._cluster = cluster
        self._bucket = bucket
        self._history = history
        self._rng = rng
        self._clients: dict[NodeId, RawClient] = {}

    async def shared(self, stop: trio.Event) -> None:
        """One of those who write the same keys."""
        rng = Random(self._rng.randrange(1 << 62))
        contexts: dict[str, bytes] = {}
        while not stop.is_set():
            key = f"shared{rng.randrange(SHARED_KEYS)}"
            node = rng.choice(sorted(self._cluster.disks))
            timeout_s = rng.choice((0.2, 1.0, 2.0))
            if rng.random() < 0.4:
                context = await self.get(node, key, timeout_s)
            else:
                blind = rng.random() < 0.15
                context = await self.put(
                    node,
                    key,
                    None if blind else contexts.get(key),
                    timeout_s,
                    delete=rng.random() < 0.2,
                    w=rng.choice((0, 0, 0, 1, 3)),
                    sloppy=rng.choice((None, None, True, False)),
                )
            if context is not None:
                contexts[key] = context
            await trio.sleep(rng.expovariate(1 / 0.05))

    async def sequential(self, number: int, stop: trio.Event) -> None:
        """One whose key is its own."""
        rng = Random(self._rng.randrange(1 << 62))
        key = f"own{number}"
        context: bytes | None = None
        while not stop.is_set():
            node = rng.choice(sorted(self._cluster.disks))
            if context is None:
                context = await self.get(node, key, 2.0)
            else:
                context = await self.put(node, key, context, 1.0, delete=False, w=0, sloppy=None)
            await trio.sleep(rng.expovariate(1 / 0.05))

    async def get(self, node: NodeId, key: str, timeout_s: float) -> bytes | None:
        """A quorum read; its context. Where there are fallbacks only a strict one promises anything: `sloppy=False`, or
        so many primaries."""
        client = await self._client(node)
        if client is None:
            return None
        pr, sloppy = self._rng.choice(((0, None), (0, False), (2, None)))
        promised = pr or sloppy is False or len(self._cluster.disks) == self._bucket.n
        known = self._history.begin_read(key) if promised else None
        try:
            reply = await client.get(self._bucket, key, timeout_s=timeout_s, pr=pr, sloppy=sloppy)
        except (Severed, LeafdbError) as error:
            self._history.log.append(("get", key, type(error).__name__))
            return None
        self._history.read(key, known, reply)
        return reply.context

    async def put(
        self,
        node: NodeId,
        key: str,
        context: bytes | None,
        timeout_s: float,
        *,
        delete: bool,
        w: int,
        sloppy: bool | None,
    ) -> bytes | None:
        """A write; its context when it was acknowledged."""
        client = await self._client(node)
        if client is None:
            return None
        write = self._history.begin_write(key, delete=delete, context=context)
        try:
            reply = await client.put(
                self._bucket, key, write.value, context, timeout_s=timeout_s, w=w, sloppy=sloppy, op_id=write.op_id
            )
        except Severed:
            self._history.failed(write, "unknown", "Severed")
            return None
        except LeafdbError as error:
            self._history.failed(write, error.outcome, type(error).__name__)
            return None
        self._history.acked(write, reply)
        return reply.context

    async def _client(self, node: NodeId) -> RawClient | None:
        client = self._clients.get(node)
        if client is None or client.closed:
            try:
                client = self._clients[node] = await self._cluster.client(node)
            except Severed:
                return None
        return client


class Nemesis:
    """One bad thing after another."""

    def __init__(self, cluster: MemoryCluster, plan: Plan, rng: Random) -> None:
        self._cluster = cluster
        self._plan = plan
        self._rng = rng

    async def run(self, seconds: float) -> None:
        """Until the time is over; what is broken then stays so."""
        rng = self._rng
        with trio.move_on_after(seconds):
            while True:
                await trio.sleep(rng.expovariate(1 / 0.7))
                with trio.CancelScope(shield=True):
                    await self._one(rng.random())

    async def _one(self, chance: float) -> None:
        cluster, rng = self._cluster, self._rng
        down = sorted(set(cluster.disks) - set(cluster.nodes))
        up = sorted(cluster.nodes)
        if self._plan.disks and rng.random() < 0.3 and up:
            self._trouble(rng.choice(up))
        elif chance < 0.35 and down:
            await self._start(rng.choice(down))
        elif chance < 0.6 and up:
            most = len(up) if rng.random() < 0.15 else 1
            victims = rng.sample(up, most)
            if self._plan.power and rng.random() < 0.5:
                await cluster.power_cut(*victims)
            elif rng.random() < 0.2:
                await cluster.stop(*victims)
            else:
                await cluster.kill(*victims)
        elif chance < 0.8:
            one, *others = rng.sample(sorted(cluster.disks), rng.randint(2, len(cluster.disks)))
            cluster.cut(one, others, silently=rng.random() < 0.5)
        else:
            cluster.heal()

    def _trouble(self, node: NodeId) -> None:
        cluster, rng = self._cluster, self._rng
        if cluster.disks[node].quota_bytes is not None:
            cluster.free_disk(node)
        elif rng.random() < 0.5:
            cluster.fill_disk(node)
        else:
            kind = rng.choice(("sync", "append", "create", "rename", "read_at", "sync_dir", "unlink"))
            cluster.disks[node].faults.append(Fault(kind, at=rng.randint(1, 20), short=rng.random() < 0.5))

    async def _start(self, node: NodeId) -> None:
        """Start a node on a disk that works; one that was to fail while it starts is tried again."""
        with suppress(StorageError):
            await self._cluster.start(node)
            return
        self._cluster.disks[node].faults.clear()
        await self._cluster.start(node)

    async def delay(self) -> None:
        """Now and then let what two nodes say to each other wait a little, so that others overtake it."""
        cluster, rng = self._cluster, self._rng
        while True:
            await trio.sleep(rng.expovariate(1 / 0.03))
            one, other = rng.sample(sorted(cluster.disks), 2)
            with cluster.held(one, other):
                await trio.sleep(rng.expovariate(1 / 0.015))

    async def mend(self) -> None:
        """Make everything whole again and wait until nobody owes anything."""
        cluster = self._cluster
        cluster.heal()
        for node, disk in cluster.disks.items():
            cluster.free_disk(node)
            disk.faults.clear()
        await trio.sleep(1.0)  # what has failed ends
        for node in sorted(set(cluster.disks) - set(cluster.nodes)):
            await cluster.start(node)
        await cluster.settle(900)


async def ordeal(seed: int, plan: Plan) -> History:
    """One run; raises when a promise was broken."""
    rng = Random(seed)
    disk = Random(seed + 1)

    def latency_s() -> float:
        return disk.expovariate(1 / 0.002) if disk.random() < 0.98 else disk.uniform(0.05, 0.3)

    history = History()
    storage = StorageConfig(memtable_bytes=8_192) if plan.cold else StorageConfig()
    async with memory_cluster(plan.nodes, seed, disk_latency_s=latency_s, partitions=16, storage=storage) as cluster:
        for node, file_system in cluster.disks.items():
            cluster.skew_ms[node] = rng.randint(-plan.skew_ms, plan.skew_ms)
            file_system.cold = plan.cold
        bucket = await cluster.create_bucket(durability=plan.durability)
        workload = Workload(cluster, bucket, history, rng)
        nemesis = Nemesis(cluster, plan, Random(seed + 2))
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            for _ in range(WRITERS):
                nursery.start_soon(workload.shared, stop)
            for number in range(SEQUENTIAL_WRITERS):
                nursery.start_soon(workload.sequential, number, stop)
            async with trio.open_nursery() as troubles:
                troubles.start_soon(nemesis.delay)
                await nemesis.run(plan.seconds)
                troubles.cancel_scope.cancel()
            stop.set()
        await nemesis.mend()
        await cluster.assert_replicas_equal(bucket)
        reader = await cluster.client(NodeId(1))
        for key in history.written_keys():
            owner = cluster.primaries(bucket, key)[0]
            check_final(history, key, await cluster.record(owner, bucket, key))
            known = history.begin_read(key)
            history.read(key, known, await reader.get(bucket, key, r=3))
        history.check_honest()
        await cluster.settle()
        quiet = [node.metrics.read_repairs_total for node in cluster.nodes.values()]
        for key in history.written_keys():
            await reader.get(bucket, key, r=3)
        assert quiet == [node.metrics.read_repairs_total for node in cluster.nodes.values()], "a quiet cluster repairs"
    return history
