"""How long each peer takes to answer a read, and whether one more may be asked instead of waiting for it.

The 95th percentile is followed by stochastic approximation (Robbins and Monro 1951): a step up when an answer was
slower, nineteen times smaller steps down otherwise. Two floats per peer, no samples kept. Hedges spend from a bucket
that every read fills by a twentieth, so that an outage cannot double the load (Dean and Barroso, The Tail at Scale,
2013).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from leafdb.types import NodeId

QUANTILE: Final = 0.95
FIRST_GUESS_S: Final = 0.05
SLOWEST_S: Final = 2.0
SLOW_AFTER_S_MIN: Final = 0.02
STEP: Final = 0.05
HEDGE_SHARE: Final = 0.05
HEDGES_SAVED_MAX: Final = 10.0


class PeerLatency:
    """Estimates per peer and the hedging budget of this node."""

    def __init__(self) -> None:
        self._p95_s: dict[NodeId, float] = {}
        self._budget = HEDGES_SAVED_MAX

    def observed(self, node: NodeId, seconds: float) -> None:
        """An answer of `node` took so long."""
        estimate = self._p95_s.get(node, FIRST_GUESS_S)
        if seconds > estimate:
            estimate += STEP * estimate * QUANTILE
        else:
            estimate -= STEP * estimate * (1.0 - QUANTILE)
        self._p95_s[node] = min(estimate, SLOWEST_S)

    def p95_s(self, node: NodeId) -> float:
        """What 19 of 20 answers of `node` stay under, as far as we know."""
        return self._p95_s.get(node, FIRST_GUESS_S)

    def slow_after_s(self, asked: Sequence[NodeId], own: NodeId) -> float:
        """How long to wait for `asked` before a hedge is worth it; also fills the budget by one read's share."""
        self._budget = min(HEDGES_SAVED_MAX, self._budget + HEDGE_SHARE)
        slowest = SLOW_AFTER_S_MIN
        for node in asked:
            if node != own:
                slowest = max(slowest, self._p95_s.get(node, FIRST_GUESS_S))
        return slowest

    def may_hedge(self) -> bool:
        """Spend one hedge, if there is one."""
        if self._budget < 1.0:
            return False
        self._budget -= 1.0
        return True
