"""Periodic writes around the sync that follows them (I29).

The log's thread syncs what periodic writes have appended; the next ones are appended meanwhile, before it begins or
after it is done and before the store hears of it. What the sync covers is what was there when it began: who then
waits for the newest write to be safe must not be told so by this sync, and the power goes to see.

In some seeds, and with chance of its own: the other seeds are the same as without it.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from leafdb.sim.store_life import StoreLife
from leafdb.types import Durability

SHARE: Final = 0.4
CHANCE: Final = 0.02
LATER_S: Final = 1.0
"""More than the interval between syncs."""


class StoreSyncs:
    """Beside the program, whose writes of one key these are."""

    def __init__(self, life: StoreLife, rng: Random, write: Callable[[], object]) -> None:
        self._life = life
        self._rng = rng
        self._write = write
        self._on = rng.random() < SHARE

    def turn(self) -> None:
        """After an operation: now and then a sync with writes before, during and after it."""
        rng, life = self._rng, self._life
        if not self._on or rng.random() >= CHANCE or life.over() or life.machine.failures:
            return
        machine, model = life.machine, life.model
        machine.log_executor.run_pending()
        self._writes()
        life.now_s += LATER_S
        for _ in range(2):  # the first only notes that there is something to sync
            machine.engine.on_time(life.now_s)
            life.now_s += LATER_S
        for _ in range(2):
            machine.log_executor.run_pending(rng.choice((0, 1)))
            self._writes()
        machine.log_executor.run_pending(rng.choice((1, 2, 3)))
        lsn = model.last_lsn
        if life.over() or machine.failures or not lsn:
            return
        if machine.engine.safe_sequence(Durability.ALWAYS) < machine.engine.safe_sequence(Durability.PERIODIC):
            life.trace.probe("written since the last sync")
        machine.engine.when_safe(lsn, Durability.ALWAYS, life.waiter(lsn, Durability.ALWAYS))
        if rng.random() < 0.5:
            life.plan_death(1)

    def _writes(self) -> None:
        for _ in range(self._rng.choice((1, 2))):
            if not self._life.over() and not self._life.machine.failures:
                self._write()
                self._life.machine.engine.flush_batch()
