"""The room of the reaper: what is forgotten and lives, what is dead and is never forgotten. In the whole cluster."""

from __future__ import annotations

from typing import Final

from leafdb.sim.mutation import Edit, Mutation
from leafdb.sim.outcome import Tier
from leafdb.testing.violation import Invariant

SWEEPER: Final = "leafdb.node.sweeper"

REAPED: Final = (
    Invariant.NOTHING_LOST, Invariant.READS_MONOTONIC, Invariant.SESSIONS, Invariant.SURVIVES_STORES,
    Invariant.NOTHING_LEFT_BEHIND, Invariant.REPLICAS_EQUAL, Invariant.DELETIONS_STAY, Invariant.SPACE_RECLAIMED,
    Invariant.LIVENESS,
)  # fmt: skip


def _death(name: str, title: str, *edits: tuple[str, str, str], seeds_max: int = 60) -> Mutation:
    return Mutation(
        name=name,
        title=title,
        edits=tuple(Edit(*edit) for edit in edits),
        tier=Tier.CLUSTER,
        caught_by=REAPED,
        seeds_max=seeds_max,
        nodes=3,
        operations=300,
    )


MUTATIONS: Final = (
    _death(
        "reaped-though-written-anew",
        "A record is forgotten by the note of its death: a value that was written since goes with it (riak_kv 226).",
        (
            "leafdb.model.purge",
            "    if by_right and dies < horizon:\n",
            "    if by_right and death < horizon:\n",
        ),
    ),
    _death(
        "tombstone-never-reaped",
        "Of a deletion that replaces something nobody takes note: it is never forgotten (riak_kv 311, 1336, 1777).",
        (
            "leafdb.node.deaths",
            "        if dies != NEVER:\n            entries.append(",
            "        if dies != NEVER and old is None:\n            entries.append(",
        ),
    ),
    _death(
        "expired-by-own-clock",
        "Each store drops what has expired by its own clock, and its clock with it (Riak: a backend's expiry, of which "
        "anti-entropy knows nothing).",
        (
            "leafdb.node.purge_driver",
            "        metadata, waiting = self._node.view.metadata, self.waiting()\n",
            "        metadata, waiting = self._node.view.metadata, self.waiting()\n"
            "        if metadata is not None:\n"
            "            self._node.sweeper.clock = self._node.world.now_ms() << 16\n"
            "            self._node.sweeper._changed(range(metadata.partitions))\n",
        ),
        (
            SWEEPER,
            "        horizon, oldest = self._horizons.of(partition), self._deaths.oldest(partition)\n",
            "        horizon, oldest = self._horizons.of(partition), self._deaths.oldest(partition)\n"
            '        horizon = max(horizon, getattr(self, "clock", 0))\n',
        ),
        (
            SWEEPER,
            "        match fate(record, turn.death, round.horizon, by_right=self._holds(tree, round.partition)):\n",
            "        from leafdb.model.record import header\n\n"
            "        right = self._holds(tree, round.partition)\n"
            "        if record is not None and record_death(record) >= self._horizons.of(round.partition):\n"
            "            right = right and not any(head.tombstone for head in header(record).heads.values())\n"
            "        match fate(record, turn.death, round.horizon, by_right=right):\n",
        ),
        (
            "leafdb.node.horizons",
            "        self._swept[partition] = stamp\n",
            "        self._swept[partition] = min(stamp, self.of(partition))\n",
        ),
    ),
)
