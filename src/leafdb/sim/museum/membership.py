"""The room of rumours: failure detectors that buried the living, or never noticed the dead."""

from __future__ import annotations

from typing import Final

from leafdb.sim.mutation import Edit, Mutation
from leafdb.sim.outcome import Tier
from leafdb.testing.violation import Invariant

DETECTOR: Final = "leafdb.membership.failure_detector"

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
            "        dead = self._dead_rotation.next(self.view.with_liveness(Liveness.DEAD))\n",
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
        (
            DETECTOR,
            "            max_s=max_s,\n            confirmations_wanted=self",
            "            max_s=max_s * 1e9,\n            confirmations_wanted=10 + self",
        ),
    ),
    _rumour(
        "old-claims-believed",
        "Good news of the same incarnation beats bad: what was said before a death raises the dead.",
        (
            "leafdb.membership.view",
            "        if member is None or claim.order <= member.order:\n",
            "        if member is None or claim.incarnation < member.incarnation or claim.order == member.order:\n",
        ),
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
)
