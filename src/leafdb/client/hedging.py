"""When a read is asked of a second node beside the first, and how often.

A node that coordinates already hedges its slow replicas; this is for the node that is slow itself. The moment to ask
another is the time that 19 of 20 reads stay under, followed by stochastic approximation (Robbins and Monro 1951): a
step up when a read is not answered by it, a step a nineteenth as large down when one is. So no read has to be timed:
it is enough to know on which side of the moment it fell. Hedges spend from a bucket that reads answered in time fill by
a twentieth each (Dean and Barroso, The Tail at Scale, 2013).

Threads may race on it: it bounds a load, it does not count exactly.
"""

from __future__ import annotations

from typing import Final

from leafdb.client.token_bucket import TokenBucket

QUANTILE: Final = 0.95
STEP: Final = 0.05
AFTER_S_FIRST: Final = 0.1
AFTER_S_MIN: Final = 0.05
"""Below it a second request costs more than it saves: a node waits 20 ms before it hedges one of its replicas."""
AFTER_S_MAX: Final = 1.0
HEDGE_SHARE: Final = 0.05
HEDGES_SAVED_MAX: Final = 10.0


class Hedging:
    """What all reads of a client share: the moment, and the budget."""

    __slots__ = ("after_s", "budget")

    def __init__(self) -> None:
        self.after_s: float = AFTER_S_FIRST
        """How long to wait for a read before another node is asked, too."""
        self.budget: TokenBucket = TokenBucket(HEDGE_SHARE, HEDGES_SAVED_MAX, HEDGES_SAVED_MAX)

    def in_time(self) -> None:
        """A read was answered before the moment."""
        if self.after_s > AFTER_S_MIN:
            self.after_s = max(AFTER_S_MIN, self.after_s * (1.0 - STEP * (1.0 - QUANTILE)))
        self.budget.earn()

    def late(self) -> None:
        """A read was not answered by the moment."""
        self.after_s = min(AFTER_S_MAX, self.after_s * (1.0 + STEP * QUANTILE))

    def check(self) -> None:
        """The moment stays within its bounds, and the budget is sound."""
        assert AFTER_S_MIN <= self.after_s <= AFTER_S_MAX
        self.budget.check()
