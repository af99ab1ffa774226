"""One client's operations as the history and the trace are told of them, whatever carries them out.

A call answers None when it failed, whatever the failure: the history knows what that proves. A refusal that a sound
request cannot get is a violation, and so is an error that says leafdb itself is wrong.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import trio

from leafdb.client.results import Written
from leafdb.errors import (
    ClientMisuse,
    ContextMismatch,
    DataError,
    DeadlineExceeded,
    LeafdbError,
    NotApplied,
    Reason,
    ServerBug,
)
from leafdb.model.clock import EMPTY, CausalClock, Dot
from leafdb.model.context import past_in
from leafdb.ring.token import storage_key
from leafdb.sim.setting import Setting, dots_text, encoded
from leafdb.testing.history_values import Answer, Known, Write, clock_of, sealed_of, shown_by
from leafdb.testing.raw_client import Severed
from leafdb.testing.session_guarantees import Event, Kind
from leafdb.testing.violation import Invariant, require, violated
from leafdb.types import NodeId
from leafdb.wire.requests import PutReply

DOUBTFUL_MAX: Final = 4
UNDUE: Final = frozenset(
    {
        Reason.UNAUTHORIZED,
        Reason.TOO_LARGE,
        Reason.NO_SUCH_BUCKET,
        Reason.IMPOSSIBLE_QUORUM,
        Reason.BAD_REQUEST,
        Reason.CONTEXT_MISMATCH,
        Reason.WRONG_BUCKET_KIND,
        Reason.READ_ONLY,
        Reason.UNSUPPORTED,
    }
)
"""Reasons to refuse that no request of these clients gives."""


class NotConnected(Exception):
    """Nothing was sent, since there was nobody to send it to."""


class ReadHow(NamedTuple):
    """What a read asks for; a count of 0 and a `sloppy` of None are the bucket's own."""

    r: int = 0
    pr: int = 0
    sloppy: bool | None = None
    timeout_s: float = 2.0
    local: bool = False


class WriteHow(NamedTuple):
    """What a write asks for, likewise. The value has at least `size` bytes."""

    w: int = 0
    pw: int = 0
    dw: int = 0
    sloppy: bool | None = None
    timeout_s: float = 2.0
    ttl_ms: int = 0
    size: int = 0


class Reading(NamedTuple):
    """What a read found."""

    context: bytes
    """Sealed; any client writes with it."""
    values: tuple[bytes, ...]
    dots: tuple[Dot, ...]
    """Of the values, where the client tells."""


class Reads(NamedTuple):
    """A read under way."""

    key: str
    known: Known | None
    began: int
    sure: int
    """So many primaries it surely hears."""
    since: int
    """The oldest epoch that a node believed in when it began."""
    heard: int = 0
    """A horizon of the key's partition that all members' stores had been told of."""


class Recorder:
    """Tells of the operations of the client `name`, which is also its session."""

    def __init__(self, setting: Setting, name: str) -> None:
        self.setting = setting
        self.name = name
        self.doubtful: deque[Write] = deque(maxlen=DOUBTFUL_MAX)
        """The last writes that it does not know the outcome of."""
        self.in_session = False
        """Its session is kept by a token: everything it is answered is promised."""
        self.newest: dict[str, int] = {}
        """Of each key the greatest stamp in an answer that a real client remembers."""
        self._asked: dict[bytes, tuple[int, int, int]] = {}
        """By operation id, how many copies a write needs, how many of them on primaries, and the oldest epoch that a
        node believed in when it was sent first."""

    # -- writes

    def asks(self, write: Write, how: WriteHow) -> None:
        """It is about to be sent, so."""
        bucket, ring = self.setting.bucket, self.setting.ring
        since = 0 if ring is None else ring.floor()
        _, _, first = self._asked.get(write.op_id, (0, 0, since))
        self._asked[write.op_id] = how.w or bucket.w, how.pw or bucket.pw, first

    def begin_write(
        self, key: str, context: bytes | None, how: WriteHow, *, delete: bool = False, via: str = ""
    ) -> Write:
        """It is about to be sent."""
        setting = self.setting
        write = setting.history.begin_write(key, delete=delete, context=context, ttl_ms=how.ttl_ms, size=how.size)
        self.asks(write, how)
        what = "over what it read" if context is not None else "blind"
        self.tell(f"{write.text} begins, {what}{via}{_options(how)}", key)
        return write

    async def write(self, write: Write, send: Callable[[], Awaitable[PutReply | Written]]) -> bytes | None:
        """Send it; its context when it was acknowledged."""
        began = self.setting.tick()
        try:
            reply = await send()
        except trio.Cancelled:
            self.failed(write, None, "cancelled")
            raise
        except (LeafdbError, Severed, NotConnected) as error:
            self.failed(write, error)
            return None
        return self.wrote(write, began, reply)

    def wrote(self, write: Write, began: int, reply: PutReply | Written) -> bytes:
        """It was acknowledged."""
        setting = self.setting
        setting.history.acked(write, reply, setting.cluster.now_ms())
        w, pw, since = self._asked[write.op_id]
        enough = reply.acks >= w and reply.primaries >= pw
        text = f"{write.text} was to have w={w}, pw={pw}, and got {reply.acks} acks, {reply.primaries} of primaries"
        require(enough, Invariant.SURVIVES_STORES, text, write.key)
        stored = storage_key(setting.bucket.id, encoded(write.key))
        setting.copies.check(stored, write.dots[-1], reply.acks, write.text, write.key)
        if setting.ring is not None:
            text = f"{write.text} was to have w={w} in each set of owners"
            holders = setting.copies.holders(stored, CausalClock.from_dots(write.dots[-1:]))
            setting.ring.check_counts(stored, holders, w, since, text, write.key)
        context = sealed_of(reply.context)
        self._remember(write.key, context)
        promised = self.in_session or reply.primaries >= setting.history.quorum
        event = Event(
            self.name, Kind.WRITE, write.key, clock_of(context), began, setting.tick(), write.dots[-1], promised
        )
        setting.sessions.append(event)
        self.tell(f"{write.text} acknowledged by {reply.acks}, {reply.primaries} of them primaries", write.key)
        return context

    def failed(self, write: Write, error: Exception | None, text: str = "") -> None:
        """It ended otherwise."""
        text = text or self.judged(error, write.key)
        outcome = "not_applied" if _proves_nothing_happened(error) else "unknown"
        self.setting.history.failed(write, outcome, text)
        if write.outcome == "unknown":
            self.doubtful.append(write)
        self.tell(f"{write.text} {write.outcome}: {text}", write.key)

    # -- reads

    def begin_read(self, key: str, how: ReadHow, *, via: str = "", tell: bool = True) -> Reads:
        """It is about to be sent."""
        setting = self.setting
        known, sure = None, 0
        if not how.local:
            sure = setting.sure_primaries(how.r, how.pr, how.sloppy)
            known = setting.history.begin_read(key, sure, setting.cluster.now_ms())
        if tell:
            self.tell(f"read begins{' locally' if how.local else ''}{via}{_options(how)}", key)
        since = 0 if setting.ring is None else setting.ring.floor()
        return Reads(key, known, setting.tick(), sure, since, setting.history.forgetting.heard(key))

    async def read(self, reads: Reads, send: Callable[[], Awaitable[Answer]]) -> Reading | None:
        """Send it; what it found."""
        try:
            answer = await send()
        except trio.Cancelled:
            self.tell("read cancelled", reads.key)
            raise
        except (LeafdbError, Severed, NotConnected) as error:
            self.tell(f"read failed: {self.judged(error, reads.key)}", reads.key)
            return None
        return self.found(reads, answer)

    def found(self, reads: Reads, answer: Answer, *, held: bool = True, tell: bool = True) -> Reading:
        """It was answered."""
        setting, key = self.setting, reads.key
        seen = shown_by(answer)
        values = tuple(each.value for each in seen)
        dots = tuple(each.dot for each in seen if each.dot is not None)
        if tell:
            self.tell(f"read finds {dots_text(values)}", key)
        clock = setting.history.read(key, reads.known, answer, held=held, heard=reads.heard)
        if held and clock and setting.ring is not None:
            stored = storage_key(setting.bucket.id, encoded(key))
            text = f"what a read shows was to be held by r={reads.sure} of each set of owners"
            holders = setting.copies.holders(stored, clock)
            setting.ring.check_counts(stored, holders, reads.sure, reads.since, text, key)
        if held and reads.known is not None:
            self._remember(key, sealed_of(answer.context))
        promised = reads.known is not None and reads.known.primaries >= setting.history.quorum
        if held and (promised or self.in_session):
            forgetting = setting.history.forgetting
            event = Event(
                self.name,
                Kind.READ,
                key,
                clock,
                reads.began,
                setting.tick(),
                gone=forgetting.excused(key, clock).merge(forgetting.lost(key)),
                beaten=forgetting.beaten(key, dots),
            )
            setting.sessions.append(event)
        return Reading(sealed_of(answer.context), values, dots)

    def _remember(self, key: str, context: bytes) -> None:
        self.newest[key] = max(self.newest.get(key, 0), past_in(context).stamp)

    def check_local(self, member: NodeId, key: str, before: CausalClock, reading: Reading) -> None:
        """A store never knows less than it had shown `before`, unless it may have lost something, or gave it away."""
        setting = self.setting
        clock = clock_of(reading.context)
        if not setting.copies.has_let_go(member, storage_key(setting.bucket.id, encoded(key))):
            forgetting = setting.history.forgetting
            if not setting.history.stores_lost and forgetting.missing(key, before, clock):
                text = f"n{member} shows less of its own store than it did before: {clock!r} after {before!r}"
                violated(Invariant.READS_MONOTONIC, text, key)
            for dot in () if setting.history.stores_lost else reading.dots:
                setting.history.check_back(key, dot, before, f"which n{member} has shown to know")
            setting.local[member, key] = clock.merge(setting.local.get((member, key), EMPTY))

    # -- words

    def tell(self, text: str, key: str | None = None) -> None:
        """Into the story."""
        self.setting.trace.tell(self.name, text, key)

    def judged(self, error: Exception | None, key: str | None) -> str:
        """What an error is called in the story. Raises Violation for one that must not be."""
        name = type(error).__name__
        if isinstance(error, ServerBug | ClientMisuse | ContextMismatch | DataError):
            violated(Invariant.SELF_CHECK, f"{self.name} was told {name}: {error}", key)
        if isinstance(error, NotApplied):
            if error.reason in UNDUE:
                violated(Invariant.SELF_CHECK, f"{self.name} was refused a sound request: {error}", key)
            return str(error.reason)
        return name


def _proves_nothing_happened(error: Exception | None) -> bool:
    """Of a write. A deadline that is told by this name passed before a byte was sent."""
    if isinstance(error, LeafdbError):
        return error.outcome == "not_applied" or isinstance(error, DeadlineExceeded)
    return isinstance(error, NotConnected)


def _options(how: ReadHow | WriteHow) -> str:
    """What differs from the default, for people."""
    defaults = type(how)()._asdict()
    asked = [
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in how._asdict().items()
        if value != defaults[name] and name != "local"
    ]
    return f" ({', '.join(asked)})" if asked else ""
