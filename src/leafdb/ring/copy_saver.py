"""Which of the partitions that change hands go to whom, so that few copies are made. Part of placement.

Moving the fewest partitions makes the fewest copies only where a preference list is simply consecutive owners: one
member on each host, one zone. Otherwise the walk steps over hosts and zones it has, and which shard of a host comes
first decides who holds a copy: one partition given to the wrong shard of the right host sends the copies of its
neighbours from one shard to the other, for nothing.

So exchanges are tried among the partitions that move anyway, and those are kept after which fewer copies are new. No
load changes and nothing more moves. A copy is looked at as n = `COPIES` has it. The search ends when nothing gets
better, when no copies are made but those that are lost with who goes (or, when nobody goes, no more than a plain ring
would make), or when the budget is spent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from leafdb.ring.preference_list import Place, order_from, orders, walk
from leafdb.types import NodeId, PartitionId

COPIES: Final = 3
"""The default n."""

REACH: Final = 8
"""How many partitions before one that changes its owner are looked at: lists seldom are longer."""

TRIES_PER_PARTITION: Final = 16
"""Exchanges tried, for each partition there is, before the search stays with what it has."""


def save_copies(
    owners: list[NodeId], previous: Sequence[NodeId], movable: Iterable[int], places: Mapping[NodeId, Place]
) -> None:
    """Exchange owners of `movable` partitions, in place, so that fewer copies are new against `previous`.

    Args:
        places: of every owner before and after.
    """
    before = list(owners)
    saver = _CopySaver(owners, previous, sorted(movable), places)
    made = saver.copies
    saver.run()
    if saver.recount() > made:  # what lies beyond the reach has outweighed what was seen
        owners[:] = before


class _CopySaver:
    """The search: the table being improved, who held what, and how many copies each list needs made."""

    def __init__(
        self, owners: list[NodeId], previous: Sequence[NodeId], movable: list[int], places: Mapping[NodeId, Place]
    ) -> None:
        self._owners = owners
        self._movable = movable
        self._places = places
        self._zone_count = len({places[node].zone for node in owners})
        self._held: list[frozenset[NodeId]] = [frozenset()] * len(owners)
        for partition, order in orders(previous):
            self._held[partition] = frozenset(walk(order, places, COPIES))
        self._enough = self._unavoidable(set(owners)) or COPIES * len(movable)
        self._tries = TRIES_PER_PARTITION * len(owners)
        self._made = [0] * len(owners)
        self.copies = self.recount()

    def _unavoidable(self, staying: set[NodeId]) -> int:
        """Copies of which the last known holders are not enough any more: whoever owns what, they are made."""
        wanted = min(COPIES, len(staying))
        return sum(max(0, wanted - len(held & staying)) for held in self._held)

    def recount(self) -> int:
        """Count all new copies afresh."""
        self._made = [self._made_at(partition) for partition in range(len(self._owners))]
        self.copies = sum(self._made)
        return self.copies

    def run(self) -> None:
        """Until nothing gets better, it is good enough, or the budget is spent."""
        improved = True
        while improved:
            improved = False
            for at, p in enumerate(self._movable):
                for q in self._movable[at + 1 :]:
                    if self.copies <= self._enough or self._tries <= 0:
                        return
                    if self._owners[p] != self._owners[q] and self._try(p, q):
                        improved = True

    def _try(self, p: int, q: int) -> bool:
        """Exchange two owners if fewer copies are made then."""
        self._tries -= 1
        owners, count = self._owners, len(self._owners)
        owners[p], owners[q] = owners[q], owners[p]
        near = {(at - back) % count for at in (p, q) for back in range(min(REACH, count))}
        made = {partition: self._made_at(partition) for partition in near}
        change = sum(made.values()) - sum(self._made[partition] for partition in near)
        if change >= 0:
            owners[p], owners[q] = owners[q], owners[p]
            return False
        for partition, number in made.items():
            self._made[partition] = number
        self.copies += change
        return True

    def _made_at(self, partition: int) -> int:
        """How many who will hold a partition have no copy of it."""
        held = self._held[partition]
        return sum(node not in held for node in self._list(partition))

    def _list(self, partition: int) -> Sequence[NodeId]:
        """The preference list: `walk`, without the order it starts from, for as long as no host is needed twice."""
        owners, places, count, zone_count = self._owners, self._places, len(self._owners), self._zone_count
        found: list[NodeId] = []
        hosts: set[str] = set()
        while True:
            zones: set[str] = set()
            before = len(found)
            for at in range(partition, partition + count):
                node = owners[at if at < count else at - count]
                host, zone = places[node]
                if host in hosts or (zone in zones and zone_count > 1):
                    continue
                found.append(node)
                if len(found) == COPIES:
                    return found
                hosts.add(host)
                zones.add(zone)
                if len(zones) == zone_count > 1:
                    break
            if len(found) == before:
                return walk(order_from(owners, PartitionId(partition)), places, COPIES)
