"""How the ring changes: each function answers the metadata of the next epoch, or refuses with a reason.

Pure functions of the register's value, run by whoever proposes a change, perhaps several times. So each one looks at
the value it finds, not at what its caller believed: a plan is named by its id, a step is taken only from the phase it
belongs to, and a step that was taken already answers the same value. Two drivers, or a driver and an operator, do no
harm to each other. A change id makes a retried change recognisable after that as well.

    stage, clear_staged     what the next plan shall do
    commit                  plan made; both tables are written from here on, the old one is read
    advance                 the new one is read
    finish                  the new one is the table; who goes is banned by number
    abort, finish_abort     back to the table as it was; numbers of who was coming are used up and banned

Every step that touches owners stamps its epoch on the ranges whose preference list is not the same, in order, under
both tables for some n. Requests of the epoch before are refused there, and go on everywhere else.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from leafdb.errors import NotApplied, Reason
from leafdb.limits import REPLICAS_MAX
from leafdb.ring import staging
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.plan import Phase, Plan
from leafdb.ring.preference_list import changed
from leafdb.ring.proposal import proposed
from leafdb.ring.staging import StagedChange
from leafdb.types import Epoch, NodeId, PartitionId


def stage(metadata: ClusterMetadata, change: StagedChange, *, change_id: bytes = b"") -> ClusterMetadata:
    """With one more change staged. Raises NotApplied when it could never be planned, or a plan is in progress."""
    if _is_in(metadata, change_id):
        return metadata
    _no_plan(metadata)
    refusal = staging.refusal_of(
        change,
        metadata.staged,
        members=metadata.members,
        bans=metadata.bans,
        next_node_id=metadata.next_node_id,
    )
    if refusal is not None:
        raise NotApplied(refusal.message, reason=refusal.reason)
    return metadata.next_epoch(change_id, staged=(*metadata.staged, change))


def clear_staged(metadata: ClusterMetadata, *, change_id: bytes = b"") -> ClusterMetadata:
    """With nothing staged; the same value when nothing was."""
    if _is_in(metadata, change_id) or not metadata.staged:
        return metadata
    return metadata.next_epoch(change_id, staged=())


def commit(metadata: ClusterMetadata, plan_id: bytes, *, change_id: bytes = b"") -> ClusterMetadata:
    """With the plan of this id in progress. Raises NotApplied(PLAN_STALE) when what is staged comes to another.

    The same value when that plan is in progress already.
    """
    if _is_in(metadata, change_id):
        return metadata
    if metadata.plan is not None:
        if metadata.plan.id == plan_id:
            return metadata
        raise _stale(plan_id, f"{metadata.plan.describe()} is in progress")
    if not metadata.staged:
        raise _stale(plan_id, "nothing is staged any more")
    plan, newcomers = proposed(metadata)
    if plan.id != plan_id:
        raise _stale(plan_id, f"what is staged now makes plan {plan.id.hex()}")
    arriving = replace(metadata, members=metadata.members | newcomers, plan=plan)
    return metadata.next_epoch(
        change_id,
        members=arriving.members,
        next_node_id=NodeId(metadata.next_node_id + len(newcomers)),
        staged=(),
        plan=plan,
        range_epochs=_stamped(arriving),
    )


def advance(metadata: ClusterMetadata, plan_id: bytes, *, change_id: bytes = b"") -> ClusterMetadata:
    """With reads at the new owners: every copy is made. Raises NotApplied; from a retreat, WRONG_PHASE.

    The same value when reads are there already.
    """
    if _is_in(metadata, change_id):
        return metadata
    plan = _plan(metadata, plan_id)
    match plan.phase:
        case Phase.WRITE_BOTH_READ_OLD:
            return _at(metadata, plan, Phase.WRITE_BOTH_READ_NEW, change_id)
        case Phase.WRITE_BOTH_READ_NEW:
            return metadata
        case Phase.RETREAT:
            raise _wrong_phase(plan)


def finish(metadata: ClusterMetadata, plan_id: bytes, *, change_id: bytes = b"") -> ClusterMetadata:
    """With the plan done: its table is the table, who goes is gone and banned. Raises NotApplied.

    Every old owner must know that reads have moved: that is for the caller to see to. CONTROL_SET when somebody who
    goes is still an acceptor of the register.
    """
    if _is_in(metadata, change_id):
        return metadata
    plan = _plan(metadata, plan_id)
    if plan.phase is not Phase.WRITE_BOTH_READ_NEW:
        raise _wrong_phase(plan)
    if waiting := sorted({*metadata.control, *metadata.control_next} & plan.going):
        names = ", ".join(metadata.members[node].name for node in waiting)
        raise NotApplied(f"the control set has to change first: {names} would go", reason=Reason.CONTROL_SET)
    return _over(metadata, plan.going, change_id, owners=plan.owners)


def abort(metadata: ClusterMetadata, plan_id: bytes, *, change_id: bytes = b"") -> ClusterMetadata:
    """With the plan given up, or on its way back when reads had moved. Raises NotApplied.

    While the old owners are read, nothing has to be undone: the members and owners are as before the commit at once.
    After that reads go back first (RETREAT), and `finish_abort` ends it. The same value when it is on its way back.
    """
    if _is_in(metadata, change_id):
        return metadata
    plan = _plan(metadata, plan_id)
    match plan.phase:
        case Phase.WRITE_BOTH_READ_OLD:
            return _over(metadata, frozenset(plan.joining), change_id)
        case Phase.WRITE_BOTH_READ_NEW:
            return _at(metadata, plan, Phase.RETREAT, change_id)
        case Phase.RETREAT:
            return metadata


def finish_abort(metadata: ClusterMetadata, plan_id: bytes, *, change_id: bytes = b"") -> ClusterMetadata:
    """With the retreat over: members and owners as before the commit. Raises NotApplied.

    Every new owner that is a member before and after must know that reads have gone back: that is for the caller.
    """
    if _is_in(metadata, change_id):
        return metadata
    plan = _plan(metadata, plan_id)
    if plan.phase is not Phase.RETREAT:
        raise _wrong_phase(plan)
    return _over(metadata, frozenset(plan.joining), change_id)


def awaited(metadata: ClusterMetadata) -> frozenset[NodeId]:
    """The members that must have installed this epoch before the plan's next step; none without a plan.

    Who goes on reading from a table whose writes are about to end would show what is no longer true. So the old owners
    are awaited before the end, and the new ones before the end of a retreat; but not those given up as dead, nor those
    that an abort sends away, perhaps because they do not answer: for these the caller waits while it sees them alive.
    Before reads move the receivers are awaited, since they have copies to make, and the old owners, since a hint that
    came late may lie with them alone.
    """
    plan = metadata.plan
    if plan is None:
        return frozenset()
    match plan.phase:
        case Phase.WRITE_BOTH_READ_OLD:
            return frozenset(plan.owners) | (frozenset(metadata.owners) - plan.given_up)
        case Phase.WRITE_BOTH_READ_NEW:
            return frozenset(metadata.owners) - plan.given_up
        case Phase.RETREAT:
            return frozenset(plan.owners).difference(plan.joining)


def changing_partitions(metadata: ClusterMetadata) -> frozenset[PartitionId]:
    """The partitions of which the plan in progress changes a preference list, for any n; none without a plan."""
    if metadata.plan is None:
        return frozenset()
    return changed(metadata.owners, metadata.plan.owners, metadata.places(), REPLICAS_MAX)


def _at(metadata: ClusterMetadata, plan: Plan, phase: Phase, change_id: bytes) -> ClusterMetadata:
    return metadata.next_epoch(change_id, plan=replace(plan, phase=phase), range_epochs=_stamped(metadata))


def _over(metadata: ClusterMetadata, gone: frozenset[NodeId], change_id: bytes, **outcome: Any) -> ClusterMetadata:
    """The plan ends: `gone` are members no more and never again."""
    return metadata.next_epoch(
        change_id,
        members={node: member for node, member in metadata.members.items() if node not in gone},
        bans=tuple(sorted({*metadata.bans, *gone})),
        plan=None,
        range_epochs=_stamped(metadata),
        **outcome,
    )


def _stamped(metadata: ClusterMetadata) -> tuple[Epoch, ...]:
    """The range epochs of the value after this one, when that moves its plan."""
    moving = changing_partitions(metadata)
    following = Epoch(metadata.epoch + 1)
    return tuple(following if p in moving else epoch for p, epoch in enumerate(metadata.range_epochs))


def _is_in(metadata: ClusterMetadata, change_id: bytes) -> bool:
    return bool(change_id) and metadata.epoch_of_change(change_id) is not None


def _no_plan(metadata: ClusterMetadata) -> None:
    if metadata.plan is not None:
        raise NotApplied(f"{metadata.plan.describe()} is in progress", reason=Reason.PLAN_IN_PROGRESS)


def _plan(metadata: ClusterMetadata, plan_id: bytes) -> Plan:
    if metadata.plan is None:
        raise NotApplied("no plan is in progress", reason=Reason.NO_PLAN)
    if metadata.plan.id != plan_id:
        raise _stale(plan_id, f"{metadata.plan.describe()} is in progress")
    return metadata.plan


def _stale(plan_id: bytes, why: str) -> NotApplied:
    return NotApplied(f"plan {plan_id.hex()} is stale: {why}", reason=Reason.PLAN_STALE)


def _wrong_phase(plan: Plan) -> NotApplied:
    return NotApplied(f"not at this point: {plan.describe()}", reason=Reason.WRONG_PHASE)
