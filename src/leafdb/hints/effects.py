"""What the hint machines ask their driver to do."""

from __future__ import annotations

from dataclasses import dataclass

from leafdb.hints.messages import AnyMessage, HintBatch
from leafdb.types import BucketId, NodeId, PartitionId


@dataclass(frozen=True, slots=True)
class ReadPage:
    """Read the hints of `target` after the key `after` (None: from the first), at most so many and so large.

    Answer with `Schedule.on_page(ticket, items, end)`; at least one item if there is any, however large.
    """

    ticket: int
    target: NodeId
    after: bytes | None
    records_max: int
    bytes_max: int


@dataclass(frozen=True, slots=True)
class Send:
    """Put `message` on the bulk lane to `to`."""

    to: NodeId
    message: AnyMessage


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove the hint if its version is still this one, then say so with `Schedule.on_removed`, either way."""

    key: bytes
    version: int
    expired: bool = False
    """It is given up for its age; otherwise its target has it."""


@dataclass(frozen=True, slots=True)
class MarkRange:
    """Hints were refused or given up: this range owes `target` an anti-entropy exchange. Durable before the next."""

    target: NodeId
    bucket: BucketId
    partition: PartitionId


@dataclass(frozen=True, slots=True)
class Drained:
    """Nothing is left for `target`."""

    target: NodeId


@dataclass(frozen=True, slots=True)
class Apply:
    """Merge the records of `batch` from `sender`, then say so with `CreditGrantor.on_applied`."""

    sender: NodeId
    batch: HintBatch


Effect = ReadPage | Send | Remove | MarkRange | Drained
GrantorEffect = Send | Apply
