"""A plan of a whole cluster in memory, taken step by step by the test; and the copies between two of its phases."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import trio

from leafdb.model.bucket import BucketProperties
from leafdb.node.admin_data import offer
from leafdb.node.node import Node
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.proposal import propose
from leafdb.ring.ring import Ring
from leafdb.ring.staging import StagedChange
from leafdb.ring.transitions import abort, advance, commit, finish, finish_abort, stage
from leafdb.testing.cluster import FIRST, MemoryCluster
from leafdb.testing.stores import tree_of
from leafdb.types import Conflict, Durability, NodeId, Token, TreeId
from support.ring_changes import plan_of


class RingSteps:
    """Changes of the ring of a cluster, made through the register of one node and told to all that run."""

    def __init__(self, cluster: MemoryCluster, via: NodeId = FIRST) -> None:
        self.cluster = cluster
        self.via = via
        self.deaf: set[NodeId] = set()
        """Nodes that learn of nothing."""

    @property
    def ring(self) -> Ring:
        """The ring in force."""
        ring = self.cluster.nodes[self.via].view.ring
        assert ring is not None
        return ring

    def deafen(self, node: NodeId) -> None:
        """From now on the node stays with the ring it has, whatever it is told."""

        def learn(_: ClusterMetadata, done: Callable[[], None] | None = None) -> None:
            if done is not None:
                done()

        self.deaf.add(node)
        self.cluster.nodes[node].register.learn = learn  # type: ignore[method-assign, assignment]

    async def commit(self, *changes: StagedChange) -> None:
        """Write both, read old."""
        for change in changes:
            await self._change(partial(_staged, change))
        await self._change(lambda metadata: commit(metadata, propose(metadata).id))

    async def advance(self) -> None:
        """Write both, read new."""
        await self._change(lambda metadata: advance(metadata, plan_of(metadata).id))

    async def finish(self) -> None:
        """Done."""
        await self._change(lambda metadata: finish(metadata, plan_of(metadata).id))

    async def abort(self) -> None:
        """Back, all the way."""
        await self._change(lambda metadata: abort(metadata, plan_of(metadata).id))
        if self.ring.in_plan:
            await self._change(lambda metadata: finish_abort(metadata, plan_of(metadata).id))

    async def _change(self, change: Callable[[ClusterMetadata], ClusterMetadata]) -> None:
        node = self.cluster.nodes[self.via]
        await offer(node, await node.register.change(lambda current, _: change(current), 10.0))
        epoch = node.view.epoch
        with trio.fail_after(60):
            while any(  # noqa: ASYNC110  # nothing tells when everybody has it
                each.view.epoch < epoch for number, each in self.cluster.nodes.items() if number not in self.deaf
            ):
                await trio.sleep(0.05)

    async def copy(self, bucket: BucketProperties) -> int:
        """Give every new owner what every old owner that runs has, by the door all copies go through; how many."""
        ring, copied = self.ring, 0
        for number, node in list(self.cluster.nodes.items()):
            for key, record in (await tree_of(node, TreeId(bucket.id))).items():
                partition = ring.partition_of(Token(int.from_bytes(key[:8], "big")))
                sets = ring.write_sets(partition, bucket.n)
                if len(sets) < 2 or number not in sets[0]:
                    continue
                for target in sets[1]:
                    if target != number and target in self.cluster.nodes:
                        await merged(self.cluster.nodes[target], bucket, key, record)
                        copied += 1
        return copied


def _staged(change: StagedChange, metadata: ClusterMetadata) -> ClusterMetadata:
    return stage(metadata, change)


async def merged(node: Node, bucket: BucketProperties, key: bytes, record: bytes) -> None:
    """Merge a record at a node, as an exchange does."""
    over = trio.Event()
    problems: list[Exception] = []

    def done(error: Exception | None) -> None:
        if error is not None:
            problems.append(error)
        over.set()

    node.replica.merge(TreeId(bucket.id), key, record, Conflict.SIBLINGS, Durability.ALWAYS, done)
    await over.wait()
    assert not problems, problems
