"""Verbs about the copies of a plan: how far they are, and how fast they may be.

transfer.list   {}                      -> {epoch, plan_id, phase, items, waiting, errors}
transfer.limit  {bytes_per_s, node?}    -> {nodes, errors}       0: as fast as it goes
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from leafdb.codec.fields import as_int, int_field
from leafdb.limits import TRANSFER_BYTES_PER_S_MAX
from leafdb.node.admin import Verb, gather
from leafdb.node.admin_cluster import metadata_of
from leafdb.node.plan_progress import own_progress
from leafdb.node.ring_requests import member_asked
from leafdb.ring.history import phase_text
from leafdb.types import NodeId

if TYPE_CHECKING:
    from leafdb.node.node import Node

Args = Mapping[str, Any]
Answer = dict[str, Any]


async def progress(node: Node, args: Args) -> Answer:
    """Peer verb: how far this node's part of the plan is, and, from whoever drives it, for whom it waits."""
    return {**own_progress(node).to_wire(), "waiting": node.ring_changes.waiting()}


async def transfer_list(node: Node, args: Args) -> Answer:
    """The plan in progress, and what each member has done and left of it."""
    metadata = metadata_of(node)
    plan = metadata.plan
    if plan is None:
        return {
            "epoch": int(metadata.epoch), "plan_id": b"", "phase": "", "items": [], "waiting": [], "errors": {},
        }  # fmt: skip
    answers, errors = await gather(node, "plan.progress", progress, {})
    numbers = {member.name: int(member.id) for member in metadata.members.values()}
    return {
        "epoch": int(metadata.epoch),
        "plan_id": plan.id,
        "phase": phase_text(plan.phase),
        "items": [
            _item(node, name, numbers[name], answer)
            for name, answer in answers.items()
            if answer["total"] or answer["left"] or not answer["settled"]
        ],
        "waiting": [said for answer in answers.values() for said in answer.get("waiting", [])],
        "errors": errors,
    }


def _item(node: Node, name: str, number: int, answer: Args) -> Answer:
    rate, left = int(answer["bytes_per_s"]), answer["bytes_left"]
    return {
        "node": number,
        "name": name,
        "total": answer["total"],
        "left": answer["left"],
        "settled": answer["settled"],
        "bytes_done": answer["bytes_done"],
        "bytes_left": left,
        "bytes_per_s": rate,
        "eta_s": left / rate if rate and left is not None else None,
        "waiting_for": [node.view.name_of(other) for other in answer["waiting_for"]],
    }


async def rate_seen(node: Node) -> int:
    """The fastest that a member was seen to take copies in, in bytes a second; 0 when none was."""
    answers, _ = await gather(node, "plan.progress", progress, {})
    return max((int(answer["bytes_per_s"]) for answer in answers.values()), default=0)


async def transfer_limit(node: Node, args: Args) -> Answer:
    """Bound what members take in for a plan, all of them or one. It holds until they are started again."""
    metadata = metadata_of(node)
    limit = int_field(args, "bytes_per_s", high=TRANSFER_BYTES_PER_S_MAX)
    wanted = member_asked(metadata, args["node"]) if args.get("node") else NodeId(0)
    answers, errors = await gather(node, "transfer.set", transfer_set, {"bytes_per_s": limit, "node": int(wanted)})
    if wanted:
        errors = {name: why for name, why in errors.items() if name == metadata.members[wanted].name}
    return {"nodes": [name for name, answer in answers.items() if answer["set"]], "errors": errors}


async def transfer_set(node: Node, args: Args) -> Answer:
    """Peer verb: bound what this node takes in, unless another one is meant."""
    wanted = as_int(args.get("node", 0), "node")
    if wanted not in (0, int(node.view.self_id)):
        return {"set": False}
    node.transfers.set_limit(int_field(args, "bytes_per_s", high=TRANSFER_BYTES_PER_S_MAX))
    return {"set": True}


VERBS: Final[Mapping[str, Verb]] = {"transfer.list": transfer_list, "transfer.limit": transfer_limit}
PEER_VERBS: Final[Mapping[str, Verb]] = {"plan.progress": progress, "transfer.set": transfer_set}
