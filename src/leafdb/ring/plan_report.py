"""What a plan would do, in numbers, for the person who has to commit it: `cluster plan`.

Pure: the metadata says what is staged or in progress, the caller says who is alive and estimates bytes. A newcomer is
taken to be alive, since it asked to join. Everything is worked out for each n that a bucket has (3 while there are no
buckets), because n decides who holds what.

The least possible is worked out apart from what placement did, so that the ratio says something: of partitions, what
members are short of their fair share; of copies, the larger of two floors: replicas that no staying node holds, and
copies that members are short of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.owner_table import OwnerTable
from leafdb.ring.placement import loads_of, moves, target_loads
from leafdb.ring.plan import Plan
from leafdb.ring.plan_safety import Finding, Step, findings, steps
from leafdb.ring.proposal import propose
from leafdb.ring.ring import Ring
from leafdb.ring.transitions import commit
from leafdb.types import BucketId, NodeId, PartitionId

N_WITHOUT_BUCKETS: Final = 3

BytesOf = Callable[[PartitionId, BucketId], int]
"""An estimate of what one copy of a partition of a bucket weighs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """What one member owns of the partitions, before and after."""

    node: NodeId
    name: str
    host: str
    zone: str
    before: int
    after: int
    share_before: float
    """Of all partitions, 0 to 1."""
    share_after: float
    fair_after: float
    """Its weight's share."""


@dataclass(frozen=True, slots=True)
class Copy:
    """One copy to be made, of every bucket with this n."""

    partition: PartitionId
    n: int
    sources: tuple[NodeId, ...]
    """Who can be copied from, best first."""
    target: NodeId


@dataclass(frozen=True, slots=True)
class Spread:
    """How far apart the copies of one key are."""

    hosts: int
    zones: int
    least_hosts: int
    """In the preference list that has fewest."""
    least_zones: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """Everything `cluster plan` shows."""

    plan: Plan
    ownership: tuple[Ownership, ...]
    copies: tuple[Copy, ...]
    bytes_to: Mapping[NodeId, int]
    """For each receiver."""
    moved: int
    """Partitions that change their owner."""
    moved_least: int
    copies_least: int
    steps: tuple[Step, ...]
    n: int
    """The largest, by which spread is told."""
    spread_before: Spread
    spread_after: Spread
    warnings: tuple[Finding, ...]
    refusals: tuple[Finding, ...]
    """A commit needs --force past these: acknowledged writes could be lost."""

    @property
    def bytes_total(self) -> int:
        """What travels, all together."""
        return sum(self.bytes_to.values())

    @property
    def moved_ratio(self) -> float:
        """Partitions moved, for each that has to; 1 when none has to and none is."""
        return _ratio(self.moved, self.moved_least)

    @property
    def copies_ratio(self) -> float:
        """As `moved_ratio`, of copies."""
        return _ratio(len(self.copies), self.copies_least)


def report(metadata: ClusterMetadata, *, live: Collection[NodeId], bytes_of: BytesOf) -> PlanReport:
    """What the plan in progress does, or the plan would that a commit made now. Raises NotApplied when there is none.

    Args:
        live: the members believed alive.
        bytes_of: an estimate of the bytes of one copy.
    """
    under_way = metadata if metadata.plan is not None else commit(metadata, propose(metadata).id)
    plan = under_way.plan
    assert plan is not None, "a commit makes a plan"
    ring = Ring(under_way)
    places = under_way.places()
    old, new = OwnerTable(under_way.owners, places), OwnerTable(plan.owners, places)
    counts = tuple(sorted({bucket.n for bucket in metadata.buckets.values()})) or (N_WITHOUT_BUCKETS,)
    alive = frozenset((*live, *plan.joining))
    copies = tuple(
        Copy(partition, n, ring.sources(partition, n), target)
        for n in counts
        for partition in map(PartitionId, range(ring.partitions))
        for target in ring.pending(partition, n)
    )
    stepped = steps(old, new, counts, alive)
    warnings, refusals = findings(under_way, plan, old, new, counts, alive, stepped)
    return PlanReport(
        plan=plan,
        ownership=_ownership(under_way, plan, old, new),
        copies=copies,
        bytes_to=_bytes_to(under_way, copies, bytes_of),
        moved=moves(old.owners, new.owners),
        moved_least=_moved_least(under_way, plan, old),
        copies_least=sum(_copies_least(under_way, plan, old, n) for n in counts),
        steps=stepped,
        n=counts[-1],
        spread_before=_spread(under_way, old, counts[-1]),
        spread_after=_spread(under_way, new, counts[-1]),
        warnings=warnings,
        refusals=refusals,
    )


def _ratio(made: int, least: int) -> float:
    if least == 0:
        return 1.0 if made == 0 else float("inf")
    return made / least


def _ownership(metadata: ClusterMetadata, plan: Plan, old: OwnerTable, new: OwnerTable) -> tuple[Ownership, ...]:
    staying = {node: member.weight for node, member in metadata.members.items() if node not in plan.going}
    total = sum(staying.values())
    found = []
    for node, member in sorted(metadata.members.items()):
        before, after = old.loads.get(node, 0), new.loads.get(node, 0)
        found.append(
            Ownership(
                node=node,
                name=member.name,
                host=member.host,
                zone=member.zone,
                before=before,
                after=after,
                share_before=before / metadata.partitions,
                share_after=after / metadata.partitions,
                fair_after=staying.get(node, 0) / total,
            )
        )
    return tuple(found)


def _bytes_to(metadata: ClusterMetadata, copies: Collection[Copy], bytes_of: BytesOf) -> dict[NodeId, int]:
    by_n: dict[int, list[BucketId]] = {}
    for bucket in metadata.buckets.values():
        by_n.setdefault(bucket.n, []).append(bucket.id)
    totals: dict[NodeId, int] = {}
    for copy in copies:
        weight = sum(bytes_of(copy.partition, bucket) for bucket in by_n.get(copy.n, ()))
        totals[copy.target] = totals.get(copy.target, 0) + weight
    return dict(sorted(totals.items()))


def _moved_least(metadata: ClusterMetadata, plan: Plan, old: OwnerTable) -> int:
    weights = {node: member.weight for node, member in metadata.members.items() if node not in plan.going}
    replaced = dict(plan.replaced)
    inherited = loads_of([replaced.get(owner, owner) for owner in old.owners], weights)
    targets = target_loads(weights, metadata.partitions, inherited)
    return sum(max(0, target - old.loads.get(node, 0)) for node, target in targets.items())


def _copies_least(metadata: ClusterMetadata, plan: Plan, old: OwnerTable, n: int) -> int:
    weights = {
        node: member.weight for node, member in metadata.members.items() if member.weight and node not in plan.going
    }
    effective, total = min(n, len(weights), metadata.partitions), sum(weights.values())
    held = dict.fromkeys(weights, 0)
    absent = 0
    for listed in old.lists_of(n):
        staying = [node for node in listed if node in weights]
        absent += max(0, effective - len(staying))
        for node in staying:
            held[node] += 1
    fair = {
        node: min(metadata.partitions, metadata.partitions * effective * weights[node] // total) for node in weights
    }
    return max(absent, sum(max(0, fair[node] - held[node]) for node in weights))


def _spread(metadata: ClusterMetadata, table: OwnerTable, n: int) -> Spread:
    members = metadata.members
    lists = table.lists_of(n)
    return Spread(
        hosts=len({members[node].host for node in table.loads}),
        zones=len({members[node].zone for node in table.loads}),
        least_hosts=min(len({members[node].host for node in listed}) for listed in lists),
        least_zones=min(len({members[node].zone for node in listed}) for listed in lists),
    )
