"""Plans stepped by hand, as their driver would: stage, commit, admit who comes, advance, finish, abort."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import trio

from leafdb.config import parse_address
from leafdb.node.node import Node
from leafdb.ring import transitions
from leafdb.ring.member import ProposedMember
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.plan import Plan
from leafdb.ring.proposal import propose
from leafdb.ring.staging import Join, Replace, StagedChange
from leafdb.testing.cluster import MemoryCluster, address_of
from leafdb.types import NodeId
from leafdb.wire.body import decode_map
from leafdb.wire.control import AdminRequest
from leafdb.wire.registry import MessageType

CHANGE_S = 10.0
Transition = Callable[..., ClusterMetadata]


async def ask(node: Node, address: str, verb: str, args: Mapping[str, Any]) -> Mapping[str, Any]:
    """Ask whoever is at an address, as a stranger."""
    where = parse_address(address)
    body = AdminRequest(verb, args).encode()
    frame = await node.peers.call_stranger((where.host, where.port), MessageType.PEER_ADMIN, body, CHANGE_S)
    return decode_map(frame.body, verb)


async def change(node: Node, transition: Transition, *args: Any) -> ClusterMetadata:
    """Change the metadata by one transition."""
    return await node.register.change(
        lambda current, change_id: transition(current, *args, change_id=change_id), CHANGE_S
    )


async def newcomer(node: Node, address: str) -> tuple[ProposedMember, bytes]:
    """What a blank node says of itself."""
    told = await ask(node, address, "join.describe", {})
    assert told["blank"], told
    return ProposedMember.from_wire(told["member"]), told["store"]


async def stage_join(node: Node, machine: NodeId) -> None:
    """Stage the blank node of a machine."""
    member, store = await newcomer(node, address_of(machine))
    await change(node, transitions.stage, Join(member, store))


async def stage_replace(node: Node, goes: NodeId, machine: NodeId) -> None:
    """Stage the blank node of a machine in the place of a member."""
    member, store = await newcomer(node, address_of(machine))
    await change(node, transitions.stage, Replace(goes, member, store))


async def stage(node: Node, staged: StagedChange) -> None:
    """Stage anything."""
    await change(node, transitions.stage, staged)


async def commit(node: Node) -> Plan:
    """Commit what is staged; the plan in progress."""
    metadata = node.view.metadata
    assert metadata is not None
    committed = await change(node, transitions.commit, propose(metadata).id)
    assert committed.plan is not None
    return committed.plan


async def admit(node: Node, number: NodeId) -> Mapping[str, Any]:
    """Have a member that is coming admitted, at its address."""
    metadata = node.view.metadata
    assert metadata is not None
    assert metadata.plan is not None
    args = {"metadata": metadata.encode(), "node": int(number), "plan_id": metadata.plan.id}
    return await ask(node, metadata.members[number].peer_address, "cluster.admit", args)


async def join(cluster: MemoryCluster, via: NodeId, machine: NodeId) -> Plan:
    """Stage a blank node, commit, admit it; the plan is in its first phase."""
    node = cluster.nodes[via]
    await stage_join(node, machine)
    plan = await commit(node)
    for number in plan.joining:
        await admit(node, number)
    return plan


async def give_up(node: Node) -> ClusterMetadata:
    """Abort the plan in progress."""
    metadata = node.view.metadata
    assert metadata is not None
    assert metadata.plan is not None
    return await change(node, transitions.abort, metadata.plan.id)


async def agree(cluster: MemoryCluster, limit_s: float = 60.0) -> None:
    """Wait until every member that runs has the same metadata."""
    with trio.fail_after(limit_s):
        while len({node.view.epoch for node, _ in cluster.members()}) > 1:  # noqa: ASYNC110
            await trio.sleep(0.1)
