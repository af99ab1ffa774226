"""Keeps every shared range younger than a promised age: what nothing has compared for long is compared in its turn.

A range is due when it was last proved equal longer ago than an eighth of the promise, the oldest first, at a rate that
goes once round all ranges in three quarters of it. So the load is even, a range is compared a little more often than it
must be, and none is older than seven eighths of the promise while its owners are there. Of a pair of nodes one begins:
for even partitions the one with the lower number, for odd ones the other; what grows too old nevertheless is begun by
both.

What is due becomes debts (`debts`) and is worked off like any other, at the pace of background work. But these come
last: none are made while others wait that can be worked off, never more than AT_ONCE, and they are no trouble of the
cluster: `pending` of anti-entropy does not count them. Who cannot be reached owes and is owed everything anyway
(`anti_entropy`); a range past its age is told with the reason.

Pausing it stops this and nothing else: what is owed for a reason goes on. Both that and another age than the configured
one are kept over restarts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import trio

from leafdb.codec import cbor
from leafdb.codec.fields import as_bool, as_int, as_map, map_field
from leafdb.limits import DIVERGENCE_AGE_S_MAX, DIVERGENCE_AGE_S_MIN
from leafdb.node.debts import Debts, Entry, Masks
from leafdb.node.logs import Log
from leafdb.node.repair_ages import RepairAges, Slot
from leafdb.node.shared_ranges import SharedRanges
from leafdb.node.units import about, duration_text
from leafdb.types import NodeId

SCHEDULE: Final = 17
"""The key in the CHECKPOINTS tree."""
DUE_SHARE: Final = 1 / 8
ROUND_SHARE: Final = 3 / 4
LATE_SHARE: Final = 15 / 16
"""Of the promised age: due, once round, and when both sides begin."""
AT_ONCE: Final = 16
"""Debts of the schedule that are not worked off yet."""
TICK_S_MIN: Final = 0.5
TICK_S_MAX: Final = 60.0
SAVE_S: Final = 60.0

log: Log = Log("repair_schedule")


class TooOld(NamedTuple):
    """Ranges shared with one peer that are older than is promised."""

    peer: NodeId
    ranges: int
    oldest_s: float
    why: str


class RepairSchedule:
    """See the top of this file. `owe` makes debts that have no task; `why` says what keeps a peer from being exchanged
    with now, empty when nothing does."""

    def __init__(
        self,
        *,
        ages: RepairAges,
        shared: SharedRanges,
        debts: Debts,
        self_id: Callable[[], NodeId],
        name_of: Callable[[NodeId], str],
        owe: Callable[[Masks], None],
        why: Callable[[NodeId], str],
        write: Callable[[Sequence[Entry]], None],
        now: Callable[[], float],
        now_ms: Callable[[], int],
        age_max_s: float,
    ) -> None:
        self._ages = ages
        self._shared = shared
        self._debts = debts
        self._self_id = self_id
        self._name_of = name_of
        self._owe = owe
        self._why = why
        self._write = write
        self._now = now
        self._now_ms = now_ms
        self._configured_s = age_max_s
        self._set_s = 0.0
        self.paused: bool = False
        self._made: dict[Slot, int] = {}
        """Debts that nobody but the schedule has asked for."""
        self._credit = 0.0
        self._ticked_at = now()
        self._saved_at = now()
        self._seen = -1
        ages.promise(self.age_max_ms)

    # -- what is promised

    @property
    def age_max_s(self) -> float:
        """The promised age."""
        return self._set_s or self._configured_s

    @property
    def age_max_ms(self) -> int:
        """The same in milliseconds."""
        return int(self.age_max_s * 1000)

    def load(self, value: bytes) -> None:
        """Take what was set before the restart. ValueError when it is malformed."""
        fields = as_map(cbor.loads(value), "the schedule of repairs")
        self._set_s = as_int(map_field(fields, "age_s"), "age_s", high=int(DIVERGENCE_AGE_S_MAX))
        self.paused = as_bool(map_field(fields, "paused"), "paused")
        self._ages.promise(self.age_max_ms)

    def set_age(self, age_s: int) -> None:
        """Promise another age than the configured one; 0: that one again. ValueError when it is out of bounds."""
        if age_s and not DIVERGENCE_AGE_S_MIN <= age_s <= DIVERGENCE_AGE_S_MAX:
            low, high = duration_text(DIVERGENCE_AGE_S_MIN), duration_text(DIVERGENCE_AGE_S_MAX)
            raise ValueError(f"an age lies between {low} and {high}")
        self._set_s = float(age_s)
        self._ages.promise(self.age_max_ms)
        self._store()

    def pause(self, paused: bool) -> None:  # the name says it
        """Begin nothing by itself any more, or again."""
        self.paused = paused
        log.info("the schedule of repairs is paused" if paused else "the schedule of repairs goes on")
        self._store()

    def _store(self) -> None:
        value = cbor.dumps({"age_s": int(self._set_s), "paused": self.paused})
        self._write([(bytes((SCHEDULE,)), value)])

    # -- the task

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            wait_s = self.tick()
            await trio.sleep(wait_s)

    def tick(self) -> float:
        """Make debts of what is due; seconds until the next time."""
        now, elapsed_s = self._now(), self._now() - self._ticked_at
        self._ticked_at = now
        self._refresh()
        if now - self._saved_at >= SAVE_S:
            self._saved_at = now
            self._ages.save()
        total = self._ages.total
        if self.paused or not total:
            self._credit = 0.0
            return TICK_S_MAX
        # This node begins half of them; all, when the other sides do not begin theirs.
        late = self.oldest_s() > LATE_SHARE * self.age_max_s
        per_s = total * (1.0 if late else 0.5) / (ROUND_SHARE * self.age_max_s)
        self._credit = min(self._credit + elapsed_s * per_s, float(AT_ONCE))
        room = self._room()
        if self._credit >= 1.0 and room > 0:
            self._credit -= self._begin(min(int(self._credit), room))
        return min(TICK_S_MAX, max(TICK_S_MIN, AT_ONCE / 4 / per_s))

    def _refresh(self) -> None:
        """Follow the ring and the buckets, and what of the schedule's debts is worked off."""
        seen = self._shared.epoch
        if seen != self._seen:
            self._seen = seen
            self._ages.keep(self._shared.with_all(), self._now_ms())
        left = {slot: mask & self._debts.mask(*slot) for slot, mask in self._made.items()}
        self._made = {slot: mask for slot, mask in left.items() if mask}

    def _room(self) -> int:
        """How many debts may be made: none before others that can be worked off."""
        others = sum(
            mask.bit_count()
            for peer in self._debts.peers()
            if not self._why(peer)
            for mask in self._debts.buckets(peer).values()
        )
        return AT_ONCE - self.pending if others <= self.pending else 0

    def _begin(self, most: int) -> int:
        """Make debts of the oldest ranges that are due; how many."""
        now_ms, age_ms = self._now_ms(), self.age_max_ms
        due_ms, late_ms = now_ms - int(age_ms * DUE_SHARE), now_ms - int(age_ms * LATE_SHARE)
        masks: dict[Slot, int] = {}
        count = 0
        for oldest_ms, slot in self._ages.by_age():
            if oldest_ms >= due_ms or count == most:
                break
            if not self._why(slot[0]):
                masks[slot] = self._oldest(slot, due_ms, late_ms, most - count)
                count += masks[slot].bit_count()
        for slot, mask in masks.items():
            self._made[slot] = self._made.get(slot, 0) | mask
        if count:
            self._owe(masks)
        return count

    def _oldest(self, slot: Slot, due_ms: int, late_ms: int, most: int) -> int:
        """Of one peer and bucket at most so many ranges of one moment, the oldest there are for this node to begin."""
        busy = self._debts.mask(*slot) | self._debts.claimed(*slot)
        for moment, mask in self._ages.moments(slot):
            if moment >= due_ms:
                break
            mask &= ~busy
            if moment >= late_ms:
                mask = begun_here(self._self_id(), slot[0], mask)
            taken = 0
            while mask and taken.bit_count() < most:
                taken |= mask & -mask
                mask &= mask - 1
            if taken:
                return taken
        return 0

    # -- the debts it has made

    @property
    def pending(self) -> int:
        """Debts that are owed for no other reason than the promised age."""
        return sum((mask & self._debts.mask(*slot)).bit_count() for slot, mask in self._made.items())

    def compare(self, masks: Masks) -> None:
        """Have these compared in their turn, for somebody who needs that soon: like what is due, they are no task and
        no trouble."""
        for slot, mask in masks.items():
            self._made[slot] = self._made.get(slot, 0) | mask & ~self._debts.mask(*slot)
        self._owe(masks)

    def made(self, slot: Slot) -> int:
        """What of a peer and bucket is owed for no other reason, or was."""
        return self._made.get(slot, 0)

    def taken_over(self, masks: Masks) -> None:
        """These are owed for another reason from now on."""
        for slot, mask in masks.items():
            if slot in self._made:
                self._made[slot] &= ~mask

    # -- for people

    def oldest_s(self) -> float:
        """The age of the oldest proof; 0 when nothing is shared."""
        oldest_ms = self._ages.oldest_ms()
        return 0.0 if oldest_ms is None else max(0.0, (self._now_ms() - oldest_ms) / 1000)

    def too_old(self) -> list[TooOld]:
        """What is older than is promised, by peer, and why."""
        counts: dict[NodeId, int] = {}
        now_ms = self._now_ms()
        for (peer, _), mask in self._ages.older_than(now_ms - self.age_max_ms - self._ages.grain_ms).items():
            counts[peer] = counts.get(peer, 0) + mask.bit_count()
        found = []
        for peer, ranges in sorted(counts.items()):
            oldest_ms = self._ages.oldest_ms(peer)
            assert oldest_ms is not None
            why = self._why(peer) or ("the schedule is paused" if self.paused else "others come first")
            found.append(TooOld(peer, ranges, (now_ms - oldest_ms) / 1000, why))
        return found

    def problems(self) -> list[str]:
        """The same in words."""
        promised = duration_text(self.age_max_s)
        return [
            f"{line.ranges} ranges shared with {self._name_of(line.peer)} were last compared "
            f"{about(line.oldest_s)} ago, {promised} is promised: {line.why}"
            for line in self.too_old()
        ]

    def report(self) -> dict[str, Any]:
        """For `repair status` and `repair schedule`."""
        now_ms = self._now_ms()
        shared = self._ages.total
        due = self._ages.older_than(now_ms - int(self.age_max_ms * DUE_SHARE))
        return {
            "age_max_s": self.age_max_s,
            "configured_s": self._configured_s,
            "set": bool(self._set_s),
            "paused": self.paused,
            "ranges": shared,
            "due": sum(mask.bit_count() for mask in due.values()),
            "under_way": self.pending,
            "oldest_s": self.oldest_s(),
            "over_age": [
                {"peer": self._name_of(line.peer), "ranges": line.ranges, "oldest_s": line.oldest_s, "why": line.why}
                for line in self.too_old()
            ],
        }


def begun_here(own: NodeId, peer: NodeId, mask: int) -> int:
    """Of these partitions those for which `own` begins and not `peer`."""
    evens = int.from_bytes(b"\x55" * ((mask.bit_length() + 7) // 8), "little")
    return mask & evens if own < peer else mask & ~evens


assert DUE_SHARE + ROUND_SHARE < LATE_SHARE < 1.0, "a whole round fits between due and late"
