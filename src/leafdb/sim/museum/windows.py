"""The room of windows: tables that are kept by time and dropped whole, and what may go wrong with them."""

from __future__ import annotations

from typing import Final

from leafdb.sim.museum.deaths import REAPED
from leafdb.sim.museum.storage import store_mutation
from leafdb.sim.mutation import Edit, Mutation
from leafdb.sim.outcome import Tier
from leafdb.testing.violation import Invariant

FORGOTTEN: Final = "leafdb.storage.forgotten"
PICKER: Final = "leafdb.storage.window_picker"
SWEEPER: Final = "leafdb.node.sweeper"


def _windows(name: str, title: str, *edits: tuple[str, str, str]) -> Mutation:
    return Mutation(
        name=name,
        title=title,
        edits=tuple(Edit(*edit) for edit in edits),
        tier=Tier.CLUSTER,
        caught_by=(*REAPED, Invariant.TREES_TRUE),
        seeds_max=60,
        nodes=3,
        operations=300,
    )


MUTATIONS: Final = (
    store_mutation(
        "dropped-while-one-lives",
        "A table is dropped whole by the time of most of its entries: one of them has not expired.",
        (
            FORGOTTEN,
            "told.expires_ms <= meta.newest_expiry_ms or told",
            "told.expires_ms + 20 <= meta.newest_expiry_ms or told",
        ),
    ),
    store_mutation(
        "dropped-with-what-lasts",
        "The time at which a table has expired is told without regard to the values in it that never do.",
        (
            "leafdb.storage.expiry",
            "            if not expires_ms:\n                return 0\n",
            "            if not expires_ms:\n                continue\n",
        ),
        seeds_max=80,
    ),
    store_mutation(
        "dropped-over-something-older",
        "A table is dropped whole with deletions in it, while an older one has what they deleted.",
        (
            PICKER,
            "        if dead and not any(older.overlaps(meta.smallest, meta.largest) for older in stays):\n",
            "        if dead:\n",
        ),
    ),
    store_mutation(
        "dropped-before-it-is-deleted-for-good",
        "A table is dropped whole while what says that nothing of it is left may still be taken back by a crash.",
        (
            FORGOTTEN,
            "for told in said.values() if told.upto_lsn <= lsn]",
            "for told in said.values()]",
        ),
    ),
    store_mutation(
        "dropped-for-one-of-its-ranges",
        "Of a table that lies in several ranges only the first is asked whether all of it was forgotten.",
        (
            FORGOTTEN,
            "            if told.stop is None or told.stop > meta.largest:\n                return True\n",
            "            return True\n",
        ),
        seeds_max=40,
    ),
    store_mutation(
        "window-over-nothing",
        "Windows are merged as if nothing older were on level 0: the deletion goes, and what it covered comes back.",
        (
            "leafdb.storage.compaction_picker",
            "    older = list(tree)[tree.levels[0].index(merged[-1]) + 1 :]\n",
            "    older = list(tree)[len(tree.levels[0]) :]\n",
        ),
    ),
    _windows(
        "dropped-below-no-horizon",
        "A table is dropped whole when its entries have expired, before a horizon has passed them.",
        (
            SWEEPER,
            "            self._engine.forgotten(start, stop, horizon >> LOGICAL_BITS)\n",
            "            self._engine.forgotten(start, stop, (horizon >> LOGICAL_BITS) + 3_000)\n",
        ),
    ),
    _windows(
        "dropped-with-its-marks",
        "What died in a bucket with a ttl is left to the drop of its table: its hash tree is never told.",
        (
            SWEEPER,
            "                self._replica.remove(tree, key, record, Durability.PERIODIC, also=also)\n",
            "                if self._view.buckets[BucketId(tree)].properties.ttl_ms:\n"
            "                    self._engine.write(((PURGE_TREE, turn.note, None),), Durability.PERIODIC, None)\n"
            "                else:\n"
            "                    self._replica.remove(tree, key, record, Durability.PERIODIC, also=also)\n",
        ),
    ),
)
