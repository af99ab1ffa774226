"""One of the two sets of owners that a range in a plan has, and how far a write or a write-back has come in it.

A confirmation counts for the primary it stands for: the node itself, or the primary for which a fallback keeps it. That
primary may be in one set or in both, and counts once in each it is in. What is needed of a set is w of its primaries
reached, and pw of them in person; for the write-back of a read, r and pr.

A primary reached by a fallback's hint does not hold the record yet. Readers that ask primaries only are promised what
was confirmed in person, as without a plan (2-semantics section 3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from leafdb.types import NodeId


class Short(NamedTuple):
    """What a set cannot reach: the most it could get, what it needs, and of whom."""

    alive: int
    required: int
    what: str
    """"replicas" or "primaries"."""


class OwnerSet:
    """The primaries of a range under one owner table. `w` of them must be reached, `pw` of them in person."""

    __slots__ = ("acks", "primaries", "primary_acks", "pw", "w")

    def __init__(self, primaries: Sequence[NodeId], *, w: int, pw: int = 0) -> None:
        self.primaries: Sequence[NodeId] = primaries
        self.w: int = w
        self.pw: int = pw
        self.acks: int = 0
        self.primary_acks: int = 0

    def count(self, node: NodeId, stands_for: NodeId) -> None:
        """`node` confirmed for the primary `stands_for`; nothing, if that is none of this set's."""
        if stands_for in self.primaries:
            self.acks += 1
            self.primary_acks += node == stands_for

    @property
    def met(self) -> bool:
        """Whether the set has all it needs."""
        return self.acks >= self.w and self.primary_acks >= self.pw

    def short(self, awaited: Mapping[NodeId, NodeId]) -> Short | None:
        """What is out of reach although every node of `awaited` (to the primary it stands for) will confirm."""
        primaries = self.primaries
        reach = self.acks + sum(1 for stands_for in awaited.values() if stands_for in primaries)
        if reach < self.w:
            return Short(reach, self.w, "replicas")
        if self.pw:
            reach = self.primary_acks + sum(1 for node, primary in awaited.items() if node == primary in primaries)
            if reach < self.pw:
                return Short(reach, self.pw, "primaries")
        return None

    @property
    def progress(self) -> tuple[int, int]:
        """(got, needed) of what this set still lacks; (acks, w) when it lacks nothing."""
        if self.acks >= self.w and self.primary_acks < self.pw:
            return self.primary_acks, self.pw
        return self.acks, self.w

    def check(self) -> None:
        """A primary is reached once."""
        assert 0 <= self.primary_acks <= self.acks <= len(self.primaries)
        assert len(set(self.primaries)) == len(self.primaries)
        assert self.pw <= self.w <= len(self.primaries)


def appoint(
    targets: dict[NodeId, NodeId], absent: Sequence[NodeId], spares: list[NodeId], sets: Sequence[OwnerSet]
) -> list[NodeId]:
    """Give absent primaries stand-ins from `spares`, those first without whom a set falls short; changes both.

    A primary of both sets comes before one of a single set, for its stand-in counts twice. So if any choice meets both
    sets, this one does.

    Args:
        targets: each node to be asked, to the primary it stands for; stand-ins are added.
        absent: primaries that cannot be reached, in the order in which equals are served.
        spares: nodes of neither set, nearest first; those appointed are taken off.
        sets: the old and the new owners.

    Returns: the absent primaries for whom nobody is left.
    """
    left = list(absent)
    while left and spares:
        wanting = [each for each in sets if each.short(targets) is not None]
        chosen = max(left, key=lambda node: (_among(node, wanting), _among(node, sets)))
        left.remove(chosen)
        targets[spares.pop(0)] = chosen
    return left


def _among(node: NodeId, sets: Sequence[OwnerSet]) -> int:
    return sum(1 for each in sets if node in each.primaries)
