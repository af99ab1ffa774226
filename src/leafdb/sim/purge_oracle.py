"""The truth of the purge model: which writes there were, what each had seen, and what destroyed stores excuse.

A write is excused when the last store that durably held it, or knew of it, was destroyed: then it may be gone, and what
it had covered may be seen. Below the horizon only who vouches counts as a holder.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from leafdb.model.clock import CausalClock, Dot
from leafdb.model.live import live
from leafdb.model.purge import NEVER, death_of
from leafdb.model.record import clock_of, decode, header
from leafdb.sim.purge_node import HORIZON, MARK, PurgeNode, bytes_of
from leafdb.sim.record_oracle import bits
from leafdb.testing.violation import Invariant, require
from leafdb.types import Conflict


@dataclass(slots=True)
class Write:
    """One mint."""

    key: int
    dot: Dot
    stamp: int
    dies: int
    """The stamp from which on it is not shown; NEVER."""
    past: int
    """The writes its writer had seen."""
    acked: bool = False
    excused: bool = False


class PurgeOracle:
    """All keys of one history; a set of writes is an integer with a bit for each."""

    def __init__(self, conflict: Conflict) -> None:
        self.conflict = conflict
        self.writes: list[Write] = []
        self._number: dict[tuple[int, Dot], int] = {}
        self._covered: dict[tuple[int, bytes], tuple[int, int]] = {}
        """By version of a record: how many writes there were when that was last asked, and which of them it covers."""
        self.faulty = False
        """Whether a store has been touched."""

    def minted(self, key: int, data: bytes, dot: Dot, past: int) -> int:
        """A write there is from now on; answers its number."""
        number = len(self.writes)
        before = self._number.setdefault((key, dot), number)
        require(before == number, Invariant.DOTS_UNIQUE, f"writes {before} and {number} were given one dot")
        head = header(data).heads[dot]
        self.writes.append(Write(key, dot, head.stamp, death_of(head), past))
        return number

    def known(self, key: int, clock: CausalClock) -> int:
        """The writes a clock covers."""
        covers, known = clock.covers, 0
        for number, write in enumerate(self.writes):
            if write.key == key and covers(write.dot):
                known |= 1 << number
        return known

    # -- stores that are lost

    def held(self, nodes: Iterable[PurgeNode], owners: Iterable[int], horizon: int) -> int:
        """The acknowledged writes that some durable store knows."""
        wanted = old = held = 0
        for number, write in enumerate(self.writes):
            if write.acked and not write.excused:
                wanted |= 1 << number
                if write.stamp < horizon:
                    old |= 1 << number
        for node in nodes:
            durable = node.store.synced
            mark = durable.get(MARK)
            vouches = isinstance(mark, int) and mark >= max(horizon, int(durable.get(HORIZON) or 0))
            for (kind, key, _), value in durable.items():
                record = bytes_of(value)
                if record is None or (kind == "r" and node.id not in owners):
                    continue
                known = self._known(key, record)
                held |= known if kind == "r" and vouches else known & ~old
        return held & wanted

    def _known(self, key: int, record: bytes) -> int:
        upto, known = self._covered.get((key, record), (0, 0))
        if upto < len(self.writes):
            covers = clock_of(record).covers
            for number in range(upto, len(self.writes)):
                if self.writes[number].key == key and covers(self.writes[number].dot):
                    known |= 1 << number
            self._covered[key, record] = len(self.writes), known
        return known

    def lost(self, before: int, after: int) -> None:
        """What was held before and is not any more is excused."""
        for number in bits(before & ~after):
            self.writes[number].excused = True

    def forgotten_by_all(self, horizon: int) -> None:
        """No owner vouched any more: what had been forgotten below the horizon nobody can tell from what was lost."""
        dead = 0
        for number, write in enumerate(self.writes):
            if write.stamp < horizon and write.dies != NEVER:
                dead |= 1 << number | write.past
        for number in bits(dead):
            self.writes[number].excused = True

    # -- what readers see

    def visible(self, key: int, record: bytes | None, now_ms: int) -> int:
        """The writes a reader is shown."""
        shown = 0
        if record is not None:
            for dot, _ in live(decode(record), now_ms, self.conflict):
                shown |= 1 << self._number[key, dot]
        return shown

    def check_seen(self, key: int, visible: int, acked: int) -> None:
        """Nothing is shown that one of these acknowledged writes had covered."""
        for number in bits(acked):
            write = self.writes[number]
            back = write.past & visible
            if write.key == key and not write.excused:
                require(not back, Invariant.DELETIONS_STAY, f"write {number} covered {list(bits(back))}, shown again")

    def check_end(self, key: int, visible: int, now: int) -> None:
        """After healing: nothing covered is back, nothing acknowledged and not covered is gone."""
        self.check_seen(key, visible, self.acked())
        for number, write in enumerate(self.writes):
            if write.key != key or not write.acked or write.excused or write.dies <= now or visible >> number & 1:
                continue
            excuse = any(
                later.past >> number & 1 and (later.dies != NEVER or later.excused or visible >> at & 1)
                for at, later in enumerate(self.writes)
            )
            if self.conflict is Conflict.LWW:
                excuse = excuse or any(
                    (other.stamp, other.dot) > (write.stamp, write.dot) for other in self.writes if other.key == key
                )
            require(excuse, Invariant.NOTHING_LOST, f"write {number} was acknowledged, and is gone")

    def acked(self) -> int:
        """The acknowledged writes."""
        return sum(1 << number for number, write in enumerate(self.writes) if write.acked)
