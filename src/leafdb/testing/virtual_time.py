"""Tests under a clock that jumps: an hour of waiting costs nothing, and the same seed gives the same run.

trio shuffles the tasks that are ready, which would make two runs differ; here they run in the order of their birth,
with a coin of the test's own seed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from random import Random
from typing import Any, ParamSpec, TypeVar

import trio
import trio.testing
from trio._core import _run

P = ParamSpec("P")
T = TypeVar("T")

_scheduler: Any = _run


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
    with _in_order(seed):
        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@contextmanager
def _in_order(seed: int) -> Iterator[None]:
    before = _scheduler._r, _scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    _scheduler._r, _scheduler._ALLOW_DETERMINISTIC_SCHEDULING = Random(seed), True
    try:
        yield
    finally:
        _scheduler._r, _scheduler._ALLOW_DETERMINISTIC_SCHEDULING = before
