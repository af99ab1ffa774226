"""Who sends what a batch has queued: once per batch and session, however many frames that were.

Sessions report themselves dirty on their first `send`. Whoever runs a batch of work (the pump, after reading many
sessions) takes `hold()` before and calls `flush()` after it, so nothing is woken. Sends from elsewhere (a commit that
finished, a timer, a task) wake one parked task, which runs in the scheduler's next pass and sends for all of them.

Measured against a writer task per session: see docs/formats/wire.md and bench/micro/transport.py.
"""

from __future__ import annotations

from typing import Protocol

import trio


class Flushable(Protocol):
    """A session, or anything else whose work is cheaper once per batch (the engine's commit)."""

    def flush(self) -> None:
        """The batch is over: do what has gathered."""


class Flusher:
    """One per node."""

    __slots__ = ("_armed", "_dirty", "_parked")

    def __init__(self) -> None:
        self._dirty: list[Flushable] = []
        self._armed = False
        self._parked: trio.lowlevel.Task | None = None

    def add(self, item: Flushable) -> None:
        """Call `item.flush()` at the end of the batch; without a batch, in the scheduler's next pass."""
        self._dirty.append(item)
        if not self._armed:
            self._armed = True
            if self._parked is not None:
                trio.lowlevel.reschedule(self._parked)
                self._parked = None

    def hold(self) -> None:
        """A batch begins whose end will call `flush`."""
        self._armed = True

    def flush(self) -> None:
        """A batch ends: flush all that asked for it, and all that ask meanwhile (one that breaks may tell others)."""
        while self._dirty:
            dirty, self._dirty = self._dirty, []
            for item in dirty:
                item.flush()
        self._armed = False

    async def run(self) -> None:
        """Flush whenever something was queued outside a batch."""
        while True:
            if not self._dirty:
                self._parked = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._abort)
            self.flush()

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._parked = None
        return trio.lowlevel.Abort.SUCCEEDED

    def check(self) -> None:
        """Nobody is forgotten: with something queued, somebody is about to flush."""
        if self._dirty:
            assert self._armed
            assert self._parked is None
