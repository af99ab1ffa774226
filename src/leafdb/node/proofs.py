"""When an incomplete range of this store is complete again: every other owner has been exchanged with since it forgot.

What is incomplete (`completeness`) owes every other owner an exchange. When nothing is owed in a partition any more it
is complete; not before it vouches for what lies below its purge horizon (`wholeness`).
If none of the owners that it was exchanged with was complete either, what all of them forgot is gone: that is noted
(`possible_losses`) before the range may be called complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from leafdb.node.completeness import Completeness
from leafdb.node.debts import Debts, Masks
from leafdb.node.logs import Log
from leafdb.node.possible_losses import PossibleLosses
from leafdb.node.shared_ranges import SharedRanges
from leafdb.node.view import ClusterView
from leafdb.types import BucketId, PartitionId

FORGOTTEN: Final = "this store has forgotten something"

log: Log = Log("anti_entropy")


class Proofs:
    """Of one store. `owe` makes debts for a reason."""

    def __init__(
        self,
        view: ClusterView,
        shared: SharedRanges,
        completeness: Completeness,
        debts: Debts,
        losses: PossibleLosses,
        owe: Callable[[Masks, str], None],
        vouches: Callable[[int], bool],
    ) -> None:
        self._vouches = vouches
        self._view = view
        self._shared = shared
        self._completeness = completeness
        self._debts = debts
        self._losses = losses
        self._owe = owe
        self._vouched: set[int] = set()
        """Incomplete partitions that a complete peer has been exchanged with."""

    def require(self) -> None:
        """What is incomplete owes every other owner an exchange; where there is none, there is nothing to wait for."""
        if self._view.ring is not None:
            self._leave_others_out()
        incomplete = self._completeness.incomplete
        if incomplete and self._view.ring is not None:
            wanted = sum(1 << partition for partition in incomplete)
            masks = {slot: mask & wanted for slot, mask in self._shared.with_all().items()}
            self._owe(masks, FORGOTTEN)
            self.prove(incomplete)

    def _leave_others_out(self) -> None:
        """Of what others hold this store cannot have forgotten anything, whatever it still owes somebody there."""
        held = 0
        for bucket in self._view.buckets:
            held |= self._shared.held(self._view.self_id, BucketId(bucket))
        for partition in self._completeness.incomplete:
            if not held >> partition & 1:
                self._completeness.proved(PartitionId(partition))

    def lost(self, partitions: Iterable[int]) -> None:
        """This store has forgotten something of these just now, whoever was exchanged with before."""
        self._vouched.difference_update(partitions)
        self.require()

    def vouched(self, partition: PartitionId) -> None:
        """A complete owner of the partition has been exchanged with."""
        self._vouched.add(partition)

    def prove(self, partitions: Iterable[int]) -> None:
        """Of these partitions, those in which nothing is owed any more are complete."""
        doubted = set(self._completeness.incomplete).intersection(partitions)
        proved = sorted(
            partition for partition in doubted if self._vouches(partition) and not self._debts.partition_owed(partition)
        )
        forgotten = sum(1 << partition for partition in proved if partition not in self._vouched)
        if forgotten:
            self._losses.note(forgotten)
        for partition in proved:
            self._completeness.proved(PartitionId(partition))
        if proved and not self._completeness.incomplete:
            self._vouched.clear()
            log.info("this store is complete again")
            if self._losses.partitions:
                log.error("writes may be lost: no owner remembered everything", partitions=self._losses.partitions)

    def prove_all(self) -> None:
        """As `prove`, of everything that is incomplete."""
        self.prove(self._completeness.incomplete)
