"""Plans stepped by hand, as their driver would: stage, commit, admit who comes, advance, finish, abort.

All else is real: newcomers are blank nodes that are asked who they are and let in, and nodes make their copies
themselves, in their own time. Whoever steps says by `by_hand` that nobody else does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import trio

from leafdb.config import parse_address
from leafdb.node.admin_data import offer
from leafdb.node.control_driver import ControlDriver
from leafdb.node.node import Node
from leafdb.node.plan_driver import PlanDriver
from leafdb.ring import transitions
from leafdb.ring.member import ProposedMember
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.plan import Plan
from leafdb.ring.proposal import propose
from leafdb.ring.ring import Ring
from leafdb.ring.staging import Join, Replace, StagedChange
from leafdb.testing.cluster import FIRST, MemoryCluster, address_of
from leafdb.types import NodeId
from leafdb.wire.body import decode_map
from leafdb.wire.control import AdminRequest
from leafdb.wire.registry import MessageType
from support.ring_changes import plan_of
from support.transports import until

CHANGE_S = 20.0
KNOWN_S = 60.0
COPIED_S = 120.0
Transition = Callable[..., ClusterMetadata]


@contextmanager
def by_hand() -> Iterator[None]:
    """Until the block ends no node drives a plan or the control set: whoever is in the block does."""

    async def nothing(driver: object) -> float:
        return math.inf

    with pytest.MonkeyPatch.context() as patch:
        for driver in (PlanDriver, ControlDriver):
            patch.setattr(driver, "_turn", nothing)
        yield


# -- single steps, each through one node


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
    return plan_of(await change(node, transitions.commit, propose(metadata).id))


async def admit(node: Node, number: NodeId) -> Mapping[str, Any]:
    """Have a member that is coming admitted, at its address."""
    metadata = node.view.metadata
    assert metadata is not None
    args = {"metadata": metadata.encode(), "node": int(number), "plan_id": plan_of(metadata).id}
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
    return await change(node, transitions.abort, plan_of(metadata).id)


async def agree(cluster: MemoryCluster, limit_s: float = KNOWN_S) -> None:
    """Wait until every member that runs has the same metadata."""
    with trio.fail_after(limit_s):
        while len({node.view.epoch for node, _ in cluster.members()}) > 1:  # noqa: ASYNC110
            await trio.sleep(0.1)


# -- whole steps: the next is not taken before everybody has heard of the last


class Steps:
    """The plans of a cluster, taken step by step through one of its members."""

    def __init__(self, cluster: MemoryCluster, via: NodeId = FIRST) -> None:
        self.cluster = cluster
        self.via = via
        self._deaf: set[NodeId] = set()

    @property
    def node(self) -> Node:
        """The member through which steps are taken."""
        return self.cluster.nodes[self.via]

    @property
    def ring(self) -> Ring:
        """The ring that it believes in."""
        ring = self.node.view.ring
        assert ring is not None
        return ring

    def deafen(self, node: NodeId) -> None:
        """From now on the node stays with the ring it has, whatever it is told."""

        def learn(_: ClusterMetadata, done: Callable[[], None] | None = None) -> None:
            if done is not None:
                done()

        self._deaf.add(node)
        self.cluster.nodes[node].register.learn = learn  # type: ignore[method-assign, assignment]

    async def begin(self, *changes: StagedChange, told: bool = True) -> Plan:
        """Write both, read old: these changes and whatever is staged, newcomers let in. Somebody may not hear of it if
        it need not be `told`."""
        for staged in changes:
            await stage(self.node, staged)
        plan = await commit(self.node)
        for number in plan.joining:
            await admit(self.node, number)
        if told:
            await self._told()
        return plan

    async def begin_join(self, count: int = 1, *, told: bool = True) -> Plan:
        """As `begin`, of so many nodes that are started for it."""
        for _ in range(count):
            await stage_join(self.node, await self.cluster.add_node())
        return await self.begin(told=told)

    async def begin_replace(self, goes: NodeId) -> Plan:
        """As `begin_join`, in the place of a member."""
        await stage_replace(self.node, goes, await self.cluster.add_node())
        return await self.begin()

    async def copied(self) -> None:
        """Wait until nobody has a copy left to make; what they keep of it is sound."""
        await until(lambda: all(node.transfers.settled() for node in self._running()), COPIED_S)
        for node in self._running():
            node.anti_entropy.check()

    async def advance(self) -> None:
        """Write both, read new."""
        await self._step(transitions.advance)

    async def finish(self) -> None:
        """Done; who goes and hears is killed."""
        await self._step(transitions.finish)
        stay = self.ring.metadata.members.keys() | self._deaf
        await self.cluster.kill(*[number for number in self.cluster.nodes if number not in stay])

    async def end(self) -> None:
        """Both of these, whether copies are made or not."""
        await self.advance()
        await self.finish()

    async def give_up(self) -> None:
        """One step back."""
        await self._step(transitions.abort)

    async def abort(self) -> None:
        """Back, all the way."""
        await self.give_up()
        if self.ring.in_plan:
            await self._step(transitions.finish_abort)

    async def _step(self, transition: Transition) -> None:
        await change(self.node, transition, plan_of(self.ring.metadata).id)
        await self._told()

    async def _told(self) -> None:
        metadata = self.ring.metadata
        await offer(self.node, metadata)
        await until(lambda: all(node.view.epoch >= metadata.epoch for node in self._running()), KNOWN_S)

    def _running(self) -> Iterable[Node]:
        """The members that run and hear."""
        members = self.ring.metadata.members.keys() - self._deaf
        return [node for node in self.cluster.nodes.values() if node.view.self_id in members]
