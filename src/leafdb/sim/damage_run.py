"""The damage tier: one history of a store, and after each operation copies of its disk with one thing damaged in each.

The history is that of the crash tier. What is damaged is drawn by kind of file first, so that the small ones get their
share: segments of the log, the manifest, CURRENT, the stamp, the mark of a clean end, tables, value files, what lies in
snapshots and in the quarantine. The damage is done to a file that lies there (bits, sectors, length), or by a disk that
lies while the store goes on for a while: a write that never arrives, or arrives elsewhere (`store_lies`). Then all is
read: a right answer, an error, or a range that the store itself says it has lost (`store_healing`), and nothing else.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Final

from leafdb.sim.crash_run import calm_plan
from leafdb.sim.outcome import NODES, OPERATIONS, Outcome, Tier
from leafdb.sim.store_damage import KINDS, Damage, harm
from leafdb.sim.store_healing import OUTCOMES, DamageJudge
from leafdb.sim.store_lies import Lie, lie
from leafdb.sim.store_model import StoreModel
from leafdb.sim.store_program import Program
from leafdb.sim.store_run import outcome
from leafdb.storage.identity import CLEAN_PATH, IDENTITY_PATH
from leafdb.storage.manifest import CURRENT_PATH
from leafdb.storage.quarantine import QUARANTINE_DIRECTORY
from leafdb.storage.snapshot_files import PART, SNAPSHOTS_DIRECTORY, snapshot_path
from leafdb.vfs.base import read_file
from leafdb.vfs.memory import MemoryFileSystem

EACH: Final = 4
"""Damaged copies after each operation."""
LIES: Final = 0.1
"""Share of them on which the disk lies."""
COLD: Final = 0.3
ALIVE: Final = 0.4
"""Share of the stores that are open when it happens."""
HEALING: Final = 0.5
SETTLED: Final = 0.1
"""Share of the damage after which the store goes on to work: in tables and value files, which heals, and elsewhere."""
CUT: Final = 0.2
"""Share of those that heal whose power goes meanwhile."""
LINKED: Final = 0.2
"""Share of the damaged files of the store that are read by way of a snapshot they are linked into, too."""
FILES: Final = {
    "tables/": 8,
    "values/": 5,
    "wal/": 5,
    "MANIFEST-": 3,
    f"{SNAPSHOTS_DIRECTORY}/": 4,
    f"{QUARANTINE_DIRECTORY}/": 1,
    CURRENT_PATH: 1,
    IDENTITY_PATH: 1,
    CLEAN_PATH: 1,
}
"""Kinds of files, by what their paths begin with, and how often each is damaged."""
VOID: Final = "a lie about a file that has gone"
PROBES: Final = (
    "a corruption",
    *OUTCOMES,
    "a damaged snapshot: refused",
    "a damaged snapshot: read",
    VOID,
)


def run(seed: int, *, nodes: int = NODES, operations: int = OPERATIONS, keep: bool = False) -> Outcome:
    """Run one seed. `nodes` means nothing here: there is one store."""
    del nodes
    program = Program(seed, calm_plan(Random(f"{seed}/plan")), keep=keep)
    trials = Trials(program, Random(f"{seed}/damage"))

    def body() -> None:
        program.begin()
        while program.operations < operations:
            program.step()
            for _ in range(EACH):
                trials.one()
        program.end()

    return outcome(Tier.DAMAGE, seed, program, PROBES, body)


class Trials:
    """Copies of the program's disk, damaged and judged one by one."""

    def __init__(self, program: Program, rng: Random) -> None:
        self._program = program
        self._rng = rng

    def one(self) -> None:
        """Damage one copy and judge it."""
        life, rng = self._program.life, self._rng
        copy = life.disk.power_cut(rng, keep=1.0)
        copy.cold = rng.random() < COLD
        alive = rng.random() < ALIVE
        if rng.random() < LIES:
            told = lie(copy, life.plan.config, rng, life.now_s, self._program.windows.tell)
            if told is None:
                self._program.trace.probe(VOID)
            else:
                self._judge_lie(told, alive=alive)
            return
        judge = self._judge_of(copy, life.model)
        if alive:
            judge.open()
        self._judge(judge, copy, self._harm(copy, alive=alive))

    def _judge_lie(self, told: Lie, *, alive: bool) -> None:
        disk = told.disk
        if not alive:
            told.machine.engine.abandon()
            disk = disk.power_cut(self._rng, keep=1.0)
        judge, damage = self._judge_of(disk, told.model), told.damage
        if alive:
            judge.machine = told.machine
            if not damage.ranges:
                damage = replace(damage, ranges=None)  # a job is writing the file, and the manifest may name it yet
        self._judge(judge, disk, damage)

    def _judge_of(self, disk: MemoryFileSystem, model: StoreModel, *, snapshot: bool = False) -> DamageJudge:
        life, owner = self._program.life, self._program.windows.tell
        config = replace(life.plan.config, snapshot=snapshot)
        return DamageJudge(disk, model, config, self._rng, life.now_s, owner)

    def _harm(self, copy: MemoryFileSystem, *, alive: bool) -> Damage:
        """Damage a file, of a kind that is there."""
        life, rng = self._program.life, self._rng
        paths = [path for path in copy.paths() if copy.open_read(path).size()]
        kinds = [name for name in FILES if any(path.startswith(name) for path in paths)]
        kinds += [f"{QUARANTINE_DIRECTORY}/"] * any(path.startswith("tables/") for path in paths)
        kinds += [CLEAN_PATH] * (not alive)
        (kind,) = rng.choices(kinds, [FILES[name] for name in kinds])
        if kind == CLEAN_PATH:
            self._judge_of(copy, life.model).open().engine.close()
        if kind.startswith(QUARANTINE_DIRECTORY):
            _quarantine(copy, rng.choice([path for path in paths if path.startswith("tables/")]))
        path = rng.choice([path for path in copy.paths() if path.startswith(kind) and read_file(copy, path)])
        before, others = read_file(copy, path), [each for each in paths if copy.exists(each)]
        place = path, range(len(before))
        while True:
            damage = harm(copy, place, others, rng, kind=rng.choice(KINDS), written=life.model.written)
            if read_file(copy, path) != before:
                return damage

    def _judge(self, judge: DamageJudge, disk: MemoryFileSystem, damage: Damage) -> None:
        trace = self._program.trace
        trace.probe("a corruption")
        kind = next((name for name in FILES if damage.path.startswith(name)), "other files")
        settle = self._rng.random() < (HEALING if damage.heals else SETTLED)
        outcome = judge.prove(damage, settle=settle, cut=self._rng.random() < CUT)
        trace.probe(outcome)
        trace.fault(f"{damage.kind} in {kind}", f"{damage}: {outcome}")
        for name in disk.list(SNAPSHOTS_DIRECTORY):
            path = snapshot_path(name)
            inside = damage.path.startswith(f"{path}/")
            linked = not inside and self._rng.random() < LINKED and disk.exists(f"{path}/{damage.path}")
            if not name.endswith(PART) and (inside or linked):
                self._judge_snapshot(disk, name, damage)

    def _judge_snapshot(self, disk: MemoryFileSystem, name: str, damage: Damage) -> None:
        """A snapshot that has a damaged file, opened on a disk of its own, beside what it was."""
        life, program = self._program.life, self._program
        sequence, state = program.snapshots.open(life.disk, name)
        judge = self._judge_of(disk.copy_below(snapshot_path(name)), life.model, snapshot=True)
        program.trace.probe(f"a damaged snapshot: {judge.prove_snapshot(damage, sequence, state)}")


def _quarantine(disk: MemoryFileSystem, path: str) -> None:
    """Put a copy of a table where a salvage puts the damaged one."""
    disk.mkdir(QUARANTINE_DIRECTORY)
    target = f"{QUARANTINE_DIRECTORY}/{path.rpartition('/')[2]}"
    if not disk.exists(target):
        file = disk.create(target)
        file.append(read_file(disk, path))
        file.close()
