"""The room of the undead: deleted data that returns, and living data that is forgotten with the dead.

All of them in the whole cluster, by the seeds that hunt for what comes back (`Plan.hunt`); what only a message shows
that comes when a horizon has passed over it, by those of tier HUNT. The rules themselves, broken
one by one, are played faster in the model (tests/sim/test_purge_model.py); here it is seen that the judges of the full
system notice.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from leafdb.sim.mutation import Edit, Mutation
from leafdb.sim.outcome import Tier
from leafdb.testing.violation import Invariant

DRIVER: Final = "leafdb.node.purge_driver"
HORIZONS: Final = "leafdb.node.horizons"
MEMBER: Final = "leafdb.node.purge_member"
REPLICA: Final = "leafdb.node.replica"
SWEEPER: Final = "leafdb.node.sweeper"

UNDEAD: Final = (
    Invariant.DELETIONS_STAY, Invariant.NO_FALSE_SIBLINGS, Invariant.NOTHING_LOST, Invariant.READS_MONOTONIC,
    Invariant.SESSIONS, Invariant.REPLICAS_EQUAL, Invariant.NOTHING_LEFT_BEHIND, Invariant.SURVIVES_STORES,
    Invariant.HINTS_CONSERVED, Invariant.SELF_CHECK, Invariant.LIVENESS, Invariant.TREES_TRUE,
)  # fmt: skip


def _undead(
    name: str,
    title: str,
    *edits: tuple[str, str, str],
    tier: Tier = Tier.CLUSTER,
    operations: int = 300,
    seeds_max: int = 60,
) -> Mutation:
    return Mutation(
        name=name,
        title=title,
        edits=tuple(Edit(*edit) for edit in edits),
        tier=tier,
        caught_by=UNDEAD,
        seeds_max=seeds_max,
        nodes=3,
        operations=operations,
    )


_late = partial(_undead, tier=Tier.HUNT, operations=150, seeds_max=40)
"""Shown by messages that come late."""

MUTATIONS: Final = (
    _undead(
        "gc-grace",
        "Tombstones are dropped when they are old enough by the clock (Cassandra's gc_grace, Riak's delete_mode).",
        (
            DRIVER,
            "        metadata, waiting = self._node.view.metadata, self.waiting()\n",
            "        metadata, waiting = self._node.view.metadata, self.waiting()\n"
            "        if metadata is not None:\n"
            "            self._node.sweeper.clock = (self._node.world.now_ms() - 2_000) << 16\n"
            "            self._node.sweeper._changed(range(metadata.partitions))\n"
            "            return self.interval_s\n",
        ),
        (
            SWEEPER,
            "        horizon, oldest = self._horizons.of(partition), self._deaths.oldest(partition)\n",
            '        horizon, oldest = getattr(self, "clock", 0), self._deaths.oldest(partition)\n',
        ),
        (HORIZONS, "        self._swept[partition] = stamp\n", "        self._swept[partition] = self.of(partition)\n"),
    ),
    _undead(
        "one-tombstone-buries-all",
        "A record is forgotten as soon as one of its siblings is dead: values go with a deletion that never saw them.",
        (
            "leafdb.model.purge",
            "    return max(map(death_of, header(data).heads.values()), default=0)\n",
            "    return min(map(death_of, header(data).heads.values()), default=0)\n",
        ),
    ),
    _undead(
        "swept-record-stays-in-tree",
        "A record is forgotten in the store, and stays in its hash tree.",
        (
            SWEEPER,
            "                self._replica.remove(tree, key, record, Durability.PERIODIC, also=also)\n",
            "                self._engine.write(((tree, key, None), *also), Durability.PERIODIC, None)\n",
        ),
    ),
    _late(
        "horizon-without-comparing",
        "A horizon is raised when all have promised, and the owners have compared nothing.",
        (
            MEMBER,
            "        by_peer: dict[NodeId, int] = {}\n        for (peer, _), mask in promise.owed.items():\n",
            "        by_peer: dict[NodeId, int] = {}\n        for (peer, _), mask in {}.items():\n",
        ),
        (MEMBER, "        self._owe(promise)\n        return", "        return"),
    ),
    _late(
        "nothing-left-out",
        "What comes late is taken, however old it is.",
        (
            REPLICA,
            "        if not horizon or not any_below(incoming, horizon):\n",
            "        if horizon >= 0 or not any_below(incoming, horizon):\n",
        ),
    ),
    _late(
        "admission-by-key",
        "What is old is left out where the key is gone, and joins it where it was written anew.",
        (
            REPLICA,
            "        if not horizon or not any_below(incoming, horizon):\n",
            "        if not horizon or local is not None or not any_below(incoming, horizon):\n",
        ),
    ),
)
