"""Where acknowledged writes may be gone for good: ranges that became complete although no owner remembered everything.

That is what is left of a power cut that hits all owners of a bucket whose writes are synced now and then. The cluster
is whole again by itself; that something may be missing is a fact that only a person can do anything about, so it is
kept on the disk, told in status, health and metrics, and stays until somebody says to have read it. What was said so
stays in the list, which is bounded.

The other event of the kind: no owner could vouch for what lies below a purge horizon, so all gave each other everything
they had, and values may be back that were deleted long ago (`wholeness`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from leafdb.codec import cbor
from leafdb.codec.fields import as_list, as_map, bytes_field, int_field, map_field
from leafdb.limits import PARTITIONS_MAX
from leafdb.node.debts import Entry, bits, encode_mask

LOSSES: Final = 18
"""The key in the CHECKPOINTS tree."""
KEPT_MAX: Final = 32


@dataclass(frozen=True, slots=True)
class PossibleLoss:
    """One event: these partitions, seen then, read by somebody then (0: by nobody)."""

    partitions: int
    at_ms: int
    acknowledged_ms: int = 0
    returned: bool = False
    """Not lost: what was deleted long ago may be back."""

    @property
    def open(self) -> bool:
        """Whether nobody has said to have read it."""
        return not self.acknowledged_ms


class PossibleLosses:
    """Those of one node. `write` stores entries, synced."""

    def __init__(self, write: Callable[[Sequence[Entry]], None], now_ms: Callable[[], int]) -> None:
        self._write = write
        self._now_ms = now_ms
        self._events: list[PossibleLoss] = []

    def load(self, value: bytes) -> None:
        """Take what the store remembers. ValueError when it is malformed."""
        fields = as_map(cbor.loads(value), "possible losses")
        self._events = [
            PossibleLoss(
                int.from_bytes(bytes_field(event, "partitions", high=PARTITIONS_MAX // 8), "little"),
                int_field(event, "at_ms"),
                int_field(event, "acknowledged_ms"),
                event.get("returned") is True,
            )
            for event in (
                as_map(each, "a possible loss")
                for each in as_list(map_field(fields, "events"), "events", items_max=KEPT_MAX)
            )
        ]

    @property
    def partitions(self) -> int:
        """In how many partitions writes may be lost, unless that was acknowledged."""
        return self._open(returned=False).bit_count()

    @property
    def returned(self) -> int:
        """In how many deleted values may be back, unless that was acknowledged."""
        return self._open(returned=True).bit_count()

    def _open(self, *, returned: bool) -> int:
        mask = 0
        for event in self._events:
            if event.open and event.returned == returned:
                mask |= event.partitions
        return mask

    def note(self, partitions: int, *, returned: bool = False) -> None:
        """These become complete although no owner had remembered everything; or, `returned`, deleted values may be back
        in them. In the log before this returns."""
        for place, event in enumerate(self._events):
            if event.open and event.returned == returned:
                self._events[place] = replace(event, partitions=event.partitions | partitions)
                break
        else:
            self._events.append(PossibleLoss(partitions, self._now_ms(), returned=returned))
            del self._events[:-KEPT_MAX]
        self._store()

    def acknowledge(self) -> int:
        """Somebody has read it; answers of how many partitions."""
        concerned = self._open(returned=False) | self._open(returned=True)
        count, now_ms = concerned.bit_count(), self._now_ms()
        self._events = [replace(event, acknowledged_ms=now_ms) if event.open else event for event in self._events]
        if count:
            self._store()
        return count

    def report(self) -> list[dict[str, Any]]:
        """A line for each event, the oldest first."""
        return [
            {
                "partitions": bits(event.partitions),
                "at_ms": event.at_ms,
                "acknowledged_ms": event.acknowledged_ms or None,
                "returned": event.returned,
            }
            for event in self._events
        ]

    def _store(self) -> None:
        events = [
            {
                "partitions": encode_mask(event.partitions),
                "at_ms": event.at_ms,
                "acknowledged_ms": event.acknowledged_ms,
                **({"returned": True} if event.returned else {}),
            }
            for event in self._events
        ]
        self._write([(bytes((LOSSES,)), cbor.dumps({"events": events}))])
