"""What a history is made of: writes, what reads show, and what is known of one key."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from leafdb.client.context import Context
from leafdb.client.results import Conflict as Siblings
from leafdb.client.results import Found, Missing, stamp_time
from leafdb.model.actor import Actor
from leafdb.model.clock import EMPTY, CausalClock, Dot
from leafdb.model.context import Past, past_in
from leafdb.ring.token import TOKEN_BYTES
from leafdb.wire.requests import GetReply

Answer = GetReply | Found[bytes] | Missing | Siblings[bytes]
"""What a read is answered, by either client."""

_CARRIED_BYTES: Final = 9
"""Of the client's own header of a context."""


@dataclass(slots=True, eq=False)
class Write:
    """One put or delete."""

    key: str
    op_id: bytes
    value: bytes | None
    context: CausalClock
    seen: int = 0
    """The greatest stamp its writer was shown."""
    ttl_ms: int = 0
    outcome: str = "unknown"
    open: bool = True
    """It is under way: nobody has been told anything."""
    dots: list[Dot] = field(default_factory=list)
    """Known names of it: one, or one for each time it was sent."""
    attempts: int = 1
    """How often it was sent."""
    told: int = 0
    """So many replicas know of it, as somebody was told who asked for its outcome."""
    acks: int = 0
    primaries: int = 0
    ended_ms: int | None = None
    """True time at which it was acknowledged."""

    @property
    def text(self) -> str:
        """For people."""
        number = int.from_bytes(self.op_id[TOKEN_BYTES:], "big")
        return f"write {number} ({'delete' if self.value is None else 'put'})"

    @property
    def lasting(self) -> bool:
        """It writes a value that does not expire."""
        return self.value is not None and not self.ttl_ms


class Seen(NamedTuple):
    """A value that a read showed."""

    dot: Dot | None
    """None where the client does not tell."""
    stamp_ms: int
    value: bytes


@dataclass(slots=True)
class KeyHistory:
    """What is known of one key."""

    writes: list[Write] = field(default_factory=list)
    floors: list[CausalClock] = field(default_factory=list)
    """[m]: what at least m primaries hold for sure: acknowledged writes and what quorum reads have covered."""
    stamps: list[int] = field(default_factory=list)
    """[m]: the newest stamp (ms) that m primaries acknowledged, or a read sure of them has met, for lww."""
    claimed: CausalClock = EMPTY
    """The contexts of all writes that have begun: what is in none of them is covered by nobody."""
    gone: CausalClock = EMPTY
    """The same of those that leave nothing lasting."""
    bare: dict[Dot, Write] = field(default_factory=dict)
    """Acknowledged lasting values that nobody has covered: whoever knows one shows it."""
    steady: list[tuple[int, Dot]] = field(default_factory=list)
    """(event, dot) of lasting values that a quorum acknowledged, for scans."""
    newest: dict[Actor, int] = field(default_factory=dict)
    """The greatest acknowledged counter of each actor, for lww."""
    latest: tuple[int, Dot] | None = None
    """Stamp and dot of the acknowledged write with the greatest stamp, of those that were sent once."""
    acked: list[Write] = field(default_factory=list)
    spoiled: bool = False
    """A deletion or an expiring value was begun."""


class Known(NamedTuple):
    """What a read that begins now must cover."""

    clock: CausalClock
    stamp_ms: int
    primaries: int
    now_ms: int | None


def sealed_of(context: bytes | Context) -> bytes:
    """A context as nodes seal it."""
    return context if isinstance(context, bytes) else bytes(context)[_CARRIED_BYTES:]


def clock_of(context: bytes | Context) -> CausalClock:
    """The clock in a context."""
    return past_of(context).clock


def past_of(context: bytes | Context) -> Past:
    """Clock and stamp of a context."""
    return past_in(sealed_of(context))


def shown_by(answer: Answer) -> list[Seen]:
    """The values in an answer of either client."""
    if isinstance(answer, GetReply):
        return [Seen((Actor(s.actor), s.counter), s.stamp >> 16, s.value) for s in answer.siblings]
    if isinstance(answer, Missing):
        return []
    values: Iterable[tuple[str | None, object, bytes]]
    if isinstance(answer, Found):
        values = ((answer.dot, answer.written_at, answer.value),)
    else:
        values = ((sibling.dot, sibling.written_at, sibling.value) for sibling in answer.siblings)
    return [Seen(_parse_dot(dot), _ms_of(at), value) for dot, at, value in values]


def _parse_dot(text: str | None) -> Dot | None:
    if text is None:
        return None
    actor, _, counter = text.partition(":")
    return Actor(bytes.fromhex(actor)), int(counter)


def _ms_of(at: object) -> int:
    return 0 if at is None else round((at - stamp_time(0)).total_seconds() * 1000)  # type: ignore[operator]
