"""The four session guarantees of Terry et al. ("Session Guarantees for Weakly Consistent Replicated Data", 1994).

For one key, of a session whose reads and writes all overlap, or that is kept by a token:

- *Read your writes*: a read covers every write of its session that was acknowledged before it began.
- *Monotonic reads*: a read covers every read of its session that had ended before it began.
- *Monotonic writes*: a read that covers a write covers the earlier writes of that write's session.
- *Writes follow reads*: a read that covers a write covers what its session had read before it wrote.

The last two bind the reads of all sessions, as far as these are promised anything and began after what they must cover
had ended. Covering is the order of clocks, as far as they name writes (an entry at 0 names none), so the check needs
nothing but what clients were told; where records may be forgotten, also what was gone by right by then, or lost with
the only store that had it and below a horizon (forgetting.py). Absence excuses nothing else: a session that has known
a write is never shown what that had replaced.

A session may have operations under way side by side: only what had ended before another began comes before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from leafdb.model.clock import EMPTY, CausalClock, Dot
from leafdb.testing.violation import Invariant, violated


class Kind(StrEnum):
    """What a session did."""

    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, slots=True)
class Event:
    """One operation that was answered. `began` and `ended` number moments; no two events share one.

    `promised`: its quorum overlaps with those of all other promised operations, or a token keeps its session.
    """

    session: str
    kind: Kind
    key: str
    clock: CausalClock
    """Of a read, what it covers; of a write, the context that it was given back."""
    began: int
    ended: int
    dot: Dot | None = None
    """The write's own."""
    promised: bool = True
    gone: CausalClock = EMPTY
    """Of a read: what was gone by right or lost when it ended, and need not be covered."""
    beaten: CausalClock = EMPTY
    """Of a read: the writes that beat what it shows. Who has known one of them must not be shown it."""


@dataclass(slots=True)
class _Session:
    """What the promised operations of one session on one key have covered, in the order in which they ended."""

    ended: list[int]
    wrote: list[CausalClock]
    read: list[CausalClock]

    def before(self, moment: int) -> int:
        """How many had ended at this moment; asked for moments that only grow, near the end."""
        count = len(self.ended)
        while count and self.ended[count - 1] > moment:
            count -= 1
        return count


@dataclass(frozen=True, slots=True)
class _Debt:
    """Who covers `dot` also covers `wrote` and `read`, if it began after `since`."""

    dot: Dot
    since: int
    wrote: CausalClock
    read: CausalClock


def check(events: Iterable[Event]) -> None:
    """Raise Violation for the first broken guarantee, in the order in which operations ended."""
    sessions: dict[tuple[str, str], _Session] = {}
    debts: dict[str, dict[str, list[_Debt]]] = {}
    for event in sorted(events, key=lambda event: event.ended):
        if not event.promised:
            continue
        own = sessions.setdefault((event.session, event.key), _Session([0], [EMPTY], [EMPTY]))
        before = own.before(event.began) - 1
        wrote, read = own.wrote[before], own.read[before]
        if event.kind is Kind.READ:
            _require(event, wrote, f"{event.session} does not read its own writes")
            _require(event, read, f"{event.session} reads less than it has read before")
            _require_none_back(event, wrote.merge(read))
            _check_debts(event, debts.get(event.key, {}))
        else:
            assert event.dot is not None
            debt = _Debt(event.dot, event.began, wrote, read)
            if wrote or read:
                debts.setdefault(event.key, {}).setdefault(event.session, []).append(debt)
        _add(own, event)


def _add(own: _Session, event: Event) -> None:
    wrote, read = own.wrote[-1], own.read[-1]
    if event.kind is Kind.READ:
        read = read.merge(event.clock)
    elif event.dot is not None:
        wrote = wrote.add(event.dot)
    own.ended.append(event.ended)
    own.wrote.append(wrote)
    own.read.append(read)


def _check_debts(event: Event, debts: dict[str, list[_Debt]]) -> None:
    """Debts only grow along a session, so of each session the newest that binds speaks for those before it."""
    for session, owed in debts.items():
        for debt in reversed(owed):
            if debt.since <= event.began and event.clock.covers(debt.dot):
                _require(event, debt.wrote, f"{event.session} sees a write of {session} without its earlier writes")
                _require(event, debt.read, f"{event.session} sees a write of {session} without what that had read")
                break


def _require(event: Event, clock: CausalClock, text: str) -> None:
    if not event.clock.covers_writes(clock) and not event.clock.merge(event.gone).covers_writes(clock):
        violated(Invariant.SESSIONS, f"{text}: {event.clock!r} does not cover {clock!r}", event.key)


def _require_none_back(event: Event, known: CausalClock) -> None:
    beaten = event.beaten
    if beaten and any(known.covers(dot) for dot in _dots(beaten)):
        text = (
            f"{event.session} is shown again what a write had replaced that it knew: {known!r} has some of {beaten!r}"
        )
        violated(Invariant.SESSIONS, text, event.key)


def _dots(clock: CausalClock) -> Iterator[Dot]:
    for actor, counter in clock.vector.items():
        yield from ((actor, each) for each in range(1, counter + 1))
    yield from clock.cloud
