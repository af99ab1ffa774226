"""Where blocking work runs, and how its result comes back to the loop.

The engine is written in callbacks and never waits. What may wait for the disk is handed to an `Executor`; `done` is
called with the result, or with the exception, later and on the loop, never inside `submit`. One executor with one
thread keeps order: the log relies on it.

`QueuedExecutor` is the inline form: the work runs when somebody calls `run_pending`, so that tests and the simulation
have no threads. `ThreadExecutor` has real ones; `to_loop` brings a callback to the loop (trio's `run_sync_soon`). A
thread that computes gets the interpreter with each system call of the loop, which must then ask for it back, and where
they share a core waits for that, too. So such work rests after each step, for many times as long as the step took.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Final, Protocol, TypeVar

T = TypeVar("T")

Callback = Callable[[], None]

REST_FACTOR: Final = 10.0
"""A loop that is busy for nine tenths of its time has that much to spare, and no more."""
REST_S_MAX: Final = 0.02


class Executor(Protocol):
    """Runs work beside the loop."""

    def submit(self, work: Callable[[], T], done: Callable[[T | BaseException], None]) -> None: ...

    def call_soon(self, callback: Callback) -> None:
        """Call on the loop, after the caller has returned."""

    def rest(self) -> None:
        """For work that computes, between its steps: let the loop have the interpreter for a while."""

    def drain(self) -> None:
        """Return when all work submitted so far has run; its `done` may still be to come. Blocks the loop."""

    def close(self) -> None:
        """Drain, and take no more work."""


@dataclass(frozen=True, slots=True)
class Resting:
    """How a thread rests: `pause` sleeps for so many seconds, `worked_s` is what the calling thread has computed."""

    pause: Callable[[float], None]
    worked_s: Callable[[], float]


def _run(work: Callable[[], T], done: Callable[[T | BaseException], None]) -> Callback:
    """Do the work; answer the call that reports it."""
    try:
        result = work()
    except BaseException as error:  # every kind of failure must reach the one who asked
        return partial(done, error)
    return partial(done, result)


class QueuedExecutor:
    """Work waits in a queue until `run_pending`; everything happens on the caller's thread, in order.

    With `tells_later` the report of a piece of work is queued, too, as a thread's is: between the work and its `done`
    other things happen."""

    def __init__(self, *, tells_later: bool = False) -> None:
        self._queue: deque[Callback] = deque()
        self._closed = False
        self._tells_later = tells_later

    @property
    def pending(self) -> int:
        return len(self._queue)

    def submit(self, work: Callable[[], T], done: Callable[[T | BaseException], None]) -> None:
        assert not self._closed, "the executor is closed"
        if self._tells_later:
            self._queue.append(lambda: self._queue.append(_run(work, done)))
        else:
            self._queue.append(lambda: _run(work, done)())

    def call_soon(self, callback: Callback) -> None:
        if not self._closed:
            self._queue.append(callback)

    def rest(self) -> None:
        """There is nobody to rest for."""

    def run_pending(self, most: int | None = None) -> int:
        """Run what is queued, and what that queues, up to `most` items; answers how many."""
        ran = 0
        while self._queue and (most is None or ran < most):
            ran += 1
            self._queue.popleft()()
        return ran

    def drain(self) -> None:
        self.run_pending()

    def close(self) -> None:
        self.drain()
        self._closed = True


class ThreadExecutor:
    """Work runs on `threads` threads of its own. Work on one thread keeps its order."""

    def __init__(
        self,
        threads: int,
        to_loop: Callable[[Callback], object],
        *,
        name: str = "leafdb",
        resting: Resting | None = None,
    ) -> None:
        assert threads > 0
        self._to_loop = to_loop
        self._resting = resting
        self._worked_s: dict[int, float] = {}  # each thread's own time, when it rested last
        self._queue: SimpleQueue[Callable[[], Callback] | None] = SimpleQueue()
        self._idle = threading.Condition()
        self._unfinished = 0
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{index}", daemon=True) for index in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Callable[[], T], done: Callable[[T | BaseException], None]) -> None:
        assert not self._closed, "the executor is closed"
        with self._idle:
            self._unfinished += 1
        self._queue.put(partial(_run, work, done))

    def call_soon(self, callback: Callback) -> None:
        self._to_loop(callback)

    def rest(self) -> None:
        if self._resting is not None:
            thread = threading.get_ident()
            worked_s = self._resting.worked_s()
            step_s = worked_s - self._worked_s[thread]
            self._resting.pause(min(REST_S_MAX, REST_FACTOR * step_s))
            self._worked_s[thread] = self._resting.worked_s()

    def drain(self) -> None:
        with self._idle:
            self._idle.wait_for(lambda: self._unfinished == 0)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        thread = threading.get_ident()
        while (item := self._queue.get()) is not None:
            if self._resting is not None:
                self._worked_s[thread] = self._resting.worked_s()
            report = item()
            try:
                self._to_loop(report)
            except RuntimeError:
                # the loop has ended: nobody is left who could hear it
                pass
            finally:
                with self._idle:
                    self._unfinished -= 1
                    if self._unfinished == 0:
                        self._idle.notify_all()
