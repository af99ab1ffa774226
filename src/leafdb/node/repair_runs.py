"""Repairs that somebody asks for: everything this node shares with others, or some of it, now; and taking it back."""

from __future__ import annotations

from collections.abc import Callable

from leafdb.node.debts import Debts, Masks
from leafdb.node.proofs import Proofs
from leafdb.node.repair_tasks import RepairTasks
from leafdb.node.shared_ranges import SharedRanges
from leafdb.node.view import ClusterView
from leafdb.types import BucketId, NodeId

Slot = tuple[NodeId, BucketId]


class RepairRuns:
    """See the top of this file."""

    def __init__(
        self,
        view: ClusterView,
        shared: SharedRanges,
        debts: Debts,
        tasks: RepairTasks,
        proofs: Proofs,
        owe: Callable[[Masks, str], None],
    ) -> None:
        self._view = view
        self._shared = shared
        self._debts = debts
        self._tasks = tasks
        self._proofs = proofs
        self._owe = owe

    def ranges(self, bucket: BucketId | None, partitions: int) -> dict[Slot, int]:
        """What this node shares with others of a bucket, or of all, within these partitions; 0: of all of them."""
        masks = self._shared.with_all(bucket)
        if partitions:
            masks = {slot: mask & partitions for slot, mask in masks.items() if mask & partitions}
        return masks

    def start(self, bucket: BucketId | None, partitions: int = 0) -> int:
        """Compare that; answers the task's number."""
        masks = self.ranges(bucket, partitions)
        reason = f"repair of {self.what(bucket, partitions)}"
        number = self._tasks.begin(reason, masks, asked=True)
        self._owe(masks, reason)
        return number

    def what(self, bucket: BucketId | None, partitions: int) -> str:
        """The same in words."""
        words = "every bucket"
        if bucket is not None:
            found = self._view.buckets.get(bucket)
            words = found.properties.name if found else "a bucket that is gone"
        if partitions:
            first, last = (partitions & -partitions).bit_length() - 1, partitions.bit_length() - 1
            words += f", partition {first}" if first == last else f", partitions {first} to {last}"
        return words

    def cancel(self, number: int) -> bool:
        """Take back what was asked for; False when no such task runs. ValueError when it is owed for another reason."""
        dropped = self._tasks.cancel(number)
        if dropped is None:
            return False
        self._debts.keep(lambda peer, bucket: ~dropped.get((peer, bucket), 0))
        self._proofs.prove_all()
        return True
