"""Reads and writes of one key, as operations: what the handles of both clients run.

Everything that can be wrong before I/O (key, options, context, value) is checked in the `prepare` half, which is a
plain function; the operation itself only talks. So a batch can check all of its items before it sends the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from functools import reduce
from typing import Final, Literal, NamedTuple, TypeVar

from leafdb.client.call import Request, Write, call, pause_before_retry
from leafdb.client.catalog import BucketRef, ReadPlan, WritePlan, check_read, check_write, in_bucket
from leafdb.client.codecs import Codec, decoded, encoded
from leafdb.client.context import Blind, Context, tag_of
from leafdb.client.effects import Operation, Sleep
from leafdb.client.results import (
    Answer,
    Conflict,
    Found,
    Merge,
    Missing,
    Sibling,
    Written,
    dot_text,
    stamp_time,
)  # fmt: skip
from leafdb.errors import ClientMisuse, NotApplied, ProtocolError, Reason, ServerBug
from leafdb.limits import VALUE_BYTES_MAX
from leafdb.model.bucket import BucketProperties
from leafdb.model.key import encode_key
from leafdb.types import Conflict as ConflictPolicy
from leafdb.types import Key
from leafdb.wire.registry import MessageType
from leafdb.wire.requests import (
    FLAG_BLIND,
    FLAG_DELETE,
    FLAG_LOCAL,
    GetReply,
    GetRequest,
    PutRequest,
    decode_get_reply,
    decode_put_reply,
    encode_get,
    encode_put,
)  # fmt: skip

T = TypeVar("T")


class NoDefault(Enum):
    """The type of NO_DEFAULT: `update` was given no default, and its function takes None for a missing value."""

    NO_DEFAULT = "no default"


NO_DEFAULT: Final = NoDefault.NO_DEFAULT


class Seen(NamedTuple):
    """A reply to a get, with the tag its context will carry."""

    tag: int
    reply: GetReply


class Prepared(NamedTuple):
    """A write that passed every check that needs no I/O."""

    key: bytes
    tag: int
    flags: int
    context: bytes
    value: bytes


# -- reading


def read(ref: BucketRef, encoded_key: bytes, plan: ReadPlan) -> Operation[Seen]:
    """Get one key."""
    core = ref.core

    def attempt(properties: BucketProperties) -> Operation[GetReply]:
        required = check_read(properties, plan)

        def build(deadline_ms: int) -> bytes:
            return encode_get(
                GetRequest(
                    properties.id, properties.generation, core.router.epoch, deadline_ms,
                    plan.flags, plan.r, plan.pr, encoded_key,
                )
            )  # fmt: skip

        request = Request(
            MessageType.GET,
            MessageType.GET_REPLY,
            build,
            place=ref.place(properties, encoded_key),
            once=bool(plan.flags & FLAG_LOCAL),
            required=required,
        )
        frame = yield from call(core, request, plan.deadline)
        try:
            reply = decode_get_reply(frame.body)
        except ProtocolError as error:
            raise ServerBug(str(error), request_id=frame.request_id) from None
        core.router.saw_epoch(reply.epoch)
        return reply

    reply = yield from in_bucket(ref, plan.deadline, attempt)
    return Seen(tag_of(ref.prefix, encoded_key), reply)


def answer_of(codec: Codec[T], seen: Seen) -> Answer[T]:
    """What a SiblingBucket shows for a reply. Raises DataError."""
    context = Context(seen.tag, seen.reply.context)
    siblings = seen.reply.siblings
    if not siblings:
        return Missing(context)
    if len(siblings) == 1:
        return Found(decoded(codec, siblings[0].value), context, _origin=siblings[0])
    return Conflict(
        tuple(Sibling(decoded(codec, each.value), dot_text(each), stamp_time(each.stamp)) for each in siblings), context
    )


def merged_of(codec: Codec[T], merge: Merge[T], seen: Seen) -> Found[T] | Missing:
    """What a Bucket shows: siblings folded in dot order. Raises DataError, and what `merge` raises."""
    context = Context(seen.tag, seen.reply.context)
    siblings = seen.reply.siblings
    if not siblings:
        return Missing(context)
    if len(siblings) == 1:
        return Found(decoded(codec, siblings[0].value), context, _origin=siblings[0])
    return Found(reduce(merge, [decoded(codec, each.value) for each in siblings]), context)


def single_of(codec: Codec[T], seen: Seen) -> Found[T] | Missing:
    """What an LwwBucket shows: the node has picked the winner already. Raises DataError."""
    context = Context(seen.tag, seen.reply.context)
    siblings = seen.reply.siblings
    if not siblings:
        return Missing(context)
    return Found(decoded(codec, siblings[-1].value), context, _origin=siblings[-1])


def reading(ref: BucketRef, encoded_key: bytes, plan: ReadPlan, form: Callable[[Seen], T]) -> Operation[T]:
    """Get one key and give the reply form."""
    seen = yield from read(ref, encoded_key, plan)
    return form(seen)


# -- writing


def prepare(ref: BucketRef, key: Key, value: bytes | None, after: Context | Blind | None) -> Prepared:
    """Check a write; value None deletes. Raises ClientMisuse or ContextMismatch; nothing is sent."""
    encoded_key = encode_key(key)
    tag = tag_of(ref.prefix, encoded_key)
    flags, sealed = FLAG_BLIND, b""
    if ref.conflict is ConflictPolicy.LWW:
        if isinstance(after, Context):
            raise ClientMisuse("a last-writer-wins bucket takes no context: the newest write wins")
    elif isinstance(after, Context):
        flags, sealed = 0, after.sealed_for(tag)
    elif not isinstance(after, Blind):
        raise ClientMisuse(f"after= is the context of a read or write of this key, or BLIND, not {after!r}")
    if value is None:
        return Prepared(encoded_key, tag, flags | FLAG_DELETE, sealed, b"")
    return Prepared(encoded_key, tag, flags, sealed, value)


def write(
    ref: BucketRef, prepared: Prepared, plan: WritePlan, *, ttl_ms: int | None = None, once: bool = False
) -> Operation[Written]:
    """Put or delete one key."""
    core = ref.core
    if len(prepared.value) > VALUE_BYTES_MAX:
        size = len(prepared.value)
        raise NotApplied(f"a value of {size} bytes is over {VALUE_BYTES_MAX}", reason=Reason.TOO_LARGE)
    op_id = core.rng.getrandbits(128).to_bytes(16, "big")
    flags = prepared.flags | plan.flags
    ttl = plan.ttl_ms if ttl_ms is None else ttl_ms

    def attempt(properties: BucketProperties) -> Operation[Written]:
        required = check_write(properties, plan)

        def build(deadline_ms: int) -> bytes:
            return encode_put(
                PutRequest(
                    properties.id, properties.generation, core.router.epoch, deadline_ms, flags,
                    plan.w, plan.pw, plan.dw, ttl, op_id, prepared.key, prepared.context, prepared.value,
                )
            )  # fmt: skip

        request = Request(
            MessageType.PUT,
            MessageType.PUT_REPLY,
            build,
            place=ref.place(properties, prepared.key),
            write=Write(op_id, required),
            once=once,
        )
        frame = yield from call(core, request, plan.deadline)
        try:
            reply = decode_put_reply(frame.body)
        except ProtocolError as error:
            raise ServerBug(str(error), request_id=frame.request_id) from None
        core.router.saw_epoch(reply.epoch)
        return Written(Context(prepared.tag, reply.context), op_id, reply.acks, primaries=reply.primaries)

    return (yield from in_bucket(ref, plan.deadline, attempt))


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
        seen = yield from read(ref, encoded_key, read_plan)
        found = merged_of(codec, merge, seen)
        current: T | None
        if isinstance(found, Found):
            current = found.value
        else:
            current = None if default_bytes is None else decoded(codec, default_bytes)
        value = change(current)  # type: ignore[arg-type]  # current is None only where no default was given
        prepared = prepare(ref, key, encoded(codec, value), found.context)
        try:
            yield from write(ref, prepared, write_plan, once=True)
        except NotApplied as error:
            passing = error.retryable or error.reason is Reason.CONFLICT_LIMIT
            pause = pause_before_retry(ref.core, error, retries, write_plan.deadline) if passing else None
            if pause is None:
                raise
            retries += 1
            yield Sleep(pause)
        else:
            return value


def encoded_keys(keys: Sequence[Key]) -> list[bytes]:
    """Every key encoded. Raises ClientMisuse."""
    return [encode_key(key) for key in keys]
