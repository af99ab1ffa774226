"""The life of a node process around the node: signals, systemd, the way out.

    SIGTERM, SIGINT   first: drain (take nothing new, finish, hand over) for at most drain_timeout, then stop
                      second: stop at once; a third does not even wait for that
    SIGHUP            read the configuration again; what can change without a restart does
    SIGUSR1           write what every task is doing to the log

The node is a function that gets two events and returns when it is done: `Serve`.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol

import trio

from leafdb.config import Config
from leafdb.node import task_tree
from leafdb.node.endings import INTERRUPTED
from leafdb.node.logs import Log
from leafdb.node.notify import Notifier

STOP_GRACE_S: Final = 10.0
"""What systemd is asked for beyond the drain: the last flush and sync."""

log = Log("process")


class Serve(Protocol):
    """Run a node until it has stopped; the answer is the exit code."""

    async def __call__(
        self, config: Config, *, on_ready: Callable[[], None], drain: trio.Event, stop: trio.Event
    ) -> int:
        """`drain` asks to finish and stop, `stop` to stop now; `on_ready` is called once requests are taken."""


class Supervisor:
    """Turns what the outside wants into the two events of one node."""

    def __init__(self, config: Config, serve: Serve, notifier: Notifier, reload: Callable[[], None]) -> None:
        self._config = config
        self._serve = serve
        self._notifier = notifier
        self._reload = reload
        self._drain = trio.Event()
        self._stop = trio.Event()

    async def run(self) -> int:
        """The whole life; the exit code."""
        code = INTERRUPTED
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, signals, nursery)
                nursery.start_soon(self._notifier.feed_watchdog)
                code = await self._serve(self._config, on_ready=self._ready, drain=self._drain, stop=self._stop)
                nursery.cancel_scope.cancel()
        log.info("stopped", code=code)
        return code

    def _ready(self) -> None:
        listen = self._config.listen
        log.info("ready", client=str(listen.client), peer=str(listen.peer), http=str(listen.http))
        self._notifier.ready(f"serving as {self._config.node.name}")

    async def _listen(self, signals: AsyncIterator[int], nursery: trio.Nursery) -> None:
        async for number in signals:
            match number:
                case signal.SIGHUP:
                    self._reload()
                case signal.SIGUSR1:
                    log.warning("tasks", tree=task_tree.render())
                case _ if self._stop.is_set():
                    log.warning("giving up at once", signal=signal.Signals(number).name)
                    nursery.cancel_scope.cancel()
                case _ if self._drain.is_set():
                    log.warning("stopping at once", signal=signal.Signals(number).name)
                    self._stop.set()
                case _:
                    self._begin_drain(signal.Signals(number).name, nursery)

    def _begin_drain(self, why: str, nursery: trio.Nursery) -> None:
        timeout_s = self._config.node.drain_timeout_s
        log.info("draining", signal=why, timeout_s=timeout_s)
        self._notifier.stopping("draining", timeout_s + STOP_GRACE_S)
        self._drain.set()
        nursery.start_soon(self._stop_after, timeout_s)

    async def _stop_after(self, timeout_s: float) -> None:
        await trio.sleep(timeout_s)
        if not self._stop.is_set():
            log.warning("the drain took too long, stopping now", timeout_s=timeout_s)
            self._stop.set()
