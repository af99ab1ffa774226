"""How fast compaction may go: a share of the time, less while requests wait longer beside it, more when it is behind.

A share and not bytes a second: what full speed is differs from disk to disk and from core to core, and half of it is
half of it everywhere. The worker rests after each slice of a job until the share is kept (`Rests`); so it reads and
writes and computes that much less. Flushes are never paced: they free memory.

The parent decides (`CompactionPace`). Requests wait for two things, and each is listened to by itself: the log's
commits, and the loop, whose sleepers wake late. While nothing is compacted the 95th percentile of a wait is followed,
by stochastic approximation (Robbins and Monro 1951). Beside a compaction the waits that are clearly longer than that
are counted, over more than one compaction if they are short: far fewer than one in twenty, if nothing has changed. With
more than that the share is halved, else it grows by a step. A quantile is judged and no maximum, since of many waits
the longest is longer than of few.

At the least share the waits are taken for the load's own, and followed: a load that grew during a long compaction
does not hold it down for ever.

What is behind is not held up: from the measure of its fullest level on, where a compaction is due, to twice that, where
level 0 begins to slow writes down, the share is raised to the whole. A stalled write is worse than a slow one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

SHARE_MIN: Final = 0.1
SHARE_STEP: Final = 0.1
JUDGED_S: Final = 0.2
"""So short that the owner's clock comes by at each of its ticks meanwhile, and each tells how late the loop is."""
WAITS_MIN: Final = 40
"""A judgement is made of at least so many waits."""
LATE_FACTOR: Final = 1.5
LATE_S_MIN: Final = 0.001
"""A wait is longer by at least so much; the rest is the scheduler's noise."""
LATE_SHARE_MAX: Final = 0.05

QUANTILE: Final = 0.95
QUANTILE_STEP: Final = 0.05
USUAL_FIRST_S: Final = 0.005
USUAL_S_MIN: Final = 0.000_1

REST_SLICE_S_MAX: Final = 0.25
"""A slice that took longer, for it was kept waiting, is rested for as if it had taken so much."""


class Waits:
    """One thing that requests wait for: how long it usually takes, and how often, of late, clearly longer."""

    __slots__ = ("count", "late", "usual_s")

    def __init__(self) -> None:
        self.usual_s: float = USUAL_FIRST_S
        """What 19 of 20 waits stay under while nothing is compacted, as far as is known."""
        self.count: int = 0
        self.late: int = 0

    def add(self, wait_s: float) -> None:
        """Count a wait."""
        self.count += 1
        self.late += wait_s > LATE_FACTOR * self.usual_s + LATE_S_MIN

    def follow(self, wait_s: float) -> None:
        """Learn from a wait."""
        step = QUANTILE if wait_s > self.usual_s else QUANTILE - 1.0
        self.usual_s = max(USUAL_S_MIN, self.usual_s * (1.0 + QUANTILE_STEP * step))

    def too_late(self) -> bool:
        """Whether more of those counted took longer than chance has it."""
        return self.late > LATE_SHARE_MAX * max(self.count, WAITS_MIN)

    def forget(self) -> None:
        """Count anew."""
        self.count = self.late = 0


def least_share(fullness: float) -> float:
    """What compaction is granted whatever requests wait: all of the time when a level holds twice its measure."""
    return SHARE_MIN + (1.0 - SHARE_MIN) * min(1.0, max(0.0, fullness - 1.0))


def next_share(share: float, *, late: bool) -> float:
    """Halved or a step more, within its bounds."""
    return max(SHARE_MIN, share / 2) if late else min(1.0, share + SHARE_STEP)


class CompactionPace:
    """The decision for one store. `tell` is given the share at each judgement, changed or not: a worker that was
    started meanwhile knows of none."""

    def __init__(self, tell: Callable[[float], None]) -> None:
        self._tell = tell
        self._yielding = 1.0  # what requests leave; `share` may be more
        self._judge_at_s: float | None = None  # None: nothing is being compacted
        self.commits: Waits = Waits()
        self.loop: Waits = Waits()
        self.share: float = 1.0
        """The share of the moment, or that of the last compaction."""

    def committed(self, wait_s: float) -> None:
        """The log took so long for a commit, from the loop and back to it."""
        self._felt(self.commits, wait_s)

    def woken(self, late_s: float) -> None:
        """The loop woke a sleeper so late."""
        self._felt(self.loop, late_s)

    def _felt(self, waits: Waits, wait_s: float) -> None:
        if self._judge_at_s is None or self.share <= SHARE_MIN:
            waits.follow(wait_s)
        if self._judge_at_s is not None:
            waits.add(wait_s)

    def on_time(self, now_s: float, fullness: float | None) -> None:
        """Judge if it is time. `fullness`: how full the fullest level is, at its measure 1.0; None: nothing is being
        compacted."""
        if fullness is None:
            self._judge_at_s = None
            return
        if self._judge_at_s is None:
            self._judge_at_s = now_s + JUDGED_S
        elif now_s < self._judge_at_s or self.commits.count + self.loop.count < WAITS_MIN:
            return
        else:
            late = self.commits.too_late() or self.loop.too_late()
            self._yielding = next_share(self._yielding, late=late)
            self._judge_at_s = now_s + JUDGED_S
            self.commits.forget()
            self.loop.forget()
        self.share = max(self._yielding, least_share(fullness))
        self._tell(self.share)

    def deadline(self) -> float | None:
        """When the next judgement is due; None: nothing is being compacted."""
        return self._judge_at_s

    def check(self) -> None:
        assert SHARE_MIN <= self._yielding <= self.share <= 1.0


class Rests:
    """How the worker keeps to its share: after a slice it does nothing for as long as makes the slice that share."""

    __slots__ = ("_ended_s", "_slice_s", "share")

    def __init__(self) -> None:
        self.share: float = 1.0
        self._slice_s = 0.0
        self._ended_s = 0.0

    def worked(self, began_s: float, ended_s: float) -> None:
        """A slice is done."""
        self._slice_s = min(ended_s - began_s, REST_SLICE_S_MAX)
        self._ended_s = ended_s

    def left_s(self, now_s: float) -> float:
        """How long to rest from now on, at the share of now; 0.0: go on."""
        return max(0.0, self._ended_s + self._slice_s * (1.0 / self.share - 1.0) - now_s)
