"""Ballots: the numbers of rounds, totally ordered and never used twice.

    ballot = (counter, node, boot nonce)

The counter orders, the node tells proposers apart, the nonce tells one life of a process from the next: a proposer
keeps its counter in memory only, and after a restart may count the same numbers again without ever making the same
ballot. A ballot used for two values would break agreement, so every round makes a new one.

A counter moves at most BALLOT_JUMP_MAX at once. Otherwise one bad message could push it to its end, where no round can
follow and the register stands still for ever.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from leafdb.codec.fields import as_int, as_list
from leafdb.limits import BALLOT_COUNTER_MAX, BALLOT_JUMP_MAX, NODE_ID_MAX
from leafdb.types import NodeId

INCARNATION_MAX: Final = (1 << 32) - 1


class Ballot(NamedTuple):
    """The number of a round. Tuples compare in the order that counts."""

    counter: int
    node: NodeId
    nonce: int

    def to_wire(self) -> list[int]:
        """A plain list for CBOR."""
        return [self.counter, self.node, self.nonce]

    @classmethod
    def from_wire(cls, value: object) -> Ballot:
        """The ballot in a decoded list. Raises ValueError."""
        counter, node, nonce = _items(value, "ballot", 3)
        return cls(
            as_int(counter, "ballot counter", low=1, high=BALLOT_COUNTER_MAX),
            NodeId(as_int(node, "ballot node", low=1, high=NODE_ID_MAX)),
            as_int(nonce, "ballot nonce"),
        )

    def describe(self) -> str:
        """For people: counter, node, and enough of the nonce."""
        return f"{self.counter}.{self.node}.{self.nonce & 0xFFFF:04x}"


class AcceptorId(NamedTuple):
    """Who voted: a node with the store it had then. The same node with another store is another acceptor."""

    node: NodeId
    incarnation: int

    def to_wire(self) -> list[int]:
        """A plain list for CBOR."""
        return [self.node, self.incarnation]

    @classmethod
    def from_wire(cls, value: object) -> AcceptorId:
        """The id in a decoded list. Raises ValueError."""
        node, incarnation = _items(value, "acceptor", 2)
        return cls(
            NodeId(as_int(node, "acceptor node", low=1, high=NODE_ID_MAX)),
            as_int(incarnation, "acceptor incarnation", high=INCARNATION_MAX),
        )


class BallotSource:
    """Makes the ballots of one process. `nonce` is random, 64 bits, and new at every start."""

    __slots__ = ("_counter", "_node", "_nonce")

    def __init__(self, node: NodeId, nonce: int) -> None:
        self._counter = 0
        self._node = node
        self._nonce = nonce

    def next(self) -> Ballot:
        """A ballot above all made or observed so far."""
        assert self._counter < BALLOT_COUNTER_MAX, "the jump bound keeps counters from their end"
        self._counter += 1
        return Ballot(self._counter, self._node, self._nonce)

    def observe(self, ballot: Ballot) -> None:
        """Go past a ballot that somebody else made, a bounded step at a time."""
        self._counter = max(self._counter, min(ballot.counter, self._counter + BALLOT_JUMP_MAX))


def _items(value: object, what: str, count: int) -> tuple[object, ...]:
    items = tuple(as_list(value, what, items_max=count))
    if len(items) != count:
        raise ValueError(f"{what} has {len(items)} parts, not {count}")
    return items
