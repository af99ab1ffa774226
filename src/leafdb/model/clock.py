"""Causal clocks: sets of dots. One structure for contexts and for records (docs/decisions/0003).

A dot is (actor, counter), counter from 1: one write. A clock is a set of dots, held as a *vector* (actor -> n, standing
for the dots 1 to n) and a *cloud* of single dots that do not touch it. A vector alone would not do: a context covers
exactly what its holder saw, and that may be the fifth dot of an actor without the fourth; the coordinator that is
given such a context may know none of them.

An entry may stand at 0: it names an actor that has minted nothing yet. That is how a replica which found out that it
had forgotten something announces its fresh epoch (`put.adopt`). For the laws it is a dot like any other, number 0,
implied by dot 1.

Invariants, which make equal sets equal bytes: no dot of the cloud is covered by the vector or next to it (`n + 1` is
absorbed into the vector); counters in the cloud are at least 2.

Clocks are values: no method changes one, so they are shared freely, and a method may return its own object or its
argument. Encoding (also the clock part of a record; integers big-endian):

    entries u16 | cloud u32 | entries x (actor 14, counter u64), actors ascending | cloud x the same, dots ascending
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Final

from leafdb.model.actor import ACTOR_BYTES, Actor, describe

Dot = tuple[Actor, int]

DOT: Final = Struct(f">{ACTOR_BYTES}sQ")
COUNTS: Final = Struct(">HI")
COUNTER_MAX: Final = (1 << 64) - 1
NO_DOTS: Final[frozenset[Dot]] = frozenset()


class ClockError(ValueError):
    """The bytes are not the encoding of a clock."""


class CausalClock:
    """A set of dots: a version vector and a cloud of single dots. Treat as immutable."""

    __slots__ = ("_encoded", "cloud", "vector")

    def __init__(self, vector: dict[Actor, int], cloud: frozenset[Dot] = NO_DOTS, encoded: bytes | None = None) -> None:
        """The parts must be in normal form already; `from_dots` makes them so. `encoded` is what `encode` gives."""
        self.vector: dict[Actor, int] = vector
        self.cloud: frozenset[Dot] = cloud
        self._encoded = encoded

    @classmethod
    def from_dots(cls, dots: Iterable[Dot]) -> CausalClock:
        """The clock that covers exactly these dots."""
        return _normal({}, dots)

    # -- questions

    def covers(self, dot: Dot) -> bool:
        """Whether the dot is in the set."""
        return self.vector.get(dot[0], 0) >= dot[1] or dot in self.cloud

    def descends(self, other: CausalClock) -> bool:
        """Whether this clock knows all that `other` knows, its entries at 0 included."""
        if other is self:
            return True
        get = self.vector.get
        for actor, counter in other.vector.items():
            if get(actor, -1) < counter:
                return False
        return not other.cloud or all(self.covers(dot) for dot in other.cloud)

    def covers_writes(self, other: CausalClock) -> bool:
        """Whether every write that `other` names is covered here: as `descends`, but for its entries at 0."""
        if other is self:
            return True
        get = self.vector.get
        for actor, counter in other.vector.items():
            if get(actor, 0) < counter:
                return False
        return not other.cloud or all(self.covers(dot) for dot in other.cloud)

    def knows_of(self, actor: Actor) -> int:
        """The greatest counter of `actor` named here, in the vector or alone; -1 if it is not named at all."""
        newest = self.vector.get(actor, -1)
        for cloud_actor, counter in self.cloud:
            if cloud_actor == actor and counter > newest:
                newest = counter
        return newest

    def __bool__(self) -> bool:
        return bool(self.vector) or bool(self.cloud)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CausalClock):
            return NotImplemented
        return self.vector == other.vector and self.cloud == other.cloud

    def __hash__(self) -> int:
        return hash(self.encode())

    def __repr__(self) -> str:
        parts = [f"{describe(actor)}:{counter}" for actor, counter in sorted(self.vector.items())]
        parts += [f"+{describe(actor)}:{counter}" for actor, counter in sorted(self.cloud)]
        return f"<clock {' '.join(parts)}>" if parts else "<clock empty>"

    # -- new clocks

    def add(self, dot: Dot) -> CausalClock:
        """This clock and one dot more: a new clock, or this one when it covers the dot."""
        actor, counter = dot
        known = self.vector.get(actor, 0)
        if counter <= known or dot in self.cloud:
            return self
        if not self.cloud and counter == known + 1:
            vector = dict(self.vector)
            vector[actor] = counter
            return CausalClock(vector)
        return _normal(self.vector, (*self.cloud, dot))

    def add_entry(self, actor: Actor) -> CausalClock:
        """This clock with an entry for `actor`, at 0 unless it has one."""
        if actor in self.vector:
            return self
        return CausalClock({**self.vector, actor: 0}, self.cloud)

    def merge(self, other: CausalClock) -> CausalClock:
        """The union. Returns `self` when that covers `other`, `other` when that covers `self`."""
        if self.descends(other):
            return self
        if other.descends(self):
            return other
        vector = dict(self.vector)
        for actor, counter in other.vector.items():
            if vector.get(actor, -1) < counter:
                vector[actor] = counter
        if not self.cloud and not other.cloud:
            return CausalClock(vector)
        return _normal(vector, self.cloud | other.cloud)

    # -- bytes

    def encode(self) -> bytes:
        """The canonical encoding: equal clocks, equal bytes."""
        encoded = self._encoded
        if encoded is None:
            vector, cloud, pack = self.vector, self.cloud, DOT.pack
            parts = [COUNTS.pack(len(vector), len(cloud))]
            parts += [pack(actor, counter) for actor, counter in sorted(vector.items())]
            if cloud:
                parts += [pack(actor, counter) for actor, counter in sorted(cloud)]
            encoded = self._encoded = b"".join(parts)
        return encoded

    @classmethod
    def decode(cls, data: bytes) -> CausalClock:
        """The clock that `data` is. Raises ClockError."""
        clock, end = parse(data, 0)
        if end != len(data):
            raise ClockError("bytes after the clock")
        return clock

    def check(self) -> None:
        """Raises AssertionError when an invariant is broken."""
        for actor, counter in self.vector.items():
            assert len(actor) == ACTOR_BYTES
            assert 0 <= counter <= COUNTER_MAX
        for actor, counter in self.cloud:
            assert len(actor) == ACTOR_BYTES
            assert self.vector.get(actor, 0) + 1 < counter <= COUNTER_MAX
        if self._encoded is not None:
            assert CausalClock(self.vector, self.cloud).encode() == self._encoded


EMPTY: Final = CausalClock({})
"""The clock of no dots: nothing known, or a blind write's context."""


def parse(data: bytes, start: int) -> tuple[CausalClock, int]:
    """The clock at `start` and the offset after it. Raises ClockError unless it is whole and in normal form."""
    if start + COUNTS.size > len(data):
        raise ClockError("clock cut off")
    entries, singles = COUNTS.unpack_from(data, start)
    at = start + COUNTS.size
    middle = at + entries * DOT.size
    end = middle + singles * DOT.size
    if end > len(data):
        raise ClockError("clock cut off")
    vector: dict[Actor, int] = dict(DOT.iter_unpack(data[at:middle]))
    if entries > 1 and (len(vector) != entries or list(vector) != sorted(vector)):
        raise ClockError("clock entries out of order")
    cloud = _parse_cloud(data[middle:end], vector) if singles else NO_DOTS
    return CausalClock(vector, cloud, data[start:end]), end


def _parse_cloud(data: bytes, vector: dict[Actor, int]) -> frozenset[Dot]:
    dots: list[Dot] = list(DOT.iter_unpack(data))
    cloud = frozenset(dots)
    if len(cloud) != len(dots) or dots != sorted(dots):
        raise ClockError("single dots out of order")
    for actor, counter in dots:
        if counter <= vector.get(actor, 0) + 1:
            raise ClockError("single dot that belongs into the vector")
    return cloud


def _normal(vector: dict[Actor, int], dots: Iterable[Dot]) -> CausalClock:
    """The clock of `vector` and `dots`: dots that touch the vector are absorbed, covered ones dropped."""
    vector = dict(vector)
    loose: list[Dot] = []
    for actor, counter in sorted(dots):
        known = vector.get(actor, 0)
        if counter == known + 1:
            vector[actor] = counter
        elif counter > known:
            loose.append((actor, counter))
    return CausalClock(vector, frozenset(loose))
