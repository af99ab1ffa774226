"""Verbs about hints: who keeps what for whom, and holding them back or giving them up.

hints.list    {}                               -> {hints, paused, errors}
hints.pause   {paused, target?, node?}         -> {nodes, errors}     to whom each delivers nothing now, in words
hints.purge   {target?, node?, lose?, dry?}    -> {purged, errors}    what each gave up, or would
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import trio

from leafdb.codec.fields import as_bool, as_bytes, as_int
from leafdb.errors import LeafdbError
from leafdb.limits import NODE_ID_MAX
from leafdb.node.admin import Verb, ask_member, gather
from leafdb.node.admin_cluster import metadata_of
from leafdb.node.admin_repair import asked_number, is_meant, only_of
from leafdb.node.hint_purge import Slice
from leafdb.node.ring_requests import member_asked
from leafdb.types import NodeId
from leafdb.wire.control import STORAGE_KEY_BYTES_MAX

if TYPE_CHECKING:
    from leafdb.node.node import Node

Args = Mapping[str, Any]
Answer = dict[str, Any]

KEY_BYTES_MAX: Final = STORAGE_KEY_BYTES_MAX + 16


async def list_(node: Node, args: Args) -> Answer:
    """Every hint store of the cluster, one line per holder and target; and who delivers nothing to whom."""
    answers, errors = await gather(node, "hints.local", local, {})
    hints = [{"holder": holder, **line} for holder, found in answers.items() for line in found["hints"]]
    paused = {holder: found["paused"] for holder, found in answers.items() if found.get("paused")}
    return {"hints": hints, "paused": paused, "errors": errors}


async def local(node: Node, args: Args) -> Answer:
    """Peer verb: what this node keeps for others."""
    now_ms = node.world.now_ms()
    metadata_of(node)
    return {
        "hints": [
            {
                "target": name_of(node, summary.target),
                "records": summary.records,
                "fallback_records": summary.fallback_records,
                "bytes": summary.bytes,
                "oldest_age_s": max(0.0, (now_ms - summary.oldest_ms) / 1000),
                "paused": node.hint_pauses.paused(summary.target),
            }
            for summary in node.hints.ledger.summaries()
        ],
        "paused": node.hint_pauses.words(node.view.name_of),
    }


def name_of(node: Node, target: NodeId) -> str:
    """A target, also one that is no member any more."""
    return node.view.name_of(target) + ("" if target in metadata_of(node).members else " (gone)")


async def pause(node: Node, args: Args) -> Answer:
    """Hold hints for one target or all back, or let them go, on all members or one."""
    wanted = asked_number(node, args)
    target = int(member_asked(metadata_of(node), args["target"])) if args.get("target") else 0
    asked = {"paused": as_bool(args["paused"], "paused"), "target": target, "node": wanted}
    answers, errors = await gather(node, "hints.hold", hold, asked)
    nodes = {name: found["paused"] for name, found in answers.items() if found["meant"]}
    return {"nodes": nodes, "errors": only_of(node, wanted, errors)}


async def hold(node: Node, args: Args) -> Answer:
    """Peer verb: the same here, unless another one is meant."""
    meant = is_meant(node, args)
    if meant:
        target = as_int(args["target"], "target", high=NODE_ID_MAX)
        node.hint_pauses.set(NodeId(target) if target else None, paused=as_bool(args["paused"], "paused"))
        node.handoff.on_pauses()
        node.estate.wake()
    return {"meant": meant, "paused": node.hint_pauses.words(node.view.name_of)}


async def purge(node: Node, args: Args) -> Answer:
    """Give up hints for one target or all, on all members or one; `dry`: say what that would be."""
    wanted = asked_number(node, args)
    asked = {"target": _target(node, args), "lose": bool(args.get("lose")), "dry": bool(args.get("dry"))}
    purged: dict[str, Answer] = {}
    errors: dict[str, str] = {}

    async def clear(member: NodeId) -> None:
        name = node.view.name_of(member)
        try:
            purged[name] = await _purge_of(node, member, asked)
        except LeafdbError as error:
            errors[name] = str(error)

    async with trio.open_nursery() as nursery:
        for member in metadata_of(node).members:
            if wanted in (0, int(member)):
                nursery.start_soon(clear, member)
    found = {name: line for name, line in sorted(purged.items()) if line["records"] or line["kept"]}
    return {"purged": found, "errors": errors}


def _target(node: Node, args: Args) -> int:
    """The number of the target that is meant, which need not be a member any more; 0: all of them."""
    asked = args.get("target")
    if isinstance(asked, str) and asked.isascii() and asked.isdigit() and 0 < int(asked) <= NODE_ID_MAX:
        return int(asked)
    return int(member_asked(metadata_of(node), asked)) if asked else 0


async def _purge_of(node: Node, member: NodeId, asked: Args) -> Answer:
    """What one member gives up, slice after slice."""
    total: Answer = dict.fromkeys(("records", "fallback_records", "bytes", "ranges", "kept"), 0)
    after = b""
    while True:
        args = {**asked, "after": after}
        own = member == node.view.self_id
        slice_ = await give_up(node, args) if own else await ask_member(node, member, "hints.give_up", args)
        for name in total:
            total[name] += int(slice_[name])
        after = bytes(slice_["next"])
        if not after:
            return total


async def give_up(node: Node, args: Args) -> Answer:
    """Peer verb: a slice of it here."""
    wanted = as_int(args["target"], "target", high=NODE_ID_MAX)
    after = as_bytes(args["after"], "after", high=KEY_BYTES_MAX)
    targets = [NodeId(wanted)] if wanted else node.hints.ledger.targets()
    begun = NodeId(int.from_bytes(after[:2], "big"))
    left = [target for target in targets if target >= begun]
    if not left:
        return Slice(0, 0, 0, 0, 0, b"").to_wire()
    lose, dry = as_bool(args["lose"], "lose"), as_bool(args["dry"], "dry")
    found = await node.estate.purge.run(left[0], after, lose=lose, dry=dry)
    leads_on = found.next or (int(left[1]).to_bytes(2, "big") if len(left) > 1 else b"")
    return {**found.to_wire(), "next": leads_on}


VERBS: Final[Mapping[str, Verb]] = {"hints.list": list_, "hints.pause": pause, "hints.purge": purge}
PEER_VERBS: Final[Mapping[str, Verb]] = {"hints.local": local, "hints.hold": hold, "hints.give_up": give_up}
