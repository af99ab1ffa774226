"""What this member has promised to proofs of the horizon: pure, in memory, gone with the process, which is its point.

A promise says: from now on this member mints nothing below a stamp. It also keeps what speaks against the proof since
then: hints with anything older that were taken in, and the exchanges that this node owes the proof. Exchanges are
counted by their claims (`debts`): one that was claimed after all members had begun, and that this node began, has read
both sides after that.

A leader has one proof at a time, so a later promise to the same leader replaces the one before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from leafdb.limits import NODES_MAX
from leafdb.node.debts import Claim
from leafdb.types import BucketId, NodeId

PROMISE_S: Final = 900.0
"""So long a promise is remembered: longer than any proof takes."""

Slot = tuple[NodeId, BucketId]


@dataclass(slots=True)
class Promise:
    """To one proof."""

    proof: bytes
    stamp: int
    """The horizon to be."""
    ground: bytes
    """What the proof rests on (`purge_rules.ground_of`)."""
    partitions: int
    """For which of them nothing spoke against it at the beginning."""
    until: float
    taken: int = 0
    """Those of which a hint with anything older was taken in since."""
    since: int | None = None
    """Claims with greater numbers count; None: it is not known yet that all have begun."""
    owed: dict[Slot, int] = field(default_factory=dict)
    """What this node has still to exchange, by peer and bucket. Never empty masks."""

    @property
    def unequal(self) -> int:
        """The partitions of which this node has something to exchange."""
        mask = 0
        for owed in self.owed.values():
            mask |= owed
        return mask


class Promises:
    """By leader. `now` is monotonic."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._made: dict[NodeId, Promise] = {}

    def __len__(self) -> int:
        return len(self._made)

    def make(self, leader: NodeId, proof: bytes, stamp: int, ground: bytes, partitions: int) -> bool:
        """Promise that. False: too many are remembered."""
        self.drop_old()
        if leader not in self._made and len(self._made) >= NODES_MAX:
            return False
        self._made[leader] = Promise(proof, stamp, ground, partitions, self._now() + PROMISE_S)
        return True

    def find(self, leader: NodeId, proof: bytes) -> Promise | None:
        """What was promised to this proof in this life of the process; None: nothing that is remembered."""
        promise = self._made.get(leader)
        return promise if promise is not None and promise.proof == proof and self._now() < promise.until else None

    def kept(self, leader: NodeId) -> None:
        """The promise to this leader has been made good, durably: there is nothing to remember any more."""
        self._made.pop(leader, None)

    def drop_old(self) -> None:
        """Forget those that no proof will come back to."""
        now = self._now()
        for leader in [leader for leader, promise in self._made.items() if promise.until <= now]:
            del self._made[leader]

    def hint_taken(self, partition: int, oldest: int) -> None:
        """A hint was taken in; `oldest` is the least stamp in it."""
        for promise in self._made.values():
            if oldest < promise.stamp:
                promise.taken |= 1 << partition

    def proved(self, claim: Claim) -> None:
        """An exchange that this node began came to its end."""
        slot, bit = (claim.peer, claim.bucket), 1 << claim.partition
        for promise in self._made.values():
            if promise.since is not None and claim.number > promise.since and promise.owed.get(slot, 0) & bit:
                promise.owed[slot] ^= bit
                if not promise.owed[slot]:
                    del promise.owed[slot]

    def check(self) -> None:
        """The bound holds; nothing is owed before it may be."""
        assert len(self._made) <= NODES_MAX
        for promise in self._made.values():
            assert promise.since is not None or not promise.owed
            assert all(promise.owed.values())
