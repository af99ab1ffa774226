"""The truth of the purge model: which writes there were, what each had seen, and what destroyed stores excuse.

Two excuses there are, and each names the writes it is for:

- **Lost**: the last store that held the write, or knew of it, as safely as the bucket promises, was destroyed. Then it
  may be gone, and what it had covered may be seen. Below the horizon only who vouches counts as a holder, unless
  nobody does. Destroyed is also what a store gave up because another had confirmed it, and had lost it unnoticed since.
- **Undone**: no owner vouched any more, and no owner's record knew of this deletion or expired value below the horizon.
  Then what it had covered may be seen again, for nobody could tell; nothing may be gone for that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from leafdb.model.clock import CausalClock, Dot
from leafdb.model.live import live
from leafdb.model.purge import NEVER, death_of
from leafdb.model.record import clock_of, decode, header
from leafdb.sim.purge_node import MARK, Place, PurgeNode, Value, bytes_of
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
    strict: bool = False
    """Acknowledged by two owners: who asks two owners is shown nothing that it covers."""
    unsure: bool = False
    """One of these has lost it since, and does not know."""
    lost: bool = False
    undone: bool = False


class PurgeOracle:
    """All keys of one history; a set of writes is an integer with a bit for each."""

    def __init__(self, conflict: Conflict) -> None:
        self.conflict = conflict
        self.writes: list[Write] = []
        self._number: dict[tuple[int, Dot], int] = {}
        self._covered: dict[tuple[int, bytes], tuple[int, int]] = {}
        """By version of a record: how many writes there were when that was last asked, and which of them it covers."""

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

    def held(
        self,
        nodes: Iterable[PurgeNode],
        owners: Collection[int],
        leftover: Collection[int],
        horizon: int,
        *,
        periodic: bool,
    ) -> int:
        """The writes that some store knows, and will after a crash (`periodic`: a kill, not a power cut).

        A store in `leftover` offers what it has, as one does that keeps copies for others.
        """
        old = 0
        for number, write in enumerate(self.writes):
            if write.stamp < horizon:
                old |= 1 << number
        held = unsure = 0
        sure = False
        for node in nodes:
            owner = node.id in owners
            vouches = owner and _mark(node.store.synced) >= max(horizon, node.horizon)
            sure = sure or vouches
            for place, value in node.store.data.items():
                record = bytes_of(value)
                own = place[0] == "r" and owner
                if record is None or not (own or place[0] == "h" or node.id in leftover):
                    continue
                known = self._known(place[1], record)
                if not periodic and (durable := bytes_of(node.store.synced.get(place))) is not record:
                    known &= self._known(place[1], durable) if durable else 0
                held |= known if vouches and own else known & ~old
                unsure |= known if own else 0
        return held if sure else held | unsure

    def _known(self, key: int, record: bytes) -> int:
        upto, known = self._covered.get((key, record), (0, 0))
        if upto < len(self.writes):
            covers = clock_of(record).covers
            for number in range(upto, len(self.writes)):
                if self.writes[number].key == key and covers(self.writes[number].dot):
                    known |= 1 << number
            self._covered[key, record] = len(self.writes), known
        return known

    def lost(self, writes: int) -> None:
        """Nobody holds them any more."""
        for number in bits(writes):
            self.writes[number].lost = True

    def unsure(self, key: int, record: bytes | None) -> None:
        """An owner has lost the record, and does not know: what it is asked it answers as if that had never been."""
        for number in bits(self._known(key, record) if record is not None else 0):
            self.writes[number].unsure = True

    def unsure_writes(self) -> int:
        """Those of which some store says wrongly that it has them."""
        return sum(1 << number for number, write in enumerate(self.writes) if write.unsure)

    def nobody_can_tell(self, horizon: int, owners: Iterable[PurgeNode], keys: int) -> None:
        """No owner vouched any more, and all gave each other everything: this is what they have."""
        known = 0
        for node in owners:
            for key in range(keys):
                if (record := node.record(key)) is not None:
                    known |= self._known(key, record)
        dead = 0
        for number, write in enumerate(self.writes):
            if write.stamp < horizon and write.dies < horizon and not known >> number & 1:
                dead |= 1 << number | write.past & ~known
        for number in bits(dead):
            self.writes[number].undone = True

    # -- what readers see

    def visible(self, key: int, record: bytes | None, now_ms: int) -> int:
        """The writes a reader is shown."""
        shown = 0
        if record is not None:
            for dot, _ in live(decode(record), now_ms, self.conflict):
                shown |= 1 << self._number[key, dot]
        return shown

    def check_known(self, number: int, value: Value, who: str) -> None:
        """Who is about to confirm a write has it, or what covers it."""
        record = bytes_of(value)
        known = record is not None and clock_of(record).covers(self.writes[number].dot)
        require(known, Invariant.SURVIVES_STORES, f"{who} confirms write {number} and knows nothing of it")

    def check_seen(self, key: int, visible: int, acked: int) -> None:
        """Nothing is shown that one of these acknowledged writes had covered."""
        for number in bits(acked):
            write = self.writes[number]
            back = write.past & visible
            if back and write.key == key and not write.lost and not write.undone:
                require(not back, Invariant.DELETIONS_STAY, f"write {number} covered {list(bits(back))}, shown again")

    def check_end(self, key: int, visible: int, now: int) -> None:
        """After healing: nothing covered is back, nothing acknowledged and not covered is gone."""
        self.check_seen(key, visible, self.acked())
        for number, write in enumerate(self.writes):
            if write.key != key or not write.acked or write.lost or write.dies <= now or visible >> number & 1:
                continue
            excuse = any(
                later.past >> number & 1 and (later.dies != NEVER or later.lost or visible >> at & 1)
                for at, later in enumerate(self.writes)
            )
            if self.conflict is Conflict.LWW:
                excuse = excuse or any(
                    (other.stamp, other.dot) > (write.stamp, write.dot) for other in self.writes if other.key == key
                )
            require(excuse, Invariant.NOTHING_LOST, f"write {number} was acknowledged, and is gone")

    def acked(self, *, strict: bool = False) -> int:
        """The acknowledged writes."""
        return sum(
            1 << number
            for number, write in enumerate(self.writes)
            if write.acked and (not strict or (write.strict and not write.unsure))
        )


def _mark(data: dict[Place, Value]) -> int:
    mark = data.get(MARK)
    return mark if isinstance(mark, int) else -1
