"""What holder and target of hints say to each other (wire numbers HINTS and HINTS_REPLY, bulk lane; one map each).

    waiting   records, bytes               holder: so much is here for you; 0 records gives unused credits back
    credits   credits                      target: send me so many more records
    batch     batch, waiting, hints        holder: merge these; `waiting` more follow when credits allow
    done      batch, refused               target: all are durable here, except those at the places `refused`

A target that has learned that a bucket was dropped counts its hints as done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

from leafdb.codec.fields import as_bytes, as_int, as_list, as_map, int_field, list_field, map_field
from leafdb.hints.hint import BUCKET_ID_MAX
from leafdb.limits import HINT_CREDITS, KEY_BYTES_MAX, RECORD_BYTES_MAX
from leafdb.types import BucketId

STORAGE_KEY_BYTES_MAX: Final = 8 + 2 * KEY_BYTES_MAX + 4
"""Token, and a key of which every byte had to be escaped, with both ends."""
RECORD_BYTES_RECEIVED_MAX: Final = 2 * RECORD_BYTES_MAX
"""Merging may exceed the limit that minting enforces."""


@dataclass(frozen=True, slots=True)
class HintItem:
    """One record on its way home."""

    bucket: BucketId
    storage_key: bytes
    record: bytes


@dataclass(frozen=True, slots=True)
class HintsWaiting:
    """How much the holder keeps for the target."""

    kind: ClassVar[str] = "waiting"

    records: int
    bytes: int

    def to_wire(self) -> dict[str, Any]:
        """The message as a plain map."""
        return {"kind": self.kind, "records": self.records, "bytes": self.bytes}

    @classmethod
    def from_wire(cls, value: object) -> Self:
        """The message; ValueError when it is malformed."""
        fields = _fields(value, cls.kind)
        return cls(records=int_field(fields, "records"), bytes=int_field(fields, "bytes"))


@dataclass(frozen=True, slots=True)
class HintCredits:
    """How many more records the target takes."""

    kind: ClassVar[str] = "credits"

    credits: int

    def to_wire(self) -> dict[str, Any]:
        """The message as a plain map."""
        return {"kind": self.kind, "credits": self.credits}

    @classmethod
    def from_wire(cls, value: object) -> Self:
        """The message; ValueError when it is malformed."""
        return cls(credits=int_field(_fields(value, cls.kind), "credits", low=1, high=HINT_CREDITS))


@dataclass(frozen=True, slots=True)
class HintBatch:
    """Records for the target. `batch` is never used twice by a holder."""

    kind: ClassVar[str] = "batch"

    batch: int
    waiting: int
    hints: tuple[HintItem, ...]

    def to_wire(self) -> dict[str, Any]:
        """The message as a plain map."""
        hints = [[item.bucket, item.storage_key, item.record] for item in self.hints]
        return {"kind": self.kind, "batch": self.batch, "waiting": self.waiting, "hints": hints}

    @classmethod
    def from_wire(cls, value: object) -> Self:
        """The message; ValueError when it is malformed."""
        fields = _fields(value, cls.kind)
        hints = list_field(fields, "hints", items_max=HINT_CREDITS)
        return cls(
            batch=int_field(fields, "batch"),
            waiting=int_field(fields, "waiting"),
            hints=tuple(_item(each) for each in hints),
        )


@dataclass(frozen=True, slots=True)
class HintsDone:
    """What became of a batch."""

    kind: ClassVar[str] = "done"

    batch: int
    refused: tuple[int, ...] = ()

    def to_wire(self) -> dict[str, Any]:
        """The message as a plain map."""
        return {"kind": self.kind, "batch": self.batch, "refused": list(self.refused)}

    @classmethod
    def from_wire(cls, value: object) -> Self:
        """The message; ValueError when it is malformed."""
        fields = _fields(value, cls.kind)
        refused = list_field(fields, "refused", items_max=HINT_CREDITS)
        return cls(
            batch=int_field(fields, "batch"),
            refused=tuple(as_int(each, "place", high=HINT_CREDITS - 1) for each in refused),
        )


AnyMessage = HintsWaiting | HintCredits | HintBatch | HintsDone

_CLASSES: Final[Mapping[str, type[AnyMessage]]] = {
    each.kind: each for each in (HintsWaiting, HintCredits, HintBatch, HintsDone)
}


def from_wire(value: object) -> AnyMessage:
    """The message `value` stands for, whichever it is; ValueError when it is malformed."""
    kind = map_field(as_map(value, "message"), "kind")
    found = _CLASSES.get(kind) if isinstance(kind, str) else None
    if found is None:
        raise ValueError("unknown kind of hints message")
    return found.from_wire(value)


def _fields(value: object, kind: str) -> Mapping[str, Any]:
    fields = as_map(value, "message")
    if map_field(fields, "kind") != kind:
        raise ValueError(f"kind is not {kind}")
    return fields


def _item(item: object) -> HintItem:
    parts = as_list(item, "hint", items_max=3)
    if len(parts) != 3:
        raise ValueError("hint has not three parts")
    return HintItem(
        bucket=BucketId(as_int(parts[0], "hint's bucket", high=BUCKET_ID_MAX)),
        storage_key=as_bytes(parts[1], "hint's key", low=9, high=STORAGE_KEY_BYTES_MAX),
        record=as_bytes(parts[2], "hint's record", low=1, high=RECORD_BYTES_RECEIVED_MAX),
    )
