"""What one replica holds of a key, as facts: its version's digest, the writes in it, what it knows of others.

A version is named by a hash of the record's bytes: equal records have equal encodings, so equal digests are equal
versions, wherever they are shown (`kv where`, explanations).
"""

from __future__ import annotations

from typing import Literal

from leafdb.codec.checksum import xxh3_64
from leafdb.explanation import Version, Write
from leafdb.limits import EXPLAINED_WRITES_MAX
from leafdb.model.clock import Dot
from leafdb.model.record import Sibling, decode, live
from leafdb.types import Conflict

State = Literal["live", "tombstone", "expired"]


def digest_of(record: bytes) -> str:
    """The name of a version."""
    return f"{xxh3_64(record):016x}"


def dot_text(dot: Dot) -> str:
    """A write's unique name, as clients show it: the actor in hex, a colon, the count."""
    return f"{dot[0].hex()}:{dot[1]}"


def state_of(sibling: Sibling, now_ms: int) -> State:
    """What a write is to readers now."""
    if sibling.value is None:
        return "tombstone"
    return "expired" if 0 < sibling.expires_ms <= now_ms else "live"


def version_of(record: bytes, now_ms: int, conflict: Conflict) -> Version:
    """The version that `record` is. Raises RecordError."""
    decoded = decode(record)
    shown = live(decoded, now_ms, conflict)
    listed = sorted(decoded.siblings.items())[:EXPLAINED_WRITES_MAX]
    return Version(
        digest=digest_of(record),
        siblings=len(shown),
        tombstone=not shown,
        writes=tuple(Write(dot_text(dot), sibling.stamp, state_of(sibling, now_ms)) for dot, sibling in listed),
        more_writes=len(decoded.siblings) - len(listed),
    )
