"""What of a record is dead, and when it may be forgotten (docs/decisions/0008, section 2).

The *death* of a sibling is a stamp: of a tombstone its own, of a value that expires its expiry. Any other value never
dies. A record dies with the last of its siblings, and may be forgotten, clock and all, when that lies below the
*horizon* of its partition: the stamp below which every owner is proved to have had everything. Nothing is forgotten
piece by piece: a tombstone beside a living value stays as long as that does.

A death lies above the stamp of all that its sibling covers, because a put's stamp exceeds those of whatever its writer
saw (`put`). Admission rests on that: what a forgotten record covered lies below the horizon as well.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from leafdb.model.hlc import LOGICAL_BITS, STAMP_MAX
from leafdb.model.record_format import Head, RecordError, header, sole_times

NEVER: Final = STAMP_MAX + 1
"""The death of what does not die: above every stamp."""


def death_of(head: Head) -> int:
    """The stamp from which on nobody sees the sibling; NEVER for a value without an expiry."""
    return _death(head.stamp, head.expires_ms, tombstone=head.tombstone)


def record_death(data: bytes) -> int:
    """The stamp from which on nobody sees anything of the record, a sound one; 0 of one without siblings. Raises
    RecordError where it meets what no record has."""
    sole = sole_times(data)
    if sole is not None:
        return _death(sole[0], sole[1], tombstone=bool(sole[2]))
    return max(map(death_of, header(data).heads.values()), default=0)


def expires_ms(data: bytes) -> int:
    """The time in ms after which nobody sees anything of the record, rounded down, 1 at least: while a horizon's is not
    greater, it may not be forgotten. 0: it never dies, or cannot be read. Named by the storage engine's jobs."""
    try:
        death = record_death(data)
    except RecordError:
        return 0
    return 0 if death == NEVER else max(1, death >> LOGICAL_BITS)


def _death(stamp: int, expires_ms: int, *, tombstone: bool) -> int:
    if tombstone:
        return stamp
    if not expires_ms:
        return NEVER
    return min(max(stamp, expires_ms << LOGICAL_BITS), NEVER)


def is_dead(data: bytes, horizon: int) -> bool:
    """Whether the record may be forgotten where this is the horizon; 0: there is none. Raises RecordError."""
    return record_death(data) < horizon


class Fate(Enum):
    """What becomes of a record of which it was noted when it dies, and of the note."""

    FORGOTTEN = 1
    """The record goes, and the note with it."""
    STALE = 2
    """There is no such record any more: the note goes."""
    KEPT = 3
    """Both stay, for now."""


def fate(record: bytes | None, death: int, horizon: int, *, by_right: bool) -> Fate:
    """Of the record that is here, where its death was noted as `death`, below the horizon. `by_right`: this store is
    an owner's; another's keeps its records until owners have seen them. What cannot be read is no business of this."""
    if record is None:
        return Fate.STALE
    try:
        dies = record_death(record)
    except RecordError:
        return Fate.KEPT
    if by_right and dies < horizon:
        return Fate.FORGOTTEN
    return Fate.KEPT if dies == death else Fate.STALE
