"""The life of a ring, through admin verbs alone and under a steady load: it grows from one node to five, has a killed
node replaced, shrinks, gives a dead one up; and at no time anything that was acknowledged is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from leafdb.errors import LeafdbError
from leafdb.model.bucket import BucketProperties
from leafdb.node.node import Node
from leafdb.ring.ring import Ring
from leafdb.testing.cluster import MemoryCluster, address_of, memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId, PartitionId
from support.repairs import contents, partition_of
from support.ring_load import ALL, COUNTS, Counts, Load
from support.ring_operators import metadata_of, operator, until_phase

N1, N2, N3, N4, N5, N6 = map(NodeId, range(1, 7))
KEYS = 400
VALUE = b"v" * 400
SLACK = 4 * 1024
"""Bytes: what is written while copies are made may travel twice."""


class Life:
    """A ring and its operator."""

    def __init__(self, cluster: MemoryCluster, bucket: BucketProperties, load: Load) -> None:
        self.cluster = cluster
        self.bucket = bucket
        self.load = load

    async def change(self, *changes: Mapping[str, Any]) -> None:
        """Stage, plan, commit, and wait for the end; then look at what has become of the ring."""
        via = self.via
        for change in changes:
            await operator(self.cluster, via, "cluster.stage", **change)
        plan = await operator(self.cluster, via, "cluster.plan")
        assert not plan["refusals"]
        assert plan["copies_ratio"] is None or plan["copies_ratio"] <= 1.1, plan["copies_ratio"]
        before, moved = self.cluster.ring, self.received()
        failures = len(self.load.failures)
        await operator(self.cluster, via, "cluster.commit", plan_id=plan["plan_id"], force=False)
        await until_phase(self.cluster, None, *self.staying(plan))
        self.check_ring()
        for node, count in self.received().items():
            assert count - moved.get(node, 0) <= 1.1 * await self.gained(node, before) + SLACK, node
        for error in self.load.failures[failures:]:
            assert isinstance(error, LeafdbError), error
            assert error.retryable, error

    @property
    def via(self) -> NodeId:
        """A member that runs."""
        return min(node for node, it in self.cluster.nodes.items() if it.view.metadata is not None)

    @property
    def node(self) -> Node:
        """That member's."""
        return self.cluster.nodes[self.via]

    def staying(self, plan: Mapping[str, Any]) -> list[NodeId]:
        """Those that run and own something in the end."""
        names = {each["name"] for each in plan["ownership"] if each["after"]}
        return [node for node, it in self.cluster.nodes.items() if it.config.node.name in names]

    async def joins(self, *machines: NodeId) -> None:
        """These blank nodes join."""
        await self.change(*({"change": "join", "address": address_of(machine)} for machine in machines))

    def received(self) -> dict[NodeId, int]:
        """Bytes that copies brought, by node."""
        return {node: it.metrics.transfer_bytes_received_total for node, it in self.cluster.nodes.items()}

    async def gained(self, node: NodeId, before: Ring) -> int:
        """Bytes that a node has of ranges that it did not hold before."""
        ranges = set(self.cluster.ring.partitions_held(node, self.bucket.n)) - set(
            before.partitions_held(node, self.bucket.n)
        )
        items = (await contents(self.cluster.nodes[node], self.bucket.name)).items() if ranges else ()
        return sum(len(key) + len(record) for key, record in items if partition_of(self.node, key) in ranges)

    def check_ring(self) -> None:
        """Shares are fair, lists are spread over hosts, everybody believes the same."""
        ring, metadata = self.cluster.ring, metadata_of(self.cluster, self.via)
        fair = ring.partitions / len(metadata.members)
        assert set(ring.loads) == set(metadata.members)
        assert all(abs(load - fair) < 1 for load in ring.loads.values()), ring.describe()
        for partition in map(PartitionId, range(ring.partitions)):
            owners = ring.primaries(partition, self.bucket.n)
            hosts = {metadata.members[owner].host for owner in owners}
            assert len(hosts) == len(owners) == min(self.bucket.n, len(metadata.members))
        assert not ring.warnings() or len(metadata.members) < self.bucket.n

    async def kill(self, node: NodeId) -> None:
        """A node dies for good. What one replica alone had acknowledged would die with it, so that is everywhere."""
        if self.load.counts.w == 1:
            await self.load.pause()
            await self.cluster.settle()
        await self.cluster.kill(node)
        self.load.pauses = False
        await trio.sleep(20)
        self.load.failures = [error for error in self.load.failures if isinstance(error, LeafdbError)]


@asynccontextmanager
async def life(counts: Counts, seed: int) -> AsyncIterator[Life]:
    """One node with some data, and clients. At the end all is there, on whom it belongs to and nobody else."""
    async with memory_cluster(1, seed, partitions=64) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        for number in range(KEYS):
            await client.put(bucket, f"old{number}", VALUE)
        load = Load(cluster, bucket, counts, sloppy=True, pause_s=0.15)
        async with trio.open_nursery() as nursery:
            for lane in range(3):
                nursery.start_soon(load.lane, lane)
            yield Life(cluster, bucket, load)
            load.over = True
        await cluster.settle()
        await cluster.assert_replicas_equal(bucket)
        await load.check()
        client = await cluster.client(min(cluster.nodes))
        for number in range(KEYS):
            assert await client.values(bucket, f"old{number}", r=ALL) == [VALUE]
        assert load.written > 100
        assert load.read > 200


@pytest.mark.parametrize("counts", COUNTS)
@virtual
async def test_a_ring_grows_is_healed_and_shrinks_and_loses_nothing(counts: Counts) -> None:
    async with life(counts, 1) as ring:
        cluster = ring.cluster
        await ring.joins(await cluster.add_node(), await cluster.add_node())
        await ring.joins(await cluster.add_node(), await cluster.add_node())
        assert set(cluster.ring.loads) == {N1, N2, N3, N4, N5}
        await ring.kill(N2)
        fresh = await cluster.add_node()
        await ring.change({"change": "replace", "node": "n2", "address": address_of(fresh)})
        assert set(cluster.ring.loads) == {N1, N3, N4, N5, N6}
        await ring.change({"change": "leave", "node": "n4"})
        with trio.fail_after(60):
            await cluster.processes[N4].ended.wait()
        await ring.kill(N3)
        await ring.change({"change": "force-remove", "node": "n3"})
        assert set(cluster.ring.loads) == {N1, N5, N6}
        assert metadata_of(cluster, N5).bans == (N2, N3, N4)
