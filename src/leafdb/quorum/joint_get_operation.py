"""A read of a range in the middle of a ring change: one set of owners is asked, and both hold what is shown.

Who is asked is that of get_operation: old owners while the phase says *read old*, then the new ones; R definitive
answers of that set decide what the merge is. What differs is what must be confirmed before it is shown:

- **The rule.** A record is shown when it is held as a write of w=r, pw=pr would be, in each set: by R primaries of the
  set that was asked and by R of the other (PR of them in person). Whoever is not known to hold it is written back to.
  "Missing" needs no confirmation: whatever comes later shows no less. (So it is what a reader that is behind could say
  wrongly: a set may be given up only when all of it know that it is not read any more.)
- **Why equal answers are not enough.** Two old owners may agree on a write that never reached W, and of which the new
  owners have nothing: their copy may have passed that key before. Shown under *read old*, it would be gone for the
  first reader under *read new*. It is the same the other way round while a plan may still go back, and while a
  coordinator that is an epoch behind still asks the old set. So the rule holds in both phases, until *done*.
- **What the copy need not do.** Because of it the cut depends on no read: nothing that was shown is only with the old
  owners, however early the copies ended.
- **What it costs.** Nothing where R of those asked are in both sets, which is so when one member of a list of three
  changes and those two are asked; else one round of write-backs, which are copies that the plan must move anyway.
- **What it needs.** R of the other set, for values. A stand-in counts for a primary of the other set only by a
  confirmed write-back that names that primary: what it showed may be kept for any.

**For drivers.** Build `targets` over both lists of primaries as a put does (joint_put_operation: usable nodes for
themselves, `owner_set.appoint` for the absent if the read is sloppy, with r and pr as counts). Then

    asked, spares  of the nodes whose target is in the set asked, those that are in both sets first: they spare the
                   write-back; then this node; then the rest
    others         of `targets` the entries whose target is in the other set
    other          OwnerSet(primaries of the other set, w=r, pw=pr), of `policy.joint_read_policy`

A repair to a node in `others` goes to the primary named there (hint target 0 when that is the node itself). A new owner
answers UNKNOWN with what it has as long as it is incomplete, as always; its confirmations count. Should the write-back
fail, `progress` says (got, needed) of the set that fell short. A read with local=True shows one store's word and
confirms nothing, as without a plan. The path of a single set does not know this class.

Invariants: those of get_operation; when DECIDED with a record, R primaries of each set hold it or more, in person or by
their stand-in's hint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from leafdb.quorum.get_operation import Floor, GetOperation, GetStep, Merge
from leafdb.quorum.owner_set import OwnerSet
from leafdb.types import NodeId


class JointGetOperation(GetOperation):
    """One read of a range with two sets of owners. `primaries`, r and pr are those of the set that is asked."""

    __slots__ = ("holding", "other", "others")

    best: bytes | None
    holders: int
    primary_holders: int
    writing_back: set[NodeId] | None
    ended: bool

    def __init__(
        self,
        *,
        r: int,
        pr: int,
        asked: set[NodeId],
        spares: Sequence[NodeId],
        primaries: Sequence[NodeId],
        merge: Merge,
        other: OwnerSet,
        others: Mapping[NodeId, NodeId],
        floor: Floor | None = None,
    ) -> None:
        super().__init__(r=r, pr=pr, asked=asked, spares=spares, primaries=primaries, merge=merge, floor=floor)
        self.other: OwnerSet = other
        self.others: Mapping[NodeId, NodeId] = others
        """Whom a write-back for the other set can go to: each node to the primary of that set it stands for."""
        self.holding: set[NodeId] = set()
        """Nodes counted as holders in the set that was asked."""

    def written_back(self, node: NodeId) -> GetStep:
        """`node` confirmed that it holds the merge, or keeps it for the primary it stands for."""
        back = self.writing_back
        if back is None or node not in back:
            return GetStep.NOTHING
        back.discard(node)
        self.waiting.discard(node)
        self.other.count(node, self.others.get(node, node))
        if self._counts_here(node):
            self.holding.add(node)
            self._count(node)
        return self._decided_if_held()

    @property
    def progress(self) -> tuple[int, int]:
        """(got, needed) of the set that lacks more confirmations."""
        here, other = super().progress, self.other.progress
        return here if here[1] - here[0] > other[1] - other[0] else other

    def _settle(self) -> GetStep:
        """R answers are in: who of either set does not hold their merge is brought up, unless enough of both do."""
        merged = self.best = self.merged
        behind = [node for node, record in self.records.items() if record != merged]
        self.holding = self.records.keys() - behind
        self.holders = len(self.holding)
        self.primary_holders = sum(1 for node in self.holding if node in self.primaries)
        shown = merged is not None
        if shown:
            for node in self.holding:
                self.other.count(node, node)
        if not shown or self._held:
            self.repairs.extend(behind)
            self.ended = True
            return GetStep.DECIDED
        if not self.other.met:
            in_person = self.holding.intersection(self.other.primaries)
            behind += [node for node in self.others if node not in in_person and node not in behind]
        self.writing_back = set(behind)
        self.repairs.extend(behind)
        return self._write_back_possible()

    @property
    def _held(self) -> bool:
        return super()._held and self.other.met

    def _bring_up_another(self) -> bool:
        """All of the other set are written back to from the start; one more might stand for a primary that counts."""
        return False

    def _late_holder(self, node: NodeId, record: bytes | None) -> GetStep:
        """For the same reason nobody counts beside those."""
        return GetStep.NOTHING

    def _counts_here(self, node: NodeId) -> bool:
        """Whether a confirmation of `node` makes it one holder more of the set that was asked."""
        if node in self.holding:
            return False
        stands_for = self.others.get(node)
        if stands_for is None:
            return node in self.records or node in self.primaries
        return node in self.primaries or stands_for in self.primaries

    @property
    def _within_reach(self) -> bool:
        back = self.writing_back
        assert back is not None
        here = [node for node in back if self._counts_here(node)]
        return (
            self.holders + len(here) >= self.r
            and self.primary_holders + sum(1 for node in here if node in self.primaries) >= self.pr
            and self.other.short({node: self.others.get(node, node) for node in back}) is None
        )

    def check(self) -> None:
        """The counts are those of the nodes counted, and write-backs go to primaries or stand for them."""
        super().check()
        self.other.check()
        assert set(self.others.values()) <= set(self.other.primaries)
        assert len(set(self.others.values())) == len(self.others), "a primary is counted once"
        for node, stands_for in self.others.items():
            assert node == stands_for or node not in {*self.primaries, *self.other.primaries}
        assert self.holders == len(self.holding)
        settled = self.definitive >= self.r and self.primary_answers >= self.pr
        if settled and not self.below and self.writing_back is None and self.merged is not None:
            assert self.holders >= self.r
            assert self.other.met
