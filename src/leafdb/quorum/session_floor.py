"""What a reader has seen already: a floor that an answer must not fall behind (decision 0008, section 4).

A floor is the union of contexts. A record *meets* it when its clock covers every write that the floor names. Covering
is by clock, so a tombstone meets what it has deleted, and a record what it has replaced. Entries at 0 name no write
(they announce an actor, `model/put.py`) and are asked of nobody: who announced one may be gone for good.

**Nothing at all** has no clock and meets no floor but the empty one, with one exception. A record that is purged by
proof (section 2) is gone rightly, from all owners, and its clock too: a session that deleted a key would wait for it
for ever.

**The exception.** A floor whose stamp lies below the horizon of its partition is *forgettable*: an owner that vouches
for what lies below that horizon, and is complete, meets it with whatever it has, nothing or something. For:

- The stamp of a context is no less than that of any write that its clock names (`model/context.py`), and that of a
  floor is the greatest of its contexts. So every write that the floor names lies below the horizon.
- At the horizon every owner had all that lies below it, held or covered. Who vouches has let go of it by right alone:
  it has each of those writes, or covers it, or has forgotten it with a record whose last death lay below the horizon.
- What was forgotten so was dead: deleted or expired, it or all that had replaced it. A reader who has seen it is shown
  no less by its absence, as he would be by the tombstone.

It makes no difference whether something is there beside it. A key that was written anew after the purge has a record
whose clock does not cover the old dots, and never will: nobody has them. That record is an answer no less than nothing
would be. It holds for any union of answers that has the one of such an owner in it: joining others adds writes and
covers, and what they alone still hold of the old dots, not having swept yet, is dead as well.

What is *not* enough: that the floor lies below the horizon and somebody has nothing. A stand-in never had it. An owner
that is incomplete, or cannot vouch (an old disk, a table that cannot be read), may have lost the very writes. One that
vouches for an older horizon may have missed what lies between the two: so it is asked about the one that is meant, the
one that the floor was compared with. And a floor that lies partly above the horizon is met by its clock or not at all:
the stamp is one for all its writes, and which of them lie below cannot be told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from leafdb.model.clock import EMPTY
from leafdb.model.context import Past
from leafdb.model.record import clock_of
from leafdb.types import PartitionId

Vouches = Callable[[PartitionId, int], bool]
"""Of a store: whether it has had everything of a partition below that horizon, and let go of it by right alone."""


def vouches_for_nothing(partition: PartitionId, horizon: int) -> bool:
    """Of a store that keeps no marks: it cannot say what it has lost."""
    return False


class SessionFloor:
    """The floor of one request. `met_by` is what the operation of quorum/get_operation asks."""

    __slots__ = ("clock", "horizon", "stamp")

    def __init__(self, pasts: Iterable[Past], horizon: int = 0) -> None:
        """`horizon` is that of its partition; 0: there is none."""
        clock, newest = EMPTY, 0
        for each, stamp in pasts:
            clock = clock.merge(each)
            newest = max(newest, stamp)
        self.clock = clock
        self.stamp = newest
        """No less than that of any write the floor names. What follows the floor goes above it."""
        self.horizon = horizon if newest < horizon else 0
        """An owner that vouches for what lies below it meets the floor with whatever it has; 0: nobody does."""

    def met_by(self, record: bytes | None) -> bool:
        """Whether an answer may be this record, or that nothing is there, by its clock. Raises RecordError."""
        known = EMPTY if record is None else clock_of(record)
        return known.covers_writes(self.clock)
