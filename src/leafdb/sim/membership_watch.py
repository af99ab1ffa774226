"""What one failure detector may say, judged from outside: from its mail, its timers and the words of others.

The watch knows what was delivered to its node and what the node said, nothing of how it thinks. Bounds are on the
lenient side: what it calls wrong is.

    patience         a suspect has the least time from when *this* node began to suspect, whoever else calls it dead;
                     and more, by the formula, where few accuse it
    self-doubt       an accusation of our own comes after as many intervals of silence as our health commands
    fairness         every message to somebody we do not believe alive carries the accusation, but for mere gossip
    incarnations     whoever was accused is alive again by a greater incarnation only
    strangers        nobody who is no member is believed, first or second hand
    sleep            no verdict in the first interval after we slept
"""

from __future__ import annotations

from math import log
from typing import Final

from leafdb.membership.config import MembershipConfig
from leafdb.membership.failure_detector import FailureDetector
from leafdb.membership.messages import Ack, AnyMessage, Gossip, Ping
from leafdb.testing.violation import Invariant, require, violated
from leafdb.types import Liveness, NodeId

ROUNDING_S: Final = 1e-6


class Watch:
    """Over one life of one node."""

    def __init__(self, name: str, config: MembershipConfig, detector: FailureDetector) -> None:
        self.name = name
        self.config = config
        self.detector = detector
        self.members: frozenset[NodeId] = frozenset()
        """As it was last told."""
        self.slept: bool = False
        """Whether the step under way began with waking up late."""
        self._no_verdict_before = 0.0
        self._score = 0
        self._met: set[NodeId] = set()
        self._suspected_at: dict[NodeId, float] = {}
        self._changed_at: dict[NodeId, float] = {}
        self._accused: dict[NodeId, int] = {}
        """The incarnation in which it was believed suspect or dead."""
        self._accusers: dict[NodeId, set[NodeId]] = {}
        self._obituaries: set[NodeId] = set()
        self._unanswered: dict[NodeId, dict[int, float]] = {}
        """By number, from when on a ping that was not answered may be held against its target."""

    # -- what happens to the node

    def begins(self, now: float) -> None:
        """A step is about to be taken."""
        self._score = self.detector.health.score
        self.slept = now - self.detector.deadline() > self.config.stall_s
        if self.slept:
            self._no_verdict_before = now + self.config.probe_interval_s

    def told_members(self, members: frozenset[NodeId]) -> None:
        """`set_members` was called with these."""
        for gone in self.members - members:
            for known in (self._suspected_at, self._changed_at, self._accused, self._accusers, self._unanswered):
                known.pop(gone, None)
            self._met.discard(gone)
            self._obituaries.discard(gone)
            for accusers in self._accusers.values():
                accusers.discard(gone)
        self.members = members

    def heard(self, sender: NodeId, message: AnyMessage, now: float) -> None:
        """A message arrived."""
        if sender not in self.members:
            return
        self._met.add(sender)
        if isinstance(message, Ack):
            old = now - self.config.health_score_max * self.config.probe_interval_s
            pings = self._unanswered.get(sender, {})
            self._unanswered[sender] = {
                number: ripe for number, ripe in pings.items() if number != message.number and ripe > old
            }
        for claim in message.claims:
            if claim.liveness is not Liveness.ALIVE and claim.accuser in self.members:
                self._accusers.setdefault(claim.node, set()).add(claim.accuser)
                if claim.liveness is Liveness.DEAD:
                    self._obituaries.add(claim.node)

    # -- what the node says

    def sends(self, to: NodeId, message: AnyMessage, now: float) -> None:
        """It sends this."""
        if isinstance(message, Ping):
            score = min(self._score, self.detector.health.score)
            ripe = now + self.config.probe_interval_s * (score + 1)
            self._unanswered.setdefault(to, {}).setdefault(message.number, ripe)
        judged = not isinstance(message, Gossip) and self._changed_at.get(to, now) < now
        if judged and self.detector.liveness(to) in (Liveness.SUSPECT, Liveness.DEAD):
            told = any(claim.node == to and claim.liveness is not Liveness.ALIVE for claim in message.claims)
            require(told, Invariant.CRASH_KNOWN, f"{self.name} does not tell n{to} that it is accused", f"n{to}")

    def changes(self, about: NodeId, liveness: Liveness, now: float, *, by: NodeId | None) -> None:
        """It changed its mind, upon what `by` said, or upon its own timer."""
        if by is not None and by not in self.members:
            violated(Invariant.BANS_FINAL, f"{self.name} believes n{by}, which is no member", f"n{about}")
        self._changed_at[about] = now
        member = self.detector.view.get(about)
        assert member is not None
        if liveness is Liveness.ALIVE:
            renewed = member.incarnation > self._accused.pop(about, -1)
            require(renewed, Invariant.CRASH_KNOWN, f"{self.name} takes back an accusation unrefuted", f"n{about}")
        elif member.liveness is liveness:  # and not refuted in the same step
            self._accused[about] = member.incarnation
        match liveness:
            case Liveness.ALIVE:
                self._suspected_at.pop(about, None)
                self._accusers.pop(about, None)
                self._obituaries.discard(about)
            case Liveness.SUSPECT:
                self._suspected_at[about] = now
                self._accuses(about, now, own=by is None)
            case Liveness.DEAD:
                self._convicts(about, now, own=by is None)

    def _accuses(self, about: NodeId, now: float, *, own: bool) -> None:
        member = self.detector.view.get(about)
        assert member is not None
        if own:
            self._accusers.setdefault(about, set()).add(self.detector.me)
            ripe = any(at <= now + ROUNDING_S for at in self._unanswered.get(about, {}).values())
            text = f"{self.name} accuses n{about} sooner than its own health allows"
            require(ripe, Invariant.CRASH_KNOWN, text, f"n{about}")
        elif member.accuser not in self.members:
            text = f"{self.name} believes n{about} suspect on the word of n{member.accuser}, which is no member"
            violated(Invariant.BANS_FINAL, text, f"n{about}")

    def _convicts(self, about: NodeId, now: float, *, own: bool) -> None:
        key = f"n{about}"
        if own and now < self._no_verdict_before - ROUNDING_S:
            violated(Invariant.CRASH_KNOWN, f"{self.name} has just slept and convicts n{about}", key)
        if about not in self._met:
            return  # of whom it has not heard it may believe the worst
        since = self._suspected_at.get(about)
        if since is None:
            violated(Invariant.CRASH_KNOWN, f"{self.name} believes n{about} dead without having suspected it", key)
        waited = now - since + ROUNDING_S
        least = self.config.suspicion_multiplier * self.config.probe_interval_s
        patience = least
        wanted = self.config.confirmations_wanted(len(self.detector.view.not_dead()) + 2)
        if wanted and about not in self._obituaries:
            accusers = len(self._accusers.get(about, set()) | {self.detector.me})
            most = least * self.config.suspicion_max_multiplier
            patience = max(least, most - (most - least) * log(accusers) / log(wanted + 1))
        text = f"{self.name} convicts n{about} after {waited:.3f} s, and should wait for {patience:.3f}"
        require(waited >= patience, Invariant.CRASH_KNOWN, text, key)
