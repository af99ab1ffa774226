"""What one node believes of the others, and how what it hears changes that: the judge of the failure detector.

Everybody judges for themselves. An obituary from another node makes a suspect, with the shortest time, of whom we know;
so everybody has that time to refute it wherever it is told, and a node that was cut off and comes back does not bury
the cluster that it believed dead. Only of whom we have never heard is it believed at once.

What a stranger says is not believed, also when members pass it on: it may have been removed since. Good news needs no
witness: nobody but the node itself can have begun a new incarnation.
"""

from __future__ import annotations

from collections.abc import Iterable

from leafdb.membership.config import MembershipConfig
from leafdb.membership.dissemination import ClaimQueue
from leafdb.membership.effects import Effect, MemberChanged
from leafdb.membership.member import Claim, Member
from leafdb.membership.suspects import Suspects
from leafdb.membership.view import View
from leafdb.types import Liveness, NodeId


class Beliefs:
    """The table of members, the timers of the suspects, and what is still to be told. Effects go to `effects`."""

    __slots__ = ("_effects", "me", "queue", "suspects", "view")

    def __init__(self, config: MembershipConfig, me: NodeId, effects: list[Effect]) -> None:
        self.me: NodeId = me
        self.view: View = View(me)
        self.suspects: Suspects = Suspects(config)
        self.queue: ClaimQueue = ClaimQueue()
        self._effects = effects

    def set_members(self, nodes: Iterable[NodeId], now: float) -> tuple[list[NodeId], list[NodeId]]:
        """Make the table hold exactly `nodes`; answers those added and removed, of which nothing is kept."""
        added, removed = self.view.set_members(nodes, now)
        if removed:
            self.queue.forget(removed)
            self.suspects.forget(removed)
        self._resize()
        return added, removed

    def hear(self, claim: Claim, now: float) -> None:
        """Somebody says so of another node: weigh it."""
        member = self.view.get(claim.node)
        if member is None or claim.incarnation < member.incarnation:
            return
        if claim.incarnation == member.incarnation and (
            claim.liveness is Liveness.ALIVE or member.liveness is Liveness.DEAD
        ):
            return  # as most of what is heard, old news
        if claim.liveness is not Liveness.ALIVE:
            if claim.accuser != self.me and self.view.get(claim.accuser) is None:
                return
            if claim.liveness is Liveness.DEAD and member.incarnation and member.liveness is not Liveness.DEAD:
                self._hear_obituary(member, claim, now)
                return
        self.believe(member, claim, now)

    def _hear_obituary(self, member: Member, claim: Claim, now: float) -> None:
        self.believe(member, Claim(claim.node, Liveness.SUSPECT, claim.incarnation, claim.accuser), now)
        self.suspects.hasten(claim.node)

    def believe(self, member: Member, claim: Claim, now: float) -> None:
        """Take it over, and tell it on, if it is news; or count one more accuser."""
        before = member.liveness
        if self.view.believe(claim, now):
            self.queue.put(claim)
            self.suspects.clear(claim.node)
            if claim.liveness is Liveness.SUSPECT:
                self.suspects.begin(claim, now)
            if claim.liveness is not before:
                self._effects.append(MemberChanged(claim.node, claim.liveness))
                if Liveness.DEAD in (before, claim.liveness):
                    self._resize()
        elif (
            Liveness.SUSPECT is claim.liveness is member.liveness
            and claim.incarnation == member.incarnation
            and self.suspects.confirm(claim)
        ):
            self.queue.put(claim)

    def convict(self, now: float) -> None:
        """The suspects whose time is over are dead to us."""
        for node in self.suspects.expired(now):
            member = self.view.get(node)
            assert member is not None, "a suspicion outlived its member"
            self.believe(member, Claim(node, Liveness.DEAD, member.incarnation, self.me), now)

    def _resize(self) -> None:
        """Timers are sized by how many members there are, and how many of those may accuse."""
        self.suspects.resize(members=len(self.view) + 1, not_dead=len(self.view.not_dead()) + 1)

    def check(self) -> None:
        """Assert the invariants of all parts, and between them."""
        self.view.check()
        self.queue.check()
        self.suspects.check(set(self.view.with_liveness(Liveness.SUSPECT)))
