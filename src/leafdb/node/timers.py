"""One coarse timing wheel for the deadlines of everything on the request path.

A cancel scope costs 7 us and a task 19 us; a put lives a millisecond. So deadlines are slots of a wheel: adding and
removing is a dictionary operation, and one task turns the wheel every `tick_s`. An entry fires at most one tick late
and never early.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import trio

TICK_S = 0.01


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
        if current - self._done > len(self._slots):
            due = sorted(slot for slot in self._slots if slot <= current)
        else:
            due = [slot for slot in range(self._done + 1, current + 1) if slot in self._slots]
        self._done = current
        for slot in due:
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
            await trio.sleep(self._tick_s)
            self.turn()

    def check(self) -> None:
        """Every entry stands in the slot it remembers, and no due slot was forgotten."""
        for slot, entries in self._slots.items():
            assert slot > self._done
            assert all(entry.slot == slot for entry in entries)
