"""What must hold of hash trees at the end of a run: each equals its rebuild, byte for byte, on every node (I14)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

import trio

from leafdb.merkle.tree import Tree
from leafdb.node.node import Node
from leafdb.ring.token import split_storage_key
from leafdb.testing.cluster import MemoryCluster
from leafdb.testing.stores import tree_of
from leafdb.testing.violation import Invariant, require, violated
from leafdb.types import FIRST_BUCKET_ID, PartitionId, TreeId

BUILT_WITHIN_S: Final = 120.0
"""Trees that are not known are built beside traffic, and there is none."""
NOBODY: Final[Mapping[Node, int]] = MappingProxyType({})


async def check_trees(cluster: MemoryCluster, ran: Iterable[Node], in_vain: Mapping[Node, int] = NOBODY) -> int:
    """Raise Violation unless it holds, and none of those that `ran` had to doubt one, but for those that each was made
    to doubt `in_vain`; answers how many trees have been compared. Nobody writes any more."""
    compared = 0
    for node in ran:
        doubted = node.metrics.hash_trees_doubted_total - in_vain.get(node, 0)
        require(not doubted, Invariant.TREES_TRUE, f"{doubted} trees of a node were found not to be those of its store")
    for machine, node in sorted(cluster.nodes.items()):
        if node.view.ring is None:
            continue
        with trio.move_on_after(BUILT_WITHIN_S):
            while node.trees.kept.unknown:  # noqa: ASYNC110  # nobody waits for this but us
                await trio.sleep(0.25)
        here = {tree for tree in node.engine.trees() if tree >= FIRST_BUCKET_ID}
        require(
            here == node.trees.kept.buckets,
            Invariant.TREES_TRUE,
            f"n{machine} keeps trees of {node.trees.kept.buckets}",
        )
        for tree in sorted(here):
            compared += await _check_bucket(f"n{machine}", node, tree)
        node.trees.kept.check()
    return compared


async def _check_bucket(name: str, node: Node, tree: TreeId) -> int:
    ring = node.view.ring
    assert ring is not None
    rebuilt = [Tree() for _ in range(ring.partitions)]
    for key, record in (await tree_of(node, tree)).items():
        rebuilt[ring.partition_of(split_storage_key(key)[0])].add(key, record)
    for partition, expected in enumerate(rebuilt):
        kept = node.trees.kept.of(tree, PartitionId(partition))
        where = f"{name}, bucket {tree}, partition {partition}"
        if kept is None:
            violated(Invariant.TREES_TRUE, f"{where}: the tree is not known")
        if kept.keys != expected.keys or kept.root() != expected.root() or kept.encode() != expected.encode():
            leaves = [leaf for leaf in range(1_024) if kept.leaf(leaf) != expected.leaf(leaf)]
            told = f"{kept.keys} keys for {expected.keys}, other hashes in leaves {leaves[:8]}"
            violated(Invariant.TREES_TRUE, f"{where}: the kept tree is not that of the store: {told}")
    return sum(1 for expected in rebuilt if expected.keys)
