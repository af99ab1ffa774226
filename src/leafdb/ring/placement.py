"""Placement: which member owns which partition. A pure, deterministic solver with a bounded amount of work.

Three goals, in this order:

1. **Loads.** Every member owns its weighted fair share of the partitions, rounded down or up; nothing is traded for
   it.
2. **Moves.** Among such loads, as few partitions change hands as can: members already above the floor keep the
   rounded-up places, nobody gives up a partition below its load, nobody takes one and gives another.
3. **Spread.** Any `SPREAD` consecutive partitions, across the wrap too, have owners on distinct hosts and, as far as it
   goes, in distinct zones. Then a preference list is simply consecutive owners, and the load in copies is as even as
   the load in partitions.

Spread decides *which* partitions move and to whom, never how many. Distinct hosts in a preference list do not hang on
it: the walk (`preference_list`) gives them for any owner table. Where spread cannot be had (3 hosts and 256 partitions:
3 does not divide 256), the walk steps over the repeated host. Where hosts have several members, or there are zones, it
steps over many, and the copies that a change makes are no longer told by the partitions it moves: there exchanges save
copies, after spread has had its say (`copy_saver`).

A ring laid anew spreads zones evenly around the circle, then the hosts of each zone over the zone's places, then the
nodes of each host. Then it is mixed as far as spread allows, so that a node has many different neighbours: they share
its load when it is down, and what it owned when it leaves. A changed ring keeps what it can, lets every newcomer take
partitions in even strides, and then improves by exchanges that move nothing more.

Every member may compute a founding for itself, so nothing here depends on hash seeds or on a library's random numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

from leafdb.codec.checksum import xxh3_64
from leafdb.ring.copy_saver import save_copies
from leafdb.ring.preference_list import Place
from leafdb.types import NodeId

SPREAD: Final = 3
"""The window that spread looks at: the default n."""

IMPROVE_PER_PARTITION: Final = 48
"""Exchanges weighed, for each partition there is, before the solver stays with what it has."""

MIX_PER_PARTITION: Final = 8
"""Exchanges tried, for each partition there is, to mix a new ring; MIX_MAX of them at most."""

MIX_MAX: Final = 1 << 15

_SAME_NODE: Final = 10_000
_SAME_HOST: Final = 100
_SAME_ZONE: Final = 1


class Candidate(Protocol):
    """What placement needs to know of a member."""

    @property
    def id(self) -> NodeId: ...
    @property
    def host(self) -> str: ...
    @property
    def zone(self) -> str: ...
    @property
    def weight(self) -> int: ...


def claim(
    members: Iterable[Candidate],
    partitions: int,
    previous: Sequence[NodeId] | None = None,
    gone: Iterable[Candidate] = (),
) -> tuple[NodeId, ...]:
    """The owner of every partition.

    Args:
        previous: the table to move least from; owners no longer members lose all.
        gone: such owners, so that it is known who shared copies with them.
    """
    everybody = sorted(members, key=lambda member: member.id)
    if any(member.weight < 0 for member in everybody):
        raise ValueError("weights are at least 0")
    ordered = [member for member in everybody if member.weight]  # the others own nothing, like who is no member
    if not ordered:
        raise ValueError("a ring needs at least one member of a weight above 0")
    if previous is not None and len(previous) != partitions:
        raise ValueError(f"the previous table has {len(previous)} partitions, not {partitions}")
    weights = {member.id: member.weight for member in ordered}
    places = {member.id: Place(member.host, member.zone) for member in ordered}
    targets = target_loads(weights, partitions, loads_of(previous or (), weights))
    if previous is None or not set(previous) & set(weights):
        owners = _lay(targets, places)
        movable = set(range(partitions))
    else:
        owners = _hand_over(list(previous), targets, places)
        movable = {p for p in range(partitions) if owners[p] != previous[p]}
    improver = _Improver(owners, previous or owners, movable, places)
    if len(targets) >= SPREAD:  # else every window repeats somebody
        improver.run()
    if len(targets) > SPREAD and len(movable) == partitions:
        improver.mix()
    elif previous is not None and _walks_skip(places):
        strangers = {owner: Place(f"node {owner}", "") for owner in previous}
        were = {member.id: Place(member.host, member.zone) for member in gone}
        save_copies(owners, previous, improver.movable, strangers | were | places)
    assert loads_of(owners, weights) == targets, "placement missed its own loads"
    return tuple(owners)


def _walks_skip(places: Mapping[NodeId, Place]) -> bool:
    """Whether a preference list is something else than consecutive owners."""
    return len({place.host for place in places.values()}) < len(places) or len({p.zone for p in places.values()}) > 1


def loads_of(owners: Sequence[NodeId], nodes: Iterable[NodeId]) -> dict[NodeId, int]:
    """How many partitions each of `nodes` owns."""
    loads = dict.fromkeys(nodes, 0)
    for owner in owners:
        if owner in loads:
            loads[owner] += 1
    return loads


def target_loads(weights: Mapping[NodeId, int], partitions: int, current: Mapping[NodeId, int]) -> dict[NodeId, int]:
    """The load each node shall have: its fair share rounded down or up, so that the sum is `partitions`.

    Rounded up are first those who already own more than the floor (they would have to move one), then the largest
    remainders, then the lowest ids.
    """
    total = sum(weights.values())
    floors = {node: partitions * weight // total for node, weight in weights.items()}
    left = partitions - sum(floors.values())

    def claim_on_rest(node: NodeId) -> tuple[bool, int, int]:
        return current.get(node, 0) <= floors[node], -(partitions * weights[node] % total), node

    uneven = [node for node in weights if partitions * weights[node] % total]
    for node in sorted(uneven, key=claim_on_rest)[:left]:
        floors[node] += 1
    return floors


def moves(previous: Sequence[NodeId], owners: Sequence[NodeId]) -> int:
    """How many partitions change hands."""
    return sum(old != new for old, new in zip(previous, owners, strict=True))


# -- a ring laid anew


def _lay(targets: Mapping[NodeId, int], places: Mapping[NodeId, Place]) -> list[NodeId]:
    zones: dict[str, dict[str, list[NodeId]]] = {}
    for node in targets:
        zones.setdefault(places[node].zone, {}).setdefault(places[node].host, []).append(node)
    laid_zones = [
        _interleave([_interleave([[node] * targets[node] for node in nodes]) for nodes in hosts.values()])
        for hosts in zones.values()
    ]
    return _interleave(laid_zones)


def _interleave(rows: list[list[NodeId]]) -> list[NodeId]:
    """The rows shuffled together, each in its own order and evenly spread around the circle, wrap included.

    The j-th of a row of c lies at (j + phase) / c of the circle. Phases are staggered by what came before, so that rows
    of almost equal length drift past each other one at a time.
    """
    total = sum(len(row) for row in rows)
    spots: list[tuple[float, int, NodeId]] = []
    before = 0
    for index, row in enumerate(rows):
        phase = (2 * before + len(row)) / (2 * total) if total else 0.0
        spots.extend(((j + phase) / len(row), index, node) for j, node in enumerate(row))
        before += len(row)
    spots.sort(key=lambda spot: spot[:2])
    return [node for _, _, node in spots]


# -- a changed ring


def _hand_over(owners: list[NodeId], targets: dict[NodeId, int], places: Mapping[NodeId, Place]) -> list[NodeId]:
    """Give every node short of its target what nodes above theirs, and nodes gone, have to give."""
    count = len(owners)
    loads = loads_of(owners, targets)
    spare = {node: loads[node] - targets[node] for node in targets}
    cost = _Cost(owners, places)
    receivers = sorted((node for node in targets if spare[node] < 0), key=lambda node: (spare[node], node))
    for receiver in receivers:
        wanted = -spare[receiver]
        for turn in range(wanted):
            start = turn * count // wanted
            at, least = -1, 0
            for step in range(count):
                p = (start + step) % count
                owner = owners[p]
                if owner == receiver or (owner in spare and spare[owner] <= 0):
                    continue
                price = cost.of(p, receiver)
                if at < 0 or price < least:
                    at, least = p, price
                    if least == 0:
                        break
            assert at >= 0, "what is wanted was counted from what is spare"
            if owners[at] in spare:
                spare[owners[at]] -= 1
            owners[at] = receiver
        spare[receiver] = 0
    return owners


class _Cost:
    """What it costs the spread to have a node at a partition, given its neighbours. Reads the live owner list."""

    def __init__(self, owners: list[NodeId], places: Mapping[NodeId, Place]) -> None:
        self._owners = owners
        self._places = places
        self._count = len(owners)
        near = {step % self._count for step in range(1 - SPREAD, SPREAD)} - {0}
        self._steps = tuple(sorted(near))
        self._zoned = len({place.zone for place in places.values()}) > 1

    def of(self, partition: int, node: NodeId) -> int:
        """The cost of `node` at `partition`."""
        owners, places, count = self._owners, self._places, self._count
        host, zone = places[node]
        cost = 0
        for step in self._steps:
            other = owners[(partition + step) % count]
            if other == node:
                cost += _SAME_NODE
            elif other in places:  # an owner that is gone and not yet replaced is no neighbour
                place = places[other]
                if place.host == host:
                    cost += _SAME_HOST
                elif self._zoned and place.zone == zone:
                    cost += _SAME_ZONE
        return cost


class _Improver:
    """Lowers the cost by exchanges that change no load and add no move.

    Exchanged are the owners of two partitions that both move anyway; or a moving partition goes back to its old owner
    and another one of that owner's moves in its place.
    """

    def __init__(
        self, owners: list[NodeId], previous: Sequence[NodeId], movable: set[int], places: Mapping[NodeId, Place]
    ) -> None:
        self._owners = owners
        self._previous = previous
        self.movable = movable
        """Partitions that change hands; where nothing moves twice, it stays so."""
        self._cost = _Cost(owners, places)
        self._budget = IMPROVE_PER_PARTITION * len(owners)

    def run(self) -> None:
        """Until nothing gets better or the budget is spent."""
        improved = True
        while improved and self._budget > 0:
            improved = False
            for p in sorted(self.movable):
                if p in self.movable and self._cost.of(p, self._owners[p]) and self._improve(p):
                    improved = True
                if self._budget <= 0:
                    return

    def mix(self) -> None:
        """Exchange at random whatever costs nothing. Everything must be movable."""
        count = len(self._owners)
        for step in range(min(MIX_PER_PARTITION * count, MIX_MAX)):
            p, q = step % count, xxh3_64(step.to_bytes(8, "big")) % count
            if self._owners[p] != self._owners[q] and self._change(p, q) <= 0:
                self._exchange(p, q)

    def _improve(self, p: int) -> bool:
        """Make the best exchange for `p`, if one lowers the cost."""
        best, least = -1, 0
        for q in range(len(self._owners)):
            if self._may_exchange(p, q):
                self._budget -= 1
                change = self._change(p, q)
                if change < least:
                    best, least = q, change
        if best < 0:
            return False
        self._exchange(p, best)
        if best not in self.movable:
            self.movable.remove(p)
            self.movable.add(best)
        return True

    def _may_exchange(self, p: int, q: int) -> bool:
        if self._owners[p] == self._owners[q]:
            return False
        return q in self.movable or self._owners[q] == self._previous[p]

    def _exchange(self, p: int, q: int) -> None:
        self._owners[p], self._owners[q] = self._owners[q], self._owners[p]

    def _change(self, p: int, q: int) -> int:
        owners, cost = self._owners, self._cost
        before = cost.of(p, owners[p]) + cost.of(q, owners[q])
        self._exchange(p, q)
        after = cost.of(p, owners[p]) + cost.of(q, owners[q])
        self._exchange(p, q)
        return after - before
