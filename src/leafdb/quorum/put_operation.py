"""When a write is decided, and who is still owed a copy.

The machine counts acknowledgements from distinct nodes. Each node asked stands for one primary: itself, or, as a
fallback, the primary it keeps a hint for. Fallback copies count to W and never to PW. A primary that cannot be had gets
a spare fallback if there is one; otherwise the coordinator owes it a hint, which never counts.

One of the hot two: plain slots and return codes instead of frozen effects (1-architecture section 4). The driver calls
`acked`, `refused` or `lost` once per answer, then looks at the returned step and drains `asks` and `owed`. A range in
the middle of a ring change has two sets of primaries: joint_put_operation.

Invariants: a node is counted once; DECIDED or FAILED is returned at most once, and never both; at the end every primary
has acknowledged, has a fallback's acknowledged copy, or stood in `owed` once.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from leafdb.types import NodeId


class Step(IntEnum):
    """What an event did to the operation."""

    NOTHING = 0
    DECIDED = 1
    FAILED = 2
    """W can no longer be reached; what was written may live on: the outcome is unknown, unless nothing was applied."""


class PutOperation:
    """One write from the moment its record exists. `targets` maps each node asked to the primary it stands for."""

    __slots__ = (
        "acks",
        "asks",
        "ended",
        "maybe_applied",
        "owed",
        "primary_acks",
        "pw",
        "spares",
        "w",
        "waiting",
    )

    def __init__(self, *, w: int, pw: int, targets: dict[NodeId, NodeId], spares: Sequence[NodeId]) -> None:
        self.w: int = w
        self.pw: int = pw
        self.waiting: dict[NodeId, NodeId] = targets
        self.spares: Sequence[NodeId] = spares
        self.acks: int = 0
        self.primary_acks: int = 0
        self.maybe_applied: bool = False
        """Some node that did not acknowledge may have applied it all the same."""
        self.ended: bool = False
        self.asks: list[tuple[NodeId, NodeId]] = []
        """Fallbacks to ask now: (node, the primary it stands for)."""
        self.owed: list[NodeId] = []
        """Primaries the coordinator must keep a hint for, from now on."""

    def acked(self, node: NodeId) -> Step:
        """`node` holds the record as durably as the policy asks."""
        stands_for = self.waiting.pop(node, None)
        if stands_for is None:
            return Step.NOTHING
        self.acks += 1
        if stands_for == node:
            self.primary_acks += 1
        if self.ended or self.acks < self.w or self.primary_acks < self.pw:
            return Step.NOTHING if self.ended else self._possible()
        self.ended = True
        return Step.DECIDED

    def refused(self, node: NodeId) -> Step:
        """`node` answered that it did not apply the record."""
        return self._without(node, maybe_applied=False)

    def lost(self, node: NodeId) -> Step:
        """`node` cannot be had any more, or failed: it may or may not have applied the record."""
        return self._without(node, maybe_applied=True)

    def expired(self) -> Step:
        """The deadline passed: whoever has not answered is owed a hint."""
        for stands_for in self.waiting.values():
            self.owed.append(stands_for)
        self.maybe_applied = self.maybe_applied or bool(self.waiting)
        self.waiting = {}
        if self.ended:
            return Step.NOTHING
        self.ended = True
        return Step.FAILED

    @property
    def finished(self) -> bool:
        """Everybody has answered or been given up."""
        return not self.waiting

    @property
    def progress(self) -> tuple[int, int]:
        """(got, needed), for the one who is told that it was not enough."""
        if self.acks >= self.w and self.primary_acks < self.pw:
            return self.primary_acks, self.pw
        return self.acks, self.w

    def _without(self, node: NodeId, *, maybe_applied: bool) -> Step:
        stands_for = self.waiting.pop(node, None)
        if stands_for is None:
            return Step.NOTHING
        self.maybe_applied = self.maybe_applied or maybe_applied
        if self.spares:
            spare, self.spares = self.spares[0], self.spares[1:]
            self.waiting[spare] = stands_for
            self.asks.append((spare, stands_for))
        else:
            self.owed.append(stands_for)
        return Step.NOTHING if self.ended else self._possible()

    def _possible(self) -> Step:
        """NOTHING while W and PW can still be reached by those waited for."""
        waiting = self.waiting
        if self.acks + len(waiting) >= self.w:
            if not self.pw:
                return Step.NOTHING
            primaries = sum(1 for node, stands_for in waiting.items() if node == stands_for)
            if self.primary_acks + primaries >= self.pw:
                return Step.NOTHING
        self.ended = True
        return Step.FAILED

    def check(self) -> None:
        """The counts are those of distinct nodes and the operation ended at most once."""
        assert 0 <= self.primary_acks <= self.acks
        assert not (set(self.spares) & set(self.waiting))
        if not self.ended:
            assert self.acks < self.w or self.primary_acks < self.pw
