"""From staged changes to a plan: a pure function of the metadata, so that what was shown is what gets committed.

`cluster plan` shows `propose`, `commit` runs it again on the register's value and takes only the plan of the same id.
The id is a digest of everything the plan comes from and comes to: members, owners, bans, numbers, staged changes, and
the table to be. It says nothing of buckets and epochs: a bucket made in between makes no plan stale.

The table to be: a replacement takes the places of whom it replaces, then `placement` gives and takes as little as makes
loads fair. A plan of replacements alone, weight for weight, moves nothing else even where loads were not fair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import NamedTuple

from leafdb.codec import cbor
from leafdb.errors import NotApplied, Reason
from leafdb.ring import staging
from leafdb.ring.member import Member
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.packing import pack_owners
from leafdb.ring.placement import claim
from leafdb.ring.plan import PLAN_ID_BYTES, Plan
from leafdb.ring.staging import ForceRemove, Leave, Replace, StagedChange
from leafdb.types import Epoch, NodeId


class Proposed(NamedTuple):
    """A plan, and the members that its commit adds."""

    plan: Plan
    newcomers: dict[NodeId, Member]


def propose(metadata: ClusterMetadata) -> Plan:
    """The plan that a commit would make now. Raises NotApplied when nothing is staged or a plan is in progress."""
    return proposed(metadata).plan


def proposed(metadata: ClusterMetadata) -> Proposed:
    """As `propose`, with the members that come: numbered on from `next_node_id`, in the order they were staged."""
    if metadata.plan is not None:
        raise NotApplied(f"{metadata.plan.describe()} is in progress", reason=Reason.PLAN_IN_PROGRESS)
    if not metadata.staged:
        raise NotApplied("nothing is staged", reason=Reason.NOTHING_STAGED)
    newcomers: dict[NodeId, Member] = {}
    stores: list[bytes] = []
    replaced: dict[NodeId, NodeId] = {}
    for change in metadata.staged:
        if (member := staging.newcomer_of(change)) is not None:
            node = NodeId(metadata.next_node_id + len(newcomers))
            newcomers[node] = member.numbered(node)
            stores.append(staging.store_of(change))
            if isinstance(change, Replace):
                replaced[change.node] = node
    leaving = sorted(change.node for change in metadata.staged if isinstance(change, Leave))
    removed = sorted(change.node for change in metadata.staged if isinstance(change, ForceRemove))
    owners = _owners(metadata, newcomers, replaced, {*leaving, *removed, *replaced})
    plan = Plan(
        id=_digest(metadata, owners),
        owners=owners,
        joining=tuple(newcomers),
        stores=tuple(stores),
        leaving=tuple(leaving),
        removed=tuple(removed),
        replaced=tuple(sorted(replaced.items())),
        epoch=Epoch(metadata.epoch + 1),
    )
    return Proposed(plan, newcomers)


def future(metadata: ClusterMetadata, changes: Sequence[StagedChange]) -> ClusterMetadata:
    """What the metadata would be after a plan of these changes, for `ring simulate`. Raises NotApplied.

    Only its ring means anything: the control set is the first that does, and epochs do not count the steps. What is
    staged or in progress in `metadata` is left aside.
    """
    start = replace(metadata, plan=None, staged=())
    if metadata.plan is not None:
        settled = {node: member for node, member in metadata.members.items() if node not in metadata.plan.joining}
        start = replace(start, members=settled)
    for change in changes:
        refusal = staging.refusal_of(
            change, start.staged, members=start.members, bans=start.bans, next_node_id=start.next_node_id
        )
        if refusal is not None:
            raise NotApplied(refusal.message, reason=refusal.reason)
        start = replace(start, staged=(*start.staged, change))
    if not changes:
        return start
    plan, newcomers = proposed(start)
    members = {node: member for node, member in (start.members | newcomers).items() if node not in plan.going}
    made = replace(
        start,
        staged=(),
        members=members,
        owners=plan.owners,
        control=tuple(members)[: 3 if len(members) >= 3 else 1],
        control_next=(),
        next_node_id=NodeId(start.next_node_id + len(newcomers)),
        bans=tuple(sorted({*start.bans, *plan.going})),
    )
    problems = made.check()
    assert not problems, problems
    return made


def _owners(
    metadata: ClusterMetadata, newcomers: dict[NodeId, Member], replaced: dict[NodeId, NodeId], going: set[NodeId]
) -> tuple[NodeId, ...]:
    substituted = tuple(replaced.get(owner, owner) for owner in metadata.owners)
    like_for_like = all(newcomers[new].weight == metadata.members[old].weight for old, new in replaced.items())
    if len(replaced) == len(metadata.staged) and like_for_like:
        return substituted
    staying = {node: member for node, member in (metadata.members | newcomers).items() if node not in going}
    return claim(staying.values(), metadata.partitions, substituted, [metadata.members[node] for node in going])


def _digest(metadata: ClusterMetadata, owners: tuple[NodeId, ...]) -> bytes:
    told = {
        "cluster": metadata.cluster_id,
        "members": [metadata.members[node].to_wire() for node in sorted(metadata.members)],
        "owners": pack_owners(metadata.owners),
        "bans": list(metadata.bans),
        "next_node_id": int(metadata.next_node_id),
        "staged": [staging.to_wire(change) for change in metadata.staged],
        "made": pack_owners(owners),
    }
    return blake2b(cbor.dumps(told), digest_size=PLAN_ID_BYTES).digest()
