"""Numbers that must never be given out twice, whatever a crash makes this store forget: key epochs and HLC stamps.

Both are taken from blocks whose upper bound is durable before the first number of the block is used. This object renews
the blocks in time; when the disk is slower than the writers, minting is refused as overloaded until the block is there.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import Final

import trio

from leafdb.errors import StorageError
from leafdb.limits import HLC_DRIFT_MS_MAX
from leafdb.model.epochs import EpochLease
from leafdb.model.hlc import HybridClock, stamp_ms
from leafdb.storage.engine import Engine
from leafdb.types import Durability, TreeId

RENEW_INTERVAL_S: Final = 1.0
EPOCH_KEY: Final = b"lease/epochs"
STAMP_KEY: Final = b"lease/stamps"
_EPOCHS: Final = struct.Struct(">QQ")
_STAMPS: Final = struct.Struct(">Q")


class Leases:
    """The two leases of one store incarnation, kept in the META tree."""

    def __init__(
        self,
        engine: Engine,
        tree: TreeId,
        now_ms: Callable[[], int],
        *,
        epochs: bytes | None,
        stamps: bytes | None,
        clean: bool,
    ) -> None:
        """`epochs` and `stamps` are what the store holds under the two keys. `clean`: the store was shut down cleanly,
        so that its own old epochs may go on being used."""
        self._engine = engine
        self._tree = tree
        self._now_ms = now_ms
        ceiling, floor = _EPOCHS.unpack(epochs) if epochs else (0, 0)
        self.epochs: EpochLease = EpochLease.recovered(ceiling=ceiling, floor=floor, clean=clean)
        self.clock: HybridClock = HybridClock(_STAMPS.unpack(stamps)[0] if stamps else 0)
        self._epochs_asked = 0
        self._stamps_asked = 0

    def stamp(self) -> int:
        """A new HLC stamp. Raises LeaseExhausted."""
        return self.clock.tick(self._now_ms())

    def ahead_ms(self, stamp: int) -> int:
        """By how much a stamp is ahead of this node's wall clock, if it is more than a peer may drag it; else 0, also
        when the clock of stamps is there already, as after a start."""
        ahead_ms = stamp_ms(stamp) - self._now_ms()
        return ahead_ms if ahead_ms > HLC_DRIFT_MS_MAX and stamp > self.clock.last else 0

    def lift(self, stamp: int) -> None:
        """Nothing below this is minted from now on, in this life. Whoever takes it from a single peer asks `ahead_ms`
        first."""
        self.clock.lift(stamp)
        self.renew()  # the block may end below it

    def secure(self, stamp: int, done: Callable[[StorageError | None], None]) -> None:
        """`done` once that holds for all lives of this store: the durable ceiling of stamps is not below it."""
        if self.clock.ceiling >= stamp:
            done(None)
            return
        # Also when as much is asked for already: who asked is told of it, and this one is to be told too.
        ceiling = self._stamps_asked = max(self._stamps_asked, stamp)
        granted = partial(self._granted, self._epochs_asked, ceiling, done)
        self._engine.write(((self._tree, STAMP_KEY, _STAMPS.pack(ceiling)),), Durability.ALWAYS, granted)

    def forget(self) -> None:
        """This store is about to forget records: none of its own entries of before counts on. Stands in the log before
        whatever is written next."""
        epochs = self.epochs
        epochs.raise_floor()
        ceiling = max(epochs.ceiling, self._epochs_asked)
        self._engine.write(((self._tree, EPOCH_KEY, _EPOCHS.pack(ceiling, epochs.floor)),), Durability.ALWAYS, None)

    async def run(self) -> None:
        """Keep blocks at hand also while nothing is minted: stamps follow the wall clock, and their lease runs out."""
        while True:
            self.renew()
            await trio.sleep(RENEW_INTERVAL_S)

    def renew(self, done: Callable[[StorageError | None], None] | None = None) -> None:
        """Ask for the next blocks when the present ones are nearly used up; `done` once what was asked is granted, or
        with the error that kept it from being."""
        epochs = self.epochs.lease_wanted()
        stamps = self.clock.lease_wanted(self._now_ms())
        writes: list[tuple[TreeId, bytes, bytes | None]] = []
        if epochs is not None and epochs > self._epochs_asked:
            self._epochs_asked = epochs
            writes.append((self._tree, EPOCH_KEY, _EPOCHS.pack(epochs, self.epochs.floor)))
        if stamps is not None and stamps > self._stamps_asked:
            self._stamps_asked = stamps
            writes.append((self._tree, STAMP_KEY, _STAMPS.pack(stamps)))
        if writes:
            granted = partial(self._granted, self._epochs_asked, self._stamps_asked, done)
            self._engine.write(writes, Durability.ALWAYS, granted)
        elif done is not None:
            done(None)

    def _granted(
        self, epochs: int, stamps: int, done: Callable[[StorageError | None], None] | None, error: StorageError | None
    ) -> None:
        if error is None:
            self.epochs.grant(epochs)
            self.clock.grant(stamps)
        if done is not None:
            done(error)
