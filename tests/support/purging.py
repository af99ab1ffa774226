"""Clusters in which something waits to be forgotten: tests say what, in place of the sweeper."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from leafdb.model.hlc import LOGICAL_BITS
from leafdb.model.key import encode_key
from leafdb.node.node import Node
from leafdb.node.purge_proof import END, PROVE, Outcome, ProofRun
from leafdb.node.purge_rules import Answer, Hold
from leafdb.node.view import BucketView
from leafdb.ring.token import storage_key
from leafdb.testing.cluster import FIRST, MemoryCluster
from leafdb.types import NodeId

Hook = Callable[[], Awaitable[None]]


def die(cluster: MemoryCluster, partitions: Iterable[int], ago_s: float = 5.0) -> None:
    """On every node that runs, something in these partitions has been dead for so long, and nothing in others."""
    death = (cluster.now_ms() - int(ago_s * 1000)) << LOGICAL_BITS
    deaths = dict.fromkeys(partitions, death)
    for node in cluster.nodes.values():
        node.purge.driver.oldest_death = deaths.get


def horizons(node: Node, partitions: Iterable[int]) -> set[int]:
    """The horizons of these partitions, as a node knows them."""
    return {node.horizons.of(partition) for partition in partitions}


async def purge_report(cluster: MemoryCluster, node: NodeId, via: NodeId = FIRST) -> Mapping[str, Any]:
    """What `repair status` says of the horizons that a node leads."""
    client = await cluster.client(via)
    reply = await client.admin("repair.status")
    client.close()
    (line,) = [line for line in reply["purges"] if line["node"] == f"n{node}"]
    found: Mapping[str, Any] = line
    return found


class Interrupted(ProofRun):
    """A proof in which something happens when owners begin to compare, when all is compared, and when all have
    agreed."""

    after_first_look: Hook | None = None
    before_end: Hook | None = None
    after_end: Hook | None = None

    async def _ask(self, verb: str, members: Iterable[NodeId]) -> dict[NodeId, Answer]:
        if verb == END and self.before_end is not None:
            await self.before_end()
        answers = await super()._ask(verb, members)
        if verb == PROVE and self.after_first_look is not None:
            hook, self.after_first_look = self.after_first_look, None
            await hook()
        if verb == END and self.after_end is not None:
            await self.after_end()
        return answers


def proof_at(node: Node, partitions: int) -> Interrupted:
    """A proof of these partitions that this node leads."""
    assert node.view.metadata is not None
    return Interrupted(node, node.purge.member, node.view.metadata, partitions)


async def write_and_delete(cluster: MemoryCluster, **properties: Any) -> None:
    """Some keys in a new bucket, half of them deleted again."""
    bucket = await cluster.create_bucket(**properties)
    client = await cluster.client(FIRST)
    for number in range(40):
        await client.put(bucket, f"key{number}", b"v")
        if number % 2:
            await client.put(bucket, f"key{number}", None)
    client.close()
    await cluster.settle()


def key_in(bucket: BucketView, partition: int) -> bytes:
    """The storage key of some key in a partition, of 64."""
    keys = (storage_key(bucket.id, encode_key(f"late{number}")) for number in range(10_000))
    return next(key for key in keys if key[0] >> 2 == partition)


def holds(outcome: Outcome) -> set[tuple[NodeId, Hold]]:
    """Who held it up, and how."""
    return {(each.member, each.refusal.hold) for each in outcome.held_up}
