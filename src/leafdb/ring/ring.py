"""The ring: the lookup the request path uses, built from one epoch's cluster metadata and never changed after.

A new epoch is a new Ring. Lists are made once for each n that is asked for; from then on `primaries`, `holders` and
`write_sets` are two index operations each.

**A plan in progress gives each range two sets of owners**, those of the table that is and of the table to be
(docs/decisions/0007-ring-changes.md). `primaries` are the set that reads ask; `write_sets` are the sets in each of
which a write needs its count; `holders` are the nodes of both, who hold a copy by right or are about to. Where the two
sets are the same nodes there is one. Without a plan all of this is one table, and costs what it did.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from leafdb.limits import REPLICAS_MAX
from leafdb.ring.member import Member
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.owner_table import Lists, OwnerTable
from leafdb.ring.plan import Phase
from leafdb.ring.token import TOKEN_BITS, partition_bits
from leafdb.types import Epoch, NodeId, PartitionId, Token

WriteSets = tuple[tuple[NodeId, ...], ...]
"""One set of owners, or the old and the new."""


class Role(Enum):
    """What a node is to a partition."""

    PRIMARY = "primary"
    FALLBACK = "fallback"
    NONE = "none"
    """Not an owner of anything: it can hold no copy."""


class Ring:
    """Who holds what under one epoch."""

    __slots__ = (
        *("_copies", "_count", "_given_up", "_holders", "_new", "_old", "_primaries", "_read", "_shift"),
        *("_write_sets", "epoch", "in_plan", "loads", "metadata", "owners", "partitions"),
    )

    def __init__(self, metadata: ClusterMetadata) -> None:
        plan, places = metadata.plan, metadata.places()
        self.metadata: Final = metadata
        self.epoch: Final[Epoch] = metadata.epoch
        self.partitions: Final = metadata.partitions
        self.in_plan: Final = plan is not None
        """Whether any range can have two sets of owners."""
        self._copies: Final = plan is not None and plan.phase is Phase.WRITE_BOTH_READ_OLD
        self._shift: Final = TOKEN_BITS - partition_bits(metadata.partitions)
        self._old: Final = OwnerTable(metadata.owners, places)
        self._new: Final = self._old if plan is None else OwnerTable(plan.owners, places)
        self._read: Final = self._new if plan is not None and plan.reads_new else self._old
        self._given_up: Final = frozenset[NodeId]() if plan is None else plan.given_up
        self.owners: Final = self._read.owners
        """The table that reads go by."""
        self.loads: Final = self._read.loads
        """Partitions owned, for each member that owns any, in that table."""
        self._count: Final = len(self.loads)
        self._primaries: Final = self._read.lists
        self._holders: Final[list[Lists | None]] = (
            self._primaries if self._new is self._old else [None] * (REPLICAS_MAX + 1)
        )
        self._write_sets: Final[list[tuple[WriteSets, ...] | None]] = [None] * (REPLICAS_MAX + 1)

    def partition_of(self, token: Token) -> PartitionId:
        """The partition a token falls in."""
        return PartitionId(token >> self._shift)

    def effective_n(self, n: int) -> int:
        """How many copies n can mean for reads: no more than there are owners. Liveness has no say.

        Of a write set it is simply its length.
        """
        return n if n < self._count else self._count

    # -- sets

    def primaries(self, partition: PartitionId, n: int) -> tuple[NodeId, ...]:
        """The nodes that reads ask for the partition, `effective_n(n)` of them, in walk order."""
        table = self._primaries[n]
        if table is None:
            table = self._read.lists_of(n)
        return table[partition]

    def holders(self, partition: PartitionId, n: int) -> tuple[NodeId, ...]:
        """The nodes that take every write of the partition: primaries first, then who else is in a write set."""
        table = self._holders[n]
        if table is None:
            table = self._unite(n)
        return table[partition]

    def write_sets(self, partition: PartitionId, n: int) -> WriteSets:
        """The sets in each of which a write needs its count: one, or (old, new) when those differ."""
        table = self._write_sets[n]
        if table is None:
            table = self._pair(n)
        return table[partition]

    def is_primary(self, node: NodeId, partition: PartitionId, n: int) -> bool:
        """Whether `node` holds a copy by right, or is about to: it is one of the holders."""
        return node in self.holders(partition, n)

    def pending(self, partition: PartitionId, n: int) -> tuple[NodeId, ...]:
        """The holders that must copy the partition before they are complete: new owners that are no old ones.

        None in a retreat: nobody will ask them.
        """
        plan = self.metadata.plan
        if plan is None or plan.phase is Phase.RETREAT:
            return ()
        old = self._old.lists_of(n)[partition]
        return tuple(node for node in self.holders(partition, n) if node not in old)

    def copying(self, partition: PartitionId, n: int) -> tuple[NodeId, ...]:
        """The pending holders as long as copies are being made: what they have of the partition need not be all.

        From *read new* on every copy is done, so there are none.
        """
        return self.pending(partition, n) if self._copies else ()

    def sources(self, partition: PartitionId, n: int) -> tuple[NodeId, ...]:
        """Whom those pending copy from: the old owners, believed dead ones last. Nobody when nobody is pending."""
        if not self.pending(partition, n):
            return ()
        old = self._old.lists_of(n)[partition]
        return tuple(sorted(old, key=self._given_up.__contains__))

    def is_changing(self, partition: PartitionId, n: int) -> bool:
        """Whether the partition has two sets of owners."""
        return len(self.write_sets(partition, n)) > 1

    # -- walks

    def walk(self, partition: PartitionId) -> tuple[NodeId, ...]:
        """All owners that reads know, in the order in which they would hold the partition."""
        return self._read.walk(partition)

    def fallbacks(self, partition: PartitionId, n: int) -> tuple[NodeId, ...]:
        """The walk beyond the holders: who stands in for one that is down, in order."""
        if self._new is self._old:
            return self._read.walk(partition)[self.effective_n(n) :]
        holders = self.holders(partition, n)
        return tuple(node for node in self._read.walk(partition) if node not in holders)

    def role_of(self, node: NodeId, partition: PartitionId, n: int) -> Role:
        """What `node` is to the partition."""
        if self.is_primary(node, partition, n):
            return Role.PRIMARY
        return Role.FALLBACK if node in self.loads else Role.NONE

    def partitions_held(self, node: NodeId, n: int) -> tuple[PartitionId, ...]:
        """The partitions of which `node` is a holder when there are n copies of each."""
        return tuple(PartitionId(p) for p in range(self.partitions) if self.is_primary(node, PartitionId(p), n))

    # -- the metadata behind it

    def range_epoch(self, partition: PartitionId) -> Epoch:
        """Epoch of the partition's last topology change: what requests carry and replicas compare."""
        return self.metadata.range_epochs[partition]

    def member(self, node: NodeId) -> Member:
        """The member with this number. KeyError when there is none."""
        return self.metadata.members[node]

    # -- for tests and people

    def warnings(self, n: int = 3) -> list[str]:
        """What a tired person should know about where copies of n land."""
        hosts = self._read.hosts()
        found = []
        if self.effective_n(n) < n:
            found.append(f"n = {n} means {self.effective_n(n)} copies: the ring has {len(self.loads)} owners")
        elif hosts < n:
            found.append(f"n = {n} but only {hosts} hosts: copies of one key share a host")
        owning, members = {*self._old.loads, *self._new.loads}, self.metadata.members
        if idle := [node for node in sorted(members) if node not in owning and members[node].weight]:
            found.append("own nothing: " + ", ".join(members[node].name for node in idle))
        return found

    def describe(self) -> str:
        """A line per member: what it owns and what it holds when n is 3."""
        copies = dict.fromkeys(self.loads, 0)
        for partition in range(self.partitions):
            for node in self.primaries(PartitionId(partition), 3):
                copies[node] += 1
        lines = [f"epoch {self.epoch}, {self.partitions} partitions, {len(self.loads)} owners"]
        for node, load in self.loads.items():
            member = self.metadata.members[node]
            zone = f" zone {member.zone}" if member.zone else ""
            share = 100 * load / self.partitions
            lines.append(
                f"  {node} {member.name} host {member.host}{zone}: owns {load} ({share:.1f} %), holds {copies[node]}"
            )
        if self.metadata.plan is not None:
            lines.append(f"  {self.metadata.plan.describe()}")
        return "\n".join(lines + [f"  ! {warning}" for warning in self.warnings()])

    def check(self) -> None:
        """Every list and set of every n against its definition. Costly."""
        self._old.check()
        self._new.check()
        plan = self.metadata.plan
        for partition in map(PartitionId, range(self.partitions)):
            for n in range(1, REPLICAS_MAX + 1):
                read, holders = self.primaries(partition, n), self.holders(partition, n)
                sets = self.write_sets(partition, n)
                old, new = self._old.lists_of(n)[partition], self._new.lists_of(n)[partition]
                assert read == (new if plan is not None and plan.reads_new else old), "reads ask one of the tables"
                assert len(read) == self.effective_n(n)
                assert holders[: len(read)] == read
                assert set(holders) == {*old, *new}
                assert len(set(holders)) == len(holders), "nobody holds a copy twice"
                assert sets == ((old, new) if set(old) != set(new) else (read,)), "a write counts where owners differ"
                fallbacks = self.fallbacks(partition, n)
                assert not set(fallbacks) & set(holders), "nobody stands in for itself"
                assert {*fallbacks, *holders} == {*self.loads, *holders}
                assert plan is not None or read + fallbacks == self.walk(partition)
                assert not self._copies or not set(self.copying(partition, n)) & set(read), "no reader asks them"
                assert bool(self.pending(partition, n)) <= (plan is not None and bool(set(new) - set(old)))

    # -- making tables

    def _unite(self, n: int) -> Lists:
        read = self._read.lists_of(n)
        if self._new is self._old:
            return read
        other = (self._old if self._read is self._new else self._new).lists_of(n)
        table = tuple(tuple(dict.fromkeys((*first, *then))) for first, then in zip(read, other, strict=True))
        self._holders[n] = table
        return table

    def _pair(self, n: int) -> tuple[WriteSets, ...]:
        read, old, new = (table.lists_of(n) for table in (self._read, self._old, self._new))
        table = tuple(
            (both[0],) if set(both[1]) == set(both[2]) else both[1:] for both in zip(read, old, new, strict=True)
        )
        self._write_sets[n] = table
        return table
