"""How fast background work goes: its share of the loop, smaller while requests suffer; and bytes a second."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from leafdb.node.pace import LATE_S, SHARE, SHARE_MIN, SLICE_S, Pace
from leafdb.node.rate_limit import RateLimit


def play(story: Callable[[], Awaitable[None]]) -> None:
    trio.run(story, clock=MockClock(autojump_threshold=0))


class Late:
    """A clock that is ahead by what the loop is late each time somebody slept."""

    def __init__(self) -> None:
        self.late_s = 0.0
        self._slept_to = 0.0
        self._added = 0.0

    def now(self) -> float:
        true = trio.current_time()
        if true > self._slept_to:
            self._slept_to = true
            self._added += self.late_s
        return true + self._added


async def work(pace: Pace, clock: Late, slices: int) -> float:
    began = clock.now()
    for _ in range(slices):
        await pace.spent(pace.begin(), 0.002)
    return clock.now() - began


def test_work_keeps_to_its_share() -> None:
    async def story() -> None:
        clock = Late()
        pace = Pace(clock.now)
        assert await work(pace, clock, 100) == pytest.approx(100 * 0.002 / SHARE)

    play(story)


@pytest.mark.parametrize(("slice_s", "over"), [(0.001, True), (SLICE_S, False)])
def test_a_slice_is_as_long_as_its_owner_has_it(slice_s: float, over: bool) -> None:
    now_s = 5.0
    pace = Pace(lambda: now_s, slice_s=slice_s)
    began = pace.begin()
    now_s += SLICE_S / 2
    assert pace.over(began) is over
    now_s += SLICE_S
    assert pace.over(began)


def test_work_gives_way_while_sleepers_wake_late_and_comes_back() -> None:
    async def story() -> None:
        clock = Late()
        pace = Pace(clock.now)
        clock.late_s = 2 * LATE_S
        await work(pace, clock, 20)
        assert pace.share == SHARE_MIN, "it is never less"
        clock.late_s = LATE_S / 2
        await work(pace, clock, 50)
        assert pace.share == SHARE

    play(story)


def test_moved_bytes_are_waited_for() -> None:
    async def story() -> None:
        limit = RateLimit(trio.current_time)
        await limit.spent(1_000_000)
        assert trio.current_time() == 0.0, "without a limit nobody waits"
        limit.set(1_000)
        for _ in range(10):
            await limit.spent(500)
        assert trio.current_time() == pytest.approx(5.0, abs=0.01)
        await trio.sleep(60)
        began = trio.current_time()
        await limit.spent(2_000)
        assert trio.current_time() - began == pytest.approx(2.0, abs=0.01), "nothing is saved up"

    play(story)


def test_a_wait_that_ends_early_is_carried_over_and_another_limit_holds_at_once() -> None:
    async def story() -> None:
        limit = RateLimit(trio.current_time)
        limit.set(1_000)
        await limit.spent(10_000, 4.0)
        assert trio.current_time() == pytest.approx(4.0, abs=0.01)
        await limit.spent(0)
        assert trio.current_time() == pytest.approx(10.0, abs=0.01)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(limit.spent, 1_000_000)
            await trio.sleep(5)
            limit.set(0)
        assert trio.current_time() <= 16.1

    play(story)
