"""Nodes that come to a cluster in memory: are they blank, are they members like any other?"""

from __future__ import annotations

from collections.abc import Callable

import trio

from leafdb.storage.identity import Identity, read_identity
from leafdb.testing.cluster import MemoryCluster
from leafdb.types import FIRST_BUCKET_ID, NodeId, TreeId
from support import plans


async def until(condition: Callable[[], bool], limit_s: float = 30.0) -> None:
    """Wait until it holds."""
    with trio.fail_after(limit_s):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.1)


def stamp_of(cluster: MemoryCluster, machine: NodeId) -> Identity:
    """What is stamped on a machine's disk."""
    identity = read_identity(cluster.disks[machine])
    assert identity is not None
    return identity


def is_blank(cluster: MemoryCluster, machine: NodeId) -> bool:
    """Whether the node of a machine serves and belongs to no cluster."""
    node = cluster.nodes.get(machine)
    return node is not None and node.ready and node.view.metadata is None and not node.engine.identity.cluster_id


async def assert_takes_part(cluster: MemoryCluster, machine: NodeId, number: NodeId) -> None:
    """It is a member like any other: everybody's metadata, sessions, trees, writes."""
    await cluster.meet()
    await plans.agree(cluster)
    node = cluster.nodes[machine]
    assert node.view.self_id == number
    assert node.engine.identity.node_id == number
    metadata = node.view.metadata
    assert metadata is not None
    assert metadata.members[number].name == node.config.node.name
    assert {tree for tree in node.engine.trees() if tree >= FIRST_BUCKET_ID} == set(map(TreeId, metadata.buckets))
    for other, others in cluster.members():
        assert others <= other.view.usable
    name = f"after-{metadata.epoch}-{number}"
    bucket = await cluster.create_bucket(name, via=machine, n=5)
    client = await cluster.client(machine)
    await client.put(bucket, "k", b"v", w=cluster.ring.effective_n(5))
    assert await client.values(bucket, "k") == [b"v"]
    client.close()
