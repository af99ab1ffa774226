"""Which claims ride on the next message: each change is told a bounded number of times, the least told first.

With c * ceil(log10(n + 1)) tellings an epidemic reaches everybody with high probability and then dies out, so a quiet
cluster's messages carry nothing. A newer claim about a node replaces the older and starts over. What the epidemic
misses, the periodic exchange of whole tables mends.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil, log10

from leafdb.membership.member import Claim
from leafdb.types import NodeId


def tellings_max(multiplier: int, members: int) -> int:
    """How often one claim is told in a cluster of `members` nodes."""
    return multiplier * ceil(log10(members + 1))


class ClaimQueue:
    """Claims still to be told. Bounded by the number of members: one claim for each node."""

    __slots__ = ("_claims", "_told")

    def __init__(self) -> None:
        self._claims: dict[NodeId, Claim] = {}
        self._told: dict[NodeId, int] = {}

    def __len__(self) -> int:
        return len(self._claims)

    def put(self, claim: Claim) -> None:
        """Tell `claim` from now on, instead of any other about its node."""
        self._claims.pop(claim.node, None)
        self._claims[claim.node] = claim
        self._told[claim.node] = 0

    def forget(self, nodes: Iterable[NodeId]) -> None:
        """Stop telling about `nodes`."""
        for node in nodes:
            self._claims.pop(node, None)
            self._told.pop(node, None)

    def take(self, *, count_max: int, tellings: int) -> list[Claim]:
        """Up to `count_max` claims for one message, least told first, then oldest; each counts as told once more."""
        chosen = list(self._claims)
        if len(chosen) > count_max:
            chosen = sorted(chosen, key=self._told.__getitem__)[:count_max]
        taken = []
        for node in chosen:
            taken.append(self._claims[node])
            self._told[node] += 1
            if self._told[node] >= tellings:
                del self._claims[node], self._told[node]
        return taken

    def check(self) -> None:
        """Assert the queue's invariants."""
        assert self._claims.keys() == self._told.keys()
        assert all(node == claim.node for node, claim in self._claims.items())
        assert all(told >= 0 for told in self._told.values())
