"""Work of strangers: turns, one slice for all of it together, and what becomes of a step that fails or is given up."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from contextlib import closing

import pytest
import trio
import trio.testing

from leafdb.transport.aside import SLICE_S, SLICE_S_MIN, Aside
from leafdb.transport.crowd import Crowd


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def never() -> bool:
    return False


def counting_down(count: int, done: Callable[[], None]) -> Callable[[], bool]:
    """A step that there are so many of."""
    left = [count]

    def step() -> bool:
        if not left[0]:
            return False
        left[0] -= 1
        done()
        return True

    return step


def test_all_take_turns_and_each_is_told_when_nothing_is_left() -> None:
    told: list[str] = []

    async def main() -> None:
        aside = Aside(Clock(), never)

        async def have_done(name: str, count: int) -> None:
            await aside.all_of(counting_down(count, lambda: told.append(name)))
            told.append(f"{name} over")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(have_done, "a", 2)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(have_done, "b", 3)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(aside.run)
            await trio.testing.wait_all_tasks_blocked()
            assert told[:5] == ["a", "b", "a", "b", "b"]
            assert set(told[5:]) == {"a over", "b over"}
            aside.check()
            await aside.all_of(counting_down(1, lambda: told.append("c")))
            assert told[-1] == "c"
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_all_works_together_have_one_slice_of_a_pass() -> None:
    clock = Clock()
    steps = 0
    most = 0

    def done() -> None:
        nonlocal steps, most
        steps += 1
        most = max(most, steps)
        clock.now += SLICE_S / 4

    async def main() -> None:
        nonlocal steps
        aside = Aside(clock, never)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(aside.run)
            async with trio.open_nursery() as works:
                for _ in range(10):
                    works.start_soon(aside.all_of, counting_down(4, done))
                for _ in range(30):
                    await trio.lowlevel.checkpoint()
                    steps = 0
            nursery.cancel_scope.cancel()

    trio.run(main)
    # Within the slice, and what of it a pass more or less sees of it; without, all forty at once.
    assert 4 <= most <= 10
    assert clock.now == pytest.approx(10 * SLICE_S)


def test_a_slice_ends_early_for_a_session_but_is_never_nothing() -> None:
    clock = Clock()
    slices: list[int] = []

    def done() -> None:
        slices[-1] += 1
        clock.now += SLICE_S_MIN / 2

    def always() -> bool:
        return True

    async def main() -> None:
        aside = Aside(clock, always)

        async def watch() -> None:
            while True:
                slices.append(0)
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(aside.run)
            nursery.start_soon(watch)
            await aside.all_of(counting_down(10, done))
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert sum(slices) == 10
    assert max(slices) == 2


def test_what_a_step_raises_is_raised_where_it_was_handed_over() -> None:
    def fail() -> bool:
        raise AssertionError("a bug")

    async def main() -> None:
        aside = Aside(Clock(), never)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(aside.run)
            with pytest.raises(AssertionError, match="a bug"):
                await aside.all_of(fail)
            done: list[None] = []
            await aside.all_of(counting_down(2, lambda: done.append(None)))
            assert len(done) == 2
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_a_step_nobody_waits_for_is_not_done() -> None:
    async def main() -> None:
        aside = Aside(Clock(), never)
        async with trio.open_nursery() as nursery:
            done: list[None] = []
            with trio.move_on_after(0):
                await aside.all_of(counting_down(1, lambda: done.append(None)))
            nursery.start_soon(aside.run)
            await trio.testing.wait_all_tasks_blocked()
            assert not done
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_a_step_that_gives_itself_up_and_fails_is_still_heard_of() -> None:
    async def main() -> None:
        aside = Aside(Clock(), never)
        scope = trio.CancelScope()

        def fail() -> bool:
            scope.cancel()
            raise AssertionError("a bug")

        async def hand_over() -> None:
            with scope:
                await aside.all_of(fail)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hand_over)
            await trio.testing.wait_all_tasks_blocked()
            await aside.run()

    with pytest.raises(BaseExceptionGroup) as caught:
        trio.run(main)
    assert caught.group_contains(AssertionError, match="a bug")


def test_one_of_a_crowd_that_never_stops_keeps_nobody_waiting() -> None:
    served: list[int] = []

    async def main() -> None:
        pairs = [socket.socketpair() for _ in range(4)]
        names = {near.fileno(): number for number, (near, _) in enumerate(pairs)}
        aside = Aside(trio.current_time, never)
        with closing(Crowd(aside, lambda descriptor, _: served.append(names[descriptor]))) as crowd:
            for near, far in pairs:
                crowd.epoll.register(near.fileno(), select.EPOLLIN)
                far.send(b"never read")
            with trio.move_on_after(0.02):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(crowd.run)
                    nursery.start_soon(aside.run)
        for pair in pairs:
            for end in pair:
                end.close()

    trio.run(main)
    turns = [set(served[at : at + 4]) for at in range(0, len(served) - 4, 4)]
    assert turns
    assert all(turn == {0, 1, 2, 3} for turn in turns)
