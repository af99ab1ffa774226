"""The parent of shards, with children that do as the test says: who crashes comes back, who ends for good stays."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from leafdb.node.endings import BUG, CANNOT_RUN, DISK_FAILED, STOPPED, worst
from leafdb.node.notify import Notifier
from leafdb.node.shard_parent import PAUSE_FIRST_S, PAUSE_MAX_S, STEADY_S, Child, Hear, ShardParent
from leafdb.node.supervisor import Order

READY = {"READY": "1"}


class FakeChild:
    """A process that ends when the test says so, or when it is asked to and is not stubborn."""

    def __init__(self, number: int, pid: int, *, stubborn: bool) -> None:
        self.number = number
        self.pid = pid
        self.orders: list[Order] = []
        self.signals: list[signal.Signals] = []
        self._stubborn = stubborn
        self._ended = trio.Event()
        self._code = 0

    async def tell(self, order: Order) -> None:
        self.orders.append(order)
        if order is Order.STOP or (order is Order.DRAIN and not self._stubborn):
            self.end(0)

    def signal(self, number: signal.Signals) -> None:
        self.signals.append(number)
        self.end(-number)

    async def wait(self) -> int:
        await self._ended.wait()
        return self._code

    def end(self, code: int) -> None:
        if not self._ended.is_set():
            self._code = code
            self._ended.set()


class Said(Notifier):
    """Keeps what systemd would hear."""

    def __init__(self, watchdog_s: float | None = None) -> None:
        super().__init__({}, pid=1)
        self.watchdog_s = watchdog_s
        self.sent: list[dict[str, Any]] = []

    def send(self, **fields: str | int) -> None:
        self.sent.append(fields)


class Machine:
    """A parent of fake children, and what happened."""

    def __init__(self, count: int, *, stubborn: bool = False, watchdog_s: float | None = None) -> None:
        self.children: list[FakeChild] = []
        self.started_at: list[float] = []
        self.said = Said(watchdog_s)
        self.reloads = 0
        self.fail_to_start = 0
        self._stubborn = stubborn
        self.parent = ShardParent(
            [f"a-{number}" for number in range(count)],
            self._spawn,
            self.said,
            self._reload,
            listen=self._listen,
            drain_timeout_s=30.0,
        )

    def run(self, story: Callable[[Machine], Awaitable[None]]) -> int:
        """The parent's exit code. The story begins when all children run; at its end the parent is told to drain."""

        async def main() -> int:
            code = -1

            async def live() -> None:
                nonlocal code
                code = await self.parent.run()
                nursery.cancel_scope.cancel()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(live)
                await self.until(lambda: len(self.children) >= len(self.parent.shards))
                await story(self)
                if not self.parent.draining:
                    self.parent.drain("the test")
            return code

        return trio.run(main, clock=MockClock(autojump_threshold=0))

    async def until(self, done: Callable[[], bool]) -> None:
        with trio.fail_after(1_000):
            while not done():  # noqa: ASYNC110 - virtual time, and what is waited for is many things
                await trio.sleep(0.01)

    def of(self, number: int) -> FakeChild:
        """The present process of a shard."""
        return [child for child in self.children if child.number == number][-1]

    def starts(self, number: int) -> int:
        return sum(child.number == number for child in self.children)

    def ready(self, *numbers: int) -> None:
        for number in numbers:
            self.parent.hear(self.of(number).pid, READY)

    def announced(self) -> bool:
        return any("READY" in message for message in self.said.sent)

    @property
    def status(self) -> str:
        return str([message["STATUS"] for message in self.said.sent if "STATUS" in message][-1])

    async def _spawn(self, number: int) -> Child:
        if self.fail_to_start:
            self.fail_to_start -= 1
            raise OSError(11, "Resource temporarily unavailable")
        child = FakeChild(number, 1_000 + len(self.children), stubborn=self._stubborn)
        self.children.append(child)
        self.started_at.append(trio.current_time())
        return child

    async def _listen(self, hear: Hear) -> None:
        await trio.sleep_forever()

    def _reload(self) -> None:
        self.reloads += 1


def test_it_is_ready_when_all_are_and_not_before() -> None:
    async def story(machine: Machine) -> None:
        machine.ready(0)
        assert not machine.announced()
        machine.ready(1)
        assert machine.announced()
        assert machine.status == "2 of 2 shards serve"

    assert Machine(2).run(story) == STOPPED


def test_words_of_strangers_and_of_the_past_are_not_believed() -> None:
    async def story(machine: Machine) -> None:
        machine.parent.hear(77, READY)
        old = machine.of(0).pid
        machine.of(0).end(-9)
        await machine.until(lambda: machine.starts(0) == 2)
        machine.parent.hear(old, READY)
        assert not any(shard.ready for shard in machine.parent.shards)

    Machine(1).run(story)


def test_a_crash_is_answered_by_a_start_and_the_others_notice_nothing() -> None:
    async def story(machine: Machine) -> None:
        machine.ready(0, 1)
        machine.of(0).end(-9)
        await machine.until(lambda: machine.starts(0) == 2)
        assert machine.status == "1 of 2 shards serve; not a-0"
        machine.ready(0)
        assert machine.status == "2 of 2 shards serve"
        assert machine.starts(1) == 1
        assert machine.of(1).orders == []

    assert Machine(2).run(story) == STOPPED


def test_pauses_grow_while_it_keeps_crashing_and_are_short_again_after_a_good_while() -> None:
    machine = Machine(1)

    async def story(machine: Machine) -> None:
        for start in range(1, 11):
            machine.of(0).end(BUG)
            await machine.until(lambda: machine.starts(0) == start + 1)  # noqa: B023
        await trio.sleep(STEADY_S)
        machine.of(0).end(BUG)
        await machine.until(lambda: machine.starts(0) == 12)

    machine.run(story)
    pauses = [later - earlier for earlier, later in zip(machine.started_at, machine.started_at[1:], strict=False)]
    assert pauses[0] == pytest.approx(PAUSE_FIRST_S, abs=0.1)
    assert pauses[1] == pytest.approx(2 * PAUSE_FIRST_S, abs=0.1)
    assert max(pauses[:10]) == pytest.approx(PAUSE_MAX_S, abs=0.1)
    assert pauses[-1] == pytest.approx(STEADY_S + PAUSE_FIRST_S, abs=0.1)


@pytest.mark.parametrize("code", [STOPPED, CANNOT_RUN, 2, DISK_FAILED])
def test_who_ends_for_good_stays_down_and_the_others_serve_on(code: int) -> None:
    async def story(machine: Machine) -> None:
        machine.ready(1)
        machine.of(0).end(code)
        await machine.until(machine.announced)
        assert machine.status == "1 of 2 shards serve; not a-0"
        await trio.sleep(10 * PAUSE_MAX_S)
        assert machine.starts(0) == machine.starts(1) == 1
        assert not machine.parent.draining

    assert Machine(2).run(story) == code


def test_one_that_crashes_at_every_start_keeps_nobody_from_serving() -> None:
    async def story(machine: Machine) -> None:
        machine.ready(1)
        assert not machine.announced()
        machine.of(0).end(BUG)
        await machine.until(machine.announced)

    Machine(2).run(story)


def test_when_all_have_ended_for_good_so_has_the_parent() -> None:
    async def story(machine: Machine) -> None:
        machine.of(0).end(CANNOT_RUN)
        machine.of(1).end(DISK_FAILED)
        await trio.sleep(3_600)

    assert Machine(2).run(story) == DISK_FAILED


def test_what_cannot_be_started_is_tried_again() -> None:
    machine = Machine(1)
    machine.fail_to_start = 2

    async def story(machine: Machine) -> None:
        machine.ready(0)

    assert machine.run(story) == STOPPED


def test_a_signal_goes_to_all_and_the_worst_code_comes_out() -> None:
    async def story(machine: Machine) -> None:
        machine.ready(0, 1, 2)
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGUSR1)
        await machine.until(lambda: all(len(child.orders) == 2 for child in machine.children))
        assert machine.reloads == 1
        machine.of(1).end(CANNOT_RUN)
        await machine.until(lambda: machine.status.endswith("not a-1"))
        os.kill(os.getpid(), signal.SIGTERM)
        await machine.until(lambda: machine.of(0).orders[-1] is Order.DRAIN)
        assert set(machine.of(2).orders[:2]) == {Order.RELOAD, Order.TASKS}

    machine = Machine(3)
    assert machine.run(story) == CANNOT_RUN
    assert [message for message in machine.said.sent if "STOPPING" in message]
    assert [machine.starts(number) for number in range(3)] == [1, 1, 1], "nobody is started on the way out"


def test_a_second_signal_stops_and_a_third_kills() -> None:
    async def story(machine: Machine) -> None:
        machine.parent.drain("SIGTERM")
        await machine.until(lambda: all(child.orders == [Order.DRAIN] for child in machine.children))
        os.kill(os.getpid(), signal.SIGTERM)
        await machine.until(lambda: Order.STOP in machine.of(0).orders)

    machine = Machine(2, stubborn=True)
    assert machine.run(story) == STOPPED
    assert not any(child.signals for child in machine.children)


def test_who_does_not_end_is_killed_in_the_end() -> None:
    async def story(machine: Machine) -> None:
        machine.ready(0)

    machine = Machine(1, stubborn=True)
    assert machine.run(story) == BUG, "a child that was killed is no clean end"
    assert machine.of(0).signals == [signal.SIGKILL]


def test_an_end_that_is_asked_for_during_a_pause_starts_nobody() -> None:
    async def story(machine: Machine) -> None:
        machine.of(0).end(BUG)
        await trio.sleep(PAUSE_FIRST_S / 2)

    machine = Machine(1)
    assert machine.run(story) == BUG
    assert machine.starts(0) == 1


def test_one_that_hangs_is_aborted_and_one_that_turns_is_left_alone() -> None:
    async def story(machine: Machine) -> None:
        machine.ready(0, 1)
        first = machine.of(0), machine.of(1)
        for _ in range(30):
            machine.parent.hear(machine.of(1).pid, {"WATCHDOG": "1"})
            await trio.sleep(1.0)
        hung, turning = first
        assert hung.signals == [signal.SIGABRT]
        assert machine.starts(0) == 2
        assert turning.signals == []

    Machine(2, watchdog_s=20.0).run(story)


def test_one_that_only_starts_slowly_is_not_aborted() -> None:
    async def story(machine: Machine) -> None:
        await trio.sleep(600)
        assert machine.of(0).signals == []

    Machine(1, watchdog_s=20.0).run(story)


@pytest.mark.parametrize(
    ("codes", "together"),
    [([], 0), ([0, 0], 0), ([0, 1], 1), ([1, 74, 70], 74), ([130, 2], 2), ([0, -9], 70), ([99, 1], 70)],
)
def test_the_worst_code_is_the_one_that_says_most(codes: list[int], together: int) -> None:
    assert worst(codes) == together


def test_orders_are_one_byte_each_and_all_different() -> None:
    values: Mapping[Order, bytes] = {order: order.value for order in Order}
    assert {len(value) for value in values.values()} == {1}
    assert len(set(values.values())) == len(Order)
