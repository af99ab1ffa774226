"""Ranges in which a record says more here than the one that was given to this node: the others have to hear of it.

A replica that is shown dots of its own which it does not remember adds a fresh entry to the clock (model/put, `adopt`).
That happens to a node that gave a range away, dropped it, and holds it again; and to one that has forgotten by right a
deletion which another still has, also where the key was written anew meanwhile. Whoever gave the record has not got the
entry: the same record with two clocks, and nobody would compare them again. So each such range owes all who share it an
exchange, once nobody is at it any more: one exchange for all of its records.

Kept in memory: a store that was not shut down cleanly is compared with everybody anyway.
"""

from __future__ import annotations

from collections.abc import Callable

from leafdb.node.debts import Debts, Masks
from leafdb.node.shared_ranges import SharedRanges
from leafdb.node.view import ClusterView
from leafdb.ring.token import split_storage_key
from leafdb.types import BucketId, TreeId

REASON = "records here say more than those that were given"


class Afterthoughts:
    """See the top of this file. `owe` makes debts; `wake` has `make` called soon."""

    def __init__(
        self,
        view: ClusterView,
        shared: SharedRanges,
        debts: Debts,
        owe: Callable[[Masks, str], None],
        wake: Callable[[], None],
    ) -> None:
        self._view = view
        self._shared = shared
        self._debts = debts
        self._owe = owe
        self._wake = wake
        self._ranges: dict[BucketId, int] = {}

    @property
    def pending(self) -> bool:
        """Some range is still to be owed."""
        return bool(self._ranges)

    def note(self, tree: TreeId, storage_key: bytes) -> None:
        """A record was merged into a bucket's tree, and says more than the one that came."""
        ring = self._view.ring
        if ring is None:
            return
        bucket, bit = BucketId(tree), 1 << ring.partition_of(split_storage_key(storage_key)[0])
        known = self._ranges.get(bucket, 0)
        if not known & bit:
            self._ranges[bucket] = known | bit
            self._wake()

    def make(self, *, at_once: bool = False) -> bool:
        """Turn them into debts, but for the ranges that somebody is at; answers whether such are left. `at_once`: those
        too."""
        for bucket, mask in tuple(self._ranges.items()):
            due = mask if at_once else mask & ~self._debts.under_way(bucket)
            if due == mask:
                del self._ranges[bucket]
            else:
                self._ranges[bucket] = mask & ~due
            if due:
                masks = self._shared.with_all(bucket)
                self._owe({slot: shared & due for slot, shared in masks.items() if shared & due}, REASON)
        return self.pending
