"""The room of ring changes: data that stayed behind, owners that were asked too early or let go too soon."""

from __future__ import annotations

from typing import Final

from leafdb.sim.mutation import Edit, Mutation
from leafdb.sim.outcome import Tier
from leafdb.testing.violation import Invariant

REGISTER: Final = "leafdb.node.register"
TRANSITIONS: Final = "leafdb.ring.transitions"
RULES: Final = "leafdb.node.plan_rules"
GETS: Final = "leafdb.quorum.joint_get_operation"

BEHIND: Final = (
    Invariant.QUORUMS_MEET, Invariant.NOTHING_LEFT_BEHIND, Invariant.READS_MONOTONIC, Invariant.NOTHING_LOST,
    Invariant.SURVIVES_STORES, Invariant.SESSIONS, Invariant.DELETIONS_STAY, Invariant.HINTS_CONSERVED,
    Invariant.REPLICAS_EQUAL,
)  # fmt: skip
"""Something that was acknowledged or read is not where the ring has come to."""
LEFT: Final = (Invariant.BANS_FINAL, Invariant.ONE_HISTORY, Invariant.LIVENESS)


def _ring(
    name: str,
    title: str,
    *edits: tuple[str, str, str],
    caught_by: tuple[Invariant, ...] = BEHIND,
    seeds_max: int = 30,
) -> Mutation:
    return Mutation(
        name=name,
        title=title,
        edits=tuple(Edit(*edit) for edit in edits),
        tier=Tier.RING,
        caught_by=caught_by,
        seeds_max=seeds_max,
        operations=150,
    )


MUTATIONS: Final = (
    _ring(
        "new-owners-read-at-once",
        "New owners are asked from the commit on, and say that there is nothing: they have copied nothing yet (riak).",
        (
            "leafdb.ring.ring",
            "self._new if plan is not None and plan.reads_new else self._old",
            "self._old if plan is None else self._new",
        ),
        (
            "leafdb.node.completeness",
            "        return ring is None or not ring.in_plan or view.self_id not in",
            "        return ring is None or ring is not None or view.self_id not in",
        ),
        caught_by=(*BEHIND, Invariant.SELF_CHECK),
    ),
    _ring(
        "pending-not-counted",
        "While copies are made a write needs its count among the old owners only (Cassandra before pending ranges).",
        (
            "leafdb.quorum.joint_put_operation",
            "        if self.ended or not (old.met and new.met):\n            return Step.NOTHING  # what",
            "        if self.ended or not old.met:\n            return Step.NOTHING  # what",
        ),
        caught_by=(*BEHIND, Invariant.SELF_CHECK),
    ),
    _ring(
        "single-source-rebuild",
        "A new owner copies from one old owner, which may have missed what the others have acknowledged (Cassandra).",
        (
            "leafdb.node.changing_ranges",
            "                    found[peer, bucket] = wanted & held\n",
            "                    found[peer, bucket] = wanted & held\n                    wanted &= ~held\n",
        ),
        seeds_max=40,
    ),
    _ring(
        "newcomer-copies-nothing",
        "A newcomer takes itself for whole and copies nothing (a Cassandra node that is its own seed).",
        (
            "leafdb.node.changing_ranges",
            "        if plan is None:\n            return {}\n",
            "        if plan is None or self._view.self_id in plan.joining:\n            return {}\n",
        ),
    ),
    _ring(
        "shown-by-one-set-alone",
        "A read in a plan shows what R owners of one set hold, and after the next step nobody asks these any more.",
        (GETS, "        return super()._held and self.other.met\n", "        return super()._held\n"),
        (GETS, "            assert self.other.met\n", ""),
    ),
    _ring(
        "advance-without-a-receiver",
        "Reads move although a receiver has copies to make.",
        (
            RULES,
            "    elif not answer.settled and plan.phase is not Phase.RETREAT:\n",
            "    elif not answer.settled and plan.phase is Phase.WRITE_BOTH_READ_NEW:\n",
        ),
    ),
    _ring(
        "finish-without-an-old-owner",
        "A plan ends although an old owner that does not answer may not have heard that reads have moved.",
        (
            RULES,
            "    if answer is None:\n        if node in plan.joining",
            "    if answer is None and plan.phase is Phase.WRITE_BOTH_READ_NEW:\n        return\n"
            "    if answer is None:\n        if node in plan.joining",
        ),
        seeds_max=80,
    ),
    _ring(
        "retreat-without-a-new-owner",
        "A plan that is given up ends although a new owner still reads by the new table.",
        (
            RULES,
            "            return awaited(metadata) | (frozenset(plan.joining)",
            "            return (frozenset(plan.joining)",
        ),
        seeds_max=60,
    ),
    _ring(
        "leftovers-dropped-unasked",
        "After a plan an old owner drops its copy without asking whether the owners have it (Cassandra's cleanup).",
        (
            "leafdb.node.leftovers",
            "        for holder in proof.holders:\n",
            "        for holder in proof.holders[:0]:\n",
        ),
        seeds_max=60,
    ),
    _ring(
        "hints-of-the-removed-dropped",
        "Hints for a node that was removed are dropped, and with them the only copies of some writes (riak).",
        (
            "leafdb.node.orphan_hints",
            "            for holder in proof.holders:\n                if holder == self._view.self_id:\n",
            "            for holder in proof.holders[:0]:\n                if holder == self._view.self_id:\n",
        ),
        seeds_max=60,
    ),
    _ring(
        "commit-of-another-plan",
        "A commit takes whatever is staged or in progress by then, and not the plan that was looked at.",
        (TRANSITIONS, "    if plan.id != plan_id:\n", "    if not plan.id:\n"),
        (TRANSITIONS, "        if metadata.plan.id == plan_id:\n", "        if metadata.plan.id:\n"),
        caught_by=(Invariant.HONEST_OUTCOMES, *LEFT),
    ),
    _ring(
        "abort-in-one-step",
        "A plan is given up at once although reads have moved: who still asks the new owners misses what is written.",
        (
            TRANSITIONS,
            "            return _at(metadata, plan, Phase.RETREAT, change_id)\n",
            "            return _over(metadata, frozenset(plan.joining), change_id)\n",
        ),
        caught_by=(*BEHIND, *LEFT),
        seeds_max=60,
    ),
    _ring(
        "zombie-member",
        "A node that was removed comes back, and is let in (Cassandra's zombies).",
        (
            "leafdb.node.admission",
            "        if facts.node in metadata.bans:\n            return Refusal.BANNED\n"
            "        if facts.node not in metadata.members:\n            return Refusal.UNKNOWN_NODE\n",
            "        if facts.node not in metadata.members:\n            return None\n",
        ),
        caught_by=(*BEHIND, *LEFT, Invariant.SELF_CHECK),
    ),
    _ring(
        "ban-forgotten",
        "Only those are banned whom the last plan sent away (Scylla forgot the removed after three days).",
        (TRANSITIONS, "        bans=tuple(sorted({*metadata.bans, *gone})),\n", "        bans=tuple(sorted(gone)),\n"),
        caught_by=LEFT,
    ),
    _ring(
        "banned-node-serves-on",
        "A node that learns that it was removed for good goes on serving.",
        (
            "leafdb.node.expulsion",
            "    node.tenure.end(error)\n",
            "    if why is not Refusal.BANNED:\n        node.tenure.end(error)\n",
        ),
        caught_by=LEFT,
    ),
    _ring(
        "older-metadata-believed",
        "A node believes whatever version of the metadata it hears of last: a stale one takes the others back.",
        ("leafdb.node.gossiper", "or epoch > metadata.epoch:", "or epoch != metadata.epoch:"),
        (REGISTER, "or current.epoch <= known:", "or current.epoch == known:"),
        (REGISTER, "        if metadata.version <= self._newest:\n", "        if metadata.version == self._newest:\n"),
        (REGISTER, "or metadata.version > current.version:", "or metadata.version != current.version:"),
        (
            "leafdb.node.view",
            "metadata.version > self.metadata.version\n",
            "metadata.version != self.metadata.version\n",
        ),
        caught_by=(Invariant.ONE_HISTORY,),
    ),
    _ring(
        "joiner-keeps-its-store",
        "A node whose join was given up keeps what it had copied, and can never be staged again.",
        (
            "leafdb.node.expulsion",
            "    if why is Refusal.BANNED and join_was_given_up(",
            "    if why is Refusal.CLONE and join_was_given_up(",
        ),
        caught_by=LEFT,
    ),
)
