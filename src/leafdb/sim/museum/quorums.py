"""The room of counts: reads and writes that said more than enough replicas had said."""

from __future__ import annotations

from typing import Final

from leafdb.sim.mutation import Edit, Mutation
from leafdb.sim.outcome import Tier
from leafdb.testing.violation import Invariant

PUTS: Final = "leafdb.quorum.put_operation"
GETS: Final = "leafdb.quorum.get_operation"
PUT: Final = "leafdb.node.put_under_way"
UNDER_WAY: Final = "leafdb.node.get_under_way"
SERVICE: Final = "leafdb.node.replica_service"

SEEN_LESS: Final = (
    Invariant.READS_MONOTONIC, Invariant.NOTHING_LOST, Invariant.SURVIVES_STORES, Invariant.SESSIONS,
    Invariant.DELETIONS_STAY, Invariant.HONEST_OUTCOMES, Invariant.EXPLAINED,
)  # fmt: skip
"""What was acknowledged or read is not there for the next reader."""


def _quorum(
    name: str,
    title: str,
    *edits: tuple[str, str, str],
    caught_by: tuple[Invariant, ...] = SEEN_LESS,
    seeds_max: int = 20,
    nodes: int = 5,
) -> Mutation:
    return Mutation(
        name=name,
        title=title,
        edits=tuple(Edit(*edit) for edit in edits),
        tier=Tier.CLUSTER,
        caught_by=caught_by,
        seeds_max=seeds_max,
        nodes=nodes,
        operations=400,
    )


MUTATIONS: Final = (
    _quorum(
        "coordinator-hint-counted",
        "A note that a primary missed the write counts as a copy of it (Cassandra's ANY, for every level).",
        (
            PUTS,
            "            self.owed.append(stands_for)\n        return Step.NOTHING if",
            "            self.owed.append(stands_for)\n            self.waiting[node] = stands_for\n"
            "            return self.acked(node)\n        return Step.NOTHING if",
        ),
    ),
    _quorum(
        "one-ack-too-few",
        "A write is answered one acknowledgement before W.",
        (
            PUTS,
            "        if self.ended or self.acks < self.w or self.primary_acks < self.pw:\n",
            "        if self.ended or self.acks < max(1, self.w - 1) or self.primary_acks < self.pw:\n",
        ),
    ),
    _quorum(
        "absent-from-incomplete-counted",
        "A replica that has lost its data answers that there is nothing, and that counts to R (riak's notfound_ok).",
        (
            SERVICE,
            "definitive = holder and self._completeness.definitive(bucket, partition, horizon)",
            "definitive = holder",
        ),
        (
            UNDER_WAY,
            "        elif self._definitive if own in self.place.holders else value is not None:\n",
            "        elif own in self.place.holders or value is not None:\n",
        ),
        nodes=3,
        seeds_max=40,
    ),
    _quorum(
        "write-back-not-awaited",
        "A read answers before the replicas behind hold what it saw: the next read may see less (non-blocking repair).",
        (GETS, "        if not behind or self._held:\n", "        if not behind or self.holders >= 0:\n"),
        caught_by=(*SEEN_LESS, Invariant.QUORUMS_MEET),
        nodes=3,
        seeds_max=40,
    ),
    _quorum(
        "answers-not-merged",
        "A read answers one of two differing records.",
        (
            GETS,
            "else self.merge(merged, record)\n        if self.definitive < self.r",
            "else merged\n        if self.definitive < self.r",
        ),
    ),
    _quorum(
        "context-covers-unseen-siblings",
        "What a write returns covers siblings its writer has not seen: its next write removes them.",
        (
            PUT,
            "        sealed = coordinator.sealer.seal(clock, stamp, self.bucket.id, self.place.key)\n",
            "        from leafdb.model.record import clock_of\n\n"
            "        clock = clock.merge(clock_of(self.record or b''))\n"
            "        sealed = coordinator.sealer.seal(clock, stamp, self.bucket.id, self.place.key)\n",
        ),
    ),
    _quorum(
        "context-of-another-key-accepted",
        "A context is taken for whatever key it comes with: it covers what nobody saw.",
        (
            "leafdb.model.context",
            "        if not hmac.compare_digest(",
            "        if len(seal) != SEAL_BYTES and not hmac.compare_digest(",
        ),
    ),
    _quorum(
        "failed-write-reported-not-applied",
        "A write that lives on some replicas is reported as not applied.",
        (
            PUT,
            "        if self.record is None:\n            if machine.waiting:\n",
            "        if self.dot is None or self.dot:\n            if machine.waiting or self.dot:\n",
        ),
        caught_by=(Invariant.HONEST_OUTCOMES,),
    ),
    _quorum(
        "stand-in-counted-as-primary",
        "Who stands in for a primary counts to PW.",
        (
            PUTS,
            "        if stands_for == node:\n            self.primary_acks += 1\n",
            "        if stands_for:\n            self.primary_acks += 1\n",
        ),
    ),
)
