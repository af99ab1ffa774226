"""Work for those who are not known to behave: all of it together has one slice of a pass of the loop, and no hurry.

Connections that come, that greet, that ran out of time, sessions that dribble bytes: a step for one of them is short,
but thousands may want one in the same moment. A request that arrives meanwhile waits until the pass is over, so what
counts is the sum. Whoever has such work hands it over, as a function that does one step and says whether there was one
to do. All that are here take turns, a step each, until SLICE_S is over; then sessions have theirs, and it goes on. When
a session has something meanwhile the slice ends early, but not before SLICE_S_MIN: a busy node, too, lets newcomers in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import trio

SLICE_S: Final = 0.000_2
SLICE_S_MIN: Final = 0.000_05
"""About two steps."""

Step = Callable[[], bool]
"""One short piece of work; False when there was none to do."""


class _Work:
    """A step that is repeated, the task that waits for its end as long as it does, and what the step raised."""

    __slots__ = ("error", "step", "task")

    def __init__(self, step: Step, task: trio.lowlevel.Task) -> None:
        self.step = step
        self.task: trio.lowlevel.Task | None = task
        self.error: Exception | None = None


class Aside:
    """One per node. `clock` is a monotonic clock; `urgent` says whether a session waits to be served."""

    __slots__ = ("_clock", "_parked", "_urgent", "_works")

    def __init__(self, clock: Callable[[], float], urgent: Callable[[], bool]) -> None:
        self._clock = clock
        self._urgent = urgent
        self._works: deque[_Work] = deque()
        """The next to have a turn first."""
        self._parked: trio.lowlevel.Task | None = None

    async def all_of(self, step: Step) -> None:
        """Wait until `step`, called again and again, has found nothing to do. What it raises is raised here."""
        work = _Work(step, trio.lowlevel.current_task())
        self._works.append(work)
        if self._parked is not None:
            trio.lowlevel.reschedule(self._parked)
            self._parked = None

        def abort(_: object) -> trio.lowlevel.Abort:
            work.task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        if work.error is not None:
            raise work.error

    async def run(self) -> None:
        """Do what is handed over until cancelled."""
        while True:
            if self._works:
                await trio.lowlevel.checkpoint()
            else:
                self._parked = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._abort)
            if self._urgent():  # whose turn comes first within a pass is chance
                await trio.lowlevel.checkpoint()
            began = now = self._clock()
            while self._works and now < began + SLICE_S and (now < began + SLICE_S_MIN or not self._urgent()):
                self._take_turn(self._works.popleft())
                now = self._clock()

    def _take_turn(self, work: _Work) -> None:
        if work.task is None:
            return
        try:
            if work.step():
                self._works.append(work)
                return
        except Exception as error:
            if work.task is None:  # nobody waits for it any more: there is nobody else to tell
                raise
            work.error = error
        if work.task is not None:
            trio.lowlevel.reschedule(work.task)
            work.task = None

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._parked = None
        return trio.lowlevel.Abort.SUCCEEDED

    def check(self) -> None:
        """With something to do, somebody is about to do it."""
        assert not self._works or self._parked is None
