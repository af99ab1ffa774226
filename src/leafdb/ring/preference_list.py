"""The preference list of a partition: which nodes hold its copies, and who stands in for them, in order.

Clockwise from a partition the owner table names nodes, each counted where it first appears. The walk takes them in
rounds:

- in one round no two nodes share a zone; when no node of an untaken zone is left, the next round begins;
- no two nodes share a host until every host has been taken once; then the hosts start over, and so on.

So the first n nodes of a walk are on n distinct hosts whenever there are n hosts (the hard rule: a walk cannot break
it, whatever the owner table looks like), and in as many zones as there are, up to n (the soft rule: a host with labels
of two zones can cost one). And the walk does not depend on n: the list for n = 2 is the start of the list for n = 3,
and the fallbacks are simply what follows the primaries.

Only owners walk. A member that owns nothing holds no copies, not even as a fallback.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from leafdb.types import NodeId, PartitionId


class Place(NamedTuple):
    """Where a node stands: what it shares the fate of."""

    host: str
    zone: str


def order_from(owners: Sequence[NodeId], partition: PartitionId) -> list[NodeId]:
    """All owners by first appearance, clockwise from `partition`."""
    return list(dict.fromkeys((*owners[partition:], *owners[:partition])))


def orders(owners: Sequence[NodeId]) -> Iterator[tuple[PartitionId, list[NodeId]]]:
    """`order_from` of every partition, last partition first. The list is the same object each time: copy to keep.

    One step back around the circle moves the owner found there to the front, which is far cheaper than a new walk.
    """
    order = order_from(owners, PartitionId(0))
    for partition in range(len(owners) - 1, -1, -1):
        owner = owners[partition]
        if order[0] != owner:
            order.remove(owner)
            order.insert(0, owner)
        yield PartitionId(partition), order


def walk(order: Sequence[NodeId], places: Mapping[NodeId, Place], count: int) -> tuple[NodeId, ...]:
    """The first `count` nodes of the walk over `order` (all of them when there are fewer)."""
    count = min(count, len(order))
    zone_count = len({places[node].zone for node in order})
    waiting = list(order)
    taken: list[NodeId] = []
    while len(taken) < count:
        hosts: set[str] = set()
        before = len(taken)
        while len(taken) < count:
            found, waiting = _round(waiting, places, hosts, zone_count, count - len(taken))
            if not found:
                break
            taken.extend(found)
        assert len(taken) > before, "a walk that takes nobody would never end"
    return tuple(taken)


def changed(
    before: Sequence[NodeId], after: Sequence[NodeId], places: Mapping[NodeId, Place], count: int
) -> frozenset[PartitionId]:
    """The partitions whose first `count` nodes are not the same in the same order under two tables."""
    found = set()
    for (partition, old), (_, new) in zip(orders(before), orders(after), strict=True):
        if old != new and walk(old, places, count) != walk(new, places, count):
            found.add(partition)
    return frozenset(found)


def _round(
    waiting: list[NodeId], places: Mapping[NodeId, Place], hosts: set[str], zone_count: int, wanted: int
) -> tuple[list[NodeId], list[NodeId]]:
    """One round: who is taken and who goes on waiting. `hosts` are those taken before; the round adds its own.

    With a single zone the zone rule says nothing, and a round takes one node of every host.
    """
    found: list[NodeId] = []
    passed: list[NodeId] = []
    zones: set[str] = set()
    for at, node in enumerate(waiting):
        host, zone = places[node]
        if host in hosts or (zone in zones and zone_count > 1):
            passed.append(node)
            continue
        hosts.add(host)
        zones.add(zone)
        found.append(node)
        if len(found) == wanted or (zone_count > 1 and len(zones) == zone_count):
            passed.extend(waiting[at + 1 :])
            break
    return found, passed
