"""What operators were told about their commits, held against the history of the ring: of concurrent ones exactly one
wins, and each is told what came of it (I18, I10).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from leafdb.sim.ring_watch import RingWatch
from leafdb.testing.violation import Invariant, require
from leafdb.types import NodeId


class Commits:
    """Of one run."""

    def __init__(self, watch: RingWatch) -> None:
        self._watch = watch
        self._asked: Counter[bytes] = Counter()
        self._won: list[tuple[bytes, int, int]] = []
        self._stale: list[bytes] = []

    def excuse(self, members: Iterable[NodeId]) -> None:
        """Somebody has said that no plan shall wait for these."""
        self._watch.excused.update(members)

    def asked(self, plan_id: bytes) -> int:
        """Somebody is about to ask for it: the newest epoch by then."""
        self._asked[plan_id] += 1
        assert self._watch.newest is not None, "the cluster is founded"
        return int(self._watch.newest.epoch)

    def won(self, plan_id: bytes, since: int, epoch: int) -> None:
        """Somebody who asked in the epoch `since` was told that it is in progress, by that epoch."""
        self._won.append((plan_id, since, epoch))

    def stale(self, plan_id: bytes) -> None:
        """Somebody was told that it is not what would be done."""
        self._stale.append(plan_id)

    def check(self) -> None:
        """Raise Violation when somebody was told something else than what has happened."""
        for plan_id, since, epoch in self._won:
            there = plan_id in set(self._watch.plans_between(since, epoch))
            text = f"plan {plan_id.hex()} was said in epoch {epoch} to be in progress, and was not since epoch {since}"
            require(there, Invariant.HONEST_OUTCOMES, text)
        committed = [step.plan.id for step in self._watch.steps if step.before.plan is None]
        for plan_id in self._stale:
            if self._asked[plan_id] == 1:
                text = f"plan {plan_id.hex()} was said to be stale, and was committed by that very request"
                require(plan_id not in committed, Invariant.HONEST_OUTCOMES, text)
