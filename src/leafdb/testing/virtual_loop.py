"""A trio loop under virtual time that stands still between calls: how plain functions use a world that is all tasks.

`virtual_time.run_virtual` is a whole run: the clock jumps until `main` is over. Here the run is a guest of whoever
calls `run`: it goes on until the awaited function is done and is then left as it is, tasks, clock and all. So a
synchronous test holds a cluster over many calls, no time passes while it thinks, and the same seed gives the same run.

The loop belongs to the thread that made it, and there is one in a thread at a time, for trio has one. Between calls
plain functions that speak to trio, such as what makes a link break, may be called: they act when the loop goes on.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import TypeVar

import outcome
import trio
import trio.testing

from leafdb.testing.virtual_time import Schedule, scheduled

T = TypeVar("T")


class VirtualLoop:
    """The loop. Nothing runs before `start`, and nothing but in `run` and `close` after it."""

    def __init__(self, seed: int) -> None:
        self._schedule = Schedule(seed)
        self._scheduled = ExitStack()
        self._thread = threading.get_ident()
        self._clock = trio.testing.MockClock(autojump_threshold=0)
        self._due: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._nursery: trio.Nursery | None = None
        self._running = False
        self._stop = trio.Event()
        self._ended: outcome.Outcome[None] | None = None

    @property
    def time(self) -> float:
        """Seconds since the start, of virtual time."""
        return float(self._clock.current_time())

    @property
    def is_over(self) -> bool:
        """Whether it has ended, by `close` or by what went wrong in it."""
        return self._ended is not None

    def start(self) -> None:
        """Begin; `RuntimeError` where trio runs already."""
        trio.lowlevel.start_guest_run(
            self._main,
            run_sync_soon_threadsafe=self._due.put,
            done_callback=self._end,
            host_uses_signal_set_wakeup_fd=True,  # the waits are all virtual: no signal needs to interrupt one
            clock=self._clock,
        )
        self._scheduled.enter_context(scheduled(self._schedule))
        self._pump(lambda: self._nursery is not None)

    def run(self, function: Callable[..., Awaitable[T]], *args: object) -> T:
        """Await `function(*args)` in a task of its own, and let everybody's time pass until it is done."""
        __tracebackhide__ = True
        if threading.get_ident() != self._thread:
            raise RuntimeError("the loop belongs to the thread of the test: no other may use it")
        if self._running:
            raise RuntimeError("the loop is running already: await the function instead")
        if self._nursery is None:
            raise RuntimeError("the loop is over") from self._reason()
        results: list[outcome.Outcome[T]] = []

        async def task() -> None:
            try:
                results.append(outcome.Value(await function(*args)))
            except trio.Cancelled:
                raise
            except BaseException as error:
                results.append(outcome.Error(error))

        self._nursery.start_soon(task)
        self._pump(lambda: bool(results))
        for result in results:
            return result.unwrap()
        raise self._reason() or RuntimeError("the loop ended while the function ran")

    def spawn(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        """Start a task that runs whenever the loop does, to the loop's end."""
        assert self._nursery is not None
        self._nursery.start_soon(function, *args)

    def close(self) -> None:
        """Cancel what runs, and end. Raises what the loop ended with, if that has not been raised yet."""
        if self._ended is not None:
            return
        self._stop.set()
        self._pump(lambda: False)
        reason = self._reason()
        if reason is not None:
            raise reason

    async def _main(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await self._stop.wait()
            nursery.cancel_scope.cancel()

    def _end(self, ended: outcome.Outcome[None]) -> None:
        self._scheduled.close()
        self._ended = ended
        self._nursery = None

    def _reason(self) -> BaseException | None:
        if not isinstance(self._ended, outcome.Error):
            return None
        error = self._ended.error
        while isinstance(error, BaseExceptionGroup):
            interrupts, _ = error.split(KeyboardInterrupt)
            if interrupts is None and len(error.exceptions) > 1:
                break
            error = (interrupts or error).exceptions[0]  # one that is alone says more without its groups
        return error

    @trio.lowlevel.enable_ki_protection
    def _pump(self, done: Callable[[], bool]) -> None:
        # An interrupt is delivered by the loop, as trio does it: raised here, it would lose the loop's next step.
        self._running = True
        try:
            while self._ended is None and not done():
                self._due.get()()
        finally:
            self._running = False
