"""Reads and writes of one key: what the handles of both clients run.

Everything that can be wrong before I/O (key, options, context, value) is checked before a `Get` or `Put` exists, so a
batch can check all of its items before it sends the first. Such an object is run in one of two ways with one meaning:
by `steps()`, the operation that can do everything; or, because most calls need a single exchange, by `begin()`, that
exchange, and `finish()`. A driver that meets anything unexpected hands what it has to `steps(begun)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, NamedTuple, TypeVar

from leafdb.client.call import Begun
from leafdb.client.catalog import Begins, BucketRef, ReadPlan, WritePlan, check_read, check_write, in_bucket, ready
from leafdb.client.context import Blind, Context
from leafdb.client.effects import Exchange, Operation
from leafdb.client.options import count_of
from leafdb.client.results import Written, written
from leafdb.client.routing import Place
from leafdb.client.session import NOT_ASKED, Asked, Count, held_by
from leafdb.errors import ClientMisuse, NotApplied, ProtocolError, Reason, ServerBug
from leafdb.limits import VALUE_BYTES_MAX
from leafdb.model.bucket import BucketProperties
from leafdb.model.key import encode_key, partition_part
from leafdb.ring.token import OPERATION_CHANCE_BYTES, operation_id, token_of
from leafdb.types import Conflict, Key
from leafdb.wire.frame import Frame
from leafdb.wire.registry import MessageType
from leafdb.wire.requests import (
    FLAG_BLIND,
    FLAG_DELETE,
    FLAG_LOCAL,
    FLAG_RETRY,
    QUORUM_ALL,
    QUORUM_DEFAULT,
    QUORUM_MAJORITY,
    GetReply,
    GetRequest,
    PutRequest,
    decode_get_reply,
    decode_put_reply,
    encode_get,
    encode_put,
)

A = TypeVar("A")

_new: Final = tuple.__new__
"""GetRequest(...) goes through a Python function, which every request would pay for."""

Form = Callable[[bytes, GetReply], A]
"""(bucket and key, as its context has them, reply) -> what a handle shows."""


class Get(Begins, Generic[A]):
    """A read of one key; `form` makes of the reply what the handle shows."""

    __slots__ = ("_asked", "_form", "_key", "_plan", "_properties", "deadline", "place", "ref")
    place: Place | None
    _properties: BucketProperties
    message_type = MessageType.GET
    reply_type = MessageType.GET_REPLY
    patient = False
    op_id = None

    def __init__(self, ref: BucketRef, encoded_key: bytes, plan: ReadPlan, form: Form[A]) -> None:
        self.ref: BucketRef = ref
        self.deadline: float = plan.deadline
        self._key = encoded_key
        self._plan = plan
        self._form = form
        self._asked: Asked = NOT_ASKED

    @property
    def once(self) -> bool:
        """A local read is of the node that was asked."""
        return self._plan.flags & FLAG_LOCAL != 0

    def bind(self, properties: BucketProperties) -> None:
        """Be a read in this bucket. Raises ClientMisuse."""
        plan = self._plan
        if plan.r or plan.pr:
            check_read(properties, plan)
        ref = self.ref
        self._properties = properties
        self.place = ref.place(properties, self._key) if ref.core.router.alone is None else None

    def body(self, deadline_ms: int, again: bool) -> bytes:
        """GET."""
        properties, plan, core = self._properties, self._plan, self.ref.core
        session = core.session
        if session.begun and not plan.flags & FLAG_LOCAL:
            self._asked = session.asks(properties.id, self._key)
            if self._asked.primaries is not Count.ANY:
                plan = raised(plan, self._asked.primaries, properties)
        return encode_get(
            _new(
                GetRequest,
                (
                    properties.id,
                    properties.generation,
                    core.router.epoch,
                    deadline_ms,
                    plan.flags,
                    plan.r,
                    plan.pr,
                    self._key,
                    self._asked.floor,
                ),
            )
        )

    def required(self) -> int:
        """r as a count."""
        properties = self._properties
        return count_of(self._plan.r, properties.r, properties.n)

    def finish(self, frame: Frame) -> A:
        """What a GET_REPLY shows. Raises DataError."""
        try:
            reply = decode_get_reply(frame.body)
        except ProtocolError as error:
            raise ServerBug(str(error), request_id=frame.request_id) from None
        ref, key, plan, properties = self.ref, self._key, self._plan, self._properties
        core = ref.core
        epoch, sealed, _ = reply
        if epoch > core.router.newest_epoch:
            core.router.saw_epoch(epoch)
        if not plan.flags & FLAG_LOCAL:
            known, held = ref.reads_held
            if plan.r:
                held = held_by(count_of(plan.r, properties.r, properties.n), properties.n)
            elif known is not properties:
                held = ref.held_by_reads(properties)
            core.session.read(properties.id, key, sealed, held, self._asked)
        return self._form(ref.prefix + key, reply)

    def steps(self, begun: Begun | None = None) -> Operation[A]:
        """The whole read."""
        return self.finish((yield from in_bucket(self, begun)))


def raised(plan: ReadPlan, count: Count, properties: BucketProperties) -> ReadPlan:
    """The plan of a read that must meet so many primaries."""
    number = QUORUM_ALL if count is Count.ALL else QUORUM_MAJORITY
    n = properties.n
    least = count_of(number, 0, n)
    r = number if count_of(plan.r, properties.r, n) < least else plan.r
    return plan._replace(r=r, pr=number if count_of(plan.pr, properties.pr, n) < least else plan.pr)


def is_cold(ref: BucketRef, properties: BucketProperties | None, key: bytes) -> bool:
    """Whether the session has to read this key before it writes it."""
    return properties is not None and ref.core.session.cold(properties.id, key)


def _unread(whose: bytes, reply: GetReply) -> None:
    """The form of a read for the session alone."""


class Prepared(NamedTuple):
    """A write that passed every check that needs no I/O."""

    key: bytes
    whose: bytes
    """Bucket and key, as a context has them."""
    flags: int
    context: bytes
    value: bytes


def prepare(ref: BucketRef, key: Key, value: bytes | None, after: Context | Blind | None) -> Prepared:
    """Check a write; value None deletes. Raises ClientMisuse or ContextMismatch; nothing is sent."""
    encoded_key = encode_key(key)
    whose = ref.prefix + encoded_key
    flags, sealed = FLAG_BLIND, b""
    if ref.conflict is Conflict.LWW:
        if isinstance(after, Context):
            raise ClientMisuse("a last-writer-wins bucket takes no context: the newest write wins")
    elif isinstance(after, Context):
        flags, sealed = 0, after.sealed_for(whose)
    elif not isinstance(after, Blind):
        raise ClientMisuse(f"after= is the context of a read or write of this key, or BLIND, not {after!r}")
    if value is None:
        flags, value = flags | FLAG_DELETE, b""
    return _new(Prepared, (encoded_key, whose, flags, sealed, value))


class Put(Begins):
    """A write or deletion of one key. Its operation id stays through every try: the key's token and 8 bytes that are
    drawn once. (In a bucket dropped and made anew under the same name it is another write.)"""

    __slots__ = (
        "_above", "_chance", "_plan", "_prepared", "_properties", "_ttl_ms", "deadline", "once", "op_id", "place", "ref"
    )  # fmt: skip
    place: Place | None
    op_id: bytes
    _properties: BucketProperties
    message_type = MessageType.PUT
    reply_type = MessageType.PUT_REPLY
    patient = True

    def __init__(
        self, ref: BucketRef, prepared: Prepared, plan: WritePlan, *, ttl_ms: int | None = None, once: bool = False
    ) -> None:
        self.ref: BucketRef = ref
        self.deadline: float = plan.deadline
        self.once: bool = once
        self._chance = ref.core.rng.getrandbits(64).to_bytes(OPERATION_CHANCE_BYTES, "big")
        self._prepared = prepared
        self._above: bytes | None = None
        """In an lww bucket, the newest that this client has seen of the key when the write is sent first."""
        self._plan = plan
        self._ttl_ms = plan.ttl_ms if ttl_ms is None else ttl_ms

    def bind(self, properties: BucketProperties) -> None:
        """Be a write in this bucket. Raises ClientMisuse, and NotApplied for a value no node would take."""
        size = len(self._prepared.value)
        if size > VALUE_BYTES_MAX:
            raise NotApplied(f"a value of {size} bytes is over {VALUE_BYTES_MAX}", reason=Reason.TOO_LARGE)
        plan = self._plan
        if plan.w or plan.pw or plan.dw:
            check_write(properties, plan)
        self._properties = properties
        key = self._prepared.key
        self.place = place = self.ref.place(properties, key)
        token = token_of(properties.id, partition_part(key)) if place is None else place.token
        self.op_id = operation_id(token, self._chance)

    def body(self, deadline_ms: int, again: bool) -> bytes:
        """PUT."""
        properties, plan, prepared, core = self._properties, self._plan, self._prepared, self.ref.core
        session = core.session
        floor: tuple[bytes, ...] = ()
        flags, context = prepared.flags | plan.flags, prepared.context
        if session.begun:
            floor = session.follows(properties.id, prepared.key, context)
        elif properties.conflict is Conflict.LWW:
            if self._above is None:
                self._above = session.newest(properties.id, prepared.key)
            if self._above:
                flags, context = flags & ~FLAG_BLIND, self._above
        return encode_put(
            _new(
                PutRequest,
                (
                    properties.id,
                    properties.generation,
                    core.router.epoch,
                    deadline_ms,
                    flags | FLAG_RETRY if again else flags,
                    plan.w,
                    plan.pw,
                    plan.dw,
                    self._ttl_ms,
                    self.op_id,
                    prepared.key,
                    context,
                    prepared.value,
                    floor,
                ),
            )
        )

    def required(self) -> int:
        """w as a count."""
        properties = self._properties
        return count_of(self._plan.w, properties.w, properties.n)

    def begin(self) -> Exchange | None:
        """The first exchange, when nothing has to be fetched before it."""
        core = self.ref.core
        if core.session.begun and is_cold(self.ref, core.buckets.get(self.ref.name), self._prepared.key):
            return None
        return super().begin()

    def finish(self, frame: Frame) -> Written:
        """What a PUT_REPLY says."""
        try:
            reply = decode_put_reply(frame.body)
        except ProtocolError as error:
            failure = ServerBug(str(error), request_id=frame.request_id)
            failure.outcome = "unknown"
            raise failure from None
        core, properties, prepared = self.ref.core, self._properties, self._prepared
        epoch, acks, primaries, sealed = reply
        if epoch > core.router.newest_epoch:
            core.router.saw_epoch(epoch)
        held = held_by(primaries, properties.n)
        core.session.wrote(properties.id, prepared.key, prepared.context, sealed, held)
        return written(Context(prepared.whose, sealed), self.op_id, acks, primaries)

    def steps(self, begun: Begun | None = None) -> Operation[Written]:
        """The whole write; of a key of which a session may have forgotten something, a read first."""
        if begun is None and self.ref.core.session.begun:
            properties = yield from ready(self.ref, self.deadline)
            if is_cold(self.ref, properties, self._prepared.key):
                plan = ReadPlan(QUORUM_DEFAULT, QUORUM_DEFAULT, self.ref.kind_flags, self.deadline)
                yield from Get(self.ref, self._prepared.key, plan, _unread).steps()
        return self.finish((yield from in_bucket(self, begun)))
