"""What a reader has seen already: a floor that an answer must not fall behind (decision 0008, section 4).

A floor is the union of contexts. A record *meets* it when its clock covers every write that the floor names. Covering
is by clock, so a tombstone meets what it has deleted, and a record what it has replaced. Entries at 0 name no write
(they announce an actor, `model/put.py`) and are asked of nobody: who announced one may be gone for good.

**Nothing at all** has no clock and meets no floor but the empty one, with one exception. A record that is purged by
proof (section 2) is gone rightly, from all owners, and its clock too: a session that deleted a key would wait for it
for ever.

**The exception.** Of a floor, a context whose stamp lies below the horizon of the partition is *forgettable*: once an
owner that vouches for what lies below that horizon, and is complete, is among those that answered, it is asked of
nobody, whatever that owner has, nothing or something. For:

- The stamp of a context is no less than that of any write its clock names (`model/context.py`). So every write that
  such a context names lies below the horizon.
- At the horizon every owner had all that lies below it, held or covered. Who vouches has let go of it by right alone:
  it has each of those writes, or covers it, or has forgotten it with a record whose last death lay below the horizon.
- What was forgotten so was dead: deleted or expired, it or all that had replaced it. A reader who has seen it is shown
  no less by its absence, as he would be by the tombstone.

It makes no difference whether something is there beside it. A key that was written anew after the purge has a record
whose clock does not cover the old dots, and never will: nobody has them. That record is an answer no less than nothing
would be. It holds for any union of answers that has the one of such an owner in it: joining others adds writes and
covers, and what they alone still hold of the old dots, not having swept yet, is dead as well.

**Context by context**, because a session that wrote the key anew, blindly, has one of before the purge and one of its
own write: the second is to be covered by a clock, the first can be covered by none any more. Within one context the
stamp is one for all its writes, so it is forgettable as a whole or not at all. That is enough: it was taken from a
record with something in it that is not below the horizon, and such a record is kept as a whole, clock and all.

The second step holds for what no store has taken along. A write whose every copy was destroyed (w=1, and the one store
that had acknowledged it) is waited for while it lies above the horizon, and then no more: no owner that is left can
tell it from what was forgotten by right, and the session would wait for ever. w promises no more than that.

What is *not* enough: that a context lies below the horizon and somebody has nothing. A stand-in never had it. An owner
that is incomplete, or cannot vouch (an old disk, a table that cannot be read), may have lost the very writes. One that
vouches for an older horizon may have missed what lies between the two: so it is asked about the one that is meant, the
one that the floor was compared with.
"""

from __future__ import annotations

from collections.abc import Iterable

from leafdb.model.clock import EMPTY, CausalClock
from leafdb.model.context import Past
from leafdb.model.record import clock_of


class SessionFloor:
    """The floor of one request. `met_by` is what the operation of quorum/get_operation asks."""

    __slots__ = ("_pasts", "_recent", "clock", "horizon", "stamp")

    def __init__(self, pasts: Iterable[Past], horizon: int = 0) -> None:
        """`horizon` is that of its partition; 0: there is none."""
        self._pasts = tuple(pasts)
        clock = recent = EMPTY
        newest = oldest = 0
        for each, stamp in self._pasts:
            clock = clock.merge(each)
            if stamp >= horizon:
                recent = recent.merge(each)
            newest, oldest = max(newest, stamp), min(oldest or stamp, stamp)
        self.clock: CausalClock = clock
        self._recent = recent
        self.stamp: int = newest
        """No less than that of any write the floor names. What follows the floor goes above it."""
        self.horizon: int = horizon if oldest < horizon else 0
        """If not 0, some of it may have been forgotten by right: an owner that vouches for what lies below says so."""

    def under(self, horizon: int) -> SessionFloor:
        """The same floor, where the horizon turns out to be this one."""
        return SessionFloor(self._pasts, horizon)

    def met_by(self, record: bytes | None, *, vouched: bool) -> bool:
        """Whether an answer may be this record, or that nothing is there. `vouched`: an owner that vouches for what
        lies below the floor's horizon is among those that gave it. Raises RecordError."""
        known = EMPTY if record is None else clock_of(record)
        return known.covers_writes(self._recent if vouched else self.clock)
