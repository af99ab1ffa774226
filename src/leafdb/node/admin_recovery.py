"""The way out when the majority of the control set is gone for good. docs/operations/ring.md.

    cluster.recover  {dry_run, cluster, lost}  -> {generation, epoch, control, lost, done, errors}   a client
    recover.look     {} -> what this node knows of the register                                      between nodes
    recover.adopt    {metadata, base} -> {epoch}                      to the new control set, the lowest first

A person begins a register anew, as at founding, on members that can be reached; the rules are `recovery_rules`. The
first to adopt is the keystone: it refuses whatever was not made from the newest it knows, so of two recoveries at once
one finds it taken. From then on the new generation spreads like any metadata, also to those who come back; whoever is
named as an acceptor begins with the value accepted. So a recovery that stops half way is finished by gossip, or by
being run again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import trio

from leafdb.codec.fields import as_bool, as_int, as_list, bytes_field, list_field
from leafdb.consensus.ballot import Ballot
from leafdb.errors import LeafdbError, NotApplied, OutcomeUnknown, Reason
from leafdb.limits import METADATA_BYTES_MAX, NODES_MAX
from leafdb.node.admin import Verb, ask_member, gather
from leafdb.node.admin_cluster import metadata_of
from leafdb.node.admin_data import CHANGE_TIMEOUT_S, offer
from leafdb.node.logs import Log
from leafdb.node.recovery_rules import Recovery, latest, recovery_of
from leafdb.node.register import Standing
from leafdb.node.ring_requests import member_asked
from leafdb.ring.metadata import ClusterMetadata, MetadataError, decode
from leafdb.types import NodeId

if TYPE_CHECKING:
    from leafdb.node.node import Node

Args = Mapping[str, Any]
Answer = dict[str, Any]

LOOKS_MAX: Final = 3

log: Log = Log("recovery")


async def recover(node: Node, args: Args) -> Answer:
    """Begin the register anew without the lost members; a dry run unless told otherwise. Raises NotApplied."""
    dry_run = as_bool(args.get("dry_run", True), "dry_run")
    await _refuse_if_well(node)
    standings, errors = await _look(node)
    metadata = metadata_of(node)
    asked = as_list(args.get("lost", []), "lost", items_max=NODES_MAX)
    lost = {member_asked(metadata, each) for each in asked}
    if dry_run and not lost:
        lost = set(metadata.members.keys() - standings.keys())
    recovery = recovery_of(standings, lost)
    if not dry_run:
        if args.get("cluster") != metadata.cluster_name:
            raise NotApplied(
                f"type the cluster's name to confirm: it is {metadata.cluster_name!r}", reason=Reason.BAD_REQUEST
            )
        errors |= await _begin(node, recovery)
    name = recovery.made.members
    return {
        "generation": recovery.made.generation,
        "epoch": int(recovery.made.epoch),
        "control": [name[member].name for member in recovery.made.control],
        "without": [name[member].name for member in sorted(lost) if member in name],
        "lost": list(recovery.losses),
        "done": not dry_run,
        "errors": errors,
    }


async def _refuse_if_well(node: Node) -> None:
    """A register that takes a change, even one that changes nothing, needs no recovery."""

    def nothing(current: ClusterMetadata, change_id: bytes) -> ClusterMetadata:
        return current

    try:
        await node.register.change(nothing, CHANGE_TIMEOUT_S)
    except NotApplied as error:
        if error.reason is not Reason.NO_QUORUM:
            raise
    except OutcomeUnknown:
        raise NotApplied(
            "the control set answers, but not in time: look again before you recover", reason=Reason.CONTROL_SET
        ) from None
    else:
        raise NotApplied("the control set has its majority: there is nothing to recover", reason=Reason.CONTROL_SET)


async def _look(node: Node) -> tuple[dict[NodeId, Standing], dict[str, str]]:
    """What every member that can be reached knows; this node has taken the newest that they believe."""
    for _ in range(LOOKS_MAX):
        metadata = metadata_of(node)
        answers, errors = await gather(node, "recover.look", look, {})
        standings: dict[NodeId, Standing] = {}
        for member in metadata.members.values():
            if member.name in answers:
                try:
                    standings[member.id] = _standing(answers[member.name])
                except ValueError as error:
                    errors[member.name] = f"what it knows cannot be read: {error}"
        newest = latest(standings)
        if newest.version <= metadata.version:
            return standings, errors
        learned = trio.Event()
        node.register.learn(newest, learned.set)
        await learned.wait()
    raise NotApplied("members learn of newer metadata just now: run it again", reason=Reason.NOT_READY)


async def _begin(node: Node, recovery: Recovery) -> dict[str, str]:
    """Have the new control set adopt the new generation, the keystone first; answers who could not be told."""
    made = recovery.made
    args = {"metadata": made.encode(), "base": list(recovery.base.version)}
    errors: dict[str, str] = {}
    for at, member in enumerate(made.control):
        try:
            if member == node.view.self_id:
                await adopt(node, args)
            else:
                await ask_member(node, member, "recover.adopt", args)
        except LeafdbError as error:
            name = made.members[member].name
            if at == 0:
                if isinstance(error, NotApplied):
                    raise
                raise OutcomeUnknown(
                    f"{name} was to begin and has not answered ({error}): look at it, and run this again",
                    acks=0,
                    required=1,
                ) from None
            errors[name] = str(error)
    learned = trio.Event()
    node.register.learn(made, learned.set)
    await learned.wait()
    log.warning("the cluster was recovered", generation=made.generation, epoch=int(made.epoch))
    await offer(node, made)
    return errors


# -- what each member does


async def look(node: Node, args: Args) -> Answer:
    """Peer verb: what this node believes, and what its acceptor holds."""
    metadata_of(node)
    standing = node.register.standing()
    return {
        "metadata": standing.metadata.encode(),
        "ballot": None if standing.ballot is None else standing.ballot.to_wire(),
        "accepted": b"" if standing.accepted is None else standing.accepted.encode(),
    }


def _standing(answer: Args) -> Standing:
    metadata = decode(bytes_field(answer, "metadata", high=METADATA_BYTES_MAX))
    accepted = bytes_field(answer, "accepted", high=METADATA_BYTES_MAX)
    if not accepted:
        return Standing(metadata)
    return Standing(metadata, Ballot.from_wire(answer["ballot"]), decode(accepted))


async def adopt(node: Node, args: Args) -> Answer:
    """Peer verb: take the first value of a new generation. Answers once it is synced; again when it was already."""
    try:
        made = decode(bytes_field(args, "metadata", high=METADATA_BYTES_MAX))
    except MetadataError as error:
        raise NotApplied(str(error), reason=Reason.BAD_REQUEST) from None
    generation, epoch = (as_int(number, "base") for number in list_field(args, "base", items_max=2))
    current = metadata_of(node)
    if made.cluster_id != current.cluster_id or node.view.self_id not in made.members:
        raise NotApplied("these are not the metadata of this member's cluster", reason=Reason.BAD_REQUEST)
    newest = node.register.newest
    if newest != made.version and newest > (generation, epoch):
        raise NotApplied(
            f"{node.config.node.name} knows more than this was made from (generation {newest[0]}, epoch {newest[1]}): "
            "somebody else may have recovered the cluster. Look, and run it again if it is still needed",
            reason=Reason.CONTROL_SET,
        )
    learned = trio.Event()
    node.register.learn(made, learned.set)
    await learned.wait()
    current = metadata_of(node)
    if current.version == made.version and current.digest() != made.digest():
        raise NotApplied("somebody else has recovered the cluster at the same time", reason=Reason.CONTROL_SET)
    return {"epoch": node.view.epoch}


VERBS: Final[Mapping[str, Verb]] = {"cluster.recover": recover}
PEER_VERBS: Final[Mapping[str, Verb]] = {"recover.look": look, "recover.adopt": adopt}
