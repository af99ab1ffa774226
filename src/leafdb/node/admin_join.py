"""Peer verbs that strangers ask: of a node that may join, and of who is who. docs/walks/joining.md.

    join.describe   {} -> who it would be, and whether it is blank       a member, at an address that is to be staged
    cluster.admit   {metadata, node, plan_id} -> {epoch}                 the plan's driver, at each newcomer
    node.meet       {who asks} -> who answers, and what it says of who asks

The rules are `joining` and `recognition`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import trio

from leafdb.node.admin import Verb
from leafdb.node.becoming import become, take_up
from leafdb.node.boot import check_names
from leafdb.node.joining import JOINING_KEY, Invitation, Newcomer, member_of
from leafdb.node.logs import Log
from leafdb.node.recognition import answer_to, introduced
from leafdb.node.self_report import peer_facts
from leafdb.ring.metadata import FEATURE_LEVEL

if TYPE_CHECKING:
    from leafdb.node.node import Node

Args = Mapping[str, Any]
Answer = dict[str, Any]

log: Log = Log("joining")


async def describe(node: Node, args: Args) -> Answer:
    """Who this node would be, of which store, and whether it may be staged: only a blank one may."""
    newcomer = _newcomer(node)
    metadata = newcomer.metadata
    return {
        "member": member_of(node.config).to_wire(),
        "store": newcomer.identity.store_id,
        "blank": newcomer.blank,
        "cluster": "" if metadata is None else metadata.cluster_name,
        "version": node.version,
        "feature_level": FEATURE_LEVEL,
    }


async def admit(node: Node, args: Args) -> Answer:
    """Become the member that a plan in progress says. Answers once it is synced; again when it was already."""
    invitation = Invitation.of(args)
    plan_id = args["plan_id"]
    async with node.belonging.becoming:
        _newcomer(node).check(invitation, plan_id)
        if node.view.metadata is None:
            await become(node, JOINING_KEY, invitation.encode(), invitation.metadata, invitation.node)
            log.info("joined", cluster=invitation.metadata.cluster_name, node=int(invitation.node))
    believed = trio.Event()
    node.register.learn(invitation.metadata, believed.set)
    await believed.wait()
    return {"epoch": node.view.epoch}


async def meet(node: Node, args: Args) -> Answer:
    """Who this node is, and what it says of who asks."""
    metadata = node.view.metadata
    generation = 0 if metadata is None else metadata.generation
    asker, own = introduced(args), peer_facts(node)
    return answer_to(asker, own, node.config.node.name, generation, node.admission.judge).to_wire()


async def resume(node: Node, invitation: Invitation) -> None:
    """At a start: go on with what was accepted before the last one ended. Raises ConfigError when the node is another
    one by now, NotApplied when the store fails."""
    identity = replace(node.engine.identity, node_id=int(invitation.node))
    check_names(node.config, identity, invitation.metadata)
    log.info("going on with a join", cluster=invitation.metadata.cluster_name, node=int(invitation.node))
    async with node.belonging.becoming:
        await take_up(node, invitation.metadata, invitation.node)


def _newcomer(node: Node) -> Newcomer:
    config = node.config
    return Newcomer(config.node.name, config.cluster.name, node.engine.identity, node.view.metadata)


PEER_VERBS: Final[Mapping[str, Verb]] = {"join.describe": describe, "cluster.admit": admit, "node.meet": meet}
