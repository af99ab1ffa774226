"""Verbs for stopping one node without anybody noticing: drain it, take that back, ask whether it may be stopped.

node.drain         {} -> {state}                  the node that is asked; "drained" once nothing is under way
node.undrain       {} -> {state}
node.safe_to_stop  {node} -> {safe, reasons}      any node, about itself or the one named
node.draining      {node, draining} -> {}         between nodes: forward elsewhere
node.stop_facts    {} -> what a member says of itself to that end
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from leafdb.errors import NotApplied, Reason
from leafdb.node.admin import Verb, gather
from leafdb.node.admin_cluster import metadata_of
from leafdb.node.stop_safety import StopFacts, reasons_against
from leafdb.ring.metadata import ClusterMetadata
from leafdb.types import NodeId

if TYPE_CHECKING:
    from leafdb.node.node import Node

Args = Mapping[str, Any]
Answer = dict[str, Any]


async def drain(node: Node, args: Args) -> Answer:
    """Take no work of clients; ask again to see how far it is."""
    metadata_of(node)
    node.drain.begin()
    return {"state": node.drain.state().value}


async def undrain(node: Node, args: Args) -> Answer:
    """Take work again. Raises NotApplied when the node is stopping."""
    node.drain.end()
    return {"state": node.drain.state().value}


async def safe_to_stop(node: Node, args: Args) -> Answer:
    """Whether a member may be stopped now, and what speaks against it."""
    metadata = metadata_of(node)
    target = _member(metadata, args.get("node"), node.view.self_id)
    answers, _ = await gather(node, "node.stop_facts", stop_facts, {})
    numbers = {member.name: number for number, member in metadata.members.items()}
    facts = {numbers[name]: StopFacts.from_wire(said) for name, said in answers.items() if name in numbers}
    ring = node.view.ring
    assert ring is not None
    if ring.metadata is not metadata:
        raise NotApplied("the ring has just changed: ask again", reason=Reason.STALE_EPOCH)
    reasons = reasons_against(target, ring, facts)
    return {"node": metadata.members[target].name, "safe": not reasons, "reasons": reasons}


def _member(metadata: ClusterMetadata, wanted: object, me: NodeId) -> NodeId:
    """The member meant by a name or number; the node asked when nobody is named. Raises NotApplied."""
    if wanted is None:
        return me
    named = metadata.member_named(wanted) if isinstance(wanted, str) else None
    number = NodeId(wanted) if type(wanted) is int else NodeId(0)
    if named is None and isinstance(wanted, str) and wanted.isdigit():
        number = NodeId(int(wanted))
    found = named or metadata.members.get(number)
    if found is None:
        raise NotApplied(f"no member is called {wanted!r}", reason=Reason.NO_SUCH_MEMBER)
    return found.id


async def told_draining(node: Node, args: Args) -> Answer:
    """Peer verb: a member takes work of clients, or does not."""
    node.drain.heard(NodeId(int(args["node"])), draining=bool(args["draining"]))
    return {}


async def stop_facts(node: Node, args: Args) -> Answer:
    """Peer verb: what this node says of itself."""
    return StopFacts(
        usable=frozenset(node.view.usable),
        incomplete=frozenset(chain(*node.anti_entropy.unsure.values())),
        hints={line.target: line.records for line in node.hints.ledger.summaries()},
        owed=node.anti_entropy.pending,
        draining=node.draining,
    ).to_wire()


VERBS: Final[Mapping[str, Verb]] = {
    "node.drain": drain,
    "node.undrain": undrain,
    "node.safe_to_stop": safe_to_stop,
}
PEER_VERBS: Final[Mapping[str, Verb]] = {"node.draining": told_draining, "node.stop_facts": stop_facts}
