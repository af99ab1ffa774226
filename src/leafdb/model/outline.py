"""A record without its values: enough to tell what merging two of them would give, for next to no bytes.

A dot names one value for ever, so two records have the same merge, dot by dot, as their outlines have. The *hollow*
record has the clock and the heads of the record, every value empty; it is a record like any other.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from leafdb.codec.checksum import xxh3_64
from leafdb.model.hlc import stamp_ms
from leafdb.model.record import Record, Sibling, encode, header


class Outline(NamedTuple):
    """Of one record."""

    version: int
    """Equal for equal records, as `kv where` shows it."""
    size: int
    hollow: bytes


def outline_of(record: bytes) -> Outline:
    """Raises RecordError when the record is malformed."""
    head = header(record)
    siblings = {
        dot: Sibling(each.stamp, each.expires_ms, each.op_id, None if each.tombstone else b"")
        for dot, each in head.heads.items()
    }
    return Outline(xxh3_64(record), len(record), encode(Record(head.clock, siblings)))


def told(outline: Outline | None) -> dict[str, Any] | None:
    """A version for people; None where there is none."""
    if outline is None:
        return None
    head = header(outline.hollow)
    heads = head.heads.values()
    return {
        "version": f"{outline.version:016x}",
        "bytes": outline.size,
        "siblings": sum(not each.tombstone for each in heads),
        "tombstones": sum(each.tombstone for each in heads),
        "written_ms": max((stamp_ms(each.stamp) for each in heads), default=None),
        "clock": repr(head.clock).removeprefix("<clock ").removesuffix(">"),
    }
