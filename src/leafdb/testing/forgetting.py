"""What of a key may be missing because it was forgotten by right, and what may not be shown again although it was.

Where tombstones are purged the stores cannot be asked any more what a write had covered: the record that knew is gone,
with its clock. So this remembers, from outside: each dot that any store was ever given, with its stamp and its death,
and what each write had seen. From that follow the two things a judge has to know:

- **Gone by right** is a dot whose death lies below a horizon that somebody believed in for its partition; and whatever
  was covered by a write that is itself gone so. (Records go whole, and a record knows what its siblings covered.) In an
  `lww` bucket everything goes with the greatest that died. Whoever lacks such a dot is right.
- **Lost** is a dot that one store alone had when that store was destroyed. No promise of w holds it any more, and no
  owner can tell it from what was forgotten. Once a horizon has passed it, owners vouch again and a session is shown
  what is left (quorum/session_floor.py); before that it waits, and being shown less is wrong.
- **Beaten** is a shown dot by each write that had seen it (in an `lww` bucket, by each of a greater stamp). Who must
  know one that beats it must not show it: also where that one, and all that knew of it, was forgotten since.

Of a write that was sent twice, and has two dots, who covers one has seen the other (node/op_memory.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from leafdb.model.clock import EMPTY, CausalClock, Dot
from leafdb.testing.history_values import Write
from leafdb.types import Conflict


class Fate(NamedTuple):
    """What is known of one dot."""

    stamp: int
    death: int
    """The stamp from which on nobody sees it."""
    op_id: bytes


@dataclass(slots=True)
class KeyFates:
    """Of one key."""

    dots: dict[Dot, Fate] = field(default_factory=dict)
    """Every dot that a store was given."""
    by_operation: dict[bytes, list[Dot]] = field(default_factory=dict)
    asked: tuple[int, int, int] = (0, 0, 0)
    """How many dots, dead ones and writes there were when `gone` was found."""
    gone: CausalClock = EMPTY
    lost: set[Dot] = field(default_factory=set)
    """Destroyed with the only store that had them."""
    beaters: dict[Dot, tuple[int, list[Write]]] = field(default_factory=dict)
    """For each dot that was asked about: how many writes have been looked at, and those that had seen it."""


class Forgetting:
    """Of one bucket. `writes` are those to a key, in the order in which they began."""

    def __init__(self, conflict: Conflict, writes: Callable[[str], Sequence[Write]]) -> None:
        self.horizon: Callable[[str], int] = lambda key: 0
        """The newest horizon of a key's partition that anybody believes in."""
        self.heard: Callable[[str], int] = lambda key: 0
        """The newest that every member's store has been told of."""
        self._lww = conflict is Conflict.LWW
        self._writes = writes
        self._keys: dict[str, KeyFates] = {}

    def stored(self, key: str, dot: Dot, stamp: int, death: int, op_id: bytes) -> None:
        """A store was given this sibling."""
        fates = self._keys.get(key)
        if fates is None:
            fates = self._keys[key] = KeyFates()
        if dot not in fates.dots:
            fates.dots[dot] = Fate(stamp, death, op_id)
            fates.by_operation.setdefault(op_id, []).append(dot)

    def destroyed(self, key: str, had: CausalClock, left: CausalClock) -> None:
        """A store that `had` all this of a key is gone, or a part of it; all others have what is `left`."""
        fates = self._keys.get(key)
        if fates is not None:
            fates.lost.update(dot for dot in fates.dots if had.covers(dot) and not left.covers(dot))

    def dots_of(self, key: str, write: Write) -> Iterable[Dot]:
        """Every dot that a write is known to have."""
        fates = self._keys.get(key)
        stored = () if fates is None else fates.by_operation.get(write.op_id, ())
        return {*write.dots, *stored} if write.dots else stored

    # -- what may be missing

    def gone(self, key: str) -> CausalClock:
        """All dots of a key that are gone by right."""
        horizon, fates = self.horizon(key), self._keys.get(key)
        if not horizon or fates is None:
            return EMPTY
        dead = [dot for dot, fate in fates.dots.items() if fate.death < horizon]
        writes = self._writes(key)
        asked = len(fates.dots), len(dead), len(writes)
        if asked != fates.asked:
            fates.asked = asked
            fates.gone = self._beaten_by(fates, dead) if self._lww else self._known_to(key, fates, dead, writes)
        return fates.gone

    def excused(self, key: str, clock: CausalClock) -> CausalClock:
        """What who knows `clock` need not know: all that is gone by right, and what the writes in it had covered."""
        whole = self.gone(key)
        if whole:
            for write in self._writes(key):
                if write.context and any(clock.covers(dot) for dot in self.dots_of(key, write)):
                    whole = whole.merge(write.context)
        return whole

    def lost(self, key: str) -> CausalClock:
        """What was lost with a store, and that a session need not be shown any more."""
        horizon, fates = self.horizon(key), self._keys.get(key)
        if fates is None:
            return EMPTY
        return CausalClock.from_dots(dot for dot in sorted(fates.lost) if fates.dots[dot].stamp < horizon)

    def missing(self, key: str, wanted: CausalClock, clock: CausalClock) -> list[Dot]:
        """Of `wanted` what neither is in `clock` nor gone by right."""
        if clock.descends(wanted):
            return []
        excused = self.excused(key, clock)
        if not excused:
            return _lacking(clock, wanted)
        whole = clock.merge(excused)
        return [] if whole.covers_writes(wanted) else _lacking(whole, wanted, writes_only=True)

    def _beaten_by(self, fates: KeyFates, dead: list[Dot]) -> CausalClock:
        """Whatever is not newer than the newest that is dead."""
        if not dead:
            return EMPTY
        newest = max((fates.dots[dot].stamp, dot) for dot in dead)
        return CausalClock.from_dots(dot for dot, fate in fates.dots.items() if (fate.stamp, dot) <= newest)

    def _known_to(self, key: str, fates: KeyFates, dead: list[Dot], writes: Sequence[Write]) -> CausalClock:
        """The dead, and what they had covered, and what that had covered."""
        if not dead:
            return EMPTY
        buried, covered = CausalClock.from_dots(dead), EMPTY
        left = [write for write in writes if write.context]
        while True:
            gone = buried.merge(covered)
            found = [write for write in left if any(gone.covers(dot) for dot in self.dots_of(key, write))]
            before = covered
            for write in found:
                covered = covered.merge(write.context)
            for twins in fates.by_operation.values():
                if len(twins) > 1 and any(covered.covers(dot) for dot in twins):
                    covered = covered.merge(CausalClock.from_dots(twins))
            if covered == before:
                return gone
            left = [write for write in left if write not in found]

    # -- what may not be shown

    def beaters(self, key: str, dot: Dot) -> Iterator[tuple[Dot, Write | None]]:
        """The dots that beat this one, each with its write (None: nobody's that the clients know)."""
        fates = self._keys.setdefault(key, KeyFates())
        writes = self._writes(key)
        if self._lww:
            own = fates.dots.get(dot)
            if own is not None:
                by_id = {write.op_id: write for write in writes}
                for other, fate in fates.dots.items():
                    if (fate.stamp, other) > (own.stamp, dot) and fate.op_id != own.op_id:
                        yield other, by_id.get(fate.op_id)
            return
        looked_at, found = fates.beaters.get(dot, (0, []))
        if looked_at < len(writes):
            found += [write for write in writes[looked_at:] if write.context.covers(dot)]
            fates.beaters[dot] = len(writes), found
        for origin in found:
            for each in self.dots_of(key, origin):
                yield each, origin

    def beaten(self, key: str, shown: Iterable[Dot]) -> CausalClock:
        """The dots that beat any of these, and are not lost."""
        lost = self.lost(key)
        beaters = (other for dot in shown for other, _ in self.beaters(key, dot))
        return CausalClock.from_dots(other for other in beaters if not lost.covers(other))

    def stamp_of(self, key: str, dot: Dot) -> int | None:
        """The stamp of a dot; None: no store was given it."""
        fates = self._keys.get(key)
        fate = None if fates is None else fates.dots.get(dot)
        return None if fate is None else fate.stamp


def _lacking(clock: CausalClock, wanted: CausalClock, *, writes_only: bool = False) -> list[Dot]:
    """What `wanted` names and `clock` does not cover: of a row of dots the last."""
    least = 0 if writes_only else -1
    rows = [(actor, counter) for actor, counter in wanted.vector.items() if clock.vector.get(actor, least) < counter]
    return rows + [dot for dot in sorted(wanted.cloud) if not clock.covers(dot)]
