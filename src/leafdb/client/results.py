"""What calls answer: plain immutable values, made for `match`.

    match bucket.get("alice"):
        case Missing(context): ...
        case Found(value, context): ...
        case Conflict(siblings, context): ...

`Conflict` has no `value` on purpose: code that forgot concurrent writes does not type-check and does not run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Final, Generic, Literal, TypeVar

from leafdb.client.context import Blind, Context
from leafdb.errors import LeafdbError
from leafdb.explanation import Explanation
from leafdb.types import Key
from leafdb.wire.requests import SiblingReply

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
A_co = TypeVar("A_co", covariant=True)

Merge = Callable[[T, T], T]
"""Folds two concurrent values into one: commutative, associative, idempotent, deterministic."""

_UNIX_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNIX_MS_MAX: Final = (datetime.max.replace(tzinfo=UTC) - _UNIX_EPOCH) // timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Missing:
    """Nothing is there. `context` still covers what was seen (deletions); it is not a create-if-absent."""

    context: Context


@dataclass(frozen=True, slots=True)
class Found(Generic[T_co]):
    """One value. `dot` and `written_at` name the write it came from; both are None for a merged value."""

    value: T_co
    context: Context
    _origin: SiblingReply | None = field(default=None, repr=False, compare=False, kw_only=True)

    @property
    def dot(self) -> str | None:
        """The write's unique name: who coordinated it, and its count there."""
        return None if self._origin is None else dot_text(self._origin)

    @property
    def written_at(self) -> datetime | None:
        """When the write was coordinated, by that node's clock."""
        return None if self._origin is None else stamp_time(self._origin.stamp)


@dataclass(frozen=True, slots=True)
class Sibling(Generic[T_co]):
    """One of several concurrent values, with the write it came from."""

    value: T_co
    dot: str
    written_at: datetime


@dataclass(frozen=True, slots=True)
class Conflict(Generic[T_co]):
    """Concurrent writes, none of which saw the other: at least two siblings, in dot order."""

    siblings: tuple[Sibling[T_co], ...]
    context: Context


Answer = Found[T_co] | Missing | Conflict[T_co]
"""What a read of a SiblingBucket finds."""


@dataclass(frozen=True, slots=True)
class Written:
    """An acknowledged write.

    `context` covers exactly what `after` covered and this write; `op_id` is the operation's id; `acks` counts the
    replicas that held it when this was answered, `primaries` those of them that are the key's own.
    """

    context: Context
    op_id: bytes
    acks: int
    primaries: int = field(default=0, kw_only=True)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the cluster knows of a write, asked by its operation id.

    `applied`: at least one replica has it or remembers it. It is there, or was replaced by somebody who saw it
    (`replaced`), and reaches the other replicas by itself; `replicas` are those that know of it already. `context`
    covers exactly this write (None in a last-writer-wins bucket). `unknown`: nobody who could be asked knows of it. It
    may be with one of those in `unasked` (name and reason), still be on its way, or have been replaced and forgotten;
    that it was not applied cannot be proved, so no answer says it.
    """

    state: Literal["applied", "unknown"]
    bucket: str | None = None
    key: bytes | tuple[bytes, bytes] | None = None
    context: Context | None = None
    replicas: tuple[str, ...] = ()
    replaced: bool = False
    unasked: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Explained(Generic[A_co]):
    """What the call without `_explained` answers, and how it came to that."""

    answer: A_co
    explanation: Explanation


@dataclass(frozen=True, slots=True)
class Item(Generic[A_co]):
    """One key of a scan or range, with the answer a get would give."""

    key: bytes | tuple[bytes, bytes]
    answer: A_co


@dataclass(frozen=True, slots=True)
class Failed:
    """The place in a batch of an item that failed; the rest of the batch is not touched by it."""

    error: LeafdbError


@dataclass(frozen=True, slots=True)
class Put(Generic[T_co]):
    """One write of a `put_many`. `after` is required except in last-writer-wins buckets, which have none."""

    key: Key
    value: T_co
    after: Context | Blind | None = None
    ttl: float | timedelta | None = None


def found(value: T, context: Context, origin: SiblingReply) -> Found[T]:
    """`Found(value, context, _origin=origin)`, as a read makes it each time (see `_setters`)."""
    answer = _new(Found)
    _set_value(answer, value)
    _set_context(answer, context)
    _set_origin(answer, origin)
    return answer


def written(context: Context, op_id: bytes, acks: int, primaries: int) -> Written:
    """`Written(context, op_id, acks, primaries=primaries)`, as a write makes it each time (see `_setters`)."""
    answer = _new(Written)
    _set_written_context(answer, context)
    _set_op_id(answer, op_id)
    _set_acks(answer, acks)
    _set_primaries(answer, primaries)
    return answer


def _setters(kind: type) -> tuple[Callable[[object, object], None], ...]:
    """What sets the fields of a frozen class, in their order: a fourth of what its own `__init__` costs, which finds
    each field by its name first."""
    return tuple(vars(kind)[each.name].__set__ for each in fields(kind))


_new: Final = object.__new__
_set_value, _set_context, _set_origin = _setters(Found)
_set_written_context, _set_op_id, _set_acks, _set_primaries = _setters(Written)


def dot_text(sibling: SiblingReply) -> str:
    """A dot as text: the actor's 14 bytes in hex, a colon, the count."""
    return f"{sibling.actor.hex()}:{sibling.counter}"


def stamp_time(stamp: int) -> datetime:
    """The wall-clock part of a hybrid stamp (unix ms << 16 | logical). Stamps go on for longer than Python's years."""
    return _UNIX_EPOCH + timedelta(milliseconds=min(stamp >> 16, _UNIX_MS_MAX))
