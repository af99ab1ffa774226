"""Verbs that found a cluster: one of a client, two between nodes. The rules are `founding`; docs/walks/founding.md.

    cluster.init      {name, members} -> {epoch, cluster_id}    a client, to any member that is to be
    cluster.prepare   {cluster, member} -> where it stands      to every member, before anything is written
    cluster.adopt     {metadata, node} -> {epoch}               to every member not in force yet, the last one first

Nodes that have no number cannot be asked as members: they are called as strangers, by address. The handshake proves
to both sides that the other knows the cluster secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import trio

from leafdb.errors import ConnectFailed, LeafdbError, NotApplied, OutcomeUnknown
from leafdb.node.admin import Verb, ask_stranger
from leafdb.node.becoming import become
from leafdb.node.engine_reads import read_value
from leafdb.node.founding import (
    FOUNDING_KEY,
    Plan,
    Standing,
    check_adoption,
    member_to_wire,
    read_plan,
    refused,
)
from leafdb.node.logs import Log
from leafdb.node.register import META_TREE
from leafdb.ring.member import ProposedMember
from leafdb.ring.metadata import ClusterMetadata, decode
from leafdb.types import NodeId

if TYPE_CHECKING:
    from leafdb.node.node import Node

Args = Mapping[str, Any]
Answer = dict[str, Any]

PREPARE_TIMEOUT_S: Final = 5.0
ADOPT_TIMEOUT_S: Final = 10.0

log: Log = Log("founding")


async def cluster_init(node: Node, args: Args) -> Answer:
    """Found a cluster, or finish founding it. Raises NotApplied when it cannot be, OutcomeUnknown when it is begun."""
    plan = read_plan(args)
    if node.config.node.name not in {member.name for member in plan.members}:
        raise refused(
            f"{node.config.node.name}, which was asked, is not in the list: ask a node that is to be a member"
        )
    standings = await _look_at_all(node, plan)
    begun = plan.id_begun(standings)
    metadata = plan.epoch_one(node.world.random_bytes(16) if begun is None else begun)
    await _spread(node, plan, metadata, standings)
    log.info("cluster founded", cluster=plan.name, members=len(plan.members))
    return {"epoch": node.view.epoch, "cluster_id": metadata.cluster_id}


async def _look_at_all(node: Node, plan: Plan) -> dict[str, Standing]:
    """Where every member stands. Raises NotApplied that names all who cannot take part, and why."""
    standings: dict[str, Standing] = {}
    problems: dict[str, str] = {}

    async def look(member: ProposedMember) -> None:
        args = {"cluster": plan.name, "member": member_to_wire(member)}
        try:
            if member.name == node.config.node.name:
                answer: Mapping[str, Any] = await prepare(node, args)
            else:
                answer = await ask_stranger(node, member.peer_address, "cluster.prepare", args, PREPARE_TIMEOUT_S)
            standings[member.name] = Standing.from_wire(answer)
        except ConnectFailed as error:
            problems[member.name] = f"it cannot be reached ({'; '.join(error.attempts.values()) or error})"
        except (LeafdbError, ValueError) as error:
            problems[member.name] = str(error)

    async with trio.open_nursery() as nursery:
        for member in plan.members:
            nursery.start_soon(look, member)
    if problems:
        listed = [
            f"{member.name} ({member.peer_address}): {problems[member.name]}"
            for member in plan.members
            if member.name in problems
        ]
        raise refused("not every member can take part; nothing was changed. " + "; ".join(listed))
    return standings


async def _spread(node: Node, plan: Plan, metadata: ClusterMetadata, standings: Mapping[str, Standing]) -> None:
    """Have every member adopt epoch 1 that has not: the keystone first."""
    missing: dict[str, str] = {}
    confirmed = [name for name, standing in standings.items() if standing.in_force]
    for number, member in reversed(list(enumerate(plan.members, 1))):
        if standings[member.name].in_force:
            continue
        args = {"metadata": metadata.encode(), "node": number}
        try:
            if member.name == node.config.node.name:
                await adopt(node, args)
            else:
                await ask_stranger(node, member.peer_address, "cluster.adopt", args, ADOPT_TIMEOUT_S)
        except LeafdbError as error:
            if not confirmed and isinstance(error, NotApplied):
                raise refused(f"{member.name}: {error}. Nothing was changed; look, and run this again") from None
            missing[member.name] = str(error)
            if not confirmed:
                break
        else:
            confirmed.append(member.name)
    if missing:
        raise OutcomeUnknown(
            "the founding is not finished: " + "; ".join(f"{name}: {reason}" for name, reason in missing.items())
            + ". Run it again with the same members to go on",
            acks=len(confirmed),
            required=len(plan.members),
            replicas=sorted(missing),
        )  # fmt: skip


# -- what each member does


async def prepare(node: Node, args: Args) -> Answer:
    """Peer verb: whether this node is who the list says, and where it stands. Changes nothing."""
    asked, named = node.config, args["member"]["name"]
    if named != asked.node.name:
        raise refused(f"the node at this address is called {asked.node.name!r}")
    if asked.cluster.name not in ("", args["cluster"]):
        raise refused(f"its configuration says cluster.name = {asked.cluster.name!r}")
    identity = node.engine.identity
    metadata = node.view.metadata
    if metadata is not None:
        met = node.admission.met()
        return Standing(metadata.cluster_id, int(node.view.self_id), metadata.encode(), True, met).to_wire()
    key = FOUNDING_KEY + identity.cluster_id
    kept = await read_value(node.engine, META_TREE, key) if identity.cluster_id else None
    return Standing(identity.cluster_id, identity.node_id, kept or b"", False).to_wire()


async def adopt(node: Node, args: Args) -> Answer:
    """Peer verb: become the member that this epoch 1 says. Answers once it is synced; again when it was already."""
    encoded = bytes(args["metadata"])
    metadata = decode(encoded)
    check_adoption(metadata, args["node"], node.config.node.name)
    if node.config.cluster.name not in ("", metadata.cluster_name):
        raise refused(f"its configuration says cluster.name = {node.config.cluster.name!r}")
    async with node.belonging.becoming:
        stamped = node.engine.identity.cluster_id
        if stamped not in (b"", metadata.cluster_id):
            raise refused(f"it belongs to another cluster already ({stamped.hex()})")
        if node.view.metadata is None:
            await become(node, FOUNDING_KEY + metadata.cluster_id, encoded, metadata, NodeId(args["node"]))
    assert node.view.metadata is not None
    if node.view.metadata.cluster_id != metadata.cluster_id:
        raise refused("it has become part of another cluster meanwhile")
    return {"epoch": node.view.epoch}


VERBS: Final[Mapping[str, Verb]] = {"cluster.init": cluster_init}
PEER_VERBS: Final[Mapping[str, Verb]] = {"cluster.prepare": prepare, "cluster.adopt": adopt}
