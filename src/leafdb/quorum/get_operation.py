"""When a read is decided, and which repairs it owes.

R definitive answers are merged. Definitive is what a complete primary says, "absent" included, and a fallback's value.
An incomplete replica may have forgotten the very write that the R answers must meet (its store was replaced since): its
value is merged and never counts. Nor does "unknown"; both make the machine ask a spare. If the R answers are equal the
read is decided. If they differ, the merge is written back to those behind, and the read is decided once R replicas hold
it, PR primaries among them (the second phase of ABD; Attiya, Bar-Noy and Dolev 1995): otherwise a later read could see
less than this one. Answers that come after are repaired without waiting. A replica behind may answer and yet not take
the merge, when its disk is full or it dies: whoever else is there is sent the merge then, asked before or not.

**A floor** (session_floor): a reader that has seen something is not answered with less, at any R. While what R
answered and all that came since do not meet it, the operation is *below* it: everybody else is asked, again and again
as the driver says (`ask_again`), and slow ones are waited for, until the floor is met or the deadline passes. Such
answers are merged and counted to nobody twice. What of a floor may have been forgotten by right (its `horizon` is not
0) is waited for until one of the primaries that answered vouches for what lies below that horizon. Once the floor is
met the rules are those of any read.

**Horizons** (docs/decisions/0008, section 2). Answers are merged only if all were given by one horizon, below which
each says no more than its store vouches for: else one that has not heard of it shows what others have deleted, and
forgotten. So each ask names a horizon. Whoever knows of a newer one says that in place of an answer, and the read
begins `anew`, with everybody who was asked, by the newer one. It costs a round trip, in the second in which a horizon
spreads. Once R answers are in it is not needed: R stores that vouch below the horizon that was named, and know of none
that is newer, have forgotten nothing that died above it; so a deletion that W had confirmed is in their merge. What
comes later adds to `best` only what was given by that same horizon, and stores admit what they are sent.

One of the hot two: plain slots and return codes. The driver gives each answer to `answered`, `unknown` or `lost`, each
confirmed write-back to `written_back`, and drains `asks` and `repairs`. In the middle of a ring change one set of
primaries is asked and two must hold what is shown: joint_get_operation.

Invariants: DECIDED or FAILED is returned at most once and never both; when DECIDED, at least r replicas hold a record
that the answered merge equals or is below, and the merge meets the floor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Protocol

from leafdb.types import NodeId

Merge = Callable[[bytes, bytes], bytes]


class Floor(Protocol):
    """What the reader has seen already: `session_floor.SessionFloor`."""

    @property
    def horizon(self) -> int:
        """If not 0, some of it may have been forgotten by right: a primary that vouches for what lies below says so."""

    def met_by(self, record: bytes | None, *, vouched: bool) -> bool:
        """Whether a record, or that there is none, meets it; `vouched`: if one that vouches has answered."""

    def under(self, horizon: int) -> Floor:
        """The same, where the horizon is this one."""


class GetStep(IntEnum):
    """What an event did to the operation."""

    NOTHING = 0
    DECIDED = 1
    FAILED = 2
    """R definitive answers (or their confirmation) can no longer be had."""


class GetOperation:
    """One read. `asked` are the nodes asked at once, `spares` those to ask when one of them fails or is slow."""

    __slots__ = (
        "asks",
        "below",
        "best",
        "definitive",
        "ended",
        "floor",
        "holders",
        "merge",
        "merged",
        "pr",
        "primaries",
        "primary_answers",
        "primary_holders",
        "r",
        "records",
        "repairs",
        "spares",
        "vouched",
        "waiting",
        "writing_back",
    )

    def __init__(
        self,
        *,
        r: int,
        pr: int,
        asked: set[NodeId],
        spares: Sequence[NodeId],
        primaries: Sequence[NodeId],
        merge: Merge,
        floor: Floor | None = None,
    ) -> None:
        self.r: int = r
        self.pr: int = pr
        self.waiting: set[NodeId] = asked
        self.spares: Sequence[NodeId] = spares
        self.primaries: Sequence[NodeId] = primaries
        self.merge: Merge = merge
        self.records: dict[NodeId, bytes | None] = {}
        self.merged: bytes | None = None
        """The answer: the merge of the R answers that settled it."""
        self.best: bytes | None = None
        """What repairs carry: the merge of every answer so far."""
        self.definitive: int = 0
        self.primary_answers: int = 0
        self.holders: int = 0
        self.primary_holders: int = 0
        self.writing_back: set[NodeId] | None = None
        self.ended: bool = False
        self.floor = floor
        self.below: bool = False
        """R answers are in, and all that came is less than the reader has seen."""
        self.vouched: bool = False
        """A primary that vouches for what lies below the floor's horizon is among those that answered."""
        self.asks: list[NodeId] = []
        """Nodes to ask now."""
        self.repairs: list[NodeId] = []
        """Nodes to send `best` to now; before the decision they are write-backs, afterwards plain repairs."""

    def answered(self, node: NodeId, record: bytes | None, *, vouches: bool = False) -> GetStep:
        """A definitive answer: a record, or None for absent. `vouches`: for what lies below the horizon."""
        if node not in self.waiting:
            return GetStep.NOTHING
        self.waiting.discard(node)
        if vouches and node in self.primaries and self.floor is not None and self.floor.horizon:
            self.vouched = True
        if self.ended or self.writing_back is not None:
            return self._late(node, record)
        if not self.below:
            self.definitive += 1
            if node in self.primaries:
                self.primary_answers += 1
        self.records[node] = record
        if record is not None:
            merged = self.merged
            self.merged = record if merged is None else self.merge(merged, record)
        if self.definitive < self.r or self.primary_answers < self.pr:
            return self._possible()
        return self._settle() if self.floor is None else self._settle_above(self.floor)

    def unknown(self, node: NodeId, record: bytes | None = None) -> GetStep:
        """The replica cannot say (incomplete, refused, or a fallback without a copy): it does not count.

        `record` is what an incomplete one has by now: it may be all that is left of a write, so it is not left out.
        """
        if record is not None and node in self.waiting:
            if self.ended or self.writing_back is not None:
                self.waiting.discard(node)
                return self._late(node, record)
            self.records[node] = record
            merged = self.merged
            self.merged = record if merged is None else self.merge(merged, record)
            if self.below and self.floor is not None:
                self.waiting.discard(node)
                return self._settle_above(self.floor)
        if self.writing_back is not None and node in self.writing_back:
            self.waiting.discard(node)  # whether it takes a write-back is another matter
            return GetStep.NOTHING
        return self.lost(node)

    def ask_again(self, nodes: Sequence[NodeId]) -> None:
        """Still below the floor: ask these, asked before or not, except whom it waits for anyway."""
        assert self.below
        for node in nodes:
            if node not in self.waiting:
                self.waiting.add(node)
                self.asks.append(node)

    def anew(self, horizon: int) -> None:
        """There is a newer horizon than the one that was named: what was answered is void, and everybody who was asked
        is asked again. Not once R answers are in."""
        assert not self.ended
        assert self.writing_back is None
        self.waiting |= self.records.keys()
        self.asks = list(self.waiting)
        self.records.clear()
        self.merged = None
        self.definitive = self.primary_answers = 0
        self.below = self.vouched = False
        if self.floor is not None:
            self.floor = self.floor.under(horizon)

    def lost(self, node: NodeId) -> GetStep:
        """The node cannot be had any more, for its answer or for its confirmation."""
        if self.writing_back is not None and node in self.writing_back:
            self.waiting.discard(node)
            self.writing_back.discard(node)
            return self._write_back_possible()
        if node not in self.waiting:
            return GetStep.NOTHING
        self.waiting.discard(node)
        if self.ended or self.writing_back is not None:
            return GetStep.NOTHING
        self._ask_spare()
        return self._possible()

    def hedge(self) -> bool:
        """A replica is slow: bring in one more. False when there is nobody left or nothing to hurry."""
        return not self.ended and (self._ask_spare() if self.writing_back is None else self._bring_up_another())

    def written_back(self, node: NodeId) -> GetStep:
        """`node` confirmed that it holds the merge."""
        if self.writing_back is None or node not in self.writing_back:
            return GetStep.NOTHING
        self.writing_back.discard(node)
        self.waiting.discard(node)  # what it still answers was read before, and nobody counts twice
        self._count(node)
        return self._decided_if_held()

    def expired(self) -> GetStep:
        """The deadline passed: nothing is awaited any more, neither answers nor confirmations."""
        self.waiting.clear()
        if self.writing_back:
            self.writing_back = set()
        if self.ended:
            return GetStep.NOTHING
        self.ended = True
        return GetStep.FAILED

    @property
    def finished(self) -> bool:
        """Nothing is awaited any more."""
        return self.ended and not self.waiting and not self.writing_back

    @property
    def progress(self) -> tuple[int, int]:
        """(got, needed) of the confirmations, for the one who is told that they were not enough."""
        if self.holders >= self.r and self.primary_holders < self.pr:
            return self.primary_holders, self.pr
        return self.holders, self.r

    @property
    def _held(self) -> bool:
        """Whether enough replicas hold the merge, and enough primaries among them."""
        return self.holders >= self.r and self.primary_holders >= self.pr

    def _settle_above(self, floor: Floor) -> GetStep:
        """R answers are in, for a reader that has seen something: they settle it when they meet that, or all is asked
        that could."""
        self.below = not floor.met_by(self.merged, vouched=self.vouched)
        if not self.below:
            self.waiting -= self.records.keys()  # asked again, and not needed any more
            return self._settle()
        while self._ask_spare():
            pass
        return GetStep.NOTHING

    def _settle(self) -> GetStep:
        """R answers are in: equal ones decide; otherwise those behind are brought up first."""
        merged = self.best = self.merged
        behind = [node for node, record in self.records.items() if record != merged]
        self.holders = len(self.records) - len(behind)
        self.primary_holders = sum(
            1 for node, record in self.records.items() if record == merged and node in self.primaries
        )
        if not behind or self._held:
            self.repairs.extend(behind)
            self.ended = True
            return GetStep.DECIDED
        self.writing_back = set(behind)
        self.repairs.extend(behind)
        return GetStep.NOTHING

    def _count(self, node: NodeId) -> None:
        """`node` holds the merge."""
        self.holders += 1
        self.primary_holders += node in self.primaries

    def _decided_if_held(self) -> GetStep:
        if self.ended or not self._held:
            return GetStep.NOTHING
        self.ended = True
        return GetStep.DECIDED

    def _late(self, node: NodeId, record: bytes | None) -> GetStep:
        """An answer beyond the R that settled it: it changes no answer, it is repaired, or repairs the others."""
        best = self.best
        if record is not None and record != best:
            combined = record if best is None else self.merge(best, record)
            if combined != best:
                self.best = combined
                self.repairs.extend(self.records)
            if combined != record:
                self.repairs.append(node)
        elif record is None and best is not None:
            self.repairs.append(node)
        self.records[node] = record
        return GetStep.NOTHING if self.ended else self._late_holder(node, record)

    def _late_holder(self, node: NodeId, record: bytes | None) -> GetStep:
        """While the merge is written back: one who has all of it counts, and one who is repaired will."""
        back = self.writing_back
        assert back is not None
        if node in back:
            return GetStep.NOTHING
        if record != self.best:
            back.add(node)
            return GetStep.NOTHING
        self._count(node)
        return self._decided_if_held()

    def _ask_spare(self) -> bool:
        if not self.spares:
            return False
        spare, self.spares = self.spares[0], self.spares[1:]
        self.waiting.add(spare)
        self.asks.append(spare)
        return True

    def _possible(self) -> GetStep:
        """NOTHING while R and PR can still be reached; asks a spare for a primary's answer that is still missing."""
        while self.definitive + len(self.waiting) < self.r and self._ask_spare():
            pass
        if self.definitive + len(self.waiting) >= self.r:
            if not self.pr:
                return GetStep.NOTHING
            open_primaries = sum(1 for node in self.waiting if node in self.primaries)
            while self.primary_answers + open_primaries < self.pr and self._ask_spare():
                open_primaries += self.asks[-1] in self.primaries
            if self.primary_answers + open_primaries >= self.pr:
                return GetStep.NOTHING
        self.ended = True
        return GetStep.FAILED

    def _write_back_possible(self) -> GetStep:
        """NOTHING while enough may still confirm; sends the merge to others for those who cannot."""
        if self.ended:
            return GetStep.NOTHING
        while not self._within_reach:
            if not self._bring_up_another():
                self.ended = True
                return GetStep.FAILED
        return GetStep.NOTHING

    @property
    def _within_reach(self) -> bool:
        """Whether enough hold the merge once all who are written back to have confirmed."""
        back = self.writing_back
        assert back is not None
        primaries = self.primary_holders + sum(1 for node in back if node in self.primaries)
        return self.holders + len(back) >= self.r and primaries >= self.pr

    def _bring_up_another(self) -> bool:
        """Send the merge to one who was asked and has not answered yet, or else to a spare: it counts once it confirms,
        whatever it had. False: there is nobody left."""
        back = self.writing_back
        assert back is not None
        waiting = self.waiting - back
        if waiting:
            node = min(waiting, key=lambda each: (each not in self.primaries, each))
        else:
            if not self.spares:
                return False
            node, self.spares = self.spares[0], self.spares[1:]
        back.add(node)
        self.repairs.append(node)
        return True

    def check(self) -> None:
        """Counts match the records; nobody is both asked and spare."""
        assert not (self.waiting & set(self.spares))
        assert self.definitive <= len(self.records)
        if self.writing_back is None and not self.ended:
            assert self.below or self.definitive < self.r or self.primary_answers < self.pr
        assert not self.below or (self.writing_back is None and self.floor is not None)
        assert not self.vouched or (self.floor is not None and self.floor.horizon)
