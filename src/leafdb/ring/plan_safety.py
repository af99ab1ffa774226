"""What could go wrong with a plan, range by range: the part of its report that keeps a tired person from losing data.

A step's safety is the number of live replicas that its reads can ask: of the old owners until copies are made, of the
new ones from then on. A newcomer that is only receiving counts for nothing.

Refused, unless forced, is what could lose acknowledged writes. Of the old owners of a range those that are alive, and
are not force-removed, are the copies there are to copy from; one that is replaced while it is alive is still one. None:
what the range held is gone. No majority: a write that was acknowledged by others than these may be gone. Everything
else is a warning.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.owner_table import OwnerTable
from leafdb.ring.plan import Plan
from leafdb.types import NodeId, PartitionId

RUNS_TOLD_MAX: Final = 8


class StepName(Enum):
    """The steps of a plan, in order."""

    BEFORE = "before"
    READ_OLD = "write both, read old"
    READ_NEW = "write both, read new"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Step:
    """The ranges that are worst off in one step, for one n."""

    name: StepName
    n: int
    least_live: int
    """Live replicas of such a range that reads can ask."""
    replicas: int
    """Out of so many."""
    partitions: tuple[PartitionId, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to know before a commit, and the ranges it is about; none when it is about all."""

    message: str
    partitions: tuple[PartitionId, ...] = ()

    def describe(self) -> str:
        """One line for people."""
        return f"{self.message}: ranges {ranges_text(self.partitions)}" if self.partitions else self.message


def ranges_text(partitions: Sequence[PartitionId]) -> str:
    """Partition numbers as runs, "0-3, 7, 9-12", the first few of them."""
    runs: list[list[int]] = []
    for partition in sorted(partitions):
        if runs and partition == runs[-1][1] + 1:
            runs[-1][1] = partition
        else:
            runs.append([partition, partition])
    told = [str(low) if low == high else f"{low}-{high}" for low, high in runs[:RUNS_TOLD_MAX]]
    more = sum(high - low + 1 for low, high in runs[RUNS_TOLD_MAX:])
    return ", ".join(told) + (f" and {more} more" if more else "")


def steps(old: OwnerTable, new: OwnerTable, counts: Iterable[int], alive: Collection[NodeId]) -> tuple[Step, ...]:
    """The worst of each step, for each n."""
    return tuple(
        _step(name, n, table.lists_of(n), alive)
        for n in counts
        for name, table in (
            (StepName.BEFORE, old),
            (StepName.READ_OLD, old),
            (StepName.READ_NEW, new),
            (StepName.DONE, new),
        )
    )


def findings(
    metadata: ClusterMetadata,
    plan: Plan,
    old: OwnerTable,
    new: OwnerTable,
    counts: Sequence[int],
    alive: Collection[NodeId],
    stepped: Iterable[Step],
) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
    """(warnings, refusals). `metadata` has the newcomers as members."""
    warnings = _about_members(metadata, plan, alive)
    if idle := sorted(set(metadata.members) - plan.going - new.loads.keys()):
        names = ", ".join(metadata.members[node].name for node in idle)
        warnings.append(Finding(f"will own nothing: {names}"))
    refusals: list[Finding] = []
    for n in counts:
        refusals += _losses(plan, old, new, n, alive)
        warnings += _about_spread(metadata, old, new, n)
    for step in stepped:
        majority = step.replicas // 2 + 1
        if step.name is not StepName.READ_OLD and step.least_live < majority:  # there as it is before
            what = f"{step.name.value}, n = {step.n}: {step.least_live} of {step.replicas} replicas are alive"
            warnings.append(Finding(f"{what}, a quorum is {majority}", step.partitions))
    return tuple(warnings), tuple(refusals)


def _step(name: StepName, n: int, lists: Sequence[tuple[NodeId, ...]], alive: Collection[NodeId]) -> Step:
    living = [sum(node in alive for node in listed) for listed in lists]
    least = min(living)
    worst = tuple(PartitionId(p) for p, count in enumerate(living) if count == least)
    return Step(name, n, least, len(lists[0]), worst)


def _losses(plan: Plan, old: OwnerTable, new: OwnerTable, n: int, alive: Collection[NodeId]) -> list[Finding]:
    lost, doubtful = [], []
    for p, (before, after) in enumerate(zip(old.lists_of(n), new.lists_of(n), strict=True)):
        if set(before) == set(after):
            continue
        sure = [node for node in before if node in alive and node not in plan.removed]
        if not sure:
            lost.append(PartitionId(p))
        elif len(sure) < len(before) // 2 + 1:
            doubtful.append(PartitionId(p))
    found = []
    if lost:
        found.append(
            Finding(f"n = {n}: no owner that is alive stays to copy from, what they hold is lost", tuple(lost))
        )
    if doubtful:
        found.append(
            Finding(f"n = {n}: no majority of the owners is alive, acknowledged writes may be lost", tuple(doubtful))
        )
    return found


def _about_members(metadata: ClusterMetadata, plan: Plan, alive: Collection[NodeId]) -> list[Finding]:
    def name(node: NodeId) -> str:
        return metadata.members[node].name

    found = [
        Finding(f"{name(node)} shall leave but is down: the plan waits for it; force-remove it if it is dead")
        for node in plan.leaving
        if node not in alive
    ]
    found += [
        Finding(f"{name(node)} shall be removed as dead but is alive: stop it first, or let it leave")
        for node in plan.removed
        if node in alive
    ]
    found += [
        Finding(f"{name(node)} is of the control set, which changes before the plan ends")
        for node in metadata.control
        if node in plan.going
    ]
    return found


def _about_spread(metadata: ClusterMetadata, old: OwnerTable, new: OwnerTable, n: int) -> list[Finding]:
    found = []
    effective = min(n, len(new.loads))
    if effective < n:
        found.append(Finding(f"n = {n} will mean {effective} copies: the ring will have {len(new.loads)} owners"))
    members = metadata.members

    def crowded(table: OwnerTable) -> list[PartitionId]:
        lists = enumerate(table.lists_of(n))
        return [PartitionId(p) for p, held in lists if len({members[node].host for node in held}) < len(held)]

    if shared := crowded(new):
        were = "" if crowded(old) else ", which they do not today"
        found.append(
            Finding(f"n = {n} on {new.hosts()} hosts: copies of one key will share a host{were}", tuple(shared))
        )
    zones_before = len({members[node].zone for node in old.loads})
    zones_after = len({members[node].zone for node in new.loads})
    if zones_after < min(n, zones_before):
        found.append(Finding(f"n = {n}: copies will be in {zones_after} zones, not {min(n, zones_before)}"))
    return found
