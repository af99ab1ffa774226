"""Tests under a clock that jumps: an hour of waiting costs nothing, and the same seed gives the same run.

trio shuffles the tasks that are ready, which would make two runs differ; here they are put in the order of their birth
and shuffled with a coin of the test's own seed. The same place is where tasks can be held back: those of an owner that
is frozen do not get their turn, whatever they have become ready for, until it is thawed. So a process of a simulated
machine stops as by SIGSTOP, between any two steps of its tasks, while clock, network and everybody else go on.

All that is private in trio and used here is in this module; `self_test` says when a trio has changed it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, MutableSequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from random import Random
from typing import Any, Final, ParamSpec, TypeVar

import trio
import trio.testing
from trio._core import _run

P = ParamSpec("P")
T = TypeVar("T")

_trio: Any = _run

_OWNER: Final[ContextVar[str]] = ContextVar("leafdb task owner")


class Schedule(Random):
    """What trio takes for its generator: shuffles each batch of tasks, and takes out those that are frozen."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._held: dict[str, list[trio.lowlevel.Task]] = {}

    def shuffle(self, x: MutableSequence[Any]) -> None:
        """trio's next batch, sorted by birth."""
        if self._held:
            ready = []
            for task in x:
                owner = task.context.get(_OWNER)
                if owner in self._held:
                    self._held[owner].append(task)
                else:
                    ready.append(task)
            x[:] = ready
        if len(x) > 1:
            super().shuffle(x)

    def freeze(self, owner: str) -> None:
        """From the next batch on none of the owner's tasks runs."""
        self._held.setdefault(owner, [])

    def thaw(self, owner: str) -> None:
        """They go on; those that became ready meanwhile are ready now."""
        _trio.GLOBAL_RUN_CONTEXT.runner.runq.extend(self._held.pop(owner, ()))

    def is_frozen(self, owner: str) -> bool:
        """Whether the owner's tasks are held back."""
        return owner in self._held


def current_schedule() -> Schedule:
    """The schedule of the present run. RuntimeError when it is not one of ours."""
    if not isinstance(_trio._r, Schedule):
        raise RuntimeError("tasks can be frozen only under virtual time: see leafdb.testing.virtual_time.run_virtual")
    return _trio._r


def may_freeze() -> bool:
    """Whether the present run is one of ours."""
    return isinstance(_trio._r, Schedule)


def own_tasks(owner: str) -> None:
    """The present task, and all that it starts from now on, belong to `owner`."""
    _OWNER.set(owner)


def virtual(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run an async test with a clock that jumps to the next deadline when nobody has anything to do."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def main() -> None:
            await test(*args, **kwargs)

        run_virtual(main)

    return run


def run_virtual(main: Callable[[], Awaitable[T]], seed: int = 0) -> T:
    """Run `main` under such a clock; `seed` decides what trio leaves to chance."""
    with scheduled(seed):
        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@contextmanager
def scheduled(seed: int | Schedule) -> Iterator[Schedule]:
    """While this lasts, what trio leaves to chance is decided by the seed; a loop that is entered several times, as a
    guest, brings its schedule along."""
    before = _trio._r, _trio._ALLOW_DETERMINISTIC_SCHEDULING
    schedule = seed if isinstance(seed, Schedule) else Schedule(seed)
    _trio._r, _trio._ALLOW_DETERMINISTIC_SCHEDULING = schedule, True
    try:
        yield schedule
    finally:
        _trio._r, _trio._ALLOW_DETERMINISTIC_SCHEDULING = before


def self_test() -> None:
    """Raise RuntimeError when this trio does not do what this module relies on."""
    runs = [run_virtual(_tiny, seed) for seed in (1, 1, 2, 3, 4)]
    if runs[0] != runs[1] or all(run[0] == runs[0][0] for run in runs):
        raise RuntimeError(f"trio {trio.__version__} does not take its order of tasks from trio._core._run._r")
    if any(run[1] != ["thawed", "frozen ran at 7.0"] for run in runs):
        raise RuntimeError(f"trio {trio.__version__} does not let tasks be held back: {runs[0][1]}")


async def _tiny() -> tuple[list[int], list[str]]:
    """The order in which ten tasks ran, and what became of one that was frozen for seven seconds."""
    order: list[int] = []
    story: list[str] = []

    async def note(number: int) -> None:
        for _ in range(3):
            await trio.lowlevel.checkpoint()
            order.append(number)

    async def freezing(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        own_tasks("frozen")
        task_status.started()
        await trio.sleep(1)
        story.append(f"frozen ran at {trio.current_time() - start}")

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(note, number)
        await nursery.start(freezing)
        schedule = current_schedule()
        schedule.freeze("frozen")
        await trio.sleep(7)
        story.append("thawed")
        schedule.thaw("frozen")
    return order, story
