"""Damage to a copy of a store's disk: whatever is done to its bytes, the store gives what was written or an error.

The copy is taken as a kill would leave it, one place of one file is damaged, before the store is opened or while it is
open, and everything is read, then compacted and read again. What is damaged of a table is salvaged meanwhile: from then
on every read is served, and is wrong, if at all, only where the store says that something was lost; and that is no more
than the blocks that were damaged. The power goes at some moment of it, too: also then a hole is known, or not there.

Two kinds of damage cannot be told from a torn write, by any store of this design: damage to the end of the log, behind
what a later frame knows to have been synced, and damage to the last record of the manifest. The first makes the store
come back to an earlier prefix, which is allowed here down to what is proven; the second to an earlier set of tables,
which is allowed as far as trees that were made or dropped last are concerned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

from leafdb.codec import cbor
from leafdb.errors import StorageError
from leafdb.sim.store_damage import KINDS, Damage, anywhere, damage
from leafdb.sim.store_disk import Hands, Rubbish
from leafdb.sim.store_log import Place, middle, unflushed
from leafdb.sim.store_machine import Machine
from leafdb.sim.store_model import Contents, StoreModel, short
from leafdb.sim.trace import Trace
from leafdb.storage.lost_ranges import LostRange, Range
from leafdb.storage.settings import EngineConfig
from leafdb.testing.violation import Invariant, require
from leafdb.types import TreeId
from leafdb.vfs.memory import MemoryFileSystem

OUTCOMES: Final = ("refused", "error", "healed", "harmless")
NOTES: Final = TreeId(999)
"""Where what follows a store may note what that has lost; no tree of a model."""


@dataclass(frozen=True, slots=True)
class Aim:
    """Damage that chance seldom does, and that some bug needs."""

    place: Callable[[MemoryFileSystem, Random], Place | None]
    """Looks for one when the store is open, if it is to be."""
    kinds: tuple[str, ...]
    alive: bool
    """Done to an open store."""


AIMS: Final = (
    Aim(middle, ("flip", "zeros", "misdirected", "swapped"), alive=False),
    Aim(unflushed, ("cut",), alive=True),
    Aim(unflushed, ("cut",), alive=False),
)


def prove_detected(
    disk: MemoryFileSystem,
    model: StoreModel,
    config: EngineConfig,
    rng: Random,
    now_s: float,
    aim: Aim | None = None,
) -> tuple[Damage, str] | None:
    """Damage a copy, somewhere or as `aim` says, and read it all. Answers what was done and one of OUTCOMES; None where
    there is nothing to aim at; Violation for a wrong answer."""
    copy = disk.power_cut(rng, keep=1.0)
    copy.quota_bytes = None
    copy.cold = rng.random() < 0.5
    alive = rng.random() < 0.4 if aim is None else aim.alive
    clock = fixed(now_s)
    machine: Machine | None = None
    hands = Hands(copy, Trace(clock), Rubbish())
    if alive:
        machine = Machine(hands, config, clock)
    place = anywhere(copy, rng) if aim is None else aim.place(copy, rng)
    if place is None:
        return None
    done = damage(copy, rng, model.written, *place, kind=rng.choice(KINDS if aim is None else aim.kinds))
    if machine is None:
        try:
            machine = Machine(hands, config, clock)
        except StorageError:
            require(not done.heals, Invariant.CORRUPTION_DETECTED, f"{done}: refused")
            return done, "refused"
    outcome = read_all(machine, model, done)
    if not machine.failures:
        cut = _settle_and_cut(machine, copy, rng)
        outcome = _healed(machine, model, done, outcome)
        if cut is not None:
            _prove_known(cut, model, config, clock, done)
    machine.engine.abandon()
    return done, outcome


def _settle_and_cut(machine: Machine, disk: MemoryFileSystem, rng: Random) -> MemoryFileSystem | None:
    """Let the store come to rest; answers the disk as a power cut at some call in between leaves it."""
    cuts: list[MemoryFileSystem] = []
    left = rng.choice((1, 2, 3, 5, 8, 13, 21))

    def called(kind: str, path: str) -> None:
        nonlocal left
        left -= 1
        if not left:
            cuts.append(disk.power_cut(rng))

    disk.on_call = called
    machine.settle()
    disk.on_call = None
    return cuts[0] if cuts else None


def _healed(machine: Machine, model: StoreModel, damage: Damage, outcome: str) -> str:
    """Everything is served again, and no more is given up than was damaged."""
    again = read_all(machine, model, damage)
    machine.settle()  # that read may have been the first to meet it
    if not machine.failures:
        again = read_all(machine, model, damage)
    if not damage.heals or machine.failures:
        return max(outcome, again, key=("harmless", "error").index)
    require(again == "harmless", Invariant.CORRUPTION_DETECTED, f"{damage}: not served after the salvage")
    machine.engine.check()
    prove_no_more(machine, damage)
    return "healed" if machine.engine.stats().salvages else again


def prove_no_more(machine: Machine, damage: Damage) -> None:
    """Nothing is given up that was not damaged."""
    for lost in known_lost(machine):
        require(
            damage.ranges is None or any(low <= lost.smallest <= lost.largest <= high for low, high in damage.ranges),
            Invariant.CORRUPTION_DETECTED,
            f"{damage}: {lost} is given up, where {damage.ranges} was damaged",
        )


def _prove_known(
    disk: MemoryFileSystem, model: StoreModel, config: EngineConfig, clock: Callable[[], float], damage: Damage
) -> None:
    """A store that was cut off while it healed knows of every hole it has, at every start."""
    if not damage.heals:
        return
    for _ in range(2):
        machine = Machine(Hands(disk, Trace(clock), Rubbish()), config, clock)
        read_all(machine, model, damage)
        if not machine.failures:
            machine.settle()
            read_all(machine, model, damage)
            prove_no_more(machine, damage)
        machine.engine.abandon()
        disk.locks.clear()


def fixed(now_s: float) -> Callable[[], float]:
    return lambda: now_s


def known_lost(machine: Machine) -> tuple[LostRange, ...]:
    """What the store says that it has lost, and what was noted in its tree NOTES, if it has one."""
    notes = machine.contents(NOTES) if NOTES in machine.engine.trees() else {}
    return (*machine.engine.lost, *(LostRange.from_plain(cbor.loads(note)) for note in notes.values()))


def read_all(machine: Machine, model: StoreModel, damage: Damage) -> str:
    """Read everything by key and in order."""
    lsn = machine.engine.stats().last_sequence
    if NOTES in machine.engine.trees():
        lsn = min(lsn, model.last_lsn)  # notes are written behind all that the model knows
    if not damage.path.startswith("MANIFEST"):
        require(
            damage.proven <= lsn,
            Invariant.CORRUPTION_DETECTED,
            f"{damage}: the store opens with {lsn} writes of {damage.proven} and says nothing",
        )
    require(lsn <= model.last_lsn, Invariant.NO_PHANTOMS, f"{damage}: {lsn} writes of {model.last_lsn}")
    outcome = "harmless"
    known = known_lost(machine)
    for tree_id in machine.engine.trees():
        if tree_id == NOTES:
            continue
        lives = model.lives.get(tree_id)
        if lives is None:
            require(damage.path.startswith("MANIFEST"), Invariant.NO_PHANTOMS, f"{damage}: tree {tree_id} is back")
            continue
        lost = tuple((each.smallest, each.largest) for each in known if each.tree_id == tree_id)
        outcomes = [_read_tree(machine, tree_id, model.contents_at(lsn, life), lost) for life in lives]
        good = [found for found in outcomes if found[0] != "wrong"]
        if not good:
            outcomes[-1][1](damage)
        if any(found[0] == "error" for found in good):
            outcome = "error"
    return outcome


def _read_tree(
    machine: Machine, tree_id: TreeId, expected: Mapping[bytes, bytes], lost: tuple[Range, ...]
) -> tuple[str, Callable[[Damage], None]]:
    """`harmless`, `error` or `wrong`; and who raises what was wrong. Where something is lost nothing is."""

    def sure(key: bytes) -> bool:
        return not any(low <= key <= high for low, high in lost)

    found: Contents = {}
    outcome = "harmless"
    keys = sorted({b"", b"~", *expected})
    for key in keys:
        try:
            value = machine.get(tree_id, key)
        except StorageError:
            outcome = "error"
            continue
        if value != expected.get(key) and sure(key):
            return "wrong", _wrong(tree_id, key, value, expected.get(key))
    try:
        found = machine.contents(tree_id)
    except StorageError:
        return "error", _nothing
    for key in sorted(found.keys() | expected.keys()):
        if found.get(key) != expected.get(key) and sure(key):
            return "wrong", _wrong(tree_id, key, found.get(key), expected.get(key))
    return outcome, _nothing


def _nothing(damage: Damage) -> None:
    """Nothing was wrong."""


def _wrong(tree_id: TreeId, key: bytes, found: bytes | None, expected: bytes | None) -> Callable[[Damage], None]:
    name = key.decode("ascii", "replace")

    def report(damage: Damage) -> None:
        message = f"{damage}: {name} of tree {tree_id} reads {short(found)} where {short(expected)} was written"
        require(False, Invariant.CORRUPTION_DETECTED, message, name)

    return report
