"""Rings of running clusters that change, without anybody who drives a plan: steps taken by a test, one by one.

Copies are made by nobody here unless nodes make them themselves; so what new owners have in the end has come the way
that the test is about.
"""

from __future__ import annotations

from collections.abc import Iterable

import trio

from leafdb.errors import StorageError
from leafdb.node.node import Node
from leafdb.node.register import Change
from leafdb.ring.member import ProposedMember
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.proposal import propose
from leafdb.ring.staging import StagedChange
from leafdb.ring.transitions import advance, commit, finish, stage
from leafdb.testing.cluster import MemoryCluster, host_of
from leafdb.types import NodeId
from leafdb.vfs.memory import MemoryFileSystem
from support.ring_changes import plan_of
from support.transports import until

CHANGE_S = 20.0


def newcomer(node: NodeId) -> ProposedMember:
    """The node that will be number `node`."""
    host = host_of(node)
    return ProposedMember(
        name=f"n{node}", host=host, client_address=f"{host}:1", peer_address=f"{host}:2", http_address=f"{host}:3"
    )


async def changed(cluster: MemoryCluster, via: Node, change: Change) -> ClusterMetadata:
    """Make a change; returns when every running member has it."""
    made = await via.register.change(change, CHANGE_S)
    await known(made, cluster.nodes.values())
    return made


async def known(metadata: ClusterMetadata, nodes: Iterable[Node]) -> None:
    """Wait until these nodes have the metadata, if they are members under it."""
    members = [node for node in nodes if node.view.self_id in metadata.members]
    await until(lambda: all(node.view.epoch >= metadata.epoch for node in members), 60.0)


async def begun(cluster: MemoryCluster, via: Node, *changes: StagedChange) -> ClusterMetadata:
    """Commit a plan of these changes, and let its newcomers in."""

    def committed(current: ClusterMetadata, change_id: bytes) -> ClusterMetadata:
        for change in changes:
            current = stage(current, change)
        return commit(current, propose(current).id)

    made = await changed(cluster, via, committed)
    for node in plan_of(made).joining:
        await admitted(cluster, node, made)
    return made


async def admitted(cluster: MemoryCluster, node: NodeId, metadata: ClusterMetadata) -> None:
    """Start a blank node, and make it the member it is to be."""
    cluster.disks[node] = MemoryFileSystem()
    cluster.skew_ms[node] = 0
    cluster._latencies[node] = None
    cluster._boots[node] = 0
    started = await cluster.start(node)
    synced = trio.Event()
    errors: list[StorageError | None] = []

    def done(error: StorageError | None) -> None:
        errors.append(error)
        synced.set()

    started.founded(metadata, node, done)
    await synced.wait()
    assert errors == [None]


async def ended(cluster: MemoryCluster, via: Node) -> ClusterMetadata:
    """Take the plan in progress to its end, if nobody else does; who goes is stopped."""

    def advanced(current: ClusterMetadata, change_id: bytes) -> ClusterMetadata:
        return current if current.plan is None else advance(current, current.plan.id, change_id=change_id)

    def finished(current: ClusterMetadata, change_id: bytes) -> ClusterMetadata:
        return current if current.plan is None else finish(current, current.plan.id, change_id=change_id)

    await changed(cluster, via, advanced)
    made = await changed(cluster, via, finished)
    gone = [node for node in cluster.nodes if node not in made.members]
    await cluster.kill(*gone)
    return made


async def moved(cluster: MemoryCluster, via: Node, *changes: StagedChange) -> ClusterMetadata:
    """A whole plan."""
    await begun(cluster, via, *changes)
    return await ended(cluster, via)
