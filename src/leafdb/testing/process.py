"""A node's process in memory: what dies with it and what does not.

`Life` is one run of a node on a file system that outlives it. Everything the node has running beside its loop (log
executor, readers, jobs) asks its life before each step, so after `Life.end` nothing more reaches the disk, whatever
was still queued: that is what SIGKILL does, and what cancelling alone does not.

Work takes the time that `latency_s` draws, so that under virtual time there is a moment at which a write is in the
memtable, or on its way to a peer, and not yet in the log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import trio

from leafdb.storage.executor import Callback
from leafdb.testing.virtual_time import own_tasks

T = TypeVar("T")

Latency = Callable[[], float]


class Life:
    """Whether one process still runs, and what it wants called soon. `owner` names its tasks to the scheduler."""

    def __init__(self, nursery: trio.Nursery, owner: str = "") -> None:
        self.alive: bool = True
        self.nursery = nursery
        self.owner = owner
        self._due: deque[Callback] = deque()
        self._lot = trio.lowlevel.ParkingLot()
        self._running = False

    def end(self) -> None:
        """SIGKILL."""
        self.alive = False
        self._due.clear()
        self._lot.unpark_all()

    def finish(self) -> None:
        """The process has ended by itself: what is left to be called is called, and what that leaves."""
        while self._due:
            self._call_due()
        self.end()

    def soon(self, callback: Callback) -> None:
        """Call in the scheduler's next pass, if the process still runs then; once it goes on, if it is frozen."""
        if not self.alive:
            return
        self._due.append(callback)
        if not self._running:
            self._running = True
            self.nursery.start_soon(self._run, name="callbacks")
        else:
            self._lot.unpark()

    async def _run(self) -> None:
        own_tasks(self.owner)
        while self.alive:
            self._call_due()
            if self._due:
                await trio.lowlevel.checkpoint()
            else:
                await self._lot.park()

    def _call_due(self) -> None:
        for _ in range(len(self._due)):
            if self._due:
                self._due.popleft()()


class _Item(Generic[T]):
    """One piece of work and what came of it."""

    __slots__ = ("_done", "_ran", "_result", "_work")

    def __init__(self, work: Callable[[], T], done: Callable[[T | BaseException], None]) -> None:
        self._work = work
        self._done = done
        self._ran = False
        self._result: T | BaseException

    def run(self) -> None:
        if self._ran:
            return
        self._ran = True
        try:
            self._result = self._work()
        except Exception as error:
            self._result = error

    def report(self) -> None:
        self._done(self._result)


class MemoryExecutor:
    """One thread's worth of work, in order, on the loop itself; see the top of this file."""

    def __init__(self, life: Life, latency_s: Latency | None = None) -> None:
        self._life = life
        self.latency_s: Latency | None = latency_s
        """May be changed while it works."""
        self._queue: deque[_Item[object]] = deque()
        self._working = False

    def submit(self, work: Callable[[], T], done: Callable[[T | BaseException], None]) -> None:
        """As `storage.executor.Executor`."""
        self._queue.append(_Item(work, done))  # type: ignore[arg-type]  # items of different results in one queue
        if self._working:
            return
        self._working = True
        if self.latency_s is None:
            self._life.soon(self._turn)
        else:
            self._life.nursery.start_soon(self._work_slowly)

    def call_soon(self, callback: Callback) -> None:
        """As `storage.executor.Executor`."""
        self._life.soon(callback)

    def rest(self) -> None:
        """The loop does nothing meanwhile anyway."""

    def drain(self) -> None:
        """All work runs now; the reports are still to come."""
        if self._life.alive:
            for item in self._queue:
                item.run()

    def close(self) -> None:
        """Nothing is left behind."""
        self.drain()

    def _turn(self) -> None:
        self._one()
        if self._queue:
            self._life.soon(self._turn)
        else:
            self._working = False

    async def _work_slowly(self) -> None:
        own_tasks(self._life.owner)  # whoever asked for the work
        while self._queue:
            await trio.sleep(self.latency_s() if self.latency_s is not None else 0)
            if not self._life.alive:
                return
            self._one()
        self._working = False

    def _one(self) -> None:
        item = self._queue[0]
        item.run()
        self._queue.popleft()
        item.report()
