"""The table of members: for each node of the cluster metadata, other than ourselves, the strongest claim heard.

Gossip never adds or removes a member; only `set_members` does, when the metadata changes. Claims about strangers and
about ourselves are not kept here (ourselves: `failure_detector` refutes them).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from leafdb.membership.member import Claim, Member, MemberState
from leafdb.types import Liveness, NodeId


class View:
    """Who is believed to be what."""

    __slots__ = ("_by_liveness", "_members", "me")

    def __init__(self, me: NodeId) -> None:
        self.me: NodeId = me
        self._members: dict[NodeId, Member] = {}
        self._by_liveness: tuple[tuple[NodeId, ...], tuple[NodeId, ...], tuple[NodeId, ...]] | None = None
        """(alive, not dead, dead), until somebody changes: asked for in each probe interval, changed rarely."""

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members.values())

    def get(self, node: NodeId) -> Member | None:
        """The member, or None for a stranger (ourselves included)."""
        return self._members.get(node)

    def set_members(self, nodes: Iterable[NodeId], now: float) -> tuple[list[NodeId], list[NodeId]]:
        """Make the table hold exactly `nodes` (less ourselves); answers those added and those removed, in order."""
        wanted = set(nodes) - {self.me}
        added = sorted(wanted - self._members.keys())
        removed = sorted(self._members.keys() - wanted)
        self._by_liveness = None
        for node in removed:
            del self._members[node]
        for node in added:
            self._members[node] = Member(node, now)
        return added, removed

    def believe(self, claim: Claim, now: float) -> bool:
        """Take over `claim` if it beats what is believed; answers whether it did."""
        member = self._members.get(claim.node)
        if member is None or not member.is_beaten_by(claim):
            return False
        if claim.liveness is not member.liveness:
            self._by_liveness = None
        member.believe(claim, now)
        return True

    def alive(self) -> tuple[NodeId, ...]:
        """Whoever is believed alive, in order of their numbers."""
        return (self._by_liveness or self._sorted())[0]

    def not_dead(self) -> tuple[NodeId, ...]:
        """The same with the suspects."""
        return (self._by_liveness or self._sorted())[1]

    def dead(self) -> tuple[NodeId, ...]:
        """Whoever is believed dead, in order of their numbers."""
        return (self._by_liveness or self._sorted())[2]

    def _sorted(self) -> tuple[tuple[NodeId, ...], tuple[NodeId, ...], tuple[NodeId, ...]]:
        alive: list[NodeId] = []
        not_dead: list[NodeId] = []
        dead: list[NodeId] = []
        for node in sorted(self._members):
            liveness = self._members[node].liveness
            (dead if liveness is Liveness.DEAD else not_dead).append(node)
            if liveness is Liveness.ALIVE:
                alive.append(node)
        self._by_liveness = tuple(alive), tuple(not_dead), tuple(dead)
        return self._by_liveness

    def with_liveness(self, *wanted: Liveness) -> list[NodeId]:
        """The nodes in one of the states `wanted`, in order of their numbers."""
        return sorted(member.node for member in self._members.values() if member.liveness in wanted)

    def claims(self) -> tuple[Claim, ...]:
        """The whole table, to hand to a peer."""
        return tuple(member.claim() for member in self._members.values())

    def states(self) -> tuple[MemberState, ...]:
        """The whole table, to show, in order of node numbers."""
        return tuple(self._members[node].state() for node in sorted(self._members))

    def check(self) -> None:
        """Assert the table's invariants."""
        assert self.me not in self._members, "a node keeps no opinion of itself"
        if self._by_liveness is not None:
            kept = self._by_liveness
            assert self._sorted() == kept, "the lists by liveness are out of date"
        for node, member in self._members.items():
            assert node == member.node
            assert member.incarnation >= 0
