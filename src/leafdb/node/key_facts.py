"""What one node holds of a key, as it tells a peer: the version, every write in it, and which writes it knows of; pure.

The record itself does not travel: heads and clock are enough to say who is behind whom, and they are small where values
are not. A node may keep several copies: its own, and hints for others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from leafdb.codec.fields import as_bytes, as_int, as_list, bool_field, bytes_field, int_field, list_field, map_field
from leafdb.limits import KEY_WRITES_MAX, RECORD_BYTES_MAX
from leafdb.model.actor import ACTOR_BYTES, Actor
from leafdb.model.clock import EMPTY, CausalClock, Dot
from leafdb.model.record import decode, live
from leafdb.node.versions import State, digest_of, state_of
from leafdb.types import Conflict

OP_ID_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class WriteFacts:
    """One write that nothing has replaced there."""

    dot: Dot
    stamp: int
    expires_ms: int
    op_id: bytes
    state: State
    size: int


@dataclass(frozen=True, slots=True)
class Facts:
    """One copy of a key. `version` None: there is none, and nothing is known."""

    version: str | None
    siblings: int
    clock: CausalClock
    writes: tuple[WriteFacts, ...]
    more_writes: int
    size: int

    @property
    def tombstone(self) -> bool:
        """Something is held, and no reader sees anything of it."""
        return self.version is not None and not self.siblings

    def to_map(self) -> dict[str, Any]:
        """What crosses the wire."""
        return {
            "version": self.version,
            "siblings": self.siblings,
            "tombstone": self.tombstone,
            "clock": self.clock.encode(),
            "writes": [
                [each.dot[0], each.dot[1], each.stamp, each.expires_ms, each.op_id, each.state, each.size]
                for each in self.writes
            ],
            "more_writes": self.more_writes,
            "bytes": self.size,
        }

    @classmethod
    def from_map(cls, fields: Mapping[str, Any]) -> Facts:
        """What came. ValueError when it is malformed."""
        version = map_field(fields, "version")
        if version is not None and not isinstance(version, str):
            raise ValueError("version is not a text")
        bool_field(fields, "tombstone")
        return cls(
            version,
            int_field(fields, "siblings"),
            CausalClock.decode(bytes_field(fields, "clock", high=RECORD_BYTES_MAX)),
            tuple(_write(each) for each in list_field(fields, "writes", items_max=KEY_WRITES_MAX)),
            int_field(fields, "more_writes"),
            int_field(fields, "bytes"),
        )


NOTHING: Final = Facts(None, 0, EMPTY, (), 0, 0)


def facts_of(record: bytes | None, now_ms: int, conflict: Conflict) -> Facts:
    """The facts of a stored record, or of there being none. Raises RecordError."""
    if record is None:
        return NOTHING
    decoded = decode(record)
    writes = tuple(
        WriteFacts(
            dot,
            sibling.stamp,
            sibling.expires_ms,
            sibling.op_id,
            state_of(sibling, now_ms),
            0 if sibling.value is None else len(sibling.value),
        )
        for dot, sibling in sorted(decoded.siblings.items())[:KEY_WRITES_MAX]
    )
    shown = live(decoded, now_ms, conflict)
    more = len(decoded.siblings) - len(writes)
    return Facts(digest_of(record), len(shown), decoded.clock, writes, more, len(record))


def lacking(one: CausalClock, other: CausalClock) -> int:
    """How many writes `other` knows of and `one` does not."""
    count = sum(max(0, counter - max(0, one.vector.get(actor, 0))) for actor, counter in other.vector.items())
    # Single dots of the one that the other's vector covers were counted as lacking; single dots of the other were not.
    count -= sum(1 for actor, counter in one.cloud if counter <= other.vector.get(actor, 0))
    return count + sum(1 for dot in other.cloud if not one.covers(dot))


def _write(value: object) -> WriteFacts:
    actor, counter, stamp, expires_ms, op_id, state, size = _seven(value)
    dot = Actor(as_bytes(actor, "an actor", low=ACTOR_BYTES, high=ACTOR_BYTES)), as_int(counter, "a counter", low=1)
    match state:
        case "live" | "tombstone" | "expired":
            return WriteFacts(
                dot,
                as_int(stamp, "a stamp"),
                as_int(expires_ms, "an expiry"),
                as_bytes(op_id, "an operation id", low=OP_ID_BYTES, high=OP_ID_BYTES),
                state,
                as_int(size, "a size"),
            )
    raise ValueError("a write in no known state")


def _seven(value: object) -> list[Any]:
    items = list(as_list(value, "a write", items_max=7))
    if len(items) != 7:
        raise ValueError("a write that has not seven parts")
    return items
