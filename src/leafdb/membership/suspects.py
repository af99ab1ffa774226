"""The suspects of one observer, each with its timer.

Timers are sized for the cluster as it is: the minimum and maximum by how many members there are, the confirmations
wanted by how many of them may still accuse, which the dead may not. Otherwise whoever dies after half of a cluster has
died is waited for until the maximum, for accusers that cannot come.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from math import inf

from leafdb.membership.config import MembershipConfig
from leafdb.membership.member import Claim
from leafdb.membership.suspicion import Suspicion
from leafdb.types import NodeId


class Suspects:
    """Bounded by the number of members: one timer for each node."""

    __slots__ = ("_config", "_earliest", "_members", "_not_dead", "_timers")

    def __init__(self, config: MembershipConfig) -> None:
        self._config = config
        self._timers: dict[NodeId, Suspicion] = {}
        self._earliest: float | None = inf
        """The end of the first timer, until something changes: asked for after each step."""
        self._members = 1
        self._not_dead = 1

    def __iter__(self) -> Iterator[NodeId]:
        return iter(self._timers)

    def get(self, node: NodeId) -> Suspicion | None:
        """The timer of a suspect; None for anybody else."""
        return self._timers.get(node)

    def resize(self, *, members: int, not_dead: int) -> None:
        """So many members there are, so many not believed dead, ourselves included."""
        self._earliest = None
        self._members = members
        self._not_dead = not_dead
        if self._timers:
            least, most, wanted = self._sizes()
            for timer in self._timers.values():
                timer.resize(min_s=least, max_s=most, confirmations_wanted=wanted)

    def begin(self, claim: Claim, now: float) -> None:
        """A new suspect, or an old one in a new incarnation."""
        self._earliest = None
        least, most, wanted = self._sizes()
        self._timers[claim.node] = Suspicion(
            claim.accuser, now=now, min_s=least, max_s=most, confirmations_wanted=wanted
        )

    def clear(self, node: NodeId) -> None:
        """No suspect any more, if it was one."""
        if self._timers.pop(node, None) is not None:
            self._earliest = None

    def confirm(self, claim: Claim) -> bool:
        """One more says so of a suspect; answers whether that is news."""
        self._earliest = None
        return self._timers[claim.node].confirm(claim.accuser)

    def hasten(self, node: NodeId) -> None:
        """Somebody believes this suspect dead."""
        self._earliest = None
        self._timers[node].hasten()

    def forget(self, nodes: Iterable[NodeId]) -> None:
        """These are members no longer, neither suspects nor accusers."""
        self._earliest = None
        gone = frozenset(nodes)
        for node in gone:
            self._timers.pop(node, None)
        for timer in self._timers.values():
            timer.discard(gone)

    def __len__(self) -> int:
        return len(self._timers)

    def closing(self, now: float, *, within: float, every: float) -> list[NodeId]:
        """Those whose time is over within so long, each at most once in `every` seconds."""
        if self.earliest() > now + within:
            return []
        found = []
        for node, timer in self._timers.items():
            if timer.expires <= now + within and timer.asked_at <= now - every:
                timer.asked_at = now
                found.append(node)
        return found

    def expired(self, now: float) -> list[NodeId]:
        """Those whose time is over."""
        if self.earliest() > now:
            return []
        return [node for node, timer in self._timers.items() if timer.expires <= now]

    def earliest(self) -> float:
        """When the first timer runs out; infinity without suspects."""
        if self._earliest is None:
            self._earliest = min((timer.expires for timer in self._timers.values()), default=inf)
        return self._earliest

    def _sizes(self) -> tuple[float, float, int]:
        least, most = self._config.suspicion_s(self._members)
        return least, most, self._config.confirmations_wanted(self._not_dead)

    def check(self, suspects: Set[NodeId]) -> None:
        """Assert that exactly these have a timer."""
        assert self._timers.keys() == suspects, "a timer for each suspect"
        assert self._earliest in (None, min((timer.expires for timer in self._timers.values()), default=inf))
        assert 1 <= self._not_dead <= self._members
