"""The life of a node process around the node: signals, systemd, the parent of a shard, the way out.

The node is a function that gets two events and returns when it is done: `Serve`. `drain` takes at most drain_timeout,
then it becomes `stop`.

A shard's process has a parent (`shard_parent`) that holds the other end of its stdin. What the parent wants comes there
as single bytes (`Order`), not as signals: a drain that is asked for twice, by systemd of the whole group and by the
parent, stays one, whichever comes first. When the pipe ends the parent is gone, however it went, and the shard stops.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final, Protocol

import trio

from leafdb.config import Config
from leafdb.node import task_tree
from leafdb.node.endings import INTERRUPTED
from leafdb.node.logs import Log
from leafdb.node.notify import Notifier
from leafdb.node.signals import obey_signals

STOP_GRACE_S: Final = 10.0
"""What systemd is asked for beyond the drain: the last flush and sync."""

ORDERS_MAX: Final = 64
"""Bytes read from a parent at once."""

log: Log = Log("process")


class Order(Enum):
    """What a parent asks of a shard's process: one byte each. Asked again, it changes nothing."""

    DRAIN = b"d"
    STOP = b"s"
    RELOAD = b"r"
    TASKS = b"t"


class Serve(Protocol):
    """Run a node until it has stopped; the answer is the exit code."""

    async def __call__(
        self, config: Config, *, on_ready: Callable[[], None], drain: trio.Event, stop: trio.Event
    ) -> int:
        """`drain` asks to finish and stop, `stop` to stop now; `on_ready` is called once requests are taken."""


class Supervisor:
    """Turns what the outside wants into the two events of one node."""

    def __init__(
        self,
        config: Config,
        serve: Serve,
        notifier: Notifier,
        reload: Callable[[], None],
        orders: Callable[[], trio.abc.ReceiveStream] | None = None,
    ) -> None:
        """`orders` opens the stream of a parent's orders; without it there is no parent."""
        self._config = config
        self._serve = serve
        self._notifier = notifier
        self.reload = reload
        self._orders = orders
        self._drain = trio.Event()
        self._stop = trio.Event()
        self._scope = trio.CancelScope()

    @property
    def draining(self) -> bool:
        """It was asked to end."""
        return self._drain.is_set()

    @property
    def stopping(self) -> bool:
        """It was asked to end at once, or the drain took too long."""
        return self._stop.is_set()

    async def run(self) -> int:
        """The whole life; the exit code."""
        code = INTERRUPTED
        with self._scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(obey_signals, self, self._orders is not None)
                if self._orders is not None:
                    nursery.start_soon(self._obey, self._orders)
                nursery.start_soon(self._notifier.feed_watchdog)
                nursery.start_soon(self._end_a_long_drain)
                code = await self._serve(self._config, on_ready=self._ready, drain=self._drain, stop=self._stop)
                nursery.cancel_scope.cancel()
        log.info("stopped", code=code)
        return code

    def drain(self, why: str) -> None:
        """Take nothing new, finish, hand over, for at most drain_timeout; then stop."""
        if self.draining:
            return
        timeout_s = self._config.node.drain_timeout_s
        log.info("draining", signal=why, timeout_s=timeout_s)
        self._notifier.stopping("draining", timeout_s + STOP_GRACE_S)
        self._drain.set()

    def stop(self, why: str) -> None:
        """Stop at once."""
        if not self.stopping:
            log.warning("stopping at once", signal=why)
            self._stop.set()

    def give_up(self, why: str) -> None:
        """Do not even wait for that."""
        log.warning("giving up at once", signal=why)
        self._scope.cancel()

    def show_tasks(self) -> None:
        """Write what every task is doing to the log."""
        log.warning("tasks", tree=task_tree.render())

    def _ready(self) -> None:
        listen = self._config.listen
        log.info("ready", client=str(listen.client), peer=str(listen.peer), http=str(listen.http))
        self._notifier.ready(f"serving as {self._config.node.name}")

    async def _end_a_long_drain(self) -> None:
        await self._drain.wait()
        timeout_s = self._config.node.drain_timeout_s
        await trio.sleep(timeout_s)
        if not self.stopping:
            log.warning("the drain took too long, stopping now", timeout_s=timeout_s)
            self._stop.set()

    async def _obey(self, opened: Callable[[], trio.abc.ReceiveStream]) -> None:
        async with opened() as orders:
            while data := await orders.receive_some(ORDERS_MAX):
                for number in data:
                    self._carry_out(Order(bytes((number,))))
        self.stop("the parent process is gone")
        await trio.sleep(STOP_GRACE_S)
        self.give_up("the parent process is gone")

    def _carry_out(self, order: Order) -> None:
        match order:
            case Order.DRAIN:
                self.drain("parent")
            case Order.STOP:
                self.stop("parent")
            case Order.RELOAD:
                self.reload()
            case Order.TASKS:
                self.show_tasks()
