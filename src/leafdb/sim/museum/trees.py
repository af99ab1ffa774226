"""The room of hash trees that are not those of their stores: divergence that nobody looks for, or looks for in vain."""

from __future__ import annotations

from typing import Final

from leafdb.sim.mutation import Edit, Mutation
from leafdb.sim.outcome import Tier
from leafdb.testing.violation import Invariant

APART: Final = (
    Invariant.TREES_TRUE, Invariant.REPLICAS_EQUAL, Invariant.LIVENESS, Invariant.READS_MONOTONIC,
    Invariant.HINTS_CONSERVED, Invariant.NOTHING_LOST,
)  # fmt: skip


def _tree(
    name: str,
    title: str,
    *edits: tuple[str, str, str],
    tier: Tier = Tier.CLUSTER,
    seeds_max: int = 20,
    nodes: int = 3,
    caught_by: tuple[Invariant, ...] = (Invariant.TREES_TRUE,),
) -> Mutation:
    return Mutation(
        name=name,
        title=title,
        edits=tuple(Edit(*edit) for edit in edits),
        tier=tier,
        caught_by=caught_by,
        seeds_max=seeds_max,
        nodes=nodes,
        operations=400,
    )


MUTATIONS: Final = (
    _tree(
        "xor-double-delta",
        "A replayed write is put into a saved tree that has it already, and so taken out (why others rebuild weekly).",
        (
            "leafdb.node.tree_loader",
            "        if kept.tree is None or change.lsn <= numbers.get(place, 0):\n",
            "        if kept.tree is None:\n",
        ),
        caught_by=APART,
    ),
    _tree(
        "log-forgets-before-trees",
        "A flush is published, and its log removed, before the trees that follow from it are saved: that is left for a "
        "quieter moment.",
        (
            "leafdb.node.tree_saver",
            "        await self.save()\n        go_on()\n",
            "        go_on()\n        await trio.sleep(0.1)\n        await self.save()\n",
        ),
    ),
    _tree(
        "merge-taken-for-new",
        "A merge puts its result into the tree and does not take out what it replaced.",
        (
            "leafdb.node.replica",
            "                self._trees.write(tree, key, local, merged, durability, done)\n",
            "                self._trees.write(tree, key, None, merged, durability, done)\n",
        ),
    ),
    _tree(
        "leftover-stays-in-tree",
        "A range that was given up is deleted from the store and not from its tree.",
        (
            "leafdb.node.leftovers",
            "            self._replica.remove(TreeId(number), key, record, Durability.PERIODIC)\n",
            "            engine = self._replica.queue._engine\n"
            "            engine.write(((TreeId(number), key, None),), Durability.PERIODIC, None)\n",
        ),
        tier=Tier.RING,
    ),
    _tree(
        "rebuild-misses-writes",
        "A tree that is built anew from a scan of its store lacks what was written during the scan.",
        (
            "leafdb.node.kept_trees",
            "        if kept.building is not None:\n            kept.building.changed(key, leaf, delta, keys)\n",
            "",
        ),
    ),
    _tree(
        "digest-without-version",
        "What stands for a key in an exchange is a hash of the key alone: other versions of it are not seen.",
        (
            "leafdb.merkle.tree",
            '    return xxh3_64(key + record).to_bytes(DIGEST_BYTES, "big")\n',
            '    return xxh3_64(key).to_bytes(DIGEST_BYTES, "big")\n',
        ),
        caught_by=APART,
    ),
    _tree(
        "broken-off-counts-as-compared",
        "An exchange that broke off settles the debt it was begun for: nobody compares the range again.",
        (
            "leafdb.node.anti_entropy",
            "                self.tasks.failed(claim, end.reason)\n",
            "                self.debts.settle(claim)\n                self.tasks.settled(claim)\n",
        ),
        caught_by=APART,
        seeds_max=40,
    ),
)
