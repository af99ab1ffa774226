"""Key epochs, leased in durable blocks, and the floor below which our own old epochs are not trusted.

A fresh epoch must be one that this incarnation never used, whatever a crash made it forget. So epochs come from a
counter whose upper bound, the *ceiling*, is durable before any epoch below it is used; a restarted store begins at the
ceiling it finds and wastes what was left of the block, of which there are 2^32.

A dot may leave the node before its WAL record is durable. After a stop without the clean-shutdown mark the store may
therefore hold an older counter than peers do, under an epoch it would go on using. `floor` prevents that: an own entry
with an epoch below it is never incremented. It rises to the ceiling found at an unclean start and is itself persisted.
It also rises when a store is about to forget records on purpose, because it holds their range no more: should they come
back, their clocks are taken as they are, and the next put here begins a new entry.
"""

from __future__ import annotations

from leafdb.limits import EPOCH_LEASE, EPOCH_LEASE_RENEW_AT
from leafdb.model.actor import EPOCH_MAX
from leafdb.model.hlc import LeaseExhausted


class EpochLease:
    """The epochs from `next_epoch` up to (not including) `ceiling`, which is durable."""

    __slots__ = ("_next", "ceiling", "floor")

    def __init__(self, next_epoch: int, ceiling: int, floor: int = 0) -> None:
        assert 0 < next_epoch <= ceiling
        assert floor >= 0
        self._next = next_epoch
        self.ceiling: int = ceiling
        self.floor: int = floor

    @classmethod
    def recovered(cls, *, ceiling: int, floor: int, clean: bool) -> EpochLease:
        """The lease after a start that found the durable `ceiling` and `floor` (both 0 in a new store).

        Nothing can be taken before the first `grant`. The new `floor` must be durable before the first write.
        """
        start = max(ceiling, 1)
        return cls(start, start, floor if clean else start)

    @property
    def next_epoch(self) -> int:
        """The epoch that `next` would give."""
        return self._next

    def next(self) -> int:
        """A fresh epoch. Raises LeaseExhausted when the block is used up."""
        epoch = self._next
        if epoch >= self.ceiling:
            raise LeaseExhausted(f"key epochs are used up at {epoch}")
        self._next = epoch + 1
        return epoch

    def raise_floor(self) -> None:
        """No own entry that exists is incremented again."""
        self.floor = self._next

    def lease_wanted(self) -> int | None:
        """The next ceiling to make durable and then `grant`, once a block is nearly used up; else None.

        Answers the like until granted: the caller keeps one request under way.
        """
        if self.ceiling - self._next > EPOCH_LEASE * (1.0 - EPOCH_LEASE_RENEW_AT):
            return None
        wanted = self.ceiling + EPOCH_LEASE
        assert wanted <= EPOCH_MAX, "key epochs of this incarnation are used up"
        return wanted

    def grant(self, ceiling: int) -> None:
        """`ceiling` is durable now. An older one than we have changes nothing."""
        self.ceiling = max(self.ceiling, ceiling)

    def check(self) -> None:
        """Raises AssertionError when an invariant is broken."""
        assert 0 < self._next <= self.ceiling <= EPOCH_MAX
        assert 0 <= self.floor <= self.ceiling
