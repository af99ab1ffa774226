"""When the control set changes, and how: pure. Whom it ought to hold is for `consensus/desired_control` to say.

A change costs rounds and leaves an acceptor behind that knows nothing, so there are three reasons only:

    a member goes          by the plan in progress, which cannot end before
    a member is dead       continuously, for CONTROL_DEATH_S: then it is certain enough
    the cluster has grown  or shrunk, and no plan is in progress, so that it changes once and not twice

A change that was begun is finished first, whatever the reasons are by now: there is no way back.

Newcomers of a plan, and whoever goes by it, are no choice: they may be gone when it is over. Nor is a member that does
not answer at the moment, though it counts for how large the set should be: it is waited for, until it answers or the
plan says that it goes. Without it a set of three would become one of a single member.
"""

from __future__ import annotations

from collections.abc import Collection

from leafdb.consensus.desired_control import Candidate, desired_control, next_step
from leafdb.ring.metadata import ClusterMetadata
from leafdb.types import NodeId


def next_control(
    metadata: ClusterMetadata, *, alive: Collection[NodeId], dead: Collection[NodeId]
) -> tuple[NodeId, ...] | None:
    """The control set to begin changing to, ascending; None when it shall stay as it is.

    Args:
        metadata: whose control set is not changing already.
        alive: members that are believed alive, at this moment.
        dead: members that are certainly dead.
    """
    assert not metadata.control_next, "one change at a time"
    plan = metadata.plan
    passing = frozenset[NodeId]() if plan is None else plan.going | frozenset(plan.joining)
    gone = {node for node in metadata.control if node in passing or node in dead}
    if plan is not None and not gone:
        return None
    candidates = [
        Candidate(node, member.host, member.zone, member.weight)
        for node, member in metadata.members.items()
        if node not in passing
    ]
    unfit = {node for node in metadata.members if (node in dead if node in metadata.control else node not in alive)}
    desired = desired_control(candidates, metadata.control, unfit)
    if len(desired) < min(len(metadata.control), len(desired_control(candidates, metadata.control, gone & set(dead)))):
        return None  # who cannot be reached now would be missed for good, if one of the few were lost meanwhile
    following = next_step(metadata.control, desired)
    return None if set(following) == set(metadata.control) else following


def waited_for(metadata: ClusterMetadata, *, alive: Collection[NodeId], dead: Collection[NodeId]) -> tuple[NodeId, ...]:
    """Who cannot be reached and would have a place in the control set if it could, ascending. As `next_control`."""
    wanted = next_control(metadata, alive=metadata.members, dead=dead) or ()
    return tuple(node for node in wanted if node not in alive and node not in metadata.control)
