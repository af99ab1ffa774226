"""Preference lists under one owner table: made once for each n that is asked for, then looked up.

Walks beyond the first n matter only while nodes are down and are kept per partition, within a bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from leafdb.limits import REPLICAS_MAX
from leafdb.ring.preference_list import Place, order_from, orders, walk
from leafdb.types import NodeId, PartitionId

_KEPT_WALK_NODES_MAX: Final = 1 << 20
"""Nodes in kept walks, all together; beyond it walks are made anew each time."""

Lists = tuple[tuple[NodeId, ...], ...]
"""A preference list for each partition."""


class OwnerTable:
    """The lists that one owner table means."""

    __slots__ = ("_places", "_walks", "lists", "loads", "owners")

    def __init__(self, owners: Sequence[NodeId], places: Mapping[NodeId, Place]) -> None:
        self.owners: Final = tuple(owners)
        loads: dict[NodeId, int] = dict.fromkeys(sorted(set(owners)), 0)
        for owner in owners:
            loads[owner] += 1
        self.loads: Final = loads
        """Partitions owned, for each member that owns any."""
        self._places: Final = {node: places[node] for node in loads}
        self.lists: Final[list[Lists | None]] = [None] * (REPLICAS_MAX + 1)
        """For each n its lists, once somebody asked."""
        self._walks: Final[dict[PartitionId, tuple[NodeId, ...]]] = {}

    def lists_of(self, n: int) -> Lists:
        """The first n of every walk."""
        assert 1 <= n <= REPLICAS_MAX, f"n = {n}"
        found = self.lists[n]
        if found is None:
            made: list[tuple[NodeId, ...]] = [()] * len(self.owners)
            for partition, order in orders(self.owners):
                made[partition] = walk(order, self._places, n)
            found = self.lists[n] = tuple(made)
        return found

    def walk(self, partition: PartitionId) -> tuple[NodeId, ...]:
        """All owners in the order in which they would hold the partition."""
        found = self._walks.get(partition)
        if found is None:
            found = walk(order_from(self.owners, partition), self._places, len(self._places))
            if (len(self._walks) + 1) * len(found) <= _KEPT_WALK_NODES_MAX:
                self._walks[partition] = found
        return found

    def hosts(self) -> int:
        """How many hosts its owners are on."""
        return len({place.host for place in self._places.values()})

    def check(self) -> None:
        """Every list of every n against its definition. Costly."""
        hosts = self.hosts()
        zones = len({place.zone for place in self._places.values()})
        crossing = len(set(self._places.values())) > hosts
        assert sum(self.loads.values()) == len(self.owners)
        for partition in map(PartitionId, range(len(self.owners))):
            whole = self.walk(partition)
            assert sorted(whole) == list(self.loads), "a walk visits every owner once"
            assert whole[0] == self.owners[partition], "a walk starts at the owner"
            for n in range(1, REPLICAS_MAX + 1):
                listed = self.lists_of(n)[partition]
                assert listed == whole[:n], "primaries are the start of the walk"
                distinct = len({self._places[node].host for node in listed})
                assert distinct == min(n, hosts, len(listed)), "hosts repeat only when there are too few"
            first_round = {self._places[node].zone for node in whole[:zones]}
            assert len(first_round) == zones or crossing, "a walk takes every zone before any twice"
