"""Verbs that change the ring, as an operator does: stage, plan, commit, clear, abort. docs/operations/ring.md.

    cluster.stage   {change: "join", address} | {change: "replace", node, address}
                    | {change: "leave" | "force-remove", node}          -> {epoch, staged}
    cluster.staged  {}                                                  -> {staged, plan}
    cluster.plan    {}                                                  -> the report of the plan (`plan_answer`)
    cluster.commit  {plan_id, force}                                    -> {epoch, plan_id}
    cluster.clear   {}                                                  -> {epoch}
    cluster.abort   {plan_id?, without?: members}                       -> {epoch, phase}

Any member takes them. What holds is decided by the register's value (`ring/transitions`); what a node knows itself, who
is alive and how much there is to copy, decides only what it refuses to commit without `force`.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Any, Final

import trio

from leafdb.codec.fields import as_bool, as_list, bytes_field, int_field
from leafdb.errors import ConnectFailed, NotApplied, Reason
from leafdb.limits import NODES_MAX
from leafdb.node.admin import Verb, ask_stranger, gather
from leafdb.node.admin_cluster import metadata_of, state_of
from leafdb.node.admin_data import CHANGE_TIMEOUT_S, offer
from leafdb.node.admin_ring import bytes_estimate
from leafdb.node.admin_transfers import progress, rate_seen
from leafdb.node.logs import Log
from leafdb.node.plan_answer import plan_answer, staged_texts
from leafdb.node.ring_requests import Kind, Newcomer, change_asked, member_asked, text
from leafdb.ring import transitions
from leafdb.ring.history import phase_text
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.plan import PLAN_ID_BYTES, Phase, Plan
from leafdb.ring.plan_report import report
from leafdb.ring.transitions import awaited
from leafdb.transport.calls import PeerLost
from leafdb.types import Liveness, NodeId

if TYPE_CHECKING:
    from leafdb.node.node import Node

Args = Mapping[str, Any]
Answer = dict[str, Any]

log: Log = Log("ring")

DESCRIBE_TIMEOUT_S: Final = 5.0


async def stage(node: Node, args: Args) -> Answer:
    """Add to what the next plan shall do. A newcomer is asked who it is, and has to be blank."""
    metadata = metadata_of(node)
    kind = Kind(text(args, "change"))
    member, store = None, b""
    if kind.comes:
        address = text(args, "address")
        try:
            answer = await ask_stranger(node, address, "join.describe", {}, DESCRIBE_TIMEOUT_S)
        except PeerLost as error:
            raise ConnectFailed(
                f"{address} hung up when it was asked who it is", attempts={address: str(error)}
            ) from None
        newcomer = Newcomer.from_wire(answer)
        newcomer.check(metadata, address)
        member, store = newcomer.member, newcomer.store
    wanted = change_asked(kind, args, metadata, member, store)

    def change(current: ClusterMetadata, change_id: bytes) -> ClusterMetadata:
        return transitions.stage(current, wanted, change_id=change_id)

    chosen = await node.register.change(change, CHANGE_TIMEOUT_S)
    await offer(node, chosen)
    return {"epoch": int(chosen.epoch), "staged": staged_texts(chosen)}


async def staged(node: Node, args: Args) -> Answer:
    """What is staged, and the plan in progress in a line."""
    metadata = await _newest(node)
    plan = metadata.plan
    return {
        "staged": staged_texts(metadata),
        "plan": "" if plan is None else f"{plan.id.hex()}: {phase_text(plan.phase)}",
        "plan_id": b"" if plan is None else plan.id,
    }


async def show(node: Node, args: Args) -> Answer:
    """What the plan in progress does, or what a commit would do now."""
    metadata = await _newest(node)
    made = report(metadata, live=_live(node, metadata), bytes_of=await bytes_estimate(node, metadata))
    seen = 0.0 if metadata.plan is None else await rate_seen(node)
    return plan_answer(metadata, made, seen)


async def commit(node: Node, args: Args) -> Answer:
    """Begin the plan of this id, and no other. Refused where acknowledged writes could be lost, unless forced."""
    plan_id = bytes_field(args, "plan_id", low=PLAN_ID_BYTES, high=PLAN_ID_BYTES)
    force = as_bool(args.get("force", False), "force")
    metadata = await _newest(node)
    if metadata.plan is None and not force:
        transitions.commit(metadata, plan_id)  # of another plan the report below would say nothing
        made = report(metadata, live=_live(node, metadata), bytes_of=lambda partition, bucket: 0)
        if made.refusals:
            told = "; ".join(finding.describe() for finding in made.refusals)
            raise NotApplied(f"this plan is unsafe: {told}", reason=Reason.UNSAFE)

    def change(current: ClusterMetadata, change_id: bytes) -> ClusterMetadata:
        return transitions.commit(current, plan_id, change_id=change_id)

    chosen = await node.register.change(change, CHANGE_TIMEOUT_S)
    log.info("a plan is committed", plan=plan_id.hex(), epoch=int(chosen.epoch), forced=force)
    await offer(node, chosen)
    return {"epoch": int(chosen.epoch), "plan_id": plan_id}


async def clear(node: Node, args: Args) -> Answer:
    """Forget what is staged."""
    metadata_of(node)

    def change(current: ClusterMetadata, change_id: bytes) -> ClusterMetadata:
        return transitions.clear_staged(current, change_id=change_id)

    chosen = await node.register.change(change, CHANGE_TIMEOUT_S)
    await offer(node, chosen)
    return {"epoch": int(chosen.epoch)}


async def abort(node: Node, args: Args) -> Answer:
    """Give the plan in progress up: at once while reads have not moved, else by way of a retreat. A retreat ends
    although those `without` whom it shall end have not heard of it: who names them knows that they will never be back.
    """
    metadata = metadata_of(node)
    named = bytes_field(args, "plan_id", high=PLAN_ID_BYTES) if args.get("plan_id") else b""
    without = {
        member_asked(metadata, name) for name in as_list(args.get("without", ()), "without", items_max=NODES_MAX)
    }
    checked = await _checked_retreat(node, without) if without else None

    def change(current: ClusterMetadata, change_id: bytes) -> ClusterMetadata:
        plan_id = named or (b"" if current.plan is None else current.plan.id)
        # What this node was told of may be older than the register's value: only the retreat it has asked about ends.
        if checked is not None and current.plan == checked:
            return transitions.finish_abort(current, plan_id, change_id=change_id)
        return transitions.abort(current, plan_id, change_id=change_id)

    chosen = await node.register.change(change, CHANGE_TIMEOUT_S)
    log.info("a plan is given up", epoch=int(chosen.epoch))
    await offer(node, chosen)
    return {"epoch": int(chosen.epoch), "phase": "" if chosen.plan is None else phase_text(chosen.plan.phase)}


async def _checked_retreat(node: Node, without: Set[NodeId]) -> Plan | None:
    """The plan that is on its way back, of which all have heard but those who will never be back; None when there is
    none. That somebody cannot be reached at the moment says nothing: it may be reading from new owners all the while.
    Raises NotApplied."""
    metadata = await _newest(node)
    if metadata.plan is None or metadata.plan.phase is not Phase.RETREAT:
        return None
    answers, _ = await gather(node, "plan.progress", progress, {})
    for member in sorted(awaited(metadata)):
        name = metadata.members[member].name
        if name in answers and int_field(answers[name], "epoch") >= metadata.epoch:
            continue
        if name in answers or member in node.view.not_dead():
            told = f"{name} has not heard yet and may be alive: wait for it, or stop it"
            raise NotApplied(told, reason=Reason.UNSAFE)
        if member not in without:
            told = (
                f"{name} is down and has not heard yet: bring it back, or name it too (--without) if it never will be"
            )
            raise NotApplied(told, reason=Reason.UNSAFE)
    return metadata.plan


async def _newest(node: Node) -> ClusterMetadata:
    """The metadata, after a look at what the peers have: an operator may have just spoken to another node."""
    metadata_of(node)
    asked = trio.Event()
    node.news.fetch(asked.set)
    await asked.wait()
    return metadata_of(node)


def _live(node: Node, metadata: ClusterMetadata) -> list[NodeId]:
    return [member for member in metadata.members if state_of(node, member) is Liveness.ALIVE]


VERBS: Final[Mapping[str, Verb]] = {
    "cluster.stage": stage,
    "cluster.staged": staged,
    "cluster.plan": show,
    "cluster.commit": commit,
    "cluster.clear": clear,
    "cluster.abort": abort,
}
