"""Which node to ask next.

    ring      the key's primaries: those in the client's own zone first, of two drawn at random the one with fewer
              requests waiting; then the other primaries, the other members, the addresses of the URL
    listed    only the addresses of the URL, in its order: the first that is not in disgrace

A node that failed is in disgrace for a moment that doubles with each failure; nodes in disgrace are asked last, never
not at all, so a client whose nodes have all failed still tries them. A stale ring costs one hop (any node coordinates),
so the ring is replaced when an answer carries a newer epoch, and never waited for.

Pure: time and chance are arguments. Threads may share a router: what they share is replaced whole or only read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Sized
from random import Random
from typing import Final, NamedTuple, Protocol

from leafdb.client.url import Address
from leafdb.types import NodeId, PartitionId, Token

DISGRACE_S_BASE: Final = 0.1
DISGRACE_S_MAX: Final = 5.0
REFRESH_S: Final = 1.0
_EMPTY: Final[tuple[()]] = ()


class Place(NamedTuple):
    """What routing needs to know of a key: its token, and how many replicas its bucket keeps."""

    token: Token
    n: int


class NodeState:
    """One node's door as this client sees it. Drivers hang the table of waiting requests here: its size is the load."""

    __slots__ = ("address", "disgraced_until", "failures", "traces", "waiting", "zone")

    def __init__(self, address: Address, zone: str | None = None) -> None:
        self.address: Address = address
        self.zone: str | None = zone
        self.waiting: Sized = _EMPTY
        self.failures: int = 0
        self.traces: bool = False
        """It takes requests that say to which trace they belong, as it said when it was met."""
        self.disgraced_until: float = 0.0

    def failed(self, now: float) -> None:
        """It could not be reached, or let an answer wait too long."""
        self.disgraced_until = now + min(DISGRACE_S_MAX, DISGRACE_S_BASE * (1 << min(self.failures, 10)))
        self.failures += 1

    def answered(self) -> None:
        """It answered: all is forgiven."""
        if self.failures:
            self.failures = 0
            self.disgraced_until = 0.0

    def __repr__(self) -> str:
        return f"<NodeState {self.address}>"


class RingLookup(Protocol):
    """What of `leafdb.ring.ring.Ring` routing uses."""

    def partition_of(self, token: Token) -> PartitionId:
        """The partition a token falls in."""

    def primaries(self, partition: PartitionId, n: int) -> Sequence[NodeId]:
        """The nodes that own its replicas."""


class _View:
    """One ring, seen from this client's zone. Immutable but for a cache."""

    __slots__ = ("_cache", "_ring", "_zone", "members", "nodes")

    def __init__(self, ring: RingLookup, nodes: Mapping[NodeId, NodeState], zone: str | None) -> None:
        self._ring = ring
        self._zone = zone
        self.nodes = nodes
        self.members = tuple(nodes.values())
        self._cache: dict[tuple[int, int], tuple[tuple[NodeState, ...], tuple[NodeState, ...]]] = {}

    def groups(self, place: Place) -> tuple[tuple[NodeState, ...], tuple[NodeState, ...]]:
        """The key's primaries: those to prefer, and the rest."""
        partition = self._ring.partition_of(place.token)
        found = self._cache.get((partition, place.n))
        if found is None:
            owners = [self.nodes[node] for node in self._ring.primaries(partition, place.n) if node in self.nodes]
            near = tuple(node for node in owners if self._zone is not None and node.zone == self._zone)
            far = tuple(node for node in owners if node not in near)
            found = (near, far) if near else (far, ())
            self._cache[partition, place.n] = found
        return found


class Router:
    """Picks nodes; knows which epoch of the ring it holds and whether it should hold a newer one."""

    __slots__ = (
        "_known",
        "_listed",
        "_refresh_from",
        "_rng",
        "_use_ring",
        "_view",
        "_zone",
        "alone",
        "behind",
        "epoch",
        "newest_epoch",
    )

    def __init__(self, addresses: Sequence[Address], *, zone: str | None, use_ring: bool, rng: Random) -> None:
        assert addresses
        self._listed = tuple(NodeState(address) for address in addresses)
        self._known = {node.address: node for node in self._listed}
        self._zone = zone
        self._use_ring = use_ring
        self._rng = rng
        self._view: _View | None = None
        self._refresh_from = 0.0
        self.alone: NodeState | None = self._listed[0] if len(self._known) == 1 else None
        """The only node there is."""
        self.behind: bool = use_ring
        """The ring it is to route by is missing, or there is a newer one."""
        self.epoch: int = 0
        self.newest_epoch: int = 0

    @property
    def has_ring(self) -> bool:
        """Whether keys can be placed."""
        return self._view is not None

    def saw_epoch(self, epoch: int) -> None:
        """An answer carried this epoch."""
        if epoch > self.newest_epoch:
            self.newest_epoch = epoch
            self.behind = self._use_ring and epoch > self.epoch

    def refresh_due(self, now: float) -> bool:
        """Whether the ring is missing or old, and nobody asked for it a moment ago."""
        return self.behind and now >= self._refresh_from

    def claim_refresh(self, now: float) -> bool:
        """Whether the caller is the one to fetch the ring now."""
        if not self.refresh_due(now):
            return False
        self._refresh_from = now + REFRESH_S
        return True

    def adopt(self, epoch: int, ring: RingLookup, members: Mapping[NodeId, tuple[Address, str]]) -> None:
        """Route by this ring from now on. Nodes that stay keep what is known of them; an older ring is ignored."""
        if self._view is not None and epoch <= self.epoch:
            return
        nodes = {}
        known = {node.address: node for node in self._listed}
        for node_id, (address, zone) in members.items():
            node = self._known.get(address)
            if node is None:
                node = NodeState(address)
            node.zone = zone
            known[address] = nodes[node_id] = node
        self._known = known
        self.alone = self._listed[0] if len(known) == 1 else None
        self.epoch = epoch
        if epoch >= self.newest_epoch:
            self._refresh_from = 0.0
        self.saw_epoch(epoch)
        self._view = _View(ring, nodes, self._zone)
        self.behind = self._use_ring and epoch < self.newest_epoch

    def nodes(self) -> Collection[NodeState]:
        """Every node known, listed or member."""
        return self._known.values()

    def pick(self, place: Place | None, now: float, tried: Collection[NodeState]) -> NodeState | None:
        """The node to ask next that is not in `tried`; None when all have been."""
        node = self.alone
        if node is not None and not tried and node.disgraced_until <= now:
            return node
        view = self._view
        if view is not None and place is not None:
            near, far = view.groups(place)
            if not tried and near:
                node = self._lighter(near)
                if node.disgraced_until <= now:
                    return node
            by_place = (near, far, view.members, self._listed)
            return self._first_willing(by_place, now, tried) or self._least_disgraced(by_place, tried)
        groups = (self._listed, _EMPTY if view is None else view.members)
        for group in groups:
            for node in group:
                if node.disgraced_until <= now and node not in tried:
                    return node
        return self._least_disgraced(groups, tried)

    def _lighter(self, nodes: Sequence[NodeState]) -> NodeState:
        count = len(nodes)
        if count == 1:
            return nodes[0]
        first = int(self._rng.random() * count)
        second = int(self._rng.random() * (count - 1))
        one, other = nodes[first], nodes[second + (second >= first)]
        return other if len(other.waiting) < len(one.waiting) else one

    def _first_willing(
        self, groups: Sequence[Sequence[NodeState]], now: float, tried: Collection[NodeState]
    ) -> NodeState | None:
        for group in groups:
            willing = [node for node in group if node.disgraced_until <= now and node not in tried]
            if willing:
                return self._lighter(willing)
        return None

    def _least_disgraced(self, groups: Sequence[Sequence[NodeState]], tried: Collection[NodeState]) -> NodeState | None:
        left = [node for group in groups for node in group if node not in tried]
        return min(left, key=lambda node: node.disgraced_until) if left else None

    def check(self) -> None:
        """The epoch held is never newer than the newest seen, and every address has one state."""
        assert self.epoch <= self.newest_epoch
        assert self.behind == (self._use_ring and (self._view is None or self.epoch < self.newest_epoch))
        assert all(address == node.address for address, node in self._known.items())
        if self._view is not None:
            assert set(self._view.members) <= set(self._known.values())
