"""Verbs about the cluster: who is in it, how it is, what its ring looks like."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

from leafdb.errors import NotApplied, Reason
from leafdb.node.admin import Verb, gather
from leafdb.node.recognition import State
from leafdb.node.self_report import problems
from leafdb.ring.change_summary import change_of, change_summary
from leafdb.ring.history import phase_text
from leafdb.ring.metadata import ClusterMetadata
from leafdb.types import Liveness, NodeId

if TYPE_CHECKING:
    from leafdb.node.node import Node

Args = Mapping[str, Any]
Answer = dict[str, Any]


def metadata_of(node: Node) -> ClusterMetadata:
    """The metadata in force; NotApplied before the node belongs to a cluster."""
    if node.view.metadata is None:
        raise NotApplied("this node is not part of a cluster yet: run leafdb cluster init", reason=Reason.NOT_READY)
    return node.view.metadata


async def ping(node: Node, args: Args) -> Answer:
    """Who answers."""
    return {"node": int(node.view.self_id), "name": node.config.node.name, "epoch": node.view.epoch}


async def ring(node: Node, args: Args) -> Answer:
    """The metadata, for routing: all of it but the accounts."""
    return {"epoch": node.view.epoch, "metadata": metadata_of(node).without_accounts().encode()}


async def ring_show(node: Node, args: Args) -> Answer:
    """Who owns what, and will when the plan in progress is done."""
    metadata = metadata_of(node)
    following = metadata.owners if metadata.plan is None else metadata.plan.owners
    owned = {member: metadata.owners.count(member) for member in metadata.members}
    return {
        "epoch": int(metadata.epoch),
        "partitions": metadata.partitions,
        "members": [
            {
                "id": int(member.id),
                "name": member.name,
                "host": member.host,
                "zone": member.zone,
                "weight": member.weight,
                "state": state_of(node, member.id).value,
                "owned": owned[member.id],
                "share": owned[member.id] / metadata.partitions,
                "owned_next": following.count(member.id),
                "change": change_of(metadata, member.id),
            }
            for member in metadata.members.values()
        ],
        "owners": [int(owner) for owner in metadata.owners],
        "warnings": [] if node.view.ring is None else node.view.ring.warnings(),
        **change_summary(metadata),
    }


def state_of(node: Node, member: NodeId) -> Liveness:
    """What this node believes of a member; itself is alive."""
    if member == node.view.self_id:
        return Liveness.ALIVE
    believed = node.view.liveness.get(member)
    if believed is None:
        return Liveness.ALIVE if member in node.view.usable else Liveness.DEAD
    return believed


def absent_state(node: Node, member: NodeId, believed: str) -> str:
    """The state of a member that does not answer."""
    finding = node.belonging.recognition.findings.get(member)
    if finding is not None and finding.state is not State.STRANGER:
        return str(finding.state.value)
    return "unreachable" if believed == Liveness.ALIVE.value else believed


async def facts(node: Node, args: Args) -> Answer:
    """Peer verb: one node's facts about itself."""
    metrics = node.metrics.snapshot()
    worker = node.world.worker_pid()
    return {
        "boot": node.engine.recovery.boot,
        "version": node.version,
        "uptime_s": node.world.now() - node.started_at,
        "pid": node.world.pid,
        "worker_pid": worker or 0,
        "memory_bytes": node.memory.held_bytes,
        "epoch": node.view.epoch,
        "draining": node.draining,
        "usable": sorted(int(peer) for peer in node.view.usable),
        "hints_pending": sum(summary.records for summary in node.hints.ledger.summaries()),
        "repair_pending": node.anti_entropy.pending,
        "copies_pending": node.transfers.report().left,
        "hints_paused": node.hint_pauses.words(node.view.name_of),
        "incomplete": len(set(chain(*node.anti_entropy.unsure.values()))),
        "problems": problems(node),
        "notices": node.tls.notices(),
        "waiting": node.ring_changes.waiting(),
        "stuck": node.ring_changes.stuck(),
        "counters": {name: float(value) for name, value in metrics.items()},
    }


async def node_list(node: Node, args: Args) -> Answer:
    """Every member, with what it says of itself."""
    metadata = metadata_of(node)
    answers, errors = await gather(node, "facts", facts, {})
    nodes = []
    for member in metadata.members.values():
        known = answers.get(member.name)
        state = state_of(node, member.id).value if known is None else "draining" if known["draining"] else "alive"
        entry: Answer = {
            "name": member.name,
            "id": int(member.id),
            "host": member.host,
            "zone": member.zone,
            "weight": member.weight,
            "state": state if known is not None else absent_state(node, member.id, state),
            "client": member.client_address,
            "peer": member.peer_address,
            "http": member.http_address,
            "change": change_of(metadata, member.id),
        }
        for name in ("boot", "version", "uptime_s", "pid", "worker_pid", "memory_bytes", "epoch"):
            entry[name] = None if known is None else known[name]
        nodes.append(entry)
    return {"nodes": nodes, **change_summary(metadata), "errors": errors}


async def status(node: Node, args: Args) -> Answer:
    """The cluster in a few figures, and every problem in words; what goes on by itself and ends is a notice, and what
    nothing has to wait for."""
    metadata = metadata_of(node)
    answers, errors = await gather(node, "facts", facts, {})
    problems = [f"{name} cannot be reached: {reason}" for name, reason in errors.items()]
    hints = repairs = copies = 0
    severed = severed_pairs(metadata, answers)
    problems += [f"requests of {sender} do not reach {receiver}" for sender, receiver in severed]
    for name, known in answers.items():
        hints += known["hints_pending"]
        repairs += known["repair_pending"]
        copies += known.get("copies_pending", 0)
        if known["incomplete"]:
            problems.append(f"{name} is resynchronising {known['incomplete']} partitions")
        if known["epoch"] != metadata.epoch:
            problems.append(f"{name} is at epoch {known['epoch']}, this node at {metadata.epoch}")
        problems += [f"{name}: {problem}" for problem in known["problems"]]
    notices = [] if metadata.plan is None else [f"the ring is changing: {phase_text(metadata.plan.phase)}"]
    notices += [
        f"{name} delivers no hints, it was told to pause: to {known['hints_paused']}"
        for name, known in answers.items()
        if known.get("hints_paused")
    ]
    notices += [f"{name}: {notice}" for name, known in answers.items() for notice in known.get("notices", ())]
    stuck = stuck_of(answers)
    problems += [f"the change is stuck: {said}" for said in stuck]
    notices += [f"the change waits: {said}" for said in waiting_of(answers) if said not in stuck]
    if hints:
        problems.append(f"{hints} hints wait for delivery")
    if repairs > copies:  # those that a plan waits for are its own, and end with it
        problems.append(f"{repairs - copies} partitions wait for an exchange")
    return {
        "cluster": metadata.cluster_name,
        "epoch": int(metadata.epoch),
        "healthy": not problems,
        "nodes_up": sum((node.config.node.name, name) not in severed for name in answers),
        "nodes_total": len(metadata.members),
        "hints_pending": hints,
        "repair_pending": repairs,
        "problems": problems,
        "notices": notices,
        **change_summary(metadata),
        "errors": errors,
    }


def waiting_of(answers: Mapping[str, Args]) -> list[str]:
    """For whom a change of the ring waits, in the words of the node that drives it."""
    return [said for known in answers.values() for said in known.get("waiting", [])]


def stuck_of(answers: Mapping[str, Args]) -> list[str]:
    """What of it needs somebody to do something: all of it where a node of an older version cannot tell."""
    return [said for known in answers.values() for said in known.get("stuck", known.get("waiting", []))]


def severed_pairs(metadata: ClusterMetadata, answers: Mapping[str, Args]) -> list[tuple[str, str]]:
    """(sender, receiver) of members that are there but have no lane for requests between them: nodes that have just
    started, for a moment. Until it is there the sender does without the receiver, so it is no time to stop another."""
    there = {member.name: int(member.id) for member in metadata.members.values() if member.name in answers}
    return [
        (sender, receiver)
        for sender in there
        for receiver, number in there.items()
        if sender != receiver and number not in answers[sender]["usable"]
    ]


async def cluster_status(node: Node, args: Args) -> Answer:
    """The cluster's identity and whether its members agree."""
    metadata = metadata_of(node)
    answers, errors = await gather(node, "facts", facts, {})
    epochs = {name: known["epoch"] for name, known in answers.items()}
    listed = await node_list(node, args)
    return {
        "name": metadata.cluster_name,
        "cluster_id": metadata.cluster_id,
        "epoch": int(metadata.epoch),
        "generation": metadata.generation,
        "feature_level": metadata.feature_level,
        "partitions": metadata.partitions,
        "control": [node.view.name_of(member) for member in metadata.control],
        "control_next": [node.view.name_of(member) for member in metadata.control_next],
        **change_summary(metadata),
        "waiting": [f"the change waits: {said}" for said in waiting_of(answers)],
        "members": listed["nodes"],
        "agree": not errors and set(epochs.values()) == {int(metadata.epoch)},
        "epochs": epochs,
        "errors": errors,
    }


async def stats(node: Node, args: Args) -> Answer:
    """Every member's counters."""
    answers, errors = await gather(node, "facts", facts, {})
    return {"stats": {name: known["counters"] for name, known in answers.items()}, "errors": errors}


async def outcome(node: Node, args: Args) -> Answer:
    """What became of a write. This version keeps no record of operations beyond the records themselves."""
    return {"outcome": "unknown"}


VERBS: Mapping[str, Verb] = {
    "ping": ping,
    "ring": ring,
    "ring.show": ring_show,
    "node.list": node_list,
    "status": status,
    "cluster.status": cluster_status,
    "stats": stats,
    "outcome": outcome,
}
PEER_VERBS: Mapping[str, Verb] = {"facts": facts}
