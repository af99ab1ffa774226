"""What is believed of one node, and which claim beats which.

A claim says "node X is alive / suspect / dead in incarnation i". Claims about one node are ordered by (incarnation,
rank), rank being alive < suspect < dead, and a node believes the greatest it has heard. The order is total, so tables
merge like any join: in whatever order, and however often, claims arrive, two nodes that heard the same believe the
same. It is SWIM's rule: within an incarnation bad news wins, and only the accused itself can begin a new one.

An incarnation is (boot counter of the store << 32) + refutations since that boot. A restarted node therefore outranks
its own obituary with its first word, without having heard it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from leafdb.types import Liveness, NodeId

INCARNATION_MAX: Final = (1 << 62) - 1
BOOT_SHIFT: Final = 32

LIVENESS_RANKS: Final = {Liveness.ALIVE: 0, Liveness.SUSPECT: 1, Liveness.DEAD: 2}
"""Rank of each state within one incarnation. The numbers cross the wire."""
LIVENESS_OF_RANK: Final = (Liveness.ALIVE, Liveness.SUSPECT, Liveness.DEAD)


def first_incarnation(boot: int) -> int:
    """The incarnation a node has from its `boot`-th start until its first refutation."""
    assert 0 <= boot < 1 << 29, f"boot counter {boot} out of range"
    return boot << BOOT_SHIFT


@dataclass(frozen=True, slots=True)
class Claim:
    """`accuser` says that `node` is `liveness` in `incarnation`. An alive claim's accuser is whoever passed it on."""

    node: NodeId
    liveness: Liveness
    incarnation: int
    accuser: NodeId

    @property
    def order(self) -> tuple[int, int]:
        """Greater beats smaller."""
        return self.incarnation, LIVENESS_RANKS[self.liveness]


@dataclass(frozen=True, slots=True)
class MemberState:
    """What is believed of one node, for status pages: since when, in seconds of the machine's clock."""

    node: NodeId
    liveness: Liveness
    incarnation: int
    since: float


class Member:
    """The strongest claim heard about one node."""

    __slots__ = ("accuser", "incarnation", "liveness", "node", "since")

    def __init__(self, node: NodeId, now: float) -> None:
        self.node: NodeId = node
        self.liveness: Liveness = Liveness.ALIVE
        self.incarnation: int = 0
        """0 until the node has spoken: any claim of its own beats it."""
        self.accuser: NodeId = node
        self.since: float = now

    @property
    def order(self) -> tuple[int, int]:
        """Comparable with `Claim.order`."""
        return self.incarnation, LIVENESS_RANKS[self.liveness]

    def is_beaten_by(self, claim: Claim) -> bool:
        """Whether the claim's order is the greater; written out, since most claims heard are old news."""
        if claim.incarnation != self.incarnation:
            return claim.incarnation > self.incarnation
        return claim.liveness is not self.liveness and LIVENESS_RANKS[claim.liveness] > LIVENESS_RANKS[self.liveness]

    def believe(self, claim: Claim, now: float) -> None:
        """Take over a stronger claim."""
        assert claim.node == self.node
        assert claim.order > self.order, "a weaker claim must not win"
        if claim.liveness is not self.liveness:
            self.since = now
        self.liveness = claim.liveness
        self.incarnation = claim.incarnation
        self.accuser = claim.accuser

    def claim(self) -> Claim:
        """What is believed, to pass on."""
        return Claim(self.node, self.liveness, self.incarnation, self.accuser)

    def state(self) -> MemberState:
        """What is believed, to show."""
        return MemberState(self.node, self.liveness, self.incarnation, self.since)
