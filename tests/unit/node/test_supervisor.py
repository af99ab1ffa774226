"""The life of the process: the first signal drains, the second stops, the third does not wait; systemd is told."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from leafdb.config import Config
from leafdb.errors import (
    ConfigError,
    CorruptionError,
    LeafdbError,
    ServerBug,
    StoreFailed,
    StoreLocked,
    UnknownFormat,
)
from leafdb.node import task_tree
from leafdb.node.endings import BUG, CANNOT_RUN, DISK_FAILED, EXPELLED, INTERRUPTED, Expelled, ending_of
from leafdb.node.notify import Notifier
from leafdb.node.supervisor import Order, Supervisor
from leafdb.wire.hello import Refusal

Node = Callable[[Callable[[], None], trio.Event, trio.Event], Awaitable[int]]


def live(
    node: Node,
    *,
    environment: dict[str, str] | None = None,
    reload: Callable[[], None] = lambda: None,
    orders: Callable[[], trio.abc.ReceiveStream] | None = None,
) -> int:
    """Run a supervisor around `node` under a clock that jumps; the exit code."""

    async def serve(config: Config, *, on_ready: Callable[[], None], drain: trio.Event, stop: trio.Event) -> int:
        return await node(on_ready, drain, stop)

    supervisor = Supervisor(Config(), serve, Notifier(environment or {}, pid=os.getpid()), reload, orders)
    return trio.run(supervisor.run, clock=MockClock(autojump_threshold=0.05))


def kill(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_drains(number: signal.Signals) -> None:
    seen = []

    async def node(ready: Callable[[], None], drain: trio.Event, stop: trio.Event) -> int:
        ready()
        kill(number)
        await drain.wait()
        seen.append(stop.is_set())
        return 0

    assert live(node) == 0
    assert seen == [False]


def test_the_second_signal_stops_and_the_third_does_not_wait() -> None:
    seen = []

    async def node(ready: Callable[[], None], drain: trio.Event, stop: trio.Event) -> int:
        kill(signal.SIGTERM)
        await drain.wait()
        kill(signal.SIGTERM)
        await stop.wait()
        seen.append("stopping")
        kill(signal.SIGTERM)
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    assert live(node) != 0
    assert seen == ["stopping"]


def test_a_drain_that_takes_too_long_becomes_a_stop() -> None:
    async def node(ready: Callable[[], None], drain: trio.Event, stop: trio.Event) -> int:
        kill(signal.SIGTERM)
        await drain.wait()
        began = trio.current_time()
        await stop.wait()
        assert trio.current_time() - began == pytest.approx(Config().node.drain_timeout_s)
        return 0

    assert live(node) == 0


def test_hup_reloads_and_usr1_writes_the_tasks(caplog: pytest.LogCaptureFixture) -> None:
    reloaded = trio.Event()

    async def node(ready: Callable[[], None], drain: trio.Event, stop: trio.Event) -> int:
        kill(signal.SIGHUP)
        await reloaded.wait()
        kill(signal.SIGUSR1)
        await trio.sleep(1)
        return 3

    with caplog.at_level("WARNING"):
        assert live(node, reload=reloaded.set) == 3
    (record,) = caplog.records
    assert "in node" in vars(record)["facts"]["tree"]
    assert "obey_signals" in vars(record)["facts"]["tree"]


class Parent:
    """The end of the pipe that a parent of shards holds."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()

    def opened(self) -> trio.abc.ReceiveStream:
        return trio.lowlevel.FdStream(self._read)

    def say(self, order: Order) -> None:
        os.write(self._write, order.value)

    def die(self) -> None:
        os.close(self._write)


def test_a_parent_s_orders_are_carried_out_and_a_drain_asked_for_twice_is_one(caplog: pytest.LogCaptureFixture) -> None:
    parent, reloaded, seen = Parent(), trio.Event(), []

    async def node(ready: Callable[[], None], drain: trio.Event, stop: trio.Event) -> int:
        parent.say(Order.RELOAD)
        parent.say(Order.TASKS)
        await reloaded.wait()
        kill(signal.SIGTERM)  # systemd tells everybody, the parent tells its own
        await drain.wait()
        parent.say(Order.DRAIN)
        parent.say(Order.DRAIN)
        kill(signal.SIGTERM)
        await trio.sleep(1)
        seen.append(stop.is_set())
        parent.say(Order.STOP)
        parent.say(Order.STOP)
        await stop.wait()
        await trio.sleep(1)
        return 0

    with caplog.at_level("WARNING"):
        assert live(node, reload=reloaded.set, orders=parent.opened) == 0
    assert seen == [False]
    assert [record.msg for record in caplog.records] == ["tasks", "stopping at once"]
    parent.die()


def test_who_loses_its_parent_stops_at_once() -> None:
    parent = Parent()

    async def node(ready: Callable[[], None], drain: trio.Event, stop: trio.Event) -> int:
        parent.die()
        began = trio.current_time()
        await stop.wait()
        assert trio.current_time() == pytest.approx(began, abs=1.0)
        return 0

    assert live(node, orders=parent.opened) == 0


def test_who_loses_its_parent_and_cannot_stop_does_not_live_on() -> None:
    parent = Parent()

    async def node(ready: Callable[[], None], drain: trio.Event, stop: trio.Event) -> int:
        parent.die()
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    assert live(node, orders=parent.opened) == INTERRUPTED


def test_the_node_s_failure_comes_out() -> None:
    async def node(ready: Callable[[], None], drain: trio.Event, stop: trio.Event) -> int:
        raise StoreFailed("fdatasync: EIO")

    with pytest.raises(ExceptionGroup) as caught:
        live(node)
    assert ending_of(caught.value, Config()).code == DISK_FAILED


def test_systemd_hears_of_every_step(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(path)
        systemd.setblocking(False)

        async def node(ready: Callable[[], None], drain: trio.Event, stop: trio.Event) -> int:
            await trio.sleep(25)
            ready()
            kill(signal.SIGTERM)
            await drain.wait()
            return 0

        environment = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getpid())}
        assert live(node, environment=environment) == 0
        messages = []
        while True:
            try:
                messages.append(systemd.recv(4096).decode())
            except BlockingIOError:
                break
    assert messages[:3] == ["WATCHDOG=1"] * 3, "once at the start, then twice a period"
    assert messages[3].startswith("READY=1\nSTATUS=serving as")
    assert messages[4].startswith("STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC=")


def test_without_systemd_nothing_is_sent_and_nothing_fails(tmp_path: Path) -> None:
    for environment in (
        {},
        {"NOTIFY_SOCKET": "relative"},
        {"NOTIFY_SOCKET": "@"},
        {"NOTIFY_SOCKET": str(tmp_path / "nobody")},
        {"NOTIFY_SOCKET": "/" + "x" * 200},
    ):
        Notifier(environment, pid=1).ready("x\ny")
    assert Notifier({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "5"}, pid=1).watchdog_s is None
    assert Notifier({"WATCHDOG_USEC": "soon"}, pid=1).watchdog_s is None
    assert Notifier({"WATCHDOG_USEC": "1500000"}, pid=1).watchdog_s == 1.5


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (StoreLocked("pid 4711 holds it"), CANNOT_RUN, ["leafdb-data", "pid 4711"]),
        (CorruptionError("bad checksum", path="wal/7.log", offset=4096), CANNOT_RUN, ["wal/7.log", "4096"]),
        (UnknownFormat("format 9", path="CURRENT"), CANNOT_RUN, ["CURRENT", "format 9", "nothing was changed"]),
        (StoreFailed("EIO"), DISK_FAILED, ["leafdb-data", "EIO"]),
        (ConfigError("two", problems=["a.b: one", "a.c: two"]), CANNOT_RUN, ["a.b: one\na.c: two"]),
        (OSError(98, "Address already in use"), CANNOT_RUN, ["Address already in use"]),
        (AssertionError("counter fell"), BUG, ["counter fell", "its own rules"]),
        (ServerBug("impossible"), BUG, ["impossible"]),
        (Expelled("removed for good", why=Refusal.BANNED), EXPELLED, ["leafdb-data", "removed for good"]),
        (ExceptionGroup("", [LeafdbError("x"), Expelled("gone", why=Refusal.CLONE)]), EXPELLED, ["gone"]),
        (ExceptionGroup("", [KeyError("x"), ExceptionGroup("", [StoreFailed("EIO")])]), DISK_FAILED, ["EIO"]),
    ],
)
def test_every_ending_has_a_code_and_a_sentence(error: BaseException, code: int, words: list[str]) -> None:
    ending = ending_of(error, Config())
    assert ending.code == code
    for word in words:
        assert word in ending.message
    assert bool(ending.details) == (code == BUG)


def test_the_task_tree_is_bounded() -> None:
    async def main() -> str:
        async with trio.open_nursery() as nursery:
            for _ in range(task_tree.TASKS_MAX + 50):
                nursery.start_soon(trio.sleep_forever)
            await trio.testing.wait_all_tasks_blocked()
            tree = task_tree.render()
            nursery.cancel_scope.cancel()
        return tree

    lines = trio.run(main).splitlines()
    assert len(lines) == task_tree.TASKS_MAX + 1
    assert lines[-1].startswith("and ")
