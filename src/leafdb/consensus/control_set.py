"""The control set: whose votes count, also while it changes, and why it cannot split.

The control set of a register is a part of the register's *value*. It is one set, or joint: an old set and the next.

    majority    of the one set; while joint, of the old one AND of the next one, in both halves of a round
    in force    for a round: the control set in the value the round builds on (its base), whatever its proposer believed
    begin       (old)       -> (old, next)    these are the only two steps; there is no way back from joint but through
    finish      (old, next) -> (next)         the end, since then both `old` and `next` could follow the same value
    a step      is proposed only on a base that its proposer has itself had chosen before, unchanged (the re-scan)

Nothing else is needed. Acceptors compare ballots and know nothing of control sets: what they must not forget is in what
they accepted. A new one may know nothing at all (it has promised nothing to anybody), an old one may answer years later
(it answers truthfully), and a message of long ago carries a ballot of long ago. A proposer that never heard of a change
asks the old acceptors, finds a newer control set in what they hold, and goes on with that one in the same round.

**Why no two values are chosen of which neither descends from the other.** A proposal has a ballot, a base (of a lower
ballot) and a value; it is chosen when the majority in force (that of its base) has accepted it. To show, by induction
over ballots: a proposal p descends from every q chosen at a lower ballot. Let u be p's base. If u is q or later than q,
u descends from q by induction. Else let x be the first proposal chosen after u (there is one: q) and y the base of x:
u's ballot < x's < p's. The last step above u was made on a chosen t (or there was none: then t is the beginning), and
the last step above y on a chosen s, both chosen no later than u. Both of them, u and y are proposals below p, so by
induction chosen ones lie on one line, and:

- s = t: the control sets of u and y are that of t or one step on from it. From (old) all those contain `old`, from
  (old, next) all contain `next`: their majorities meet.
- s above t: s is then at or above the step of u, so u has the control set of s, and y that or one step on. They meet.
- s below t: y descends from t (x does, and y cannot be older than t), so y has the control set of t, and u that or one
  step on. They meet.

An acceptor in both majorities accepted x and promised p. It accepted first, since x's ballot is lower; so p was told of
x or of something later, and u was not the latest. Contradiction. Crashes change nothing (promises are durable, or the
acceptor has no vote); nor do loss, doubling and delay, since the argument knows no time but the order at one acceptor.

**Where simpler rules break** (each is a mutation of the museum, caught):

- *A step on a base that is perhaps not chosen*: (old, next) lies at one acceptor, somebody builds (next) on it and has
  that chosen by `next` alone, while a majority of `old` never heard of either (the bug of Raft's first one-at-a-time
  change, 2015). Two proposers that both began a change at epoch 8 are the same with one step less.
- *Joint rounds prepared by the old majority only*: (next) lies at one acceptor, somebody goes on under `next`; another
  prepares at the old acceptors that did not see it.
- *Numbers for control sets*: two values that are not chosen can carry the same number and different sets. Sets are
  compared here, whole. And an acceptor that refused by the number of what it merely accepted would stop the register.

Acceptor ids are nodes with incarnations: a node that lost its store is another acceptor, and to put it in the place of
its former self is a change like any other. Whoever keeps the ids must not let one change behind the register's back;
`follows` finds that, too.

Source: CASPaxos, section 2.3; joint consensus from Raft (Ongaro and Ousterhout 2014, section 6).
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass

from leafdb.consensus.ballot import AcceptorId


@dataclass(frozen=True, slots=True)
class ControlSet:
    """The acceptors of one register, ascending; `next` is empty unless a change is under way."""

    old: tuple[AcceptorId, ...]
    next: tuple[AcceptorId, ...] = ()

    @classmethod
    def of(cls, old: Iterable[AcceptorId], next: Iterable[AcceptorId] = ()) -> ControlSet:
        """With the ids in any order."""
        return cls(tuple(sorted(set(old))), tuple(sorted(set(next))))

    @property
    def joint(self) -> bool:
        """Whether a change is under way."""
        return bool(self.next)

    @property
    def everyone(self) -> tuple[AcceptorId, ...]:
        """Whom to ask, ascending."""
        return tuple(sorted({*self.old, *self.next}))

    def has_majority(self, votes: Set[AcceptorId]) -> bool:
        """Whether these are enough: a majority of the set, of both while joint."""
        return _majority(self.old, votes) and (not self.next or _majority(self.next, votes))

    def is_lost(self, refused: Set[AcceptorId]) -> bool:
        """Whether there is no majority without those."""
        return not self.has_majority(set(self.everyone) - refused)

    def follows(self, before: ControlSet) -> bool:
        """Whether this is `before`, or one step on from it."""
        if self == before:
            return True
        begins = self.joint and not before.joint and self.old == before.old
        finishes = before.joint and not self.joint and self.old == before.next
        return begins or finishes

    def begin(self, next: Iterable[AcceptorId]) -> ControlSet:
        """The joint set on the way to `next`."""
        assert not self.joint, "one change at a time"
        return ControlSet.of(self.old, next)

    def finish(self) -> ControlSet:
        """The set after the change."""
        assert self.joint, "no change is under way"
        return ControlSet(self.next)

    def check(self) -> None:
        """What holds between the parts."""
        assert self.old, "a register needs an acceptor"
        for ids in (self.old, self.next):
            assert list(ids) == sorted(set(ids)), "acceptors ascend, each is there once"
        assert self.old != self.next, "a change changes something"

    def describe(self) -> str:
        """For people: nodes with incarnations."""
        old, following = (" ".join(f"{who.node}/{who.incarnation}" for who in ids) for ids in (self.old, self.next))
        return f"{old} -> {following}" if self.joint else old


def _majority(ids: tuple[AcceptorId, ...], votes: Set[AcceptorId]) -> bool:
    return 2 * sum(1 for who in ids if who in votes) > len(ids)
