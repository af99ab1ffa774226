"""The room of promises to the absent: copies kept for somebody else that were counted and not kept."""

from __future__ import annotations

from typing import Final

from leafdb.sim.mutation import Edit, Mutation
from leafdb.sim.outcome import Tier
from leafdb.testing.violation import Invariant

KEEPER: Final = "leafdb.node.hint_keeper"
HANDOFF: Final = "leafdb.node.hinted_handoff"
LEDGER: Final = "leafdb.hints.ledger"
ORPHANS: Final = "leafdb.node.orphan_hints"

GONE: Final = (
    Invariant.SURVIVES_STORES, Invariant.READS_MONOTONIC, Invariant.NOTHING_LOST, Invariant.REPLICAS_EQUAL,
    Invariant.HINTS_CONSERVED, Invariant.SESSIONS, Invariant.SELF_CHECK, Invariant.HONEST_OUTCOMES,
    Invariant.HINTS_BOUNDED, Invariant.NOTHING_LEFT_BEHIND,
)  # fmt: skip


def _hint(
    name: str,
    title: str,
    *edits: tuple[str, str, str],
    tier: Tier = Tier.CLUSTER,
    seeds_max: int = 20,
    nodes: int = 5,
) -> Mutation:
    return Mutation(
        name=name,
        title=title,
        edits=tuple(Edit(*edit) for edit in edits),
        tier=tier,
        caught_by=GONE,
        seeds_max=seeds_max,
        nodes=nodes,
        operations=400 if tier is Tier.CLUSTER else 2_000,
    )


MUTATIONS: Final = (
    _hint(
        "hint-dropped-after-counting",
        "A fallback acknowledges a copy that it does not keep (Dynamo's sloppy quorum without its hint).",
        (
            KEEPER,
            "        self.replica.queue.do(HINTS_TREE, key, _Keep(self, key, Kind.FALLBACK, record, bucket",
            "        done(None) if key else (key, _Keep(self, key, Kind.FALLBACK, record, bucket",
        ),
    ),
    _hint(
        "hint-not-synced",
        "A fallback's copy is acknowledged before it is on the disk.",
        (
            KEEPER,
            "        self._engine.write(((HINTS_TREE, key, value),), Durability.ALWAYS, done)\n",
            "        self._engine.write(((HINTS_TREE, key, value),), Durability.PERIODIC, done)\n",
        ),
        tier=Tier.RECORD,
    ),
    _hint(
        "hint-removed-though-changed",
        "A hint is removed when its target has confirmed an older version of it.",
        (
            HANDOFF,
            "value if value is not None and version_of(value) == self.version else None)",
            "value if value is not None and self.version >= 0 else None)",
        ),
        tier=Tier.RECORD,
    ),
    _hint(
        "refused-hint-removed",
        "A hint that its target has refused is removed like a confirmed one.",
        ("leafdb.hints.replay", "if place not in places]", "if place not in places or place >= 0]"),
        nodes=3,
        seeds_max=60,
    ),
    _hint(
        "given-up-hint-not-marked",
        "Hints are given up after their window, and a node that was away is not compared (Cassandra).",
        (
            "leafdb.node.anti_entropy",
            '        self._owe(self._shared.with_peer(node), f"{self._view.name_of(node)} was away")\n',
            "        self._view.name_of(node)\n",
        ),
        (
            HANDOFF,
            "                case MarkRange():\n                    self._mark(effect)\n",
            "                case MarkRange():\n                    pass\n",
        ),
        nodes=3,
        seeds_max=60,
    ),
    _hint(
        "overflow-not-marked",
        "A full hint store drops a note about a missed write, and nobody is told to compare the range.",
        (
            KEEPER,
            "            self._metrics.hints_overflowed_total += 1\n            self._mark(refused)\n",
            "            self._metrics.hints_overflowed_total += 1\n",
        ),
        (
            KEEPER,
            "        if error is not None and not isinstance(error, StoreFailed | LeftOut):\n            self._mark(",
            "        if error is not None and isinstance(error, StoreFailed | LeftOut):\n            self._mark(",
        ),
    ),
    _hint(
        "hint-removed-when-sent",
        "A hint is removed when it is sent, not when its target has it (handoff that does not wait for its answer).",
        (
            "leafdb.hints.replay",
            "            effects.append(Send(self.target, HintBatch(number, waiting, tuple(items))))\n",
            "            effects += [Send(self.target, HintBatch(number, waiting, tuple(items))), *removals]\n",
        ),
    ),
    _hint(
        "hints-unbounded",
        "The bound of the hint store is held against each hint, and not against all of them together.",
        (
            LEDGER,
            "        if growth > 0 and self.bytes + growth > self.bytes_max:\n",
            "        if growth > 0 and growth > self.bytes_max:\n",
        ),
    ),
    _hint(
        "drained-hint-dropped",
        "Who drains believes that somebody else keeps its hints, and removes them (Cassandra's decommission).",
        (
            ORPHANS,
            "        return await self._heirs.keep(target, bucket, partition, items)\n",
            "        return items is not None\n",
        ),
        seeds_max=40,
    ),
    _hint(
        "fallback-copy-expires",
        "The window of hints ends for copies that counted, too: a write that lies on stand-ins alone is gone, and its "
        "range is marked in vain (Cassandra's hints at consistency ANY).",
        (
            "leafdb.hints.expiry",
            "            if hint.kind is not Kind.COORDINATOR or hint.created_ms >= self._cutoff_ms:\n",
            "            if hint.created_ms >= self._cutoff_ms:\n",
        ),
        (
            LEDGER,
            "account.oldest_ms.get(Kind.COORDINATOR, cutoff_ms) < cutoff_ms\n",
            "min(account.oldest_ms.values()) < cutoff_ms\n",
        ),
        seeds_max=30,
    ),
)
