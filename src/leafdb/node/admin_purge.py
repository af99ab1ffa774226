"""Verbs about forgetting what was deleted: the steps of a proof between members, and for people to have it tried now.

repair.purge   {node?}  -> {nodes, errors}    by node: {try, waiting, oldest_s}; `try` is over when `tries` of
                                              repair.status has come to it
purge.begin    {leader, proof, stamp, ground, epoch, partitions}  -> {yes, no}      between members, as the next two
purge.prove    the same
purge.end      the same
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from leafdb.node.admin import Verb, gather
from leafdb.node.admin_repair import asked_number, is_meant, only_of
from leafdb.node.purge_member import Asked
from leafdb.node.purge_proof import BEGIN, END, PROVE

if TYPE_CHECKING:
    from leafdb.node.node import Node

Args = Mapping[str, Any]
Answer = dict[str, Any]


async def purge(node: Node, args: Args) -> Answer:
    """Have every leader, or one, prove its horizons now."""
    wanted = asked_number(node, args)
    answers, errors = await gather(node, "purge.now", now, {"node": wanted})
    nodes = {name: dict(found) for name, found in answers.items() if found}
    return {"nodes": nodes, "errors": only_of(node, wanted, errors)}


async def now(node: Node, args: Args) -> Answer:
    """Peer verb: try now, unless another one is meant."""
    if not is_meant(node, args):
        return {}
    driver = node.purge.driver
    return {"try": driver.hurry(), "waiting": len(driver.waiting()), "oldest_s": driver.lag_s()}


async def begin(node: Node, args: Args) -> Answer:
    """Peer verb: mint nothing below the stamp from now on."""
    return node.purge.member.begin(Asked.from_wire(args)).to_wire()


async def prove(node: Node, args: Args) -> Answer:
    """Peer verb: compare with the other owners; says what is compared."""
    return node.purge.member.prove(Asked.from_wire(args)).to_wire()


async def end(node: Node, args: Args) -> Answer:
    """Peer verb: agree for good."""
    return (await node.purge.member.end(Asked.from_wire(args))).to_wire()


VERBS: Final[Mapping[str, Verb]] = {"repair.purge": purge}
PEER_VERBS: Final[Mapping[str, Verb]] = {"purge.now": now, BEGIN: begin, PROVE: prove, END: end}
