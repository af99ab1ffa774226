"""The engine and the loop: what it wants done "soon" is done at the end of the present batch of requests, and what it
does by the clock is done every few milliseconds while there is anything to do, and about once a second otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import trio

from leafdb.storage.engine import Engine
from leafdb.storage.executor import Callback, Executor
from leafdb.transport.pump import Pump

T = TypeVar("T")

TICK_S: Final = 0.02
IDLE_S: Final = 0.2
"""An engine that wants nothing for longer is left alone until it does, or until it is given something."""


class _Soon:
    """Something the pump calls at the end of a batch, as it does the flush of a session with answers."""

    __slots__ = ("flush",)

    def __init__(self, callback: Callback) -> None:
        self.flush: Callback = callback


class BatchEndExecutor:
    """An executor whose `call_soon` waits for the end of the pump's batch instead of waking the loop.

    So everything a batch of requests has written becomes one commit, for the price of a list append.
    """

    def __init__(self, executor: Executor, pump: Pump) -> None:
        self._executor = executor
        self._pump = pump
        self.idle: trio.Event | None = None
        """Of who waits until the engine has something to do."""

    def submit(self, work: Callable[[], T], done: Callable[[T | BaseException], None]) -> None:
        """As the executor."""
        self._executor.submit(work, done)

    def call_soon(self, callback: Callback) -> None:
        """Call at the end of the present batch, or in the scheduler's next pass."""
        if self.idle is not None:
            self.idle.set()
            self.idle = None
        self._pump.at_batch_end(_Soon(callback))

    def rest(self) -> None:
        """As the executor."""
        self._executor.rest()

    def drain(self) -> None:
        """As the executor."""
        self._executor.drain()

    def close(self) -> None:
        """As the executor."""
        self._executor.close()


async def drive_engine(engine: Engine, executor: BatchEndExecutor, now: Callable[[], float]) -> None:
    """Give the engine its time: periodic syncs, the look at the disk's room, jobs to be given again."""
    while True:
        engine.on_time(now())
        slept_s = now()
        await trio.sleep(TICK_S)
        engine.woken_late(now() - slept_s - TICK_S)
        wait_s = engine.deadline() - now()
        if wait_s > IDLE_S:
            idle = executor.idle = trio.Event()
            with trio.move_on_after(wait_s):
                await idle.wait()
            executor.idle = None
