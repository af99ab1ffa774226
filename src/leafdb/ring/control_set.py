"""How the control set, the acceptors of the register that holds the metadata, changes itself: in two epochs.

    begin_control     `control_next` is written, by the rules of `control` alone
    finish_control    `control_next` becomes `control`, by the rules of both

Between them a round is prepared by a majority of `control` and accepted by majorities of both sets, so the value that
ends the change lies on both (docs/decisions/0007-ring-changes.md). `control_epoch` is the epoch of the later of the
two; it numbers the sets for the register's messages.

What one change may do is `metadata_rules.is_control_step`: exchange one member, or grow or shrink by two. From one to
three is one change, since a set of two survives no failure at all and has two members to lose. An acceptor must outlive
the plan in progress either way: nobody enters who joins by it or goes by it.
"""

from __future__ import annotations

from collections.abc import Collection

from leafdb.errors import NotApplied, Reason
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.metadata_rules import is_control_step
from leafdb.types import Epoch, NodeId


def begin_control(
    metadata: ClusterMetadata, following: Collection[NodeId], *, change_id: bytes = b""
) -> ClusterMetadata:
    """With the control set about to be `following`. Raises NotApplied.

    The same value when that is about to be so, or is so, already.
    """
    if change_id and metadata.epoch_of_change(change_id) is not None:
        return metadata
    wanted = tuple(sorted(set(following)))
    if metadata.control_next:
        if metadata.control_next == wanted:
            return metadata
        raise NotApplied(f"the control set is becoming {list(metadata.control_next)}", reason=Reason.CONTROL_SET)
    if set(wanted) == set(metadata.control):
        return metadata
    if strangers := sorted(set(wanted) - set(metadata.members)):
        raise NotApplied(f"no members have the numbers {strangers}", reason=Reason.NO_SUCH_MEMBER)
    if not is_control_step(metadata.control, wanted):
        raise NotApplied(
            f"control set {list(metadata.control)} cannot become {list(wanted)} at once: "
            "one member is exchanged, or two come, or two go, of 1, 3 or 5",
            reason=Reason.BAD_REQUEST,
        )
    plan = metadata.plan
    if plan is not None and (passing := sorted((set(wanted) - set(metadata.control)) & {*plan.joining, *plan.going})):
        raise NotApplied(f"nodes {passing} may be gone when the plan is over", reason=Reason.PLAN_IN_PROGRESS)
    return metadata.next_epoch(change_id, control_next=wanted, control_epoch=Epoch(metadata.epoch + 1))


def finish_control(metadata: ClusterMetadata, *, change_id: bytes = b"") -> ClusterMetadata:
    """With `control_next` the control set. The same value when none is about to be."""
    if (change_id and metadata.epoch_of_change(change_id) is not None) or not metadata.control_next:
        return metadata
    return metadata.next_epoch(
        change_id,
        control=metadata.control_next,
        control_next=(),
        control_epoch=Epoch(metadata.epoch + 1),
    )
