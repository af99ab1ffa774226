"""Python's cyclic garbage collector in a process of ours: seldom, and with an eye on how long it takes.

What a request makes holds no cycles and is freed by its counts; the default thresholds walk it over and over, for about
a tenth of a put's time. While a collection runs nothing else does, on whichever thread it was set off.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from leafdb.node.metrics import Histogram


def calm_collector() -> None:
    """Have it look less often, and never at what is there already."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


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
