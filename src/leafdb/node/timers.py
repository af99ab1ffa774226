"""One coarse timing wheel for the deadlines of everything on the request path.

A cancel scope costs 7 us and a task 19 us; a put lives a millisecond. So deadlines are slots of a wheel: adding and
removing is a dictionary operation, and one task turns the wheel when the next slot is due: every `tick_s` on a node
that works, as seldom as its timers ask on one that is idle. An entry fires at most one tick late and never early.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Final, Protocol

import trio

TICK_S = 0.01
NEVER: Final = 1 << 62
"""A slot that is not due."""


class Timed(Protocol):
    """Something with a deadline in the wheel. `slot` belongs to the wheel."""

    slot: int

    def expired(self) -> None:
        """The deadline passed; the entry has left the wheel."""


class TimingWheel:
    """Slots of entries by tick number. Insertion order within a slot keeps runs repeatable."""

    def __init__(self, now: Callable[[], float], tick_s: float = TICK_S) -> None:
        self._now = now
        self._tick_s = tick_s
        self._slots: dict[int, dict[Timed, None]] = {}
        self._order: list[int] = []  # a heap of the slots
        self._alarm: trio.CancelScope | None = None
        self._alarm_slot = -1  # below every slot: who waits for no slot needs not be told of one
        self._done = math.floor(now() / tick_s)

    def add(self, entry: Timed, deadline: float) -> None:
        """Fire `entry.expired()` at the first tick at or after `deadline` (seconds on the node's clock; infinity:
        never)."""
        if deadline == math.inf:
            return
        slot = int(deadline / self._tick_s) + 1
        if slot <= self._done:
            slot = self._done + 1
        entry.slot = slot
        entries = self._slots.get(slot)
        if entries is None:
            self._slots[slot] = {entry: None}
            heapq.heappush(self._order, slot)
            if slot < self._alarm_slot:
                self._set_alarm(slot)
        else:
            entries[entry] = None

    def remove(self, entry: Timed) -> None:
        """Forget an entry; harmless when it has fired or was never added."""
        entries = self._slots.get(entry.slot)
        if entries is not None:
            entries.pop(entry, None)

    def turn(self) -> None:
        """Fire everything that is due."""
        current = math.floor(self._now() / self._tick_s)
        self._done = current
        while self._order and self._order[0] <= current:
            slot = heapq.heappop(self._order)
            entries = self._slots[slot]  # it stays in place, so that one that fires can take others out
            while entries:
                entry = next(iter(entries))
                del entries[entry]
                entry.expired()
            del self._slots[slot]

    def __len__(self) -> int:
        return sum(len(entries) for entries in self._slots.values())

    async def run(self) -> None:
        """Turn the wheel for ever."""
        while True:
            self.turn()
            with trio.CancelScope() as self._alarm:
                self._set_alarm(self._order[0] if self._order else NEVER)
                await trio.sleep_forever()

    def _set_alarm(self, slot: int) -> None:
        """Turn when this slot is due: a little into it, since a product of floats may lie before the tick it means."""
        assert self._alarm is not None
        self._alarm_slot = slot
        wait_s = (slot + 0.01) * self._tick_s - self._now()
        self._alarm.deadline = trio.current_time() + wait_s if slot != NEVER else math.inf

    def check(self) -> None:
        """Every entry stands in the slot it remembers, and no due slot was forgotten."""
        assert sorted(self._order) == sorted(self._slots)
        for slot, entries in self._slots.items():
            assert slot > self._done
            assert all(entry.slot == slot for entry in entries)
