"""The ring: the lookup the request path uses, built from one epoch's cluster metadata and never changed after.

A new epoch is a new Ring. Tables of primaries are made once for each n that is asked for; from then on
`primaries` is two index operations. Walks beyond the primaries matter only while nodes are down and are kept per
partition, within a bound.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from leafdb.limits import REPLICAS_MAX
from leafdb.ring.member import Member
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.preference_list import Place, order_from, orders, walk
from leafdb.ring.token import TOKEN_BITS, partition_bits
from leafdb.types import Epoch, NodeId, PartitionId, Token

_KEPT_WALK_NODES_MAX: Final = 1 << 20
"""Nodes in kept walks, all together; beyond it walks are made anew each time."""

_Table = tuple[tuple[NodeId, ...], ...]


class Role(Enum):
    """What a node is to a partition."""

    PRIMARY = "primary"
    FALLBACK = "fallback"
    NONE = "none"
    """Not an owner of anything: it can hold no copy."""


class Ring:
    """Who holds what under one epoch."""

    __slots__ = ("_places", "_shift", "_tables", "_walks", "epoch", "loads", "metadata", "owners", "partitions")

    def __init__(self, metadata: ClusterMetadata) -> None:
        self.metadata: Final = metadata
        self.epoch: Final[Epoch] = metadata.epoch
        self.partitions: Final = metadata.partitions
        self.owners: Final = metadata.owners
        self._shift: Final = TOKEN_BITS - partition_bits(metadata.partitions)
        loads: dict[NodeId, int] = dict.fromkeys(sorted(set(metadata.owners)), 0)
        for owner in metadata.owners:
            loads[owner] += 1
        self.loads: Final = loads
        """Partitions owned, for each member that owns any."""
        self._places: Final = {node: Place(metadata.members[node].host, metadata.members[node].zone) for node in loads}
        self._tables: Final[list[_Table | None]] = [None] * (REPLICAS_MAX + 1)
        self._walks: Final[dict[PartitionId, tuple[NodeId, ...]]] = {}

    def partition_of(self, token: Token) -> PartitionId:
        """The partition a token falls in."""
        return PartitionId(token >> self._shift)

    def effective_n(self, n: int) -> int:
        """How many copies n can mean here: no more than there are owners. Liveness has no say."""
        return min(n, len(self.loads))

    def primaries(self, partition: PartitionId, n: int) -> tuple[NodeId, ...]:
        """The nodes that hold the partition's copies, `effective_n(n)` of them, in walk order."""
        table = self._tables[n]
        if table is None:
            table = self._tabulate(n)
        return table[partition]

    def walk(self, partition: PartitionId) -> tuple[NodeId, ...]:
        """All owners in the order in which they would hold the partition: primaries, then fallbacks."""
        found = self._walks.get(partition)
        if found is None:
            found = walk(order_from(self.owners, partition), self._places, len(self._places))
            if (len(self._walks) + 1) * len(found) <= _KEPT_WALK_NODES_MAX:
                self._walks[partition] = found
        return found

    def fallbacks(self, partition: PartitionId, n: int) -> tuple[NodeId, ...]:
        """The walk beyond the primaries: who stands in for a primary that is down, in order."""
        return self.walk(partition)[self.effective_n(n) :]

    def is_primary(self, node: NodeId, partition: PartitionId, n: int) -> bool:
        """Whether `node` holds a copy by right."""
        return node in self.primaries(partition, n)

    def role_of(self, node: NodeId, partition: PartitionId, n: int) -> Role:
        """What `node` is to the partition."""
        if node not in self.loads:
            return Role.NONE
        return Role.PRIMARY if self.is_primary(node, partition, n) else Role.FALLBACK

    def partitions_held(self, node: NodeId, n: int) -> tuple[PartitionId, ...]:
        """The partitions of which `node` holds a copy when there are n of each."""
        return tuple(PartitionId(p) for p in range(self.partitions) if node in self.primaries(PartitionId(p), n))

    def range_epoch(self, partition: PartitionId) -> Epoch:
        """Epoch of the partition's last topology change: what requests carry and replicas compare."""
        return self.metadata.range_epochs[partition]

    def member(self, node: NodeId) -> Member:
        """The member with this number. KeyError when there is none."""
        return self.metadata.members[node]

    def warnings(self, n: int = 3) -> list[str]:
        """What a tired person should know about where copies of n land."""
        hosts = len({place.host for place in self._places.values()})
        found = []
        if self.effective_n(n) < n:
            found.append(f"n = {n} means {self.effective_n(n)} copies: the ring has {len(self.loads)} owners")
        elif hosts < n:
            found.append(f"n = {n} but only {hosts} hosts: copies of one key share a host")
        if idle := sorted(set(self.metadata.members) - set(self.loads)):
            found.append("own nothing: " + ", ".join(self.metadata.members[node].name for node in idle))
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
        return "\n".join(lines + [f"  ! {warning}" for warning in self.warnings()])

    def check(self) -> None:
        """Every list of every n against its definition. Costly."""
        hosts = len({place.host for place in self._places.values()})
        zones = len({place.zone for place in self._places.values()})
        assert sum(self.loads.values()) == self.partitions
        for partition in map(PartitionId, range(self.partitions)):
            whole = self.walk(partition)
            assert sorted(whole) == list(self.loads), "a walk visits every owner once"
            assert whole[0] == self.owners[partition], "a walk starts at the owner"
            for n in range(1, REPLICAS_MAX + 1):
                listed = self.primaries(partition, n)
                assert listed == whole[: self.effective_n(n)], "primaries are the start of the walk"
                assert listed + self.fallbacks(partition, n) == whole
                distinct = len({self._places[node].host for node in listed})
                assert distinct == min(n, hosts, len(listed)), "hosts repeat only when there are too few"
            first_round = {self._places[node].zone for node in whole[:zones]}
            assert len(first_round) == zones or self._hosts_cross_zones(), "a walk takes every zone before any twice"

    def _hosts_cross_zones(self) -> bool:
        return len(set(self._places.values())) > len({place.host for place in self._places.values()})

    def _tabulate(self, n: int) -> _Table:
        assert 1 <= n <= REPLICAS_MAX, f"n = {n}"
        lists: list[tuple[NodeId, ...]] = [()] * self.partitions
        for partition, order in orders(self.owners):
            lists[partition] = walk(order, self._places, n)
        table = tuple(lists)
        self._tables[n] = table
        return table
