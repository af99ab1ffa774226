"""The hybrid logical clock: stamps that follow wall time, never go back, and never repeat within one store.

    stamp = unix milliseconds << 16 | logical counter              64 bits

Stamps decide between siblings of `lww` buckets, say what a purge may forget, and tell people when something was
written; which write replaces which is the business of `clock.py`. Three rules:

- **Never back, restarts included.** Stamps stay below a *ceiling* that is made durable before it is used; a restarted
  clock begins at the ceiling it finds. Wall time that jumps back only makes the counter run.
- **No peer drags us.** What a write goes above, because its writer had seen it, raises that one write and not the clock
  (`put.py`); such a stamp may lie above the ceiling, which is harmless, for the record it goes into keeps the next one
  above it, in this life or another. A stamp that is taken over (`observe`) is not more than HLC_DRIFT_MS_MAX ahead.
- **Never at the end.** Wall time counts up to WALL_MS_MAX only, half of what there is: writes over one of a clock that
  is wrong beyond all measure still find room above it, one by one, for ever.

What all members have agreed upon is no single peer's doing: `lift` obeys, however far ahead it is (purge horizons:
docs/decisions/0008, section 2).
"""

from __future__ import annotations

from typing import Final

from leafdb.limits import HLC_DRIFT_MS_MAX, HLC_LEASE_MS

LOGICAL_BITS: Final = 16
STAMP_MAX: Final = (1 << 63) - 1
"""The year 6429; the top bit stays free, so that a stamp plus one is always a 64-bit number."""
WALL_MS_MAX: Final = 1 << 46
"""The year 4199: a wall clock beyond it is taken as standing there."""


class LeaseExhausted(Exception):
    """A durable block of numbers is used up and its successor is not durable yet: wait for `grant`."""


def stamp_ms(stamp: int) -> int:
    """The unix milliseconds in a stamp."""
    return stamp >> LOGICAL_BITS


class HybridClock:
    """One store's clock. `ceiling` is the durable one found at start, 0 for a new store."""

    __slots__ = ("_last", "ceiling")

    def __init__(self, ceiling: int = 0) -> None:
        self.ceiling: int = ceiling
        self._last = ceiling
        """The newest stamp handed out or taken over. It may equal the ceiling: nothing is minted there."""

    @property
    def last(self) -> int:
        """The newest stamp this clock knows of."""
        return self._last

    def tick(self, now_ms: int) -> int:
        """A new stamp, above all before it. Raises LeaseExhausted when it would reach the ceiling."""
        stamp = (now_ms if now_ms < WALL_MS_MAX else WALL_MS_MAX) << LOGICAL_BITS
        if stamp <= self._last:
            stamp = self._last + 1
        if stamp >= self.ceiling:
            raise LeaseExhausted(f"stamp {stamp} is not below the ceiling {self.ceiling}")
        self._last = stamp
        return stamp

    def observe(self, stamp: int, now_ms: int) -> bool:
        """Take a peer's stamp into account. False: it is beyond the drift bound and was ignored; raise the alarm."""
        if stamp_ms(stamp) > now_ms + HLC_DRIFT_MS_MAX:
            return False
        if stamp > self._last:
            self._last = stamp
        return True

    def lift(self, stamp: int) -> None:
        """Nothing at or below this is minted from now on, in this life."""
        if stamp > self._last:
            self._last = stamp

    def lease_wanted(self, now_ms: int) -> int | None:
        """The next ceiling to make durable and then `grant`, once less than half of a lease is left; else None.

        A clock that is ahead of the wall (it began at an old ceiling, or a peer is fast) asks for little beyond where
        it is: a store that crashes in a loop would otherwise run ahead by a whole lease each time.
        Answers the like until granted: the caller keeps one request under way.
        """
        now_ms = min(now_ms, WALL_MS_MAX)
        last_ms = stamp_ms(self._last)
        ceiling_ms = stamp_ms(self.ceiling)
        if ceiling_ms - max(now_ms, last_ms) > HLC_LEASE_MS // 2:
            return None
        wanted_ms = max(now_ms + HLC_LEASE_MS, last_ms + HLC_LEASE_MS // 8)
        return wanted_ms << LOGICAL_BITS if wanted_ms - ceiling_ms >= HLC_LEASE_MS // 16 else None

    def grant(self, ceiling: int) -> None:
        """`ceiling` is durable now. An older one than we have changes nothing."""
        self.ceiling = max(self.ceiling, ceiling)

    def check(self) -> None:
        """Raises AssertionError when an invariant is broken."""
        assert 0 <= self._last <= STAMP_MAX
        assert 0 <= self.ceiling <= STAMP_MAX
