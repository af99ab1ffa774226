"""How long Python's cyclic garbage collector takes: while a collection runs nothing else does, on whichever thread it
was set off. How often it runs is set in `interpreter.py`.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from leafdb.node.metrics import Histogram


@contextmanager
def pauses_measured(pauses: Histogram, now: Callable[[], float]) -> Iterator[None]:
    """Count how long each collection takes, by this clock, as long as the context lasts."""
    began = 0.0

    def heard(phase: str, info: dict[str, int]) -> None:
        nonlocal began
        if phase == "start":
            began = now()
        else:
            pauses.observe(now() - began)

    gc.callbacks.append(heard)
    try:
        yield
    finally:
        gc.callbacks.remove(heard)
