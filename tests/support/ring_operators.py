"""Whole clusters whose ring changes by themselves: operators that stage and commit through admin verbs.

`Copies` stands in for the copies of a plan where a test wants to say when they are made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import trio

from leafdb.node.transfer_report import TransferReport
from leafdb.node.transfers import Transfers
from leafdb.node.view import ClusterView
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.plan import Phase
from leafdb.testing.cluster import MemoryCluster
from leafdb.types import NodeId

NOTHING = TransferReport(
    plan_id=b"",
    epoch=0,
    total=0,
    left=0,
    bytes_done=0,
    bytes_left=0,
    bytes_per_s=0,
    waiting=(),
    buckets=(),
    last_error="",
)


@dataclass
class Copies:
    """What a node says of its copies: that they are made, or not, or not in one phase."""

    done: bool = True
    stuck: tuple[Phase, ClusterView] | None = None
    figures: TransferReport = NOTHING
    limit: int = 0

    @property
    def transfers(self) -> Transfers:
        """As a node's."""
        return cast(Transfers, self)

    def report(self) -> TransferReport:
        return self.figures

    def settled(self) -> bool:
        if self.stuck is not None:
            phase, view = self.stuck
            plan = None if view.metadata is None else view.metadata.plan
            return plan is None or plan.phase is not phase
        return self.done

    def set_limit(self, bytes_per_s: int) -> None:
        self.limit = bytes_per_s


def copying(cluster: MemoryCluster, *, done: bool = True) -> dict[NodeId, Copies]:
    """Give every running node copies that are made, or are not."""
    made = {number: Copies(done) for number in cluster.nodes}
    for number, node in cluster.nodes.items():
        node.transfers = made[number].transfers
    return made


async def blank(cluster: MemoryCluster, *, done: bool = True) -> NodeId:
    """Start a node that belongs to no cluster, and would join."""
    node = await cluster.add_node()
    cluster.nodes[node].transfers = Copies(done).transfers
    return node


def metadata_of(cluster: MemoryCluster, node: NodeId) -> ClusterMetadata:
    """What a node believes."""
    found = cluster.nodes[node].view.metadata
    assert found is not None
    return found


def phases(cluster: MemoryCluster) -> dict[NodeId, Phase | None]:
    """How far the plan is, as each node believes."""
    found = {number: node.view.metadata for number, node in cluster.nodes.items()}
    return {
        number: metadata.plan.phase if metadata is not None and metadata.plan is not None else None
        for number, metadata in found.items()
    }


async def until_phase(cluster: MemoryCluster, phase: Phase | None, *nodes: NodeId, limit_s: float = 120.0) -> None:
    """Wait until these nodes, or all, believe in that phase; None: that no plan is in progress."""
    with trio.fail_after(limit_s):
        while any(phases(cluster)[node] is not phase for node in nodes or tuple(cluster.nodes)):  # noqa: ASYNC110
            await trio.sleep(0.1)


async def operator(cluster: MemoryCluster, node: NodeId, verb: str, /, **args: Any) -> Mapping[str, Any]:
    """One admin verb, asked of a node."""
    client = await cluster.client(node)
    try:
        return await client.admin(verb, **args)
    finally:
        client.close()


async def committed(cluster: MemoryCluster, node: NodeId, *changes: Mapping[str, Any], force: bool = False) -> bytes:
    """Stage these changes through a node, and commit the plan they make."""
    for change in changes:
        await operator(cluster, node, "cluster.stage", **change)
    plan_id = bytes((await operator(cluster, node, "cluster.plan"))["plan_id"])
    await operator(cluster, node, "cluster.commit", plan_id=plan_id, force=force)
    return plan_id
