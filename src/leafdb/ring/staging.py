"""Staged changes: what operators want of the ring, in the order they said it, before anybody commits to it.

Staging moves nothing. It only refuses what could never be planned, so that the operator hears it at once:

- a node that goes is a member, is not banned, and is named once;
- a node that comes has a name and addresses that nobody has, neither a member nor another newcomer. The one it replaces
  stays a member until the plan ends, so it cannot lend its own;
- one present member stays that owns something (its weight is above 0). The control set moves to members that stay
  before the plan ends, and newcomers are no choice: an abort would ban them.

`store` is the identity of the store that asked to join (docs/formats/identity.md), empty when an operator staged by
hand: with it, a plan admits that store and no other that calls itself the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, assert_never

from leafdb.codec.fields import as_map, bytes_field, int_field, map_field
from leafdb.errors import Reason
from leafdb.limits import NODE_ID_MAX, NODES_MAX
from leafdb.ring.member import Member, ProposedMember
from leafdb.types import NodeId

STORE_ID_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Join:
    """A new member."""

    member: ProposedMember
    store: bytes = b""


@dataclass(frozen=True, slots=True)
class Leave:
    """A member gives everything away and goes; it is up and serves until the end."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class ForceRemove:
    """A member goes that is believed dead: nobody waits for it."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Replace:
    """A new member takes exactly what another one has; that one goes and is not waited for."""

    node: NodeId
    by: ProposedMember
    store: bytes = b""


StagedChange = Join | Leave | ForceRemove | Replace


class Refusal(NamedTuple):
    """Why a change cannot be staged."""

    reason: Reason
    message: str


def newcomer_of(change: StagedChange) -> ProposedMember | None:
    """Who would come."""
    match change:
        case Join():
            return change.member
        case Replace():
            return change.by
        case Leave() | ForceRemove():
            return None
        case unreachable:
            assert_never(unreachable)


def store_of(change: StagedChange) -> bytes:
    """The store that would come; empty when it was not said, or nobody comes."""
    return change.store if isinstance(change, Join | Replace) else b""


def goer_of(change: StagedChange) -> NodeId | None:
    """Who would go."""
    return None if isinstance(change, Join) else change.node


def describe(change: StagedChange, members: Mapping[NodeId, Member]) -> str:
    """A few words for people."""

    def name(node: NodeId) -> str:
        return members[node].name if node in members else f"node-{node}"

    match change:
        case Join():
            return f"{change.member.name} joins from {change.member.peer_address}"
        case Leave():
            return f"{name(change.node)} leaves"
        case ForceRemove():
            return f"{name(change.node)} is removed as dead"
        case Replace():
            return f"{change.by.name} replaces {name(change.node)} from {change.by.peer_address}"
        case unreachable:
            assert_never(unreachable)


def refusal_of(
    change: StagedChange,
    staged: Sequence[StagedChange],
    *,
    members: Mapping[NodeId, Member],
    bans: Collection[NodeId],
    next_node_id: NodeId,
) -> Refusal | None:
    """Why `change` cannot stand after `staged`; None when it can."""
    goer, newcomer = goer_of(change), newcomer_of(change)
    refusal = None
    if goer is not None:
        refusal = _goer_refusal(goer, [goer_of(earlier) for earlier in staged], members, bans)
    if refusal is None and newcomer is not None:
        refusal = _newcomer_refusal(newcomer, store_of(change), staged, members, next_node_id)
    return refusal


def check(
    staged: Sequence[StagedChange],
    *,
    members: Mapping[NodeId, Member],
    bans: Collection[NodeId],
    next_node_id: NodeId,
) -> list[str]:
    """Everything in a list of staged changes that could not have been staged in that order."""
    found = [
        refusal_of(change, staged[:at], members=members, bans=bans, next_node_id=next_node_id)
        for at, change in enumerate(staged)
    ]
    return [f"staged: {refusal.message}" for refusal in found if refusal is not None]


def _goer_refusal(
    node: NodeId, goers: Sequence[NodeId | None], members: Mapping[NodeId, Member], bans: Collection[NodeId]
) -> Refusal | None:
    if node in bans:
        return Refusal(Reason.BANNED, f"node {node} was removed for good")
    if node not in members:
        return Refusal(Reason.NO_SUCH_MEMBER, f"no member has the number {node}")
    name = members[node].name
    if node in goers:
        return Refusal(Reason.BAD_REQUEST, f"{name} (node {node}) is staged to go already")
    if not any(member.weight for other, member in members.items() if other != node and other not in goers):
        return Refusal(
            Reason.BAD_REQUEST,
            f"{name} is the last of the present members that owns anything: let newcomers join in a plan of their own",
        )
    return None


def _newcomer_refusal(
    newcomer: ProposedMember,
    store: bytes,
    staged: Sequence[StagedChange],
    members: Mapping[NodeId, Member],
    next_node_id: NodeId,
) -> Refusal | None:
    if problems := newcomer.numbered(NodeId(1)).check():
        return Refusal(Reason.BAD_REQUEST, "; ".join(problems))
    if len(store) not in (0, STORE_ID_BYTES):
        return Refusal(Reason.BAD_REQUEST, f"a store's identity is {STORE_ID_BYTES} bytes, not {len(store)}")
    coming = [each for change in staged if (each := newcomer_of(change)) is not None]
    if len(members) + len(coming) >= NODES_MAX or next_node_id + len(coming) > NODE_ID_MAX:
        return Refusal(Reason.TOO_LARGE, f"{len(members)} members and {len(coming)} coming leave no room for more")
    for other in (*(member.proposal() for member in members.values()), *coming):
        taken = (
            ("name", newcomer.name, other.name),
            ("client address", newcomer.client_address, other.client_address),
            ("peer address", newcomer.peer_address, other.peer_address),
        )
        for what, wanted, had in taken:
            if wanted == had:
                return Refusal(Reason.NAME_TAKEN, f"{what} {wanted!r} is that of {other.name}, a member or about to be")
    if store and any(store == store_of(change) for change in staged):
        return Refusal(Reason.NAME_TAKEN, "that store is staged to join already")
    return None


# -- bytes

_JOIN: Final = "join"
_LEAVE: Final = "leave"
_FORCE_REMOVE: Final = "force-remove"
_REPLACE: Final = "replace"


def to_wire(change: StagedChange) -> dict[str, Any]:
    """Its map in the metadata (docs/formats/metadata.md)."""
    match change:
        case Join():
            return {"kind": _JOIN, "member": change.member.to_wire(), "store": change.store}
        case Leave():
            return {"kind": _LEAVE, "node": int(change.node)}
        case ForceRemove():
            return {"kind": _FORCE_REMOVE, "node": int(change.node)}
        case Replace():
            member = change.by.to_wire()
            return {"kind": _REPLACE, "node": int(change.node), "member": member, "store": change.store}
        case unreachable:
            assert_never(unreachable)


def from_wire(value: object) -> StagedChange:
    """The change in a decoded map. ValueError when a field is missing, unknown or mistyped."""
    fields = as_map(value, "staged change")
    kind = map_field(fields, "kind")
    made: StagedChange
    match kind:
        case "join":
            made = Join(ProposedMember.from_wire(map_field(fields, "member")), _store(fields))
        case "leave":
            made = Leave(_node(fields))
        case "force-remove":
            made = ForceRemove(_node(fields))
        case "replace":
            made = Replace(_node(fields), ProposedMember.from_wire(map_field(fields, "member")), _store(fields))
        case _:
            raise ValueError("a staged change of a kind that is not known")
    if odd := fields.keys() - to_wire(made).keys():
        raise ValueError(f"fields of a staged change unknown: {sorted(map(str, odd))}")
    return made


def _node(fields: Mapping[str, Any]) -> NodeId:
    return NodeId(int_field(fields, "node", low=1, high=NODE_ID_MAX))


def _store(fields: Mapping[str, Any]) -> bytes:
    return bytes_field(fields, "store", high=STORE_ID_BYTES)
