"""Deadlines fire at most one tick late and never early, once, in the order in which they were set."""

from __future__ import annotations

import math
from random import Random

import pytest

from leafdb.node.timers import TimingWheel

TICK_S = 0.01


class Clock:
    """Seconds, set by the test."""

    def __init__(self) -> None:
        self.now_s = 5.0

    def __call__(self) -> float:
        return self.now_s


class Entry:
    """Remembers when it fired."""

    def __init__(self, clock: Clock, fired: list[Entry]) -> None:
        self.slot = 0
        self.deadline = math.inf
        self.at: list[float] = []
        self._clock = clock
        self._fired = fired

    def expired(self) -> None:
        self.at.append(self._clock.now_s)
        self._fired.append(self)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_an_entry_fires_once_and_never_early_and_within_a_tick_of_the_turns(clock: Clock) -> None:
    rng = Random(1)
    wheel = TimingWheel(clock, TICK_S)
    fired: list[Entry] = []
    entries = []
    for _ in range(400):
        clock.now_s += rng.expovariate(1 / 0.02)
        entry = Entry(clock, fired)
        entry.deadline = clock.now_s + rng.choice((0.0, rng.random() * 0.2, rng.random() * 5))
        wheel.add(entry, entry.deadline)
        entries.append(entry)
        if rng.random() < 0.5:
            wheel.turn()
            wheel.check()
    while len(wheel):
        clock.now_s += TICK_S
        wheel.turn()
        wheel.check()
    for entry in entries:
        (at,) = entry.at
        assert at >= entry.deadline
    assert len(fired) == len(entries)


def test_turning_every_tick_is_late_by_one_tick_at_most(clock: Clock) -> None:
    wheel = TimingWheel(clock, TICK_S)
    fired: list[Entry] = []
    for number in range(200):
        entry = Entry(clock, fired)
        entry.deadline = clock.now_s + number * 0.0037
        wheel.add(entry, entry.deadline)
    for _ in range(100):
        clock.now_s += TICK_S
        wheel.turn()
    assert len(fired) == 200
    assert all(entry.at[0] - entry.deadline <= 2 * TICK_S + 1e-9 for entry in fired)
    assert [entry.deadline for entry in fired] == sorted(entry.deadline for entry in fired)


def test_entries_can_be_taken_out_before_and_after_and_set_again(clock: Clock) -> None:
    wheel = TimingWheel(clock, TICK_S)
    fired: list[Entry] = []
    entry, other = Entry(clock, fired), Entry(clock, fired)
    wheel.remove(entry)
    wheel.add(entry, clock.now_s + 1)
    wheel.add(other, math.inf)
    assert len(wheel) == 1
    wheel.remove(entry)
    wheel.remove(entry)
    clock.now_s += 2
    wheel.turn()
    assert fired == []
    wheel.add(entry, clock.now_s)
    clock.now_s += 1
    wheel.turn()
    wheel.remove(entry)
    assert fired == [entry]


def test_an_entry_that_sets_itself_again_in_the_past_waits_for_the_next_turn(clock: Clock) -> None:
    wheel = TimingWheel(clock, TICK_S)

    class Again(Entry):
        def expired(self) -> None:
            super().expired()
            wheel.add(self, 0.0)

    fired: list[Entry] = []
    entry = Again(clock, fired)
    wheel.add(entry, clock.now_s)
    for turns in range(1, 4):
        clock.now_s += 1
        wheel.turn()
        assert len(fired) == turns


def test_one_that_fires_may_take_its_neighbours_out(clock: Clock) -> None:
    wheel = TimingWheel(clock, TICK_S)
    fired: list[Entry] = []
    second = Entry(clock, fired)

    class First(Entry):
        def expired(self) -> None:
            super().expired()
            wheel.remove(second)

    first = First(clock, fired)
    for entry in (first, second):
        wheel.add(entry, clock.now_s)
    clock.now_s += 1
    wheel.turn()
    assert fired == [first]


def test_a_loop_that_stood_still_for_an_hour_catches_up_in_order(clock: Clock) -> None:
    wheel = TimingWheel(clock, TICK_S)
    fired: list[Entry] = []
    for seconds in (3_000.0, 1.0, 0.5, 2_000.0):
        entry = Entry(clock, fired)
        entry.deadline = clock.now_s + seconds
        wheel.add(entry, entry.deadline)
    clock.now_s += 3_600
    wheel.turn()
    assert [entry.deadline - 5.0 for entry in fired] == [0.5, 1.0, 2_000.0, 3_000.0]
