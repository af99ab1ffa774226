"""What a reader has seen already: a floor that an answer must not fall behind (decision 0008, section 4).

A floor is the union of contexts. A record *meets* it when its clock covers every write that the floor names. Covering
is by clock, so a tombstone meets what it has deleted, and a record what it has replaced. Entries at 0 name no write
(they announce an actor, `model/put.py`) and are asked of nobody: who announced one may be gone for good.

**Nothing at all** has no clock and meets no floor but the empty one, with one exception. A record that is purged by
proof (section 2) is gone rightly, from all owners, and its clock too: a session that deleted a key would wait for it
for ever. What a floor names from below the horizon of its partition every owner has had, so whoever lacks it now has
forgotten it by right: it counts as met. `forgotten` says that of a floor, and is the only place that has to know of
horizons. There is none yet, and nothing is purged, so its answer is no.
"""

from __future__ import annotations

from collections.abc import Iterable

from leafdb.model.clock import EMPTY, CausalClock
from leafdb.model.record import clock_of


class SessionFloor:
    """The floor of one request. `met_by` is what the operation of quorum/get_operation asks."""

    __slots__ = ("clock",)

    def __init__(self, clocks: Iterable[CausalClock]) -> None:
        clock = EMPTY
        for each in clocks:
            clock = clock.merge(each)
        self.clock = clock

    def met_by(self, record: bytes | None) -> bool:
        """Whether an answer may be this record, or that nothing is there. Raises RecordError."""
        known = EMPTY if record is None else clock_of(record)
        return known.covers_writes(self.clock) or forgotten(self)


def forgotten(floor: SessionFloor) -> bool:
    """Whether all that the floor names lies below the horizon of its partition. No partition has a horizon yet.

    For one to be compared with, a floor needs a stamp: the newest in the record that each of its contexts was taken
    from, sealed with it. For if that is below the horizon, every owner had this record, or what replaced it. And it has
    to be an owner, complete, that answers with less: a stand-in's copy proves nothing.
    """
    return False
