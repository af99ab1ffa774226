"""What of a record is dead, and when it may be forgotten (docs/decisions/0008, section 2).

The *death* of a sibling is a stamp: of a tombstone its own, of a value that expires its expiry. Any other value never
dies. A record dies with the last of its siblings, and may be forgotten, clock and all, when that lies below the
*horizon* of its partition: the stamp below which every owner is proved to have had everything. Nothing is forgotten
piece by piece: a tombstone beside a living value stays as long as that does.

A death lies above the stamp of all that its sibling covers, because a put's stamp exceeds those of whatever its writer
saw (`put`). Admission rests on that: what a forgotten record covered lies below the horizon as well.
"""

from __future__ import annotations

from typing import Final

from leafdb.model.hlc import LOGICAL_BITS, STAMP_MAX
from leafdb.model.record_format import Head, header

NEVER: Final = STAMP_MAX + 1
"""The death of what does not die: above every stamp."""


def death_of(head: Head) -> int:
    """The stamp from which on nobody sees the sibling; NEVER for a value without an expiry."""
    if head.tombstone:
        return head.stamp
    if not head.expires_ms:
        return NEVER
    return min(max(head.stamp, head.expires_ms << LOGICAL_BITS), NEVER)


def record_death(data: bytes) -> int:
    """The stamp from which on nobody sees anything of the record; 0 of one without siblings. Raises RecordError."""
    return max(map(death_of, header(data).heads.values()), default=0)


def is_dead(data: bytes, horizon: int) -> bool:
    """Whether the record may be forgotten where this is the horizon; 0: there is none. Raises RecordError."""
    return record_death(data) < horizon
