"""What goes wrong with disks: calls that fail, no room, slowness, and bytes that are not what was written.

What fails a node's writes ends the node, by its own decision; whoever looks after forsaken nodes (`nemesis`) mends the
disk and starts it again. What damages bytes is followed, after a while, by the operator, who gives the node a new disk:
until then the node must notice, and say so, whenever it meets the damage. Or nobody does anything, where tables of
buckets rot: the store salvages them, repair brings back what they had lost, and in the end every table is sound.
"""

from __future__ import annotations

from contextlib import suppress
from random import Random
from typing import Final

import trio

from leafdb.errors import CorruptionError, StorageError
from leafdb.node.engine_settings import salvages
from leafdb.node.node import Node
from leafdb.sim.noted_losses import NotedLosses
from leafdb.sim.stage import Stage
from leafdb.storage.identity import IDENTITY_PATH
from leafdb.storage.manifest import CURRENT_PATH
from leafdb.storage.sstable_reader import verify
from leafdb.testing.violation import Invariant, require
from leafdb.types import NodeId
from leafdb.vfs.memory import MemoryFileSystem
from leafdb.vfs.memory_faults import LOSE, MISDIRECT, Fault

WRITING: Final = ("append", "create", "rename", "sync_dir", "unlink", "link")
READING: Final = ("read_at", "open")
TABLES: Final = "tables/"
HARD_ROOM_BYTES: Final = 4_096
HEALING_S: Final = 300.0
"""Longer than any trouble of others that may keep a salvage waiting."""


async def sync_error(stage: Stage, lasting_s: float) -> None:
    """One sync fails; what it was to make durable may be gone for good, whatever a later sync says."""
    await _failing(stage, Fault("sync", at=stage.rng.randint(1, 30)), "sync_error", lasting_s)


async def disk_error(stage: Stage, lasting_s: float) -> None:
    """Some other call fails, once or a few times."""
    rng = stage.rng
    kind = rng.choice(WRITING if rng.random() < 0.6 else READING)
    await _failing(stage, Fault(kind, at=rng.randint(1, 30), count=rng.randint(1, 3)), "disk_error", lasting_s)


async def short_write(stage: Stage, lasting_s: float) -> None:
    """Half of a write is on disk, then the error."""
    await _failing(stage, Fault("append", at=stage.rng.randint(1, 40), short=True), "short_write", lasting_s)


async def _failing(stage: Stage, fault: Fault, name: str, lasting_s: float) -> None:
    node = stage.rng.choice(stage.all)
    disk = stage.cluster.disks[node]
    stage.trace.fault(name, f"n{node} {fault.kind} in {fault.at}")
    disk.faults.append(fault)
    try:
        await trio.sleep(lasting_s)
    finally:
        if fault.seen >= fault.at:
            stage.trace.probe("disk_fault_struck")
        if fault in disk.faults:
            disk.faults.remove(fault)


async def disk_full(stage: Stage, lasting_s: float) -> None:
    """Too little room to take writes, or none at all."""
    rng, cluster = stage.rng, stage.cluster
    node = rng.choice(stage.all)
    hard = rng.random() < 0.4
    stage.trace.fault("full_disk", f"n{node}{', no room at all' if hard else ''}")
    cluster.fill_disk(node)
    if hard:
        disk = cluster.disks[node]
        disk.quota_bytes = disk.used_bytes() + rng.randrange(HARD_ROOM_BYTES)
    try:
        await trio.sleep(lasting_s)
    finally:
        cluster.free_disk(node)


async def slow_disk(stage: Stage, lasting_s: float) -> None:
    """Every call takes much longer than usual."""
    node = stage.rng.choice(stage.all)
    times = stage.rng.choice((5.0, 30.0, 200.0))
    stage.trace.fault("slow_disk", f"n{node} {times:g} times")
    stage.cluster.slowness[node] *= times
    try:
        await trio.sleep(lasting_s)
    finally:
        stage.cluster.slowness[node] /= times


async def rot(stage: Stage, lasting_s: float) -> None:
    """Bits of some files of a store change."""
    with stage.claimed_to_destroy() as victim:
        if victim is None:
            return
        disk = stage.cluster.disks[victim]
        stage.damaged[victim] = None
        if stage.rng.random() < 0.5:
            await _heals(stage, victim, lasting_s)
            return
        flipped = _rot(stage.rng, disk)
        stage.trace.fault("bit_rot", f"n{victim} {flipped} bits")
        await _damaged(stage, victim, lasting_s)


async def _heals(stage: Stage, victim: NodeId, lasting_s: float) -> None:
    """Tables of a store rot, and nobody replaces it."""
    rng, disk = stage.rng, stage.cluster.disks[victim]
    node = stage.cluster.nodes[victim]
    paths = [meta.path for meta in node.engine.tables().values() if salvages(meta.tree_id)] if node.ready else []
    for path in rng.sample(paths, min(len(paths), rng.randint(1, 3))):
        size = disk.open_read(path).size()
        choice = rng.random()
        if choice < 0.15:
            disk.unlink(path)
        elif choice < 0.3:
            disk.open_append(path).truncate(rng.randrange(size))
        else:
            disk.flip(path, rng.randrange(size), 1 << rng.randrange(8))
        stage.trace.fault("table_rot", f"n{victim} {path}")
    try:
        await trio.sleep(rng.uniform(0, lasting_s))
        disk.evict()
        if rng.random() < 0.5:
            await stage.kill(victim)
            disk.evict()
            await stage.start_all([victim])
        await trio.sleep(rng.uniform(0, lasting_s))
    finally:
        with trio.CancelScope(shield=True):
            stage.mend_disk(victim)
            await _until_sound(stage, victim)
            stage.damaged.pop(victim, None)
            stage.trace.probe("healed_in_place", bool(paths))


async def _until_sound(stage: Stage, victim: NodeId) -> None:
    """Have the node look at its files, as the scrub does once a week; it must do the rest."""
    until_s = trio.current_time() + HEALING_S
    losses = NotedLosses(stage, victim)
    problem = "it does not run"
    while trio.current_time() < until_s:
        await stage.start_all([victim])
        node = stage.cluster.nodes.get(victim)
        if node is not None and node.ready:
            problem = unsound(node, stage.cluster.disks[victim])
            if not problem:
                return
            losses.follow(node)
            with suppress(StorageError):  # one is under way, or the node ends
                node.engine.verify_soon(bytes_per_s=0, done=_nobody)
        await losses.wait(1.0)
    require(False, Invariant.CORRUPTION_DETECTED, f"n{victim} has not healed: {problem}")


def _nobody(verified: object) -> None:
    """What a verification found is seen in what becomes of it."""


def unsound(node: Node, disk: MemoryFileSystem) -> str:
    """What is wrong with the tables of a store, or is not yet noted as lost; empty: nothing."""
    for meta in node.engine.tables().values():
        try:
            verify(disk, meta)
        except CorruptionError as error:
            return str(error)
    return f"it has not noted {node.engine.lost}" if node.engine.lost else ""


def _rot(rng: Random, disk: MemoryFileSystem) -> int:
    """Flip bits of tables, seldom of the small files a store cannot be opened without; how many."""
    paths = [TABLES + name for name in disk.list("tables")]
    if rng.random() < 0.15:
        paths = [name for name in disk.list("") if name in (IDENTITY_PATH, CURRENT_PATH)]
    flipped = 0
    for path in rng.sample(paths, min(len(paths), rng.randint(1, 4))):
        size = disk.open_read(path).size()
        for _ in range(rng.randint(1, 4) if size else 0):
            disk.flip(path, rng.randrange(size), 1 << rng.randrange(8))
            flipped += 1
    return flipped


async def lost_write(stage: Stage, lasting_s: float) -> None:
    """The disk says that a write is done, and it never was."""
    await _lying(stage, LOSE, "lost_write", lasting_s)


async def misdirected_write(stage: Stage, lasting_s: float) -> None:
    """A write lands elsewhere in the file."""
    await _lying(stage, MISDIRECT, "misdirected_write", lasting_s)


async def _lying(stage: Stage, kind: str, name: str, lasting_s: float) -> None:
    with stage.claimed_to_destroy() as victim:
        if victim is None:
            return
        stage.damaged[victim] = None
        # Only of tables: what is lost at the very end of a log looks like a crash before it was written.
        fault = Fault(kind, at=stage.rng.randint(1, 10), path_prefix=TABLES)
        stage.trace.fault(name, f"n{victim} in {fault.at}")
        stage.cluster.disks[victim].faults.append(fault)
        await _damaged(stage, victim, lasting_s)
        if fault.seen >= fault.at:
            stage.trace.probe("disk_fault_struck")


async def _damaged(stage: Stage, victim: NodeId, lasting_s: float) -> None:
    """The store goes on as it is for a while, with a restart in between perhaps; then it is replaced."""
    disk = stage.cluster.disks[victim]
    try:
        await trio.sleep(stage.rng.uniform(0, lasting_s))
        disk.evict()
        if stage.rng.random() < 0.5:
            await stage.kill(victim)
            disk.evict()
            await stage.start_all([victim])
        await trio.sleep(stage.rng.uniform(0, lasting_s))
    finally:
        with trio.CancelScope(shield=True):
            await stage.kill(victim)
            if victim in stage.damaged:
                await stage.replace(victim)
            await stage.start(victim)
