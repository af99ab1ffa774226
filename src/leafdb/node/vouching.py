"""When a store can vouch no more for what lies below a horizon: its marks are taken back (decision 0008, section 2).

    a table cannot be read                      every range that it has a part of
    a hash tree disagrees with the store        its range: the tree was told the truth, or the store has lost something
    a copy of the range is to be made here      its range, in whichever bucket, once a plan (transfers.py)
    the range is no longer held, and dropped    before the first record goes (leftovers.py)
    a new generation gives it ranges            before that is written (`Register`)

The end of a log that was lost is no reason: the mark stands in the same log, behind all that it speaks of. Nor is an
old copy of the directory: its mark is old as well.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from leafdb.node.recovery_rules import unvouched
from leafdb.node.sweeper import Sweeper
from leafdb.ring.token import partition_bits
from leafdb.types import FIRST_BUCKET_ID, TreeId

if TYPE_CHECKING:
    from leafdb.node.horizons import Horizons
    from leafdb.node.node import Node
    from leafdb.node.view import ClusterView
    from leafdb.ring.metadata import ClusterMetadata


def touched(smallest: bytes, largest: bytes, partitions: int) -> range:
    """The partitions that storage keys from `smallest` to `largest`, both in, may fall into. The bound of a block is
    no whole key, and may be shorter than a token."""
    shift = 16 - partition_bits(partitions)

    def at(key: bytes) -> int:
        return int.from_bytes(key[:2].ljust(2, b"\0"), "big") >> shift

    return range(at(smallest), at(largest) + 1)


def open_sweeper(node: Node) -> Sweeper:
    """The sweeper of a node; and from now on its marks are taken back when they have to be."""
    node.metrics.follow(node.replica, {"siblings_left_out_total": "left_out_total"})
    view, horizons, deaths = node.view, node.horizons, node.trees.kept.deaths
    node.engine.on_damage = partial(_damaged, view, horizons)
    node.trees.kept.on_doubt = lambda partition: horizons.retract((partition,), "a hash tree disagrees with the store")
    return Sweeper(
        engine=node.engine, view=view, replica=node.replica, horizons=horizons, deaths=deaths,
        pace=node.trees.rebuild.pace, metrics=node.metrics,
    )  # fmt: skip


def begins(node: Node, metadata: ClusterMetadata) -> None:
    """Metadata of another generation are about to be written here: what this store cannot say by them stands in the log
    before they do."""
    partitions = unvouched(node.view, metadata)
    node.horizons.retract(partitions, "a new generation gives it ranges of which it need not have everything")
    node.completeness.hold(partitions)


def _damaged(view: ClusterView, horizons: Horizons, tree: TreeId, smallest: bytes, largest: bytes) -> None:
    if tree >= FIRST_BUCKET_ID and view.metadata is not None:
        horizons.retract(touched(smallest, largest, view.metadata.partitions), "a table cannot be read")
