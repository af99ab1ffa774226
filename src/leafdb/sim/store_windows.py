"""Trees kept by time under the random program of the store tier: what expired is deleted, and the store is told.

The program's values are numbered as they are written, and that number is the clock: `expires_ms` tells of each when it
expires, some never. Now and then the owner of the store, which is played here, deletes what has expired in one part of
the keys and says so; which trees are kept by time changes, too. What a store that drops whole tables must hold is what
the model says anyway, after any crash.

It draws from a generator of its own: the other draws of a seed are the same as without it.
"""

from __future__ import annotations

from random import Random
from typing import Final

from leafdb.errors import StorageError
from leafdb.sim.store_life import StoreLife
from leafdb.sim.store_machine import Machine
from leafdb.types import Durability, TreeId

CHANCE: Final = 0.1
"""Of an operation to be followed by a sweep of one part of the keys."""
Parts = tuple[tuple[bytes, bytes | None], ...]
PARTS: Final[tuple[Parts, ...]] = (((b"", None),), ((b"", b"k005"), (b"k005", None)))
"""The ranges that are told of: one or the other, for a whole program."""
_LIFE: Final = 40


def expires_ms(value: bytes) -> int:
    """When a value of the program expires; of some it is never, or not known: they come together, between many that
    do. The filter of the store's jobs."""
    number = int(value.partition(b".")[0])
    lasts = number // 32 % 8 == 5 and number % 16 == 0
    return 0 if lasts else number + _LIFE + number % 7


class StoreWindows:
    """Beside the program."""

    def __init__(self, life: StoreLife, rng: Random, trees: tuple[TreeId, ...]) -> None:
        self._life = life
        self._rng = rng
        self._trees = trees
        self._by_time: list[TreeId] = []
        self._parts = rng.choice(PARTS)
        self._choose()

    def _choose(self) -> None:
        self._by_time = [tree for tree in self._trees if self._rng.random() < 0.8]

    def tell(self, machine: Machine) -> None:
        """The owner of a store that was opened knows which trees are kept by time, if any may be."""
        if self._life.plan.config.expiry:
            machine.engine.keep_by_time(self._by_time)

    def turn(self, now: int) -> None:
        """After an operation: now and then forget; `now` is the number of the last value."""
        rng, life = self._rng, self._life
        chance, part, back = rng.random(), rng.choice(self._parts), rng.randrange(10)
        if not life.plan.config.expiry or life.over():
            return
        if chance < CHANCE:
            self._sweep(*part, max(0, now - back))
        elif chance < CHANCE + 0.002:
            self._choose()
            life.machine.engine.keep_by_time(self._by_time)

    def _sweep(self, start: bytes, stop: bytes | None, now: int) -> None:
        """Delete what has expired before `now`, in all trees that are kept by time, and say so."""
        life = self._life
        for tree_id, tree in life.model.trees().items():
            keys = [
                key
                for key, value in tree.items.items()
                if start <= key and (stop is None or key < stop) and 0 < expires_ms(value) < now
            ]
            if keys and not self._delete(tree_id, sorted(keys)):
                return
        life.trace.tell("owner", f"forgot what expired before {now} from {start!r} to {stop!r}")
        life.machine.engine.forgotten(start, stop, now)

    def _delete(self, tree_id: TreeId, keys: list[bytes]) -> bool:
        life = self._life
        entries = [(tree_id, key, None) for key in keys]
        durability = self._rng.choice((Durability.ALWAYS, Durability.PERIODIC))
        lsn = life.model.write(list(entries))
        try:
            life.machine.engine.write(entries, durability, life.waiter(lsn, durability))
        except StorageError as error:
            if not life.dead:
                life.model.unwrite()
                life.expect_failed(error)
            return False
        return not life.dead
