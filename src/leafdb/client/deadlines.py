"""One deadline per call: the nearest of the call's own timeout and every `db.deadline(...)` block around it.

Blocks nest by minimum, follow the task or thread that entered them (contextvars), and bind one client only: its clock
may be another than its neighbour's (a trio loop under virtual time has its own).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_Chain = tuple[tuple[object, float], ...]
_BLOCKS: Final[ContextVar[_Chain]] = ContextVar("leafdb_deadlines", default=())


any_block: Final = _BLOCKS.get
"""The blocks around the caller: true if there are any."""


def nearest(owner: object, deadline: float) -> float:
    """`deadline`, or that of a surrounding block of `owner` that comes sooner."""
    for holder, until in _BLOCKS.get():
        if holder is owner and until < deadline:
            deadline = until
    return deadline


@contextmanager
def block(owner: object, seconds: float, clock: Callable[[], float]) -> Iterator[None]:
    """Calls of `owner` inside the block end at most `seconds` from now."""
    token = _BLOCKS.set((*_BLOCKS.get(), (owner, clock() + seconds)))
    try:
        yield
    finally:
        _BLOCKS.reset(token)
