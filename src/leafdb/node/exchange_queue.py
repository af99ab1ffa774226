"""Which debt is worked off next: chooses a range, and all peers it can be exchanged with now, so that one tree serves
them all.

A peer is ready when its bulk session is up, it has not just failed us (backoff, doubled up to BACKOFF_S_MAX), and no
hints for it are left here: what they bring need not be found by hashing. For a peer whose hints do not drain in
HINTS_WAIT_S the wait ends. While the ring changes, a `Gate` keeps ranges closed to some peers for a time.

Partitions are taken in an order of this node's own. Two nodes that owe each other the same ranges then meet at one of
them only by chance, and each exchange settles the debts of both.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final, NamedTuple, Protocol

from leafdb.node.debts import Debts
from leafdb.node.shared_ranges import SharedRanges
from leafdb.types import BucketId, NodeId, PartitionId

BACKOFF_S_MIN: Final = 0.2
BACKOFF_S_MAX: Final = 10.0
HINTS_WAIT_S: Final = 60.0
LOOK_S: Final = 0.25
"""How soon to look again at what changes without telling: hints, and ranges that somebody is exchanging."""
HELD_BACK_S: Final = 1.0
"""The same for debts that wait for hints to be delivered before they are passed on."""
FEW: Final = 8
"""So few partitions are taken from the lowest: a search for the next in order would pass mostly empty places."""


class Work(NamedTuple):
    """A range to exchange with these peers."""

    bucket: BucketId
    partition: PartitionId
    peers: tuple[NodeId, ...]


class Wait(NamedTuple):
    """Nothing can be done before so many seconds, unless something changes."""

    seconds: float


class Gate(Protocol):
    """What a change of the ring has to say about whose turn it is."""

    def closed(self, peer: NodeId, bucket: BucketId) -> int:
        """The partitions of which nothing may begin with `peer` now."""

    def rank(self, bucket: BucketId) -> int:
        """Buckets with a lower one come first."""


class ExchangeQueue:
    """See the top of this file."""

    def __init__(
        self,
        debts: Debts,
        shared: SharedRanges,
        *,
        connected: Callable[[NodeId], bool],
        hints_for: Callable[[NodeId], int],
        now: Callable[[], float],
        gate: Gate,
        paused: Callable[[NodeId], bool] = lambda _: False,
    ) -> None:
        """`hints_for` counts what is kept here for a node, `paused` says to whom none of it is delivered for now."""
        self._paused = paused
        self._held_back = False
        """Some debt is not passed on for the sake of hints that are still here."""
        self._debts = debts
        self._shared = shared
        self._gate = gate
        self._connected = connected
        self._hints_for = hints_for
        self._now = now
        self._failures: dict[NodeId, int] = {}
        self._retry_at: dict[NodeId, float] = {}
        self._reasons: dict[NodeId, str] = {}
        """Why the last exchange with a peer was given up."""
        self._up_at: dict[NodeId, float] = {}
        self._place = 0
        self._no_strays_at = (-1, -1)
        """The debts' version and the ring's epoch for which it is known that there are no strays."""

    # -- how peers are

    def up(self, peer: NodeId) -> None:
        """A session with the peer was established: begin at once."""
        self._up_at[peer] = self._now()
        self.succeeded(peer)

    def failed(self, peer: NodeId, reason: str) -> None:
        """An exchange with the peer was given up: leave it alone for a while."""
        self._reasons[peer] = reason
        failures = self._failures[peer] = self._failures.get(peer, 0) + 1
        self._retry_at[peer] = self._now() + min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2 ** min(failures - 1, 16))

    def succeeded(self, peer: NodeId) -> None:
        """An exchange with the peer came to its end."""
        self._failures.pop(peer, None)
        self._retry_at.pop(peer, None)
        self._reasons.pop(peer, None)

    def why(self, peer: NodeId) -> str:
        """What keeps exchanges with the peer from being begun now, in words; empty when nothing does."""
        if not self._connected(peer):
            return "it cannot be reached"
        if self._retry_at.get(peer, -inf) > self._now():
            return f"the last try failed: {self._reasons.get(peer, '')}"
        return "hints for it go first" if self.hints_first(peer) else ""

    def hints_first(self, peer: NodeId) -> bool:
        """Whether hints for the peer are on their way and to be waited for."""
        return (
            self._hints_for(peer) > 0
            and not self._paused(peer)
            and self._now() < self._up_at.get(peer, -inf) + HINTS_WAIT_S
        )

    def _ready_in(self, peer: NodeId) -> float:
        """Seconds until the peer may be ready; 0 when it is."""
        if not self._connected(peer):
            return inf
        backoff_s = self._retry_at.get(peer, -inf) - self._now()
        if backoff_s > 0.0:
            return backoff_s
        return LOOK_S if self.hints_first(peer) else 0.0

    # -- what is next

    def next(self, node: NodeId) -> Work | Wait:
        """The next range for this node, `node`."""
        waits = {peer: self._ready_in(peer) for peer in self._debts.peers()}
        ready = [peer for peer, wait_s in waits.items() if wait_s <= 0.0]
        buckets = {bucket for peer in ready for bucket in self._debts.buckets(peer)}
        for bucket in sorted(buckets, key=lambda bucket: (self._gate.rank(bucket), bucket)):
            masks = {peer: self._open(peer, bucket) for peer in ready}
            together = 0
            for mask in masks.values():
                together |= mask
            if together:
                partition = self._pick(node, together)
                return Work(bucket, partition, tuple(peer for peer, mask in masks.items() if mask >> partition & 1))
        wait_s = min((wait_s or LOOK_S for wait_s in waits.values()), default=inf)
        return Wait(min(wait_s, HELD_BACK_S) if self._held_back else wait_s)

    def stray(self) -> Work | None:
        """A debt to a peer in a range that this node does not hold itself: to be passed on.

        Not before the hints for the other holders are gone: who gets the debt must have what it is about.
        """
        state = (self._debts.version, self._shared.epoch)
        if state == self._no_strays_at:
            return None
        none, self._held_back = True, False
        for peer in self._debts.peers():
            for bucket, mask in self._debts.buckets(peer).items():
                stray = mask & ~self._shared.shared(peer, bucket)
                none = none and not stray
                waits = stray & self._hinted(peer, bucket)
                self._held_back = self._held_back or bool(waits)
                stray &= ~waits & ~self._debts.claimed(peer, bucket)
                if stray and self._retry_at.get(peer, -inf) <= self._now():
                    return Work(bucket, PartitionId((stray & -stray).bit_length() - 1), (peer,))
        if none:
            self._no_strays_at = state
        return None

    def _hinted(self, target: NodeId, bucket: BucketId) -> int:
        """The partitions for some other holder of which hints are kept here."""
        mask = 0
        for node in self._shared.members():
            if node != target and self._hints_for(node):
                mask |= self._shared.held(node, bucket)
        return mask

    def _open(self, peer: NodeId, bucket: BucketId) -> int:
        """What is owed to a peer and nobody is at."""
        mask = self._debts.mask(peer, bucket)
        if mask:
            mask &= self._shared.shared(peer, bucket) & ~self._debts.claimed(peer, bucket)
        return mask and mask & ~self._gate.closed(peer, bucket)

    def _pick(self, node: NodeId, mask: int) -> PartitionId:
        if mask.bit_count() <= FEW:
            return PartitionId((mask & -mask).bit_length() - 1)
        places = 1 << (mask.bit_length() - 1).bit_length()
        stride = 2 * (node * 0x9E37_79B1 % places) + 1
        while True:
            self._place += 1
            partition = self._place * stride & (places - 1)
            if mask >> partition & 1:
                return PartitionId(partition)
