"""Which peers can be asked now: those with a session that have not just failed us. For work that waits for peers as
long as it takes, and says for whom."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import Final

from leafdb.types import NodeId

BACKOFF_S_MIN: Final = 0.2
BACKOFF_S_MAX: Final = 10.0


class PeerBackoff:
    """Of one piece of work. `connected` says whether there is a session."""

    def __init__(self, connected: Callable[[NodeId], bool], now: Callable[[], float]) -> None:
        self._connected = connected
        self._now = now
        self._failures: dict[NodeId, int] = {}
        self._retry_at: dict[NodeId, float] = {}
        self._reasons: dict[NodeId, str] = {}

    def connected(self, peer: NodeId) -> bool:
        """Whether there is a session with the peer."""
        return self._connected(peer)

    def ready(self, peer: NodeId) -> bool:
        """Whether the peer can be asked now."""
        return self._connected(peer) and self._retry_at.get(peer, -inf) <= self._now()

    def failed(self, peer: NodeId, reason: str) -> None:
        """The peer did not do what it was asked: leave it alone, twice as long each time, up to BACKOFF_S_MAX."""
        failures = self._failures[peer] = self._failures.get(peer, 0) + 1
        self._retry_at[peer] = self._now() + min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2 ** min(failures - 1, 16))
        self._reasons[peer] = reason

    def worked(self, peer: NodeId) -> None:
        """The peer did what it was asked."""
        self._failures.pop(peer, None)
        self._retry_at.pop(peer, None)
        self._reasons.pop(peer, None)

    def retry_in(self) -> float:
        """Seconds until somebody who has failed and is there may be asked again; infinite when there is nobody."""
        now = self._now()
        waits = (at - now for peer, at in self._retry_at.items() if at > now and self._connected(peer))
        return min(waits, default=inf)

    def keep(self, members: Iterable[NodeId]) -> None:
        """Forget everybody else."""
        for peer in self._reasons.keys() - set(members):
            self.worked(peer)

    def waits_for(self, peers: Iterable[NodeId]) -> dict[NodeId, str]:
        """Those of these peers that cannot be asked or have failed, and why."""
        found: dict[NodeId, str] = {}
        for peer in sorted(set(peers)):
            if not self._connected(peer):
                found[peer] = "cannot be reached"
            elif peer in self._reasons:
                found[peer] = self._reasons[peer]
        return found
