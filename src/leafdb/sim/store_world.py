"""What the world does to a store while a program runs: calls that fail, no room, bytes that change."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from leafdb.sim.store_damage import KINDS, anywhere, harm, store_files
from leafdb.sim.store_healing import DamageJudge
from leafdb.sim.store_life import StoreLife
from leafdb.sim.store_log import Place, middle, unflushed
from leafdb.sim.store_machine import Machine
from leafdb.vfs.memory import Fault, MemoryFileSystem


@dataclass(frozen=True, slots=True)
class Aim:
    """Which damage is done to a copy of the disk."""

    place: Callable[[MemoryFileSystem, Random], Place | None]
    """Looks for one when the store is open, if it is to be."""
    kinds: tuple[str, ...]
    alive: float
    """Share that is done to an open store."""


ANYWHERE: Final = Aim(anywhere, KINDS, alive=0.4)
AIMS: Final = (
    Aim(middle, ("flip", "zeros", "misdirected", "swapped"), alive=0.0),
    Aim(unflushed, ("cut",), alive=1.0),
    Aim(unflushed, ("cut",), alive=0.0),
)
"""What chance seldom does, and some bug needs."""


class StoreWorld:
    """Draws from the program's generator, and for damage that is aimed (`AIMS`) from one of its own. `owner` is told of
    each opening of a copy."""

    def __init__(self, life: StoreLife, owner: Callable[[Machine], None], rng: Random, aims_rng: Random) -> None:
        self._life = life
        self._owner = owner
        self._rng = rng
        self._aims_rng = aims_rng

    def fault(self, kind: str) -> None:
        """A call of that kind is going to fail."""
        rng = self._rng
        short_write = kind == "append" and rng.random() < 0.6
        error = errno.ENOSPC if kind == "append" and rng.random() < 0.4 else errno.EIO
        prefix = rng.choice(("", "wal", "tables", "values", "MANIFEST"))
        fault = Fault(kind, at=rng.choice((1, 2, 5)), error=error, path_prefix=prefix, short=short_write)
        self._life.trace.fault(
            f"{kind} fails", f"{errno.errorcode[error]} in {prefix or 'any file'}, call {fault.at} from now"
        )
        self._life.disk.faults.append(fault)

    def fill(self) -> None:
        """The disk has little room, or again enough."""
        disk, trace = self._life.disk, self._life.trace
        if disk.quota_bytes is None:
            disk.quota_bytes = disk.used_bytes() + self._rng.choice((500, 5_000, 20_000))
            trace.fault("disk full", f"{disk.free_bytes()} bytes are left")
        else:
            disk.quota_bytes = None
            trace.tell("nemesis", "the disk has room again")

    def damage(self) -> None:
        """Copies of the disk are damaged, one anywhere and one for each aim."""
        life = self._life
        if life.dead or life.machine.failures or life.disk.faults:
            return
        self._damage(ANYWHERE, self._rng)
        for aim in AIMS:
            self._damage(aim, self._aims_rng)

    def _damage(self, aim: Aim, rng: Random) -> None:
        """A copy as a kill would leave it is damaged and judged, where there is something to aim at."""
        life = self._life
        copy = life.disk.power_cut(rng, keep=1.0)
        copy.quota_bytes = None
        copy.cold = rng.random() < 0.5
        judge = DamageJudge(copy, life.model, life.plan.config, rng, life.now_s, self._owner)
        if rng.random() < aim.alive:
            judge.open()
        place = aim.place(copy, rng)
        if place is None:
            return
        kind = rng.choice(aim.kinds)
        damage = harm(copy, place, store_files(copy), rng, kind=kind, written=life.model.written)
        outcome = judge.prove(damage)
        life.trace.fault("damage on a copy", f"{damage}: {outcome}")
        life.trace.probe(f"damage: {outcome}")
