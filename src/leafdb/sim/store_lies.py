"""A disk that lies to a store at work: one write is said to be done, and never arrives, or arrives elsewhere.

The store goes on for a while, flushing and compacting; reads show the right bytes, out of the page cache. Then that is
gone. By then the file concerned may be gone as well, and with it the lie.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from leafdb.sim.store_damage import Damage, damage_seen
from leafdb.sim.store_machine import Machine
from leafdb.sim.store_model import StoreModel
from leafdb.storage.settings import EngineConfig
from leafdb.testing.violation import Invariant, require
from leafdb.types import Durability
from leafdb.vfs.base import read_file
from leafdb.vfs.memory import MemoryFileSystem
from leafdb.vfs.memory_faults import LOSE, MISDIRECT, Fault

WHERE: Final = ("", "wal/", "tables/", "tables/", "values/", "values/", "MANIFEST-", "IDENTITY", "CURRENT")
AT_OPENING: Final = ("IDENTITY", "CURRENT")
"""Written by every opening, and seldom else."""
WRITES_MAX: Final = 20
STEPS: Final = 120
KEYS: Final = 24
VALUE_BYTES_MAX: Final = 200
FIRST_VALUE: Final = 1_000_000
"""Values begin with a number, as the program's do, and none has theirs."""


@dataclass(frozen=True, slots=True)
class Lie:
    """What it came to. The store is open on the disk still, and the model knows what it should hold."""

    machine: Machine
    disk: MemoryFileSystem
    model: StoreModel
    damage: Damage


def lie(
    disk: MemoryFileSystem, config: EngineConfig, rng: Random, now_s: float, owner: Callable[[Machine], None]
) -> Lie | None:
    """Open the store on `disk`, a copy, tell its owner, and let it work while the disk lies once. None: nothing is left
    of the lie."""
    where = rng.choice(WHERE)
    # Written in one piece, or nearly: there is no other place in the file.
    kind = LOSE if where in (*AT_OPENING, "tables/", "values/") else rng.choice((LOSE, MISDIRECT))
    fault = Fault(kind, at=rng.choice((1, 1, 2, 4)), path_prefix=where)
    early = where in AT_OPENING or rng.random() < 0.1
    if early:
        disk.faults.append(fault)
    machine = Machine(disk, config, lambda: now_s)
    owner(machine)
    trees = machine.engine.trees()
    model = StoreModel.of(machine.engine.last_sequence, {tree_id: machine.contents(tree_id) for tree_id in trees})
    if not early:
        disk.faults.append(fault)
    if trees:
        _work(machine, model, rng, fault)
    disk.faults.clear()
    shown = {path: read_file(disk, path) for path in disk.paths()}
    disk.evict()
    for path, before in shown.items():
        after = read_file(disk, path)
        if after != before:
            at = next(at for at, (old, new) in enumerate(zip(before, after, strict=False)) if old != new)
            return Lie(machine, disk, model, damage_seen(disk, fault.kind, path, at, before, model.last_lsn))
    machine.engine.abandon()
    return None


def _work(machine: Machine, model: StoreModel, rng: Random, fault: Fault) -> None:
    """Writes until the disk has lied, and perhaps a few more; all of them are synced in the end."""
    engine = machine.engine
    left = rng.choice((0, 0, 1, 3))
    for number in range(WRITES_MAX):
        left -= fault.seen >= fault.at
        if left < 0:
            break
        size = rng.choice((0, 10, VALUE_BYTES_MAX))
        value = None if rng.random() < 0.15 else b"%d." % (FIRST_VALUE + number) + rng.randbytes(size)
        entries = [(rng.choice(engine.trees()), b"k%03d" % rng.randrange(KEYS), value)]
        model.write(entries)
        engine.write(entries, Durability.ALWAYS)
        if rng.random() < 0.5:
            engine.flush_batch()
            machine.log_executor.run_pending()
        if rng.random() < 0.3:
            engine.flush_soon()
            for _ in range(STEPS):
                machine.log_executor.run_pending()
                machine.read_executor.run_pending()
                machine.jobs.step()
                if fault.seen >= fault.at and rng.random() < 0.1:
                    break
    engine.flush_batch()
    while machine.log_executor.pending:
        machine.log_executor.run_pending()
    safe = engine.safe_sequence(Durability.ALWAYS)
    require(safe == model.last_lsn, Invariant.LIVENESS, f"{safe} of {model.last_lsn} writes are safe at rest")
