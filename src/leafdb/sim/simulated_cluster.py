"""A cluster in memory that is what a plan says: its constants, its network, its disks and how slow they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random
from typing import Final

import trio
import xxhash

from leafdb.config import Config, RepairConfig, StorageConfig
from leafdb.consensus.ballot import AcceptorId
from leafdb.node.control_seats import acceptor_of, control_of
from leafdb.node.node import Node
from leafdb.node.purge_rules import led
from leafdb.node.world import World
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.ring import Ring
from leafdb.sim.plan import Plan
from leafdb.sim.ring_watch import RingWatch
from leafdb.sim.trace import Trace
from leafdb.testing.cluster import MemoryCluster
from leafdb.testing.network import Link, MemoryNetwork
from leafdb.testing.process import Life, MemoryExecutor
from leafdb.types import NodeId, PartitionId

SLOWEST_S: Final = 2.0
SELDOM: Final = 0.02
"""Chance of a call to a disk that takes a hundred times as long as the others, 0.3 s at most."""


class SimulatedCluster(MemoryCluster):
    """`slowness` says how many times slower than planned each node's disk is at present."""

    def __init__(self, nursery: trio.Nursery, plan: Plan, trace: Trace) -> None:
        seed = plan.seed
        network = MemoryNetwork(Random(f"{seed}/network"))
        network.default_link = plan_link(plan)
        network.observer = _deliveries(trace)
        super().__init__(
            nursery,
            plan.founders,
            Random(f"{seed}/cluster").randrange(1 << 62),
            partitions=plan.partitions,
            storage=StorageConfig(
                memtable_bytes=plan.memtable_bytes,
                flushed_in_memory=plan.flushed_in_memory,
                block_cache_bytes=plan.block_cache_bytes,
                wal_sync_interval_s=plan.wal_sync_interval_s,
            ),
            network=network,
        )
        self.plan = plan
        self.slowness: dict[NodeId, float] = dict.fromkeys(self.disks, 1.0)
        self.watch: RingWatch = RingWatch(self)
        self._disk_rng = Random(f"{seed}/disk latency")
        self._skews = Random(f"{seed}/skew")
        for node, disk in self.disks.items():
            disk.cold = plan.cold
            self.skew_ms[node] = self._skews.randint(-plan.skew_ms, plan.skew_ms)

    def config(self, node: NodeId) -> Config:
        """With hints as the plan has them, and proofs of horizons."""
        plan = self.plan
        repair = RepairConfig(
            hints_bytes_max=plan.hints_bytes_max,
            hint_age_max_s=plan.hint_age_max_s,
            purge_interval_s=plan.purge_interval_s,
        )
        return replace(super().config(node), repair=repair)

    def world(self, node: NodeId, life: Life) -> World:
        """With a disk that takes its time."""
        latency_s = partial(self._disk_latency_s, node)
        return replace(
            super().world(node, life),
            log_executor=MemoryExecutor(life, latency_s),
            read_executor=MemoryExecutor(life, latency_s),
        )

    async def add_node(self, *, name: str = "", host: str = "", zone: str = "default") -> NodeId:
        """As the cluster's own, on a machine like the others."""
        node = NodeId(max(self.disks) + 1)
        self.slowness[node] = 1.0
        await super().add_node(name=name, host=host, zone=zone)
        self.disks[node].cold = self.plan.cold
        self.skew_ms[node] = self._skews.randint(-self.plan.skew_ms, self.plan.skew_ms)
        return node

    @property
    def ring(self) -> Ring:
        """The newest that anybody has ever believed in, also while every node is down."""
        return self.watch.ring

    def unsettled(self) -> list[str]:
        """As the cluster's own; and whose ring is changing, or not yet what it is for others."""
        metadata = self.watch.newest
        if starting := [f"n{machine} is starting" for machine, node in self.nodes.items() if not node.ready]:
            return starting
        left = super().unsettled()
        if metadata is None:
            return left
        if metadata.plan is not None:
            left.append(f"a plan is in progress: {metadata.plan.describe()}")
        left += [f"n{machine} runs, and is banned" for machine in self.banned()]
        late = [machine for machine, node in self.nodes.items() if _is_late(node, metadata)]
        left += [f"n{machine} has not heard of epoch {metadata.epoch}" for machine in late]
        return left + [f"n{machine}: {text}" for machine, node in self.nodes.items() for text in _unforgotten(node)]

    def undead(self) -> list[str]:
        """Who leads partitions in which something dies, or has died: all of it is forgotten by itself when nobody
        writes, and clocks agree."""
        left = []
        for machine, node in self.nodes.items():
            dying = node.trees.kept.deaths.partitions()
            if dying and node.view.ring is not None and node.view.buckets:
                n = max(bucket.properties.n for bucket in node.view.buckets.values())
                mask = led(node.view.ring, n, node.view.self_id, node.view.usable)
                waiting = [at for at in dying if mask >> at & 1]
                left += [f"n{machine}: in {len(waiting)} partitions something is to be forgotten"] * bool(waiting)
        return left

    def can_decide(self, without: NodeId | None = None) -> bool:
        """Whether the control set has a majority of votes that are not lost, also without those of one machine."""
        metadata = self.watch.newest
        if metadata is None:
            return False
        votes: set[AcceptorId] = set()
        for machine, node in self.nodes.items():
            if machine != without and node.ready and node.register.has_vote and node.view.self_id in metadata.members:
                votes.add(acceptor_of(node.view.self_id, metadata))
        return control_of(metadata).has_majority(votes)

    def banned(self) -> list[NodeId]:
        """Machines that run nodes who were sent away for good."""
        metadata = self.watch.newest
        return (
            [] if metadata is None else [machine for machine, node in self.nodes.items() if _is_banned(node, metadata)]
        )

    def _disk_latency_s(self, node: NodeId) -> float:
        rng, mean_s = self._disk_rng, self.plan.disk_latency_s
        drawn_s = rng.expovariate(1 / mean_s) if rng.random() >= SELDOM else min(0.3, 100 * mean_s)
        return min(SLOWEST_S, drawn_s * self.slowness[node])


def _is_banned(node: Node, metadata: ClusterMetadata) -> bool:
    return node.view.self_id in metadata.bans


def _is_late(node: Node, metadata: ClusterMetadata) -> bool:
    return node.view.metadata is not None and node.view.epoch < metadata.epoch


def _unforgotten(node: Node) -> list[str]:
    """Where a node has not come down to the horizon, or cannot vouch for what lies below."""
    ring, horizons = node.view.ring, node.horizons
    if ring is None or not node.view.buckets:
        return []
    n = max(bucket.properties.n for bucket in node.view.buckets.values())
    behind = [
        at
        for at in map(PartitionId, range(ring.partitions))
        if (horizons.swept(at) != horizons.of(at) or not horizons.vouches(at))
        and node.view.self_id in ring.holders(at, n)
    ]
    unswept = [at for at in behind if horizons.swept(at) != horizons.of(at)]
    unsure = [at for at in behind if not horizons.vouches(at)]
    told = {"not swept": unswept, "not vouched for": unsure}
    return [f"{len(partitions)} partitions {what}" for what, partitions in told.items() if partitions]


def plan_link(plan: Plan) -> Link | None:
    """What every way between hosts is like when nothing is wrong with it."""
    return Link(plan.latency_s) if plan.latency_s[1] else None


def _deliveries(trace: Trace) -> Callable[[str, str, bytes], None]:
    def delivered(source: str, target: str, data: bytes) -> None:
        trace.feed(b"net", b"%s %s %s" % (source.encode(), target.encode(), xxhash.xxh3_64_digest(data)))

    return delivered
