"""Whom to probe next, the probes under way, and those we do for others."""

from __future__ import annotations

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

    def next(self, candidates: list[NodeId]) -> NodeId | None:
        """The next of `candidates` (which may change between calls), or None when there are none."""
        allowed = set(candidates)
        while self._left:
            node = self._left.pop()
            if node in allowed:
                return node
        self._left = list(candidates)
        self._rng.shuffle(self._left)
        return self._left.pop() if self._left else None


class Probe:
    """One probe of `target`: first directly, then also through helpers, until it is answered or has failed."""

    __slots__ = ("ask_at", "asked", "fails_at", "helpers", "nacks", "number", "target")

    def __init__(self, number: int, target: NodeId, *, ask_at: float, fails_at: float) -> None:
        assert ask_at <= fails_at
        self.number = number
        self.target = target
        self.ask_at = ask_at
        self.fails_at = fails_at
        self.asked = False
        self.helpers: frozenset[NodeId] = frozenset()
        self.nacks: set[NodeId] = set()

    @property
    def due(self) -> float:
        """When something is to be done about it."""
        return self.fails_at if self.asked else self.ask_at

    @property
    def blame(self) -> int:
        """How much its failure says about ourselves: helpers that did not even say "not yet", or 1 without helpers.

        When every helper answers that it cannot reach the target either, our own ears are fine.
        """
        return len(self.helpers) - len(self.nacks) if self.helpers else 1


class Relay:
    """A probe of `target` in place of `origin`, which calls it `origin_number`."""

    __slots__ = ("forget_at", "nack_at", "nacked", "origin", "origin_number", "target")

    def __init__(self, origin: NodeId, origin_number: int, target: NodeId, *, nack_at: float, forget_at: float) -> None:
        self.origin = origin
        self.origin_number = origin_number
        self.target = target
        self.nack_at = nack_at
        self.forget_at = forget_at
        self.nacked = False

    @property
    def due(self) -> float:
        """When something is to be done about it."""
        return self.forget_at if self.nacked else self.nack_at
