"""How fast background work may go: a share of the loop's time, in slices short enough that no request notices.

Everybody who does such work shares one `Pace`, so two exchanges at once are no faster than one. Work is charged after
it was done, by what it took, and the next slice waits until the share is kept again: a slice of 2 ms at a fifth of the
time is followed by 8 ms for others. Time nobody used is not saved up.

The share is smaller while requests suffer. What a request waits for is the loop, and a sleeper that is woken late has
waited for it too: so each of our own sleeps is a measurement. Woken later than LATE_S, the share is halved, else it
grows back a step, never beyond its bounds: background work is slow in a busy node, and is not starved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

SHARE: Final = 0.2
SHARE_MIN: Final = 0.05
SHARE_STEP: Final = 0.005
SLICE_S: Final = 0.002
SLEEP_S_MIN: Final = 0.001
"""A shorter debt is carried over: a sleep costs the loop more than it is worth."""
LATE_S: Final = 0.005
"""More than a slice and a batch of requests together."""


class Pace:
    """One node's background share."""

    def __init__(self, now: Callable[[], float], share: float = SHARE, *, slice_s: float = SLICE_S) -> None:
        assert 0.0 < share <= 1.0
        self._now = now
        self._slice_s = slice_s
        self._share_max = share
        self.share: float = share
        """The share of the moment."""
        self._free_at = now()

    def begin(self) -> float:
        """The start of a slice, to be given back to `spent`."""
        return self._now()

    def over(self, began: float) -> bool:
        """Whether a slice has lasted long enough."""
        return self._now() - began >= self._slice_s

    async def spent(self, began: float, extra_s: float = 0.0) -> None:
        """A slice has ended; `extra_s` of other threads' work for it also counts. Always a checkpoint."""
        now = self._now()
        self._free_at = max(self._free_at, began) + (now - began + extra_s) / self.share
        wait_s = self._free_at - now
        if wait_s >= SLEEP_S_MIN:
            await trio.sleep(wait_s)
            self._woken(self._now() - now - wait_s)
        else:
            await trio.lowlevel.checkpoint()

    def _woken(self, late_s: float) -> None:
        if late_s > LATE_S:
            self.share = max(min(SHARE_MIN, self._share_max), self.share / 2)
        else:
            self.share = min(self._share_max, self.share + SHARE_STEP)
