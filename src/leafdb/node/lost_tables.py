"""What a node does about keys that its store has lost with a damaged table (decision 0009, section 4).

A salvage leaves a hole in a tree: in the lost ranges a key may be missing, or stand at an older state, even undeleted.
So before any read can see the hole, and on the disk before the store forgets that there is one (`lost_noted` sees to
that):

    own entries of records      none counts on: the next dot minted is of a fresh epoch   (leases)
    what lies below a horizon   this store vouches for nothing of it                      (horizons)
    "it is not there"           not said; the ranges are owed an exchange with each owner (completeness, proofs)
    hash trees                  not known, built anew beside traffic                      (kept trees)

The rest is the affair of repair, as after any other loss: what other owners have comes back, and the partitions are
complete when all of them were compared; if none of those had remembered everything, that is told as a possible loss.

Salvaged are buckets, and the saved hash trees, which are built anew (`engine_settings.salvages`). The other trees of a
node hold what is in no other store (promises, leases, debts, hints): a damaged part of them is answered with an error
and keeps the node from starting, until its store is replaced.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from leafdb.node.kept_trees import TREES_TREE
from leafdb.node.logs import Log
from leafdb.node.vouching import touched
from leafdb.storage.lost_ranges import LostRange

if TYPE_CHECKING:
    from leafdb.node.node import Node

log: Log = Log("storage")


def follow_losses(node: Node) -> None:
    """Doubt what the store lost before this node ran, and did not note; and from now on whatever it loses, at once."""
    if node.engine.lost:
        _lost(node, node.engine.lost)
    node.engine.on_lost = partial(_lost, node)


def _lost(node: Node, lost: tuple[LostRange, ...]) -> None:
    """See the module. Raises StorageError."""
    kept, metadata = node.trees.kept, node.view.metadata
    partitions: set[int] = set()
    for each in lost:
        log.error("a part of a table is lost", tree=int(each.tree_id), table=each.file_number)
        if each.tree_id == TREES_TREE:
            kept.lose_all()
        elif metadata is not None:
            concerned = touched(each.smallest, each.largest, metadata.partitions)
            kept.lose(each.tree_id, concerned)
            partitions.update(concerned)
    node.metrics.lost_ranges_total += len(lost)
    if partitions:
        node.leases.forget()
        node.horizons.retract(partitions, "a part of a table is lost")
        node.completeness.doubt(partitions)
        node.anti_entropy.lost(partitions)
    node.engine.lost_noted(lost)
