"""Settings of the failure detector: each with its formula, its cost, and the value of both profiles.

With T = `probe_interval_s` and N nodes, a node that stops is believed dead after at most

    T * (members probed before it)  +  T  +  suspicion minimum = suspicion_multiplier * max(1, log10 N) * T

once `suspicion_multiplier` - 2 others confirm; in clusters too small to confirm, the minimum holds at once. A lost
session takes the first term away. 3 nodes, SMALL profile: at most 1.0 + 0.5 + 2.0 s. 50 nodes, LARGE: in 99 of 100
crashes the first probe of the dead node comes within 4.6 T and the third, which confirms for the second time, within
8.4 T; it fails T later, and the minimum is 6.8 T: 12.4 s and the gossip. Without confirmations it were 42 s. The price
of a smaller T is one more message of some 100 bytes and its answer per node and T, and less patience with nodes that
stall.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log10
from typing import Final

SMALL_NODES_MAX: Final = 10
"""Up to this many nodes `profile_for` takes the quicker profile."""


@dataclass(frozen=True, slots=True)
class MembershipConfig:
    """How quickly, and how carefully, nodes are found dead. The defaults are for clusters of more than ten nodes."""

    probe_interval_s: float = 1.0
    """T: one member is probed in each. Twice the timeout, so that helpers have as long as the direct probe."""
    probe_timeout_s: float = 0.5
    """The direct probe's time before helpers are asked: several round trips and a pause of the interpreter."""
    helpers: int = 3
    """k: how many others are asked to probe in our place."""
    suspicion_multiplier: int = 4
    """The suspicion minimum in T; less 2, the number of confirmations that bring the timer down to it."""
    suspicion_max_multiplier: int = 6
    """The suspicion maximum in minimums: how long a lone accuser waits."""
    health_score_max: int = 7
    """Own timeouts stretch to at most this plus one."""
    gossip_interval_s: float = 0.2
    """Only while there is something to tell."""
    gossip_fanout: int = 3
    tellings_multiplier: int = 4
    """Each claim rides on this times ceil(log10(N + 1)) messages."""
    piggyback_claims_max: int = 32
    """Claims on one message, some 20 bytes each."""
    sync_interval_s: float = 30.0
    """Whole tables are exchanged with a random member this often: mends what gossip missed."""
    relays_max: int = 256
    """Probes for others at one time; further requests are not answered."""

    @property
    def nack_after_s(self) -> float:
        """A helper says "not yet" after this long: before the asker's interval is over."""
        return 0.8 * self.probe_timeout_s

    @property
    def stall_s(self) -> float:
        """Waking up this much late is a stall of our own, after which nobody is convicted for a probe interval."""
        return self.probe_timeout_s

    @property
    def heartbeat_s(self) -> float:
        """While there are suspects we wake this often, so that hardly a stall escapes us before a verdict.

        A node with nothing due for seconds (its intervals stretched, by ill health) would not find out that it slept.
        """
        return self.stall_s / 2

    @property
    def last_words_s(self) -> float:
        """So long before a verdict the suspect is asked again and again: four times, since messages get lost."""
        return 4 * self.probe_timeout_s

    def suspicion_s(self, nodes: int) -> tuple[float, float]:
        """The least and the greatest time a suspect has, in a cluster of `nodes`."""
        least = self.suspicion_multiplier * max(1.0, log10(max(1, nodes))) * self.probe_interval_s
        return least, least * self.suspicion_max_multiplier

    def confirmations_wanted(self, nodes: int) -> int:
        """How many further accusers bring the timer to its minimum; 0 where there are not that many to be had."""
        wanted = max(0, self.suspicion_multiplier - 2)
        return wanted if nodes - 2 >= wanted else 0

    def check(self) -> None:
        """Assert what the formulas assume."""
        assert 0 < self.probe_timeout_s < self.probe_interval_s
        assert self.helpers >= 0
        assert self.gossip_fanout >= 1
        assert self.suspicion_multiplier >= 2
        assert self.suspicion_max_multiplier >= 1
        assert self.tellings_multiplier >= 1
        assert self.piggyback_claims_max >= 2
        assert min(self.gossip_interval_s, self.sync_interval_s) > 0


LARGE: Final = MembershipConfig()
SMALL: Final = MembershipConfig(probe_interval_s=0.5, probe_timeout_s=0.25)


def profile_for(nodes: int) -> MembershipConfig:
    """The profile for a cluster of `nodes`."""
    return SMALL if nodes <= SMALL_NODES_MAX else LARGE
