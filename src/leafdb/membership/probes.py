"""Whom to probe next, the probes under way, and those we do for others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
        self.number = number
        self.target = target
        self.incarnation = incarnation
        self.due = ask_at
        """When something is to be done about it."""
        self.fails_at = fails_at
        self.asked = False
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
        self.origin = origin
        self.origin_number = origin_number
        self.target = target
        self.due = nack_at
        """When something is to be done about it."""
        self.forget_at = forget_at
        self.nacked = False

    def nack(self) -> None:
        """The origin is told that there is no answer yet; one that comes late is passed on all the same."""
        self.nacked = True
        self.due = self.forget_at
