"""What one client has seen: the memory behind session tokens (decision 0008, section 4).

**Kept by every client, always**, so that a token knows what was done before anybody asked for it: after each write and
each read of one key, the sealed context that the node answered with. That is all it costs until the client *becomes a
session*, which it does when its token is first taken or when it observes one. From then on each read carries what it
must not fall behind as its floor, and each write what it follows (`node/put_follows.py` says why that is enough).

**Of one key** it keeps the contexts of which none covers another. A read that was asked with a floor covers it, so one
context is left; writes that were blind to each other leave one each, until the next read.

**Bounded.** SESSION_KEYS_MAX keys; the least recently touched are given up, and what remains of them is a bit for a
256th of the token space. A key of such a part that has no entry is *cold*: it is read from enough primaries to meet
those that had what was given up, a majority or all, and what this shows is its new entry; a write of it reads first.
What is given up was *held* by a majority of the key's primaries, by some, or only by stand-ins. The first go before the
others, as long as those take no more than half of the room; the second are what "all" is for; of the third, and of
reads that stand-ins helped to answer, no count promises anything until their copies have come home.

Outside the session, both ways: local reads, scans, ranges. A write over a context that came from there, or by bytes
from elsewhere, carries that context as its floor: what the writes in it follow is not known here. Nor is it when the
next write is over what this one was given back, so such an entry is not *closed*, until the key is read.

A context that covers another one's clock is as good as both: its stamp is no less than that of any write it covers.

Threads share it: every method takes the lock, for a microsecond.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from threading import Lock
from typing import Final, NamedTuple

from leafdb.client.session_token import Place, Seen, SessionToken, TokenParts, entry_bytes, head_bytes
from leafdb.limits import (
    FLOOR_CONTEXTS_MAX,
    SESSION_CONTEXT_BYTES_MAX,
    SESSION_KEYS_MAX,
    SESSION_TOKEN_BYTES_MAX,
)
from leafdb.model.actor import ACTOR_BYTES
from leafdb.model.clock import COUNTS, DOT, EMPTY, CausalClock
from leafdb.model.context import CLOCK_AT, EMPTY_CONTEXT_BYTES, SEAL_BYTES, STAMP_BYTES, ContextError, past_in
from leafdb.model.key import partition_part
from leafdb.ring.token import TOKEN_BITS, token_of
from leafdb.types import BucketId


class Held(IntEnum):
    """Who surely has what an entry stands for, of the primaries of its key."""

    MAJORITY = 0
    SOME = 1
    NOBODY = 2


class Count(IntEnum):
    """From how many primaries a key must be read."""

    ANY = 0
    MAJORITY = 1
    ALL = 2


class Asked(NamedTuple):
    """What a read goes out with."""

    floor: tuple[bytes, ...]
    primaries: Count
    given_up: int
    """How often something had been given up by then."""


class _Entry:
    """What is remembered of one key: as `Seen`, and where it lies."""

    __slots__ = ("closed", "contexts", "held", "part", "size", "whole")

    def __init__(self, part: int) -> None:
        self.contexts: tuple[bytes, ...] = ()
        self.whole = True
        self.closed = True
        self.held = Held.MAJORITY
        self.part = part
        self.size = 0


_ROWS_AT: Final = CLOCK_AT + COUNTS.size
_NO_SINGLES: Final = bytes(4)
_SINGLES_AT: Final = _ROWS_AT - len(_NO_SINGLES)
"""Where a sealed context has its rows, and before them the number of those that are single dots."""
_ANY: Final = Count.ANY
_BY_MAJORITY: Final = Held.MAJORITY
"""Members of an enum are looked up in two steps, and these are looked up for every request."""
NOT_ASKED: Final = Asked((), Count.ANY, -1)
"""Of a read without a session."""


class Session:
    """One client's. `keys_max` and `bytes_max` bound it."""

    __slots__ = ("_by_held", "_bytes", "_bytes_max", "_every", "_given_up", "_keys_max", "_lock", "_majority", "begun")

    def __init__(self, keys_max: int = SESSION_KEYS_MAX, bytes_max: int = SESSION_CONTEXT_BYTES_MAX) -> None:
        self.begun: bool = False
        """It is a session: reads and writes carry what was seen."""
        self._keys_max = keys_max
        self._bytes_max = bytes_max
        self._lock = Lock()
        self._by_held: tuple[dict[Place, _Entry], ...] = ({}, {}, {})
        self._bytes = 0
        self._majority = 0
        self._every = 0
        self._given_up = 0

    # -- before a request

    def asks(self, bucket_id: int, key: bytes) -> Asked:
        """What a read of this key goes out with."""
        with self._lock:
            entry = self._find((bucket_id, key))
            if entry is None:
                return Asked((), self._count(bucket_id, key), self._given_up)
            count = _ANY if entry.whole else self._count(bucket_id, key)
            return Asked(entry.contexts, count, self._given_up)

    def follows(self, bucket_id: int, key: bytes, after: bytes) -> tuple[bytes, ...]:
        """What the coordinator of a write must have: nothing, when `after` (empty: blind) is all that was seen."""
        with self._lock:
            entry = self._find((bucket_id, key))
            seen, closed = ((), True) if entry is None else (entry.contexts, entry.closed)
        if len(after) <= EMPTY_CONTEXT_BYTES:
            return seen
        if len(seen) == 1 and seen[0] == after and closed:
            return ()
        if not seen:
            return (after,)
        clock = _clock_in(after)
        clocks = [_clock_in(each) for each in seen]
        missing = tuple(each for each, known in zip(seen, clocks, strict=True) if not _covers(clock, known))
        if closed and _covers(_union(clocks), clock):
            return missing
        return (*missing, after)[-FLOOR_CONTEXTS_MAX:]

    def newest(self, bucket_id: int, key: bytes) -> bytes:
        """What a write in an lww bucket goes above: of the contexts that were seen that with the greatest stamp; empty
        if there is none."""
        with self._lock:
            entry = self._find((bucket_id, key))
            return b"" if entry is None else _newest(entry.contexts)

    def cold(self, bucket_id: int, key: bytes) -> bool:
        """Whether something of this key may have been given up, so that a write must read first."""
        with self._lock:
            if not self._majority and not self._every:
                return False
            entry = self._find((bucket_id, key))
            return not (entry is not None and entry.whole) and self._count(bucket_id, key) is not _ANY

    # -- after it

    def wrote(self, bucket_id: int, key: bytes, after: bytes, sealed: bytes, held: Held) -> None:
        """A write was acknowledged with this context."""
        place = bucket_id, key
        with self._lock:
            entry = self._by_held[0].get(place) or self._find(place)
            if entry is None:
                entry = self._keep(place, None, (sealed,), self._count(bucket_id, key) is _ANY, held)
                entry.closed = len(after) <= EMPTY_CONTEXT_BYTES
            elif len(entry.contexts) == 1 and entry.contexts[0] == after:
                self._replace(place, entry, sealed, held)
            else:
                if len(after) > EMPTY_CONTEXT_BYTES and entry.closed:
                    entry.closed = _covers(_union(map(_clock_in, entry.contexts)), _clock_in(after))
                self._join(place, entry, sealed, held)

    def read(self, bucket_id: int, key: bytes, sealed: bytes, held: Held, asked: Asked) -> None:
        """A read was answered with this context."""
        place = bucket_id, key
        with self._lock:
            majority = self._by_held[0]
            entry = majority.get(place)
            if entry is not None and held is _BY_MAJORITY and entry.whole and entry.contexts == (sealed,):
                del majority[place]  # nothing is new but that it is the newest
                majority[place] = entry
                entry.closed = True
                return
            entry = entry or self._find(place)
            if entry is None:
                self._read_first(place, sealed, held, asked)
                return
            contexts = entry.contexts
            if not entry.whole and asked.primaries is not _ANY and asked.given_up == self._given_up:
                entry.whole = True
            if len(contexts) == 1 and contexts[0] == sealed:
                self._replace(place, entry, sealed, held if held < entry.held else entry.held)
            elif contexts == asked.floor and asked is not NOT_ASKED and len(sealed) > EMPTY_CONTEXT_BYTES:
                self._replace(place, entry, sealed, held)  # it met the floor, and the floor was all that was seen
            else:
                self._join(place, entry, sealed, held)
            if entry.contexts == (sealed,):
                entry.closed = True

    def _read_first(self, place: Place, sealed: bytes, held: Held, asked: Asked) -> None:
        needed = self._count(*place)
        whole = needed is _ANY or (asked.primaries >= needed and asked.given_up == self._given_up)
        if len(sealed) > EMPTY_CONTEXT_BYTES:
            self._keep(place, None, (sealed,), whole, held)
        elif whole and needed is not _ANY:
            self._keep(place, None, (), True, held)  # so that it need not be read like this again

    # -- carried elsewhere

    def token(self, cluster_id: bytes) -> SessionToken:
        """All of it, or what fits: the rest is given up in the token. The client is a session from now on."""
        with self._lock:
            self.begun = True
            majority, every = self._majority, self._every
            room = SESSION_TOKEN_BYTES_MAX - len(head_bytes(cluster_id, 0, 0, 0))
            parts: list[bytes] = []
            for held in reversed(Held):  # what must not be given up comes first, of that what is newest
                for place, entry in reversed(self._by_held[held].items()):
                    encoded = entry_bytes(place, Seen(entry.contexts, entry.whole, entry.held, entry.closed))
                    if len(encoded) <= room:
                        room -= len(encoded)
                        parts.append(encoded)
                    elif entry.contexts:
                        bit = 1 << entry.part
                        majority, every = (majority | bit, every) if held is _BY_MAJORITY else (majority, every | bit)
        return SessionToken.trusted(head_bytes(cluster_id, majority, every, len(parts)) + b"".join(parts))

    def observe(self, token: TokenParts) -> None:
        """See no less than the client that this token was taken from. The client is a session from now on."""
        with self._lock:
            self.begun = True
            self._given_up += 1
            theirs = token.majority | token.every
            for entries in self._by_held:
                for place, entry in entries.items():
                    if entry.whole and place not in token.entries and theirs >> entry.part & 1:
                        entry.whole = False
            for place, seen in reversed(list(token.entries.items())):
                known = self._find(place)
                if known is None:
                    whole = seen.whole and self._count(*place) is _ANY
                    self._keep(place, None, seen.contexts, whole, Held(seen.held)).closed = seen.closed
                    continue
                known.whole = known.whole and seen.whole
                known.closed = known.closed and seen.closed
                for sealed in seen.contexts:
                    again = self._find(place)
                    if again is None:  # given up while it was joined
                        self._set_bit(_part_of(*place), Held(seen.held))
                    else:
                        self._join(place, again, sealed, Held(seen.held))
            # Only now: until here these were the parts that this client itself had given up.
            self._majority |= token.majority
            self._every |= token.every

    # -- the table; the lock is held

    def _find(self, place: Place) -> _Entry | None:
        majority, some, nobody = self._by_held
        return majority.get(place) or some.get(place) or nobody.get(place)

    def _count(self, bucket_id: int, key: bytes) -> Count:
        if not self._majority and not self._every:
            return _ANY
        bit = 1 << _part_of(bucket_id, key)
        return Count.ALL if self._every & bit else Count.MAJORITY if self._majority & bit else _ANY

    def _touch(self, place: Place, entry: _Entry) -> None:
        """It becomes the newest."""
        entries = self._by_held[entry.held]
        del entries[place]
        entries[place] = entry

    def _replace(self, place: Place, entry: _Entry, sealed: bytes, held: Held) -> None:
        """`sealed` covers what the entry had; it becomes the newest."""
        contexts = entry.contexts
        if held is entry.held and len(contexts) == 1 and len(contexts[0]) == len(sealed):
            self._touch(place, entry)
            entry.contexts = (sealed,)
        else:
            self._keep(place, entry, (sealed,), entry.whole, held)

    def _keep(self, place: Place, old: _Entry | None, contexts: tuple[bytes, ...], whole: bool, held: Held) -> _Entry:
        """The entry of this key from now on, and the newest."""
        if old is None:
            entry = _Entry(_part_of(*place))
        else:
            entry = old
            del self._by_held[old.held][place]
            self._bytes -= old.size
        entry.contexts, entry.whole, entry.held = contexts, whole, held
        entry.size = len(place[1]) + sum(map(len, contexts))
        self._by_held[held][place] = entry
        self._bytes += entry.size
        majority, some, nobody = self._by_held
        while len(majority) + len(some) + len(nobody) > self._keys_max or self._bytes > self._bytes_max:
            self._give_up_one()
        return entry

    def _join(self, place: Place, entry: _Entry, sealed: bytes, held: Held) -> None:
        """The entry has seen `sealed` as well, whatever it had."""
        contexts = entry.contexts
        if len(contexts) == 1 and _plainly_covers(sealed, contexts[0]):
            self._replace(place, entry, sealed, held)
            return
        if sealed in contexts or len(sealed) <= EMPTY_CONTEXT_BYTES:
            self._touch(place, entry)
            return
        clock = _clock_in(sealed)
        kept: list[bytes] = []
        for each in contexts:
            known = _clock_in(each)
            if _covers(known, clock):
                self._touch(place, entry)
                return
            if not _covers(clock, known):
                kept.append(each)
        if len(kept) >= FLOOR_CONTEXTS_MAX:
            self._set_bit(entry.part, max(entry.held, held))
            self._keep(place, entry, (_newest((*kept, sealed)),), False, held)
        else:
            self._keep(place, entry, (*kept, sealed), entry.whole, max(entry.held, held) if kept else held)

    def _give_up_one(self) -> None:
        """The oldest of the kind that has the least to lose."""
        majority, some, nobody = self._by_held
        weak = len(some) + len(nobody)
        entries = majority if majority and 2 * weak <= self._keys_max else some or nobody or majority
        entry = entries.pop(next(iter(entries)))
        self._bytes -= entry.size
        if entry.contexts:
            self._set_bit(entry.part, entry.held)

    def _set_bit(self, part: int, held: Held) -> None:
        self._given_up += 1
        if held is _BY_MAJORITY:
            self._majority |= 1 << part
        else:
            self._every |= 1 << part

    def check(self) -> None:
        """Within its bounds, nothing twice, and the bytes are those of the entries."""
        places = [place for entries in self._by_held for place in entries]
        assert len(places) == len(set(places)) <= self._keys_max
        assert self._bytes == sum(entry.size for entries in self._by_held for entry in entries.values())
        assert self._bytes <= self._bytes_max
        for held, entries in zip(Held, self._by_held, strict=True):
            for (bucket_id, key), entry in entries.items():
                assert entry.held is held
                assert len(entry.contexts) <= FLOOR_CONTEXTS_MAX
                assert entry.part == _part_of(bucket_id, key)
                assert entry.size == len(key) + sum(map(len, entry.contexts))


def held_by(primaries: int, n: int) -> Held:
    """Of something that so many of n primaries surely have."""
    return _BY_MAJORITY if 2 * primaries > n else Held.SOME if primaries else Held.NOBODY


def _clock_in(sealed: bytes) -> CausalClock | None:
    """None for a context of a version that this client cannot read: it is as good a floor, and covers nothing."""
    try:
        return past_in(sealed).clock
    except ContextError:
        return None


def _newest(contexts: tuple[bytes, ...]) -> bytes:
    """That with the greatest stamp."""
    return contexts[0] if len(contexts) == 1 else max(contexts, key=_stamp_bytes, default=b"")


def _stamp_bytes(sealed: bytes) -> bytes:
    return sealed[CLOCK_AT - STAMP_BYTES : CLOCK_AT]


def _covers(one: CausalClock | None, other: CausalClock | None) -> bool:
    return one is not None and other is not None and one.covers_writes(other)


def _union(clocks: Iterable[CausalClock | None]) -> CausalClock:
    union = EMPTY
    for clock in clocks:
        union = union if clock is None else union.merge(clock)
    return union


def _plainly_covers(one: bytes, other: bytes) -> bool:
    """Whether the first context covers the second, as far as that shows without reading them: the same actors, each
    with no less, and no single dots. False proves nothing."""
    if len(one) != len(other) or one[0] != other[0] or one[_SINGLES_AT:_ROWS_AT] != _NO_SINGLES:
        return False
    if one[CLOCK_AT:_ROWS_AT] != other[CLOCK_AT:_ROWS_AT]:
        return False
    for at in range(_ROWS_AT, len(one) - SEAL_BYTES, DOT.size):
        mine, theirs = one[at : at + DOT.size], other[at : at + DOT.size]
        if mine != theirs and (mine[:ACTOR_BYTES] != theirs[:ACTOR_BYTES] or mine < theirs):
            return False
    return True


def _part_of(bucket_id: int, key: bytes) -> int:
    return token_of(BucketId(bucket_id), partition_part(key)) >> (TOKEN_BITS - 8)
