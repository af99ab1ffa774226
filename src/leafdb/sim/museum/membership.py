"""The room of rumours: failure detectors that buried the living, or never noticed the dead."""

from __future__ import annotations

from typing import Final

from leafdb.sim.mutation import Edit, Mutation
from leafdb.sim.outcome import Tier
from leafdb.testing.violation import Invariant

DETECTOR: Final = "leafdb.membership.failure_detector"

BELIEFS: Final = "leafdb.membership.beliefs"
SUSPICION: Final = "leafdb.membership.suspicion"

WRONG: Final = (Invariant.CRASH_KNOWN, Invariant.LIVENESS, Invariant.SELF_CHECK)


def _rumour(name: str, title: str, *edits: tuple[str, str, str], caught_by: tuple[Invariant, ...] = WRONG) -> Mutation:
    return Mutation(
        name=name,
        title=title,
        edits=tuple(Edit(*edit) for edit in edits),
        tier=Tier.MEMBERSHIP,
        caught_by=caught_by,
        operations=20_000,
    )


MUTATIONS: Final = (
    _rumour(
        "no-refutation",
        "A node that hears itself suspected says nothing: it is buried alive.",
        (
            DETECTOR,
            "        self._standing = Standing(claim.incarnation + 1, ours.epoch, ours.digest)\n",
            "        self._standing = Standing(ours.incarnation, ours.epoch, ours.digest)\n",
        ),
    ),
    _rumour(
        "dead-never-asked-again",
        "The dead are not pinged any more: a healed partition stays one.",
        (
            DETECTOR,
            "        dead = self._dead_rotation.next(self.view.dead())\n",
            "        dead = None\n",
        ),
        (
            DETECTOR,
            "        if member is not None and member.liveness is not Liveness.ALIVE:\n",
            "        if member is None:\n",
        ),
        (DETECTOR, "            claims.insert(0, member.claim())\n", "            pass\n"),
    ),
    _rumour(
        "suspicion-without-end",
        "A suspect that does not answer is suspected for ever.",
        (SUSPICION, "        return self.started + self.timeout_s\n", "        return self.started + 1e9\n"),
    ),
    _rumour(
        "old-claims-believed",
        "Good news of the same incarnation beats bad: what was said before a death raises the dead.",
        (
            "leafdb.membership.member",
            " and LIVENESS_RANKS[claim.liveness] > LIVENESS_RANKS[self.liveness]\n",
            "\n",
        ),
        (DETECTOR, "if message.standing.incarnation > member.inc", "if message.standing.incarnation >= member.inc"),
        (
            BELIEFS,
            "        if claim.incarnation == member.incarnation and (\n",
            "        if claim.liveness is Liveness.DEAD and claim.incarnation == member.incarnation and (\n",
        ),
        ("leafdb.membership.member", '        assert claim.order > self.order, "a weaker claim must not win"\n', ""),
    ),
    _rumour(
        "epoch-not-heard",
        "What metadata a peer holds is not noted: nobody learns that there is a newer one.",
        (
            DETECTOR,
            "        if news or (pair != ours and isinstance(message, Ping | Ack)):\n",
            "        if pair == ours and news and isinstance(message, Gossip):\n",
        ),
    ),
    _rumour(
        "own-ears-trusted",
        "A node that is short of CPU accuses as quickly as a healthy one.",
        (SUSPICION, "        return seconds * (self.score + 1)\n", "        return seconds\n"),
    ),
    _rumour(
        "lone-accuser-suffices",
        "One accuser convicts as quickly as many.",
        (
            SUSPICION,
            "        if self.confirmations_wanted == 0 or self._hastened:\n",
            "        if self.confirmations_wanted >= 0:\n",
        ),
    ),
    _rumour(
        "suspect-not-told",
        "Messages to a suspect do not carry the accusation: it hears of it by chance.",
        (DETECTOR, "            claims.insert(0, member.claim())\n", "            pass\n"),
    ),
    _rumour(
        "obituary-believed",
        "What others call dead is dead: who was cut off and returns buries the cluster.",
        (
            BELIEFS,
            "            if claim.liveness is Liveness.DEAD and member.incarnation and",
            "            if claim.liveness is Liveness.DEAD and False and",
        ),
    ),
    _rumour(
        "verdict-after-sleep",
        "A node that slept convicts before it has read its mail.",
        (
            DETECTOR,
            "        self._no_verdict_before = now + self.health.scale(self.config.probe_interval_s)\n",
            "        self._no_verdict_before = now\n",
        ),
    ),
    _rumour(
        "removed-node-accuses",
        "Accusations by nodes that were removed are believed when members pass them on.",
        (
            BELIEFS,
            "            if claim.accuser != self.me and self.view.get(claim.accuser) is None:\n",
            "            if False:\n",
        ),
        caught_by=(*WRONG, Invariant.BANS_FINAL),
    ),
    _rumour(
        "gossip-brings-back",
        "Whoever is talked of is a member: a removed node comes back with the first rumour.",
        (
            BELIEFS,
            "        member = self.view.get(claim.node)\n        if member is None or claim.incarnation",
            "        if self.view.get(claim.node) is None:\n"
            "            self.view.set_members([claim.node, *(each.node for each in self.view)], now)\n"
            "        member = self.view.get(claim.node)\n        if member is None or claim.incarnation",
        ),
        caught_by=(*WRONG, Invariant.BANS_FINAL),
    ),
    _rumour(
        "expelled-and-not-told",
        "A node learns that it is no member any more and tells nobody: it goes on serving.",
        (DETECTOR, "        if was_member and not self._is_member:\n", "        if False:\n"),
        caught_by=(Invariant.BANS_FINAL,),
    ),
)
