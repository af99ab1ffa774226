"""What the world does to a store while a program runs: calls that fail, no room, bytes that change."""

from __future__ import annotations

import errno
from random import Random

from leafdb.sim.store_healing import AIMS, Aim, prove_detected
from leafdb.sim.store_life import StoreLife
from leafdb.vfs.memory import Fault


class StoreWorld:
    """Draws from the program's generator, and for damage that is aimed (`AIMS`) from one of its own."""

    def __init__(self, life: StoreLife, rng: Random, aims_rng: Random) -> None:
        self._life = life
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
        self._prove_detected(self._rng)
        for aim in AIMS:
            self._prove_detected(self._aims_rng, aim)

    def _prove_detected(self, rng: Random, aim: Aim | None = None) -> None:
        life = self._life
        found = prove_detected(life.disk, life.model, life.plan.config, rng, life.now_s, aim)
        if found is not None:
            damage, outcome = found
            life.trace.fault("damage on a copy", f"{damage}: {outcome}")
            life.trace.probe(f"damage: {outcome}")
