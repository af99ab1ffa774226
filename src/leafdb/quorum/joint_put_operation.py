"""A write of a range in the middle of a ring change: counted in the old and in the new owners at once.

The same machine as put_operation, with the same calls; what differs is only what counts (decision 0007). The targets
are the primaries of both sets, each once. An acknowledgement counts in every set that the primary it stands for belongs
to. DECIDED when w and pw are reached in each set, FAILED when in one of them they no longer can be. A write needs both
as long as either may be read: a node that is one epoch behind or ahead still asks the other set (I19), and a plan may
go back.

**For drivers.** Bucket and place give two policies (`policy.joint_write_policy`) and two lists of primaries:

    old, new = (OwnerSet(primaries, w=policy.w, pw=policy.pw) for primaries, policy in ...)
    targets  = each usable node of either list, standing for itself
    owed     = owner_set.appoint(targets, absent, spares, (old, new))
    machine  = JointPutOperation(old=old, new=new, targets=targets, spares=spares)
    machine.short()           not None: refuse, nothing was sent
    machine.owed = owed

`spares` are nodes of *neither* set: a primary of the other set must keep its own copy, not a hint. All else is as with
one set; `Step`, `asks` and `owed` mean the same. When it has FAILED, `progress` says (got, needed) of the set that fell
short. The path of a single set does not know this class: the machine is chosen where the operation begins.

**What the client is told.** `acks` are distinct nodes, so many copies exist. `primary_acks` is what later readers may
rely on, and they ask either set: the least number that the primaries of a set have confirmed in person, a set that has
confirmed in whole setting no limit. So "primary acks reached w" means what it means without a plan.

Invariants: those of put_operation, for the union of both sets; in no set is a primary counted twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from leafdb.quorum.owner_set import OwnerSet, Short
from leafdb.quorum.put_operation import PutOperation, Step
from leafdb.types import NodeId


class JointPutOperation(PutOperation):
    """One write that two sets of owners must take. `targets` maps each node asked to the primary it stands for."""

    __slots__ = ("new", "old")

    acks: int
    primary_acks: int
    ended: bool

    def __init__(
        self, *, old: OwnerSet, new: OwnerSet, targets: dict[NodeId, NodeId], spares: Sequence[NodeId]
    ) -> None:
        super().__init__(w=max(old.w, new.w), pw=max(old.pw, new.pw), targets=targets, spares=spares)
        self.old: OwnerSet = old
        self.new: OwnerSet = new

    def acked(self, node: NodeId) -> Step:
        """`node` holds the record as durably as the policy asks."""
        stands_for = self.waiting.pop(node, None)
        if stands_for is None:
            return Step.NOTHING
        old, new = self.old, self.new
        old.count(node, stands_for)
        new.count(node, stands_for)
        self.acks += 1
        if node == stands_for:
            self.primary_acks = _relied_upon(old, new)
        if self.ended or not (old.met and new.met):
            return Step.NOTHING  # what was in reach before an acknowledgement is so after it
        self.ended = True
        return Step.DECIDED

    def short(self) -> Short | None:
        """What a set cannot reach any more, with all who are waited for; None while both still can."""
        return self.old.short(self.waiting) or self.new.short(self.waiting)

    @property
    def progress(self) -> tuple[int, int]:
        """(got, needed) of the set that lacks more; of the new owners, if both lack nothing."""
        old, new = self.old.progress, self.new.progress
        return old if old[1] - old[0] > new[1] - new[0] else new

    def _possible(self) -> Step:
        """NOTHING while w and pw can still be reached in both sets by those waited for."""
        if self.short() is None:
            return Step.NOTHING
        self.ended = True
        return Step.FAILED

    def check(self) -> None:
        """Both sets count primaries once, fallbacks are nodes of neither, and the operation ended at most once."""
        old, new = self.old, self.new
        old.check()
        new.check()
        union = {*old.primaries, *new.primaries}
        assert not (set(self.spares) & {*self.waiting, *union})
        for node, stands_for in self.waiting.items():
            assert stands_for in union
            assert node == stands_for or node not in union
        assert max(old.acks, new.acks) <= self.acks <= old.acks + new.acks
        assert 0 <= self.primary_acks <= self.acks
        if not self.ended:
            assert not (old.met and new.met)
            assert self.short() is None


def _relied_upon(old: OwnerSet, new: OwnerSet) -> int:
    """How many primaries have it, whichever set is asked: the least of both; a set that is whole sets no limit."""
    in_old, in_new = old.primary_acks, new.primary_acks
    if in_old == len(old.primaries):
        return max(in_old, in_new) if in_new == len(new.primaries) else in_new
    return in_old if in_new == len(new.primaries) else min(in_old, in_new)
