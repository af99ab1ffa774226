"""How it is told that a kept tree is wrong: leaves that are listed from the store must add up to their hashes.

An exchange lists the keys of leaves that differ. What one scan finds of a leaf that nobody wrote to between its
beginning and its end is what the leaf's hash stands for. If it is not, the tree has been told something that is not so,
or the store has lost something it was told: the tree is not known any more (`KeptTrees.doubt`), and is built anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from leafdb.errors import StorageError
from leafdb.merkle.compare import Entry
from leafdb.merkle.tree import Tree
from leafdb.node.kept_trees import KeptRange, KeptTrees, place_of
from leafdb.node.logs import Log
from leafdb.types import BucketId, PartitionId, TreeId

log: Log = Log("trees")


class Listing:
    """Leaves of a range being listed from the store."""

    def __init__(self, trees: KeptTrees, tree: TreeId, partition: PartitionId, kept: KeptRange | None) -> None:
        self._trees = trees
        self._tree = tree
        self._partition = partition
        self._kept = kept

    def judge(self, lists: Mapping[int, Sequence[Entry]]) -> None:
        """Keys and digests by leaf, as a scan that began and ended within this found them: do they add up?"""
        kept = self._kept
        if kept is None or kept.tree is None or kept.touched is None:
            return
        for leaf, entries in lists.items():
            found = 0
            for _, digest in entries:
                found ^= int.from_bytes(digest, "big")
            if found != kept.tree.leaf(leaf) and leaf not in kept.touched:
                try:
                    self._trees.doubt(self._tree, self._partition, f"the keys of leaf {leaf} do not add up to its hash")
                except StorageError as error:
                    log.debug("a doubt cannot be noted", reason=str(error))  # the store has failed
                return


@contextmanager
def listing(trees: KeptTrees, tree: TreeId, partition: PartitionId) -> Iterator[Listing]:
    """While leaves of a range are listed from the store; `Listing.judge` what was found before this ends."""
    place = place_of(BucketId(tree), partition)
    kept = trees.ranges.get(place)
    if kept is None and tree in trees.buckets:
        kept = trees.keep(place, Tree())
    if kept is None or kept.touched is not None:
        yield Listing(trees, tree, partition, None)  # the bucket is gone; or somebody else is judging
        return
    kept.touched = set()
    try:
        yield Listing(trees, tree, partition, kept)
    finally:
        kept.touched = None
