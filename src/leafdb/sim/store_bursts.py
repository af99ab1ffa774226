"""Edits of the manifest that wait behind one that fails (I29).

Two trees are made, or dropped, in one go, so that two edits wait for the log's thread; of the first only half reaches
the disk. What is written behind that half makes the manifest unreadable, though nobody was told that anything is there.

In some seeds, and with chance and trees of its own: the other seeds are the same as without it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from random import Random
from typing import Final

from leafdb.sim.store_life import StoreLife
from leafdb.types import TreeId
from leafdb.vfs.memory import Fault

TREES: Final = (TreeId(400), TreeId(401))
SHARE: Final = 0.4
"""Of the seeds in which writes fail."""
CHANCE: Final = 0.01


class StoreBursts:
    """Beside the program, which makes and drops the trees."""

    def __init__(
        self, life: StoreLife, rng: Random, make: Callable[[TreeId], object], drop: Callable[[TreeId], object]
    ) -> None:
        self._life = life
        self._rng = rng
        self._make = make
        self._drop = drop
        self._on = rng.random() < SHARE and "write fails" in life.plan.faults

    def turn(self) -> None:
        """After an operation: now and then a burst, whose first edit is torn perhaps."""
        rng, life = self._rng, self._life
        if not self._on or rng.random() >= CHANCE or life.over() or life.machine.failures:
            return
        if rng.random() < 0.7:
            life.trace.fault("append fails", "half an edit of the manifest, with another behind it")
            life.disk.faults.append(Fault("append", error=errno.EIO, path_prefix="MANIFEST", short=True))
        for tree_id in TREES:
            (self._drop if life.model.usable(tree_id) else self._make)(tree_id)
        life.machine.log_executor.run_pending(rng.choice((2, 3, None)))
