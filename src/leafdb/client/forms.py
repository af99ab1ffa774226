"""What each kind of handle makes of a reply, and `update`, which reads, merges, changes and writes."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import partial, reduce
from typing import Final, Literal, TypeVar

from leafdb.client.call import pause_before_retry
from leafdb.client.catalog import BucketRef, ReadPlan, WritePlan
from leafdb.client.codecs import Codec, decoded, encoded
from leafdb.client.context import Context
from leafdb.client.effects import Operation, Sleep
from leafdb.client.kv import Get, Put, prepare
from leafdb.client.results import Answer, Conflict, Found, Merge, Missing, Sibling, dot_text, found, stamp_time
from leafdb.errors import NotApplied, Reason
from leafdb.model.key import encode_key
from leafdb.types import Key
from leafdb.wire.requests import GetReply

T = TypeVar("T")


class NoDefault(Enum):
    """The type of NO_DEFAULT: `update` was given no default, and its function takes None for a missing value."""

    NO_DEFAULT = "no default"


NO_DEFAULT: Final = NoDefault.NO_DEFAULT


def answer_of(codec: Codec[T], whose: bytes, reply: GetReply) -> Answer[T]:
    """What a SiblingBucket shows for a reply. Raises DataError."""
    _, sealed, siblings = reply
    context = Context(whose, sealed)
    if not siblings:
        return Missing(context)
    if len(siblings) == 1:
        return found(decoded(codec, siblings[0].value), context, siblings[0])
    return Conflict(
        tuple(Sibling(decoded(codec, each.value), dot_text(each), stamp_time(each.stamp)) for each in siblings), context
    )


def merged_of(codec: Codec[T], merge: Merge[T], whose: bytes, reply: GetReply) -> Found[T] | Missing:
    """What a Bucket shows: siblings folded in dot order. Raises DataError, and what `merge` raises."""
    _, sealed, siblings = reply
    context = Context(whose, sealed)
    if not siblings:
        return Missing(context)
    if len(siblings) == 1:
        return found(decoded(codec, siblings[0].value), context, siblings[0])
    return Found(reduce(merge, [decoded(codec, each.value) for each in siblings]), context)


def single_of(codec: Codec[T], whose: bytes, reply: GetReply) -> Found[T] | Missing:
    """What an LwwBucket shows: the node has picked the winner already. Raises DataError."""
    _, sealed, siblings = reply
    context = Context(whose, sealed)
    if not siblings:
        return Missing(context)
    return found(decoded(codec, siblings[-1].value), context, siblings[-1])


def update(
    ref: BucketRef,
    codec: Codec[T],
    merge: Merge[T],
    key: Key,
    change: Callable[[T], T] | Callable[[T | None], T],
    default: T | Literal[NoDefault.NO_DEFAULT],
    read_plan: ReadPlan,
    write_plan: WritePlan,
) -> Operation[T]:
    """Read, merge, change, write with the context of what was read; again from the start when provably not applied.

    `change` gets a freshly decoded value each time, the default too: it may alter what it is given.
    """
    encoded_key = encode_key(key)
    default_bytes = None if default is NO_DEFAULT else encoded(codec, default)
    retries = 0
    while True:
        read = yield from Get(ref, encoded_key, read_plan, partial(merged_of, codec, merge)).steps()
        current: T | None
        if isinstance(read, Found):
            current = read.value
        else:
            current = None if default_bytes is None else decoded(codec, default_bytes)
        value = change(current)  # type: ignore[arg-type]  # current is None only where no default was given
        prepared = prepare(ref, key, encoded(codec, value), read.context)
        try:
            yield from Put(ref, prepared, write_plan, once=True).steps()
        except NotApplied as error:
            passing = error.retryable or error.reason is Reason.CONFLICT_LIMIT
            pause = pause_before_retry(ref.core, error, retries, write_plan.deadline) if passing else None
            if pause is None:
                raise
            retries += 1
            yield Sleep(pause)
        else:
            return value
