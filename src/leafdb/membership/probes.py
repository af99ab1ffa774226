"""Whom to probe next, the probes under way, and those we do for others."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence, Set
from math import inf
from typing import TYPE_CHECKING

from leafdb.types import NodeId

if TYPE_CHECKING:
    from random import Random


class Rotation:
    """Round robin in random order: every member is probed once before any is probed twice, in an order that differs
    from node to node and from round to round. That bounds the time to the first probe of a dead node."""

    __slots__ = ("_left", "_rng")

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._left: list[NodeId] = []

    def next(self, candidates: Sequence[NodeId]) -> NodeId | None:
        """The next of `candidates` (which may change between calls), or None when there are none."""
        while self._left:
            node = self._left.pop()
            if node in candidates:
                return node
        self._left = list(candidates)
        self._rng.shuffle(self._left)
        return self._left.pop() if self._left else None


class Probe:
    """One probe of `target`: first directly, then also through helpers, until it is answered or has failed.

    Its failure is evidence against the `incarnation` known when it began, not against one that has spoken since.
    """

    __slots__ = ("asked", "due", "fails_at", "helpers", "incarnation", "nacks", "number", "target")

    def __init__(self, number: int, target: NodeId, incarnation: int, *, ask_at: float, fails_at: float) -> None:
        assert ask_at <= fails_at
        self.number: int = number
        self.target: NodeId = target
        self.incarnation: int = incarnation
        self.due: float = ask_at
        """When something is to be done about it."""
        self.fails_at: float = fails_at
        self.asked: bool = False
        self.helpers: frozenset[NodeId] = frozenset()
        self.nacks: set[NodeId] = set()

    def ask(self, helpers: Iterable[NodeId], *, fails_at: float) -> None:
        """These are asked; they have until then at least, also when they are asked late."""
        assert not self.asked, "helpers are asked once"
        self.asked = True
        self.helpers = frozenset(helpers)
        self.due = self.fails_at = max(self.fails_at, fails_at)

    @property
    def blame(self) -> int:
        """How much its failure says about ourselves: helpers that did not even say "not yet", or 1 without helpers.

        When every helper answers that it cannot reach the target either, our own ears are fine.
        """
        return len(self.helpers) - len(self.nacks) if self.helpers else 1

    def discard(self, nodes: Iterable[NodeId]) -> None:
        """These are members no longer: they owe no answer."""
        self.helpers = self.helpers.difference(nodes)
        self.nacks.difference_update(nodes)


class Relay:
    """A probe of `target` in place of `origin`, which calls it `origin_number`."""

    __slots__ = ("due", "forget_at", "nacked", "origin", "origin_number", "target")

    def __init__(self, origin: NodeId, origin_number: int, target: NodeId, *, nack_at: float, forget_at: float) -> None:
        self.origin: NodeId = origin
        self.origin_number: int = origin_number
        self.target: NodeId = target
        self.due: float = nack_at
        """When something is to be done about it."""
        self.forget_at: float = forget_at
        self.nacked: bool = False

    def nack(self) -> None:
        """The origin is told that there is no answer yet; one that comes late is passed on all the same."""
        self.nacked = True
        self.due = self.forget_at


class Relays:
    """The probes that we do for others, by the numbers of our own pings; at most `count_max` at a time."""

    __slots__ = ("_by_number", "_count_max")

    def __init__(self, count_max: int) -> None:
        self._by_number: dict[int, Relay] = {}
        self._count_max = count_max

    @property
    def is_full(self) -> bool:
        """Whether no more is taken on."""
        return len(self._by_number) >= self._count_max

    def add(self, number: int, relay: Relay) -> None:
        """We have pinged its target under this number."""
        assert not self.is_full
        self._by_number[number] = relay

    def answered(self, number: int, target: NodeId) -> Relay | None:
        """The relay that this ack ends, if there is one."""
        relay = self._by_number.get(number)
        return self._by_number.pop(number) if relay is not None and relay.target == target else None

    def unanswered(self, now: float) -> list[Relay]:
        """Those of which a nack is due now. Those that nobody waits for any more are dropped."""
        if not self._by_number:
            return []
        due = [(number, relay) for number, relay in self._by_number.items() if relay.due <= now]
        for number, relay in due:
            if relay.nacked:
                del self._by_number[number]
        found = [relay for _, relay in due if not relay.nacked]
        for relay in found:
            relay.nack()
        return found

    def earliest(self) -> float:
        """When something is to be done about one of them."""
        return min((relay.due for relay in self._by_number.values()), default=inf) if self._by_number else inf

    def forget(self, nodes: Container[NodeId]) -> None:
        """These are members no longer: nobody asks for them, and they ask for nobody."""
        kept = self._by_number.items()
        self._by_number = {
            number: relay for number, relay in kept if relay.target not in nodes and relay.origin not in nodes
        }

    def clear(self) -> None:
        """Whoever waits has given up."""
        self._by_number.clear()

    def check(self, members: Set[NodeId]) -> None:
        """Assert the bounds."""
        assert len(self._by_number) <= self._count_max
        assert all({relay.origin, relay.target} <= members for relay in self._by_number.values())
