"""Records as bytes (docs/formats/record.md), and the values those bytes stand for.

    version u8 | flags u8 | siblings u32 | clock | siblings x head | values concatenated

    head: index of the dot's actor in the clock's table u32 | counter u64 | stamp u64 | expires_ms u64 | op_id 16 |
          flags u8 (1: tombstone) | value length u32

A dot in the vector has the index of its actor's entry; a dot of the cloud has its own index after the entries, so that
every dot is covered by the clock by construction. Siblings come in dot order. One record has one encoding.

Heads have a fixed size and come before all values: `header` reads them without touching a value. The shape nearly all
records have (one entry, no cloud, one sibling) is packed and unpacked in a single call.

Bytes come from disks and peers: every reader here checks all of it and raises RecordError, and nothing else.
"""

from __future__ import annotations

import struct
from struct import Struct
from typing import Final, NamedTuple

from leafdb.model.actor import ACTOR_BYTES, Actor
from leafdb.model.clock import COUNTS, DOT, CausalClock, ClockError, Dot, parse
from leafdb.model.hlc import STAMP_MAX

RECORD_VERSION: Final = 1
OP_ID_BYTES: Final = 16

_TOMBSTONE: Final = 1
_START: Final = Struct(">BBI")
_HEAD: Final = Struct(">IQQQ16sBI")
_ONE: Final = Struct(f">BBIHI{ACTOR_BYTES}sQIQQQ16sBI")
"""Start, clock of one entry, one head."""
_ONE_BYTES: Final = _ONE.size
_ONE_STAMP_AT: Final = _ONE_BYTES - _HEAD.size + Struct(">IQ").size
_ONE_START: Final = bytes((RECORD_VERSION, 0)) + bytes((0, 0, 0, 1, 0, 1, 0, 0, 0, 0))
"""The first bytes of that shape: everything before the actor."""
CLOCK_AT: Final = _START.size
_TABLE_AT: Final = CLOCK_AT + COUNTS.size
_STAMP_AT: Final = 12
"""Of a head, where its stamp stands."""
_TIMES: Final = Struct(">QQ16xB")
"""From there: stamp, expiry, flags."""
_STAMP: Final = Struct(">Q")
_ONE_TIMES_AT: Final = _TABLE_AT + DOT.size + _STAMP_AT

assert _ONE.size == _TABLE_AT + DOT.size + _HEAD.size


class RecordError(ValueError):
    """The bytes are not a record this build can read."""


class Sibling(NamedTuple):
    """One written value, or the mark of a deletion."""

    stamp: int
    """Hybrid logical clock (hlc.py) of the write."""
    expires_ms: int
    """Unix milliseconds from which no reader sees it; 0: never."""
    op_id: bytes
    """16 bytes that the writer chose for the operation."""
    value: bytes | None
    """None: a tombstone."""


class Head(NamedTuple):
    """A sibling without its value, which is `data[start : start + size]`."""

    stamp: int
    expires_ms: int
    op_id: bytes
    tombstone: bool
    start: int
    size: int


class Record:
    """What is known of one key: a clock, and the written values that no later write has covered."""

    __slots__ = ("clock", "siblings")

    def __init__(self, clock: CausalClock, siblings: dict[Dot, Sibling]) -> None:
        self.clock: CausalClock = clock
        self.siblings: dict[Dot, Sibling] = siblings

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Record):
            return NotImplemented
        return self.clock == other.clock and self.siblings == other.siblings

    def __hash__(self) -> int:
        return hash(encode(self))

    def __repr__(self) -> str:
        return f"<record {self.clock!r} {self.siblings!r}>"

    def check(self) -> None:
        """Raises AssertionError when an invariant is broken."""
        self.clock.check()
        for dot, sibling in self.siblings.items():
            assert dot[1] >= 1
            assert self.clock.covers(dot)
            assert len(sibling.op_id) == OP_ID_BYTES
            assert 0 <= sibling.stamp <= STAMP_MAX
            assert 0 <= sibling.expires_ms < 1 << 64
        assert decode(encode(self)) == self


class Header:
    """A record's clock and the heads of its siblings, in dot order; values stay where they are in `data`."""

    __slots__ = ("clock", "data", "heads")

    def __init__(self, clock: CausalClock, heads: dict[Dot, Head], data: bytes) -> None:
        self.clock: CausalClock = clock
        self.heads: dict[Dot, Head] = heads
        self.data: bytes = data

    def sibling(self, dot: Dot) -> Sibling:
        """The sibling of `dot`, its value copied out."""
        stamp, expires_ms, op_id, tombstone, start, size = self.heads[dot]
        return Sibling(stamp, expires_ms, op_id, None if tombstone else self.data[start : start + size])


def first(actor: Actor, stamp: int, expires_ms: int, op_id: bytes, value: bytes | None) -> bytes:
    """The encoding of a record with one sibling whose clock is {actor: 1}."""
    return _one(actor, 1, 1, stamp, expires_ms, op_id, value)


def encode(record: Record) -> bytes:
    """The canonical encoding: equal records, equal bytes."""
    clock, siblings = record.clock, record.siblings
    if len(siblings) == 1 and len(clock.vector) == 1 and not clock.cloud:
        ((actor, known),) = clock.vector.items()
        (((sibling_actor, counter), (stamp, expires_ms, op_id, value)),) = siblings.items()
        assert actor == sibling_actor and 1 <= counter <= known  # noqa: PT018  # one check on the hot path
        return _one(actor, known, counter, stamp, expires_ms, op_id, value)
    entry_index = {actor: index for index, actor in enumerate(sorted(clock.vector))}
    cloud_index = {dot: index for index, dot in enumerate(sorted(clock.cloud), len(entry_index))}
    parts = [_START.pack(RECORD_VERSION, 0, len(siblings)), clock.encode()]
    values = []
    for dot, (stamp, expires_ms, op_id, value) in sorted(siblings.items()):
        assert clock.covers(dot)
        index = cloud_index[dot] if dot in cloud_index else entry_index[dot[0]]
        if value is None:
            parts.append(_HEAD.pack(index, dot[1], stamp, expires_ms, op_id, _TOMBSTONE, 0))
        else:
            parts.append(_HEAD.pack(index, dot[1], stamp, expires_ms, op_id, 0, len(value)))
            values.append(value)
    return b"".join(parts + values)


def decode(data: bytes) -> Record:
    """The record that `data` is. Raises RecordError when malformed, not canonical, or of an unknown version."""
    if data.startswith(_ONE_START) and len(data) >= _ONE_BYTES:
        dot, known, stamp, expires_ms, op_id, tombstone = _parse_one(data)
        sibling = Sibling(stamp, expires_ms, op_id, None if tombstone else data[_ONE_BYTES:])
        return Record(CausalClock({dot[0]: known}), {dot: sibling})
    parsed = header(data)
    return Record(parsed.clock, {dot: parsed.sibling(dot) for dot in parsed.heads})


def header(data: bytes) -> Header:
    """The clock and the heads, checked as `decode` would. Raises RecordError."""
    if data.startswith(_ONE_START) and len(data) >= _ONE_BYTES:
        dot, known, stamp, expires_ms, op_id, tombstone = _parse_one(data)
        head = Head(stamp, expires_ms, op_id, tombstone, _ONE_BYTES, len(data) - _ONE_BYTES)
        return Header(CausalClock({dot[0]: known}), {dot: head}, data)
    clock, siblings, at = _parse_start(data)
    return Header(clock, _parse_heads(data, clock, siblings, at), data)


def clock_of(data: bytes) -> CausalClock:
    """The clock alone. Raises RecordError when that part is malformed; the rest is not looked at."""
    return _parse_start(data)[0]


def newest_stamp(data: bytes) -> int:
    """The greatest stamp in the record, which a write over it exceeds; 0 if it has no sibling. Values and clock are
    passed over. Raises RecordError where the heads are cut off; the rest is not looked at."""
    if data.startswith(_ONE_START) and len(data) >= _ONE_BYTES:
        return int.from_bytes(data[_ONE_STAMP_AT : _ONE_STAMP_AT + 8], "big")
    start = _table_stop(data)
    stop = start + int.from_bytes(data[2:CLOCK_AT], "big") * _HEAD.size
    if stop > len(data):
        raise RecordError("record cut off")
    return max([head[2] for head in _HEAD.iter_unpack(data[start:stop])], default=0)


def knows_same(data: bytes, prefix: bytes, known: bytes) -> bool:
    """Whether every row of the clock of `data` whose actor begins with `prefix` stands in `known` likewise.

    Both are sound records, or `known` is empty. Compares bytes in place of parsing, so that the usual case costs next
    to nothing: True is certain, False asks for a closer look.
    """
    stop, known_stop = _table_stop(data), _table_stop(known)
    at = data.find(prefix, _TABLE_AT, stop)
    while at >= 0:
        found = known.find(data[at : at + DOT.size], _TABLE_AT, known_stop)
        # A hit between two rows is chance.
        if found < 0 or (at - _TABLE_AT) % DOT.size or (found - _TABLE_AT) % DOT.size:
            return False
        at = data.find(prefix, at + DOT.size, stop)
    return True


def lives_on(data: bytes) -> bool:
    """Whether the first sibling is a value that never expires. True is certain of a sound record, of which bytes are
    looked at in place of parsing; False asks for a closer look."""
    try:
        if data.startswith(_ONE_START):
            _, expires_ms, tombstone = _TIMES.unpack_from(data, _ONE_TIMES_AT)
        else:
            entries, cloud = COUNTS.unpack_from(data, CLOCK_AT)
            at = _TABLE_AT + (entries + cloud) * DOT.size + _STAMP_AT
            _, expires_ms, tombstone = _TIMES.unpack_from(data, at)
    except struct.error:
        return False
    return not expires_ms and not tombstone


def sole_times(data: bytes) -> tuple[int, int, int] | None:
    """Stamp, expiry and whether it is a tombstone (1), of a sound record of the shape that nearly all have."""
    return _TIMES.unpack_from(data, _ONE_TIMES_AT) if data.startswith(_ONE_START) and len(data) >= _ONE_BYTES else None


def any_below(data: bytes, stamp: int) -> bool:
    """Whether a sibling's stamp is below this one. Bytes are looked at: of a malformed record it says nothing."""
    try:
        if data.startswith(_ONE_START):
            found: int = _STAMP.unpack_from(data, _ONE_TIMES_AT)[0]
            return found < stamp
        entries, cloud = COUNTS.unpack_from(data, CLOCK_AT)
        at = _TABLE_AT + (entries + cloud) * DOT.size + _STAMP_AT
        for _ in range(int.from_bytes(data[2:CLOCK_AT], "big")):
            if _STAMP.unpack_from(data, at)[0] < stamp:
                return True
            at += _HEAD.size
    except struct.error:
        return True
    return False


def _table_stop(data: bytes) -> int:
    return _TABLE_AT + (int.from_bytes(data[6:8], "big") + int.from_bytes(data[8:12], "big")) * DOT.size


def _one(
    actor: Actor, known: int, counter: int, stamp: int, expires_ms: int, op_id: bytes, value: bytes | None
) -> bytes:
    if value is None:
        return _ONE.pack(RECORD_VERSION, 0, 1, 1, 0, actor, known, 0, counter, stamp, expires_ms, op_id, _TOMBSTONE, 0)
    return (
        _ONE.pack(RECORD_VERSION, 0, 1, 1, 0, actor, known, 0, counter, stamp, expires_ms, op_id, 0, len(value)) + value
    )


def _parse_one(data: bytes) -> tuple[Dot, int, int, int, bytes, bool]:
    """Dot, known counter of its actor, stamp, expiry, operation id, tombstone; of data with the one-sibling start."""
    _, _, _, _, _, actor, known, index, counter, stamp, expires_ms, op_id, flags, size = _ONE.unpack_from(data)
    if index or not 0 < counter <= known or flags > 1 or stamp > STAMP_MAX:
        raise RecordError("malformed sibling")
    if size != len(data) - _ONE_BYTES or (flags and size):
        raise RecordError("value length disagrees with the record's")
    return (actor, counter), known, stamp, expires_ms, op_id, flags == 1


def _parse_start(data: bytes) -> tuple[CausalClock, int, int]:
    """The clock, the number of siblings and the offset of the first head."""
    if len(data) < _START.size:
        raise RecordError("record cut off")
    version, flags, siblings = _START.unpack_from(data)
    if version != RECORD_VERSION or flags:
        raise RecordError(f"unknown record version {version} or flags {flags}")
    try:
        clock, at = parse(data, CLOCK_AT)
    except ClockError as error:
        raise RecordError(str(error)) from None
    return clock, siblings, at


def _parse_heads(data: bytes, clock: CausalClock, siblings: int, at: int) -> dict[Dot, Head]:
    start = at + siblings * _HEAD.size
    if start > len(data):
        raise RecordError("record cut off")
    entries = list(clock.vector.items())
    cloud = sorted(clock.cloud)
    heads: dict[Dot, Head] = {}
    previous: tuple[bytes, int] = (b"", 0)
    for index, counter, stamp, expires_ms, op_id, flags, size in _HEAD.iter_unpack(data[at:start]):
        if index < len(entries):
            actor, known = entries[index]
            if not 0 < counter <= known:
                raise RecordError("sibling not covered by the clock")
        elif index - len(entries) < len(cloud):
            actor, known = cloud[index - len(entries)]
            if counter != known:
                raise RecordError("sibling not covered by the clock")
        else:
            raise RecordError("sibling of an unknown actor")
        dot = (actor, counter)
        if dot <= previous:
            raise RecordError("siblings out of order")
        if flags > 1 or stamp > STAMP_MAX or (flags and size):
            raise RecordError("malformed sibling")
        heads[dot] = Head(stamp, expires_ms, op_id, flags == 1, start, size)
        previous = dot
        start += size
    if start != len(data):
        raise RecordError("value lengths disagree with the record's")
    return heads
