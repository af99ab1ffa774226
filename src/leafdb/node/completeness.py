"""For which partitions this store may have forgotten something, and so must not say "absent".

A store that lost its tail (a new incarnation: wiped, cut, restored, or `periodic` buckets after a power cut) holds
values that are true and absences that are not. Until a partition has been exchanged with its other owners it is
incomplete here: values still count, absence does not. The set is persisted, so that a restart does not make it
complete.

A new owner of a range whose copies are still being made is in the same position, for that bucket and partition, though
its store has forgotten nothing: what it should have has not come yet. That is no memory of the store but a fact of the
metadata, so it is asked of the ring and kept nowhere.

And a store that does not vouch for what lies below a purge horizon (`horizons`) may hold what was deleted long ago, and
lack what was not. `definitive` is all three, and the only door: whoever answers for this replica, counts its answer,
shows it to a peer or compares it asks that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from leafdb.codec import cbor
from leafdb.node.view import BucketView, ClusterView
from leafdb.storage.engine import Engine
from leafdb.types import BucketId, Durability, PartitionId, TreeId

KEY: Final = b"incomplete"

Vouches = Callable[[PartitionId, int], bool]
"""Of a store: whether it has had everything of a partition below its horizon, and below that one, and has let go of it
by right alone."""


class Completeness:
    """The set of incomplete partitions. `vouches`: whether this store does, of a partition."""

    def __init__(
        self, engine: Engine, tree: TreeId, view: ClusterView, vouches: Vouches = lambda partition, horizon: True
    ) -> None:
        self.vouches = vouches
        self._engine = engine
        self._tree = tree
        self._view = view
        self._incomplete: set[int] = set()
        self._held: set[int] = set()
        """Those of them that nothing proves complete before the next metadata is in force."""

    def load(self, stored: bytes | None) -> None:
        """Take what the store remembers."""
        if stored is not None:
            self._incomplete = {int(partition) for partition in cbor.loads(stored)}

    def definitive(self, bucket: BucketView, partition: PartitionId, horizon: int = 0) -> bool:
        """Whether this node, as a replica of the bucket's partition, has all it should have: its answer counts, for one
        who knows of that `horizon`."""
        if partition in self._incomplete or not self.vouches(partition, horizon):
            return False
        view = self._view
        ring = view.ring
        return ring is None or not ring.in_plan or view.self_id not in ring.copying(partition, bucket.properties.n)

    def definitive_in(self, number: BucketId, partition: PartitionId) -> bool:
        """As `definitive`; of a bucket that is not there nothing can be said."""
        bucket = self._view.buckets.get(number)
        return bucket is not None and self.definitive(bucket, partition)

    @property
    def incomplete(self) -> tuple[int, ...]:
        """The incomplete partitions, ascending."""
        return tuple(sorted(self._incomplete))

    def doubt(self, partitions: Iterable[int]) -> None:
        """The store may have forgotten something of these partitions."""
        self._incomplete.update(partitions)
        self._save()

    def hold(self, partitions: Iterable[int]) -> None:
        """As `doubt`, by metadata that will be in force; until `release` what was exchanged proves nothing of them."""
        held = set(partitions)
        if held:
            self._held |= held
            self.doubt(held)

    def release(self) -> None:
        """That metadata is in force, and whoever shares these partitions by it is owed an exchange."""
        self._held.clear()

    def proved(self, partition: PartitionId | int) -> None:
        """All owners of the partition have been exchanged with."""
        if partition in self._incomplete and partition not in self._held:
            self._incomplete.discard(partition)
            self._save()

    def _save(self) -> None:
        self._engine.write(((self._tree, KEY, encode_partitions(self._incomplete)),), Durability.ALWAYS, None)


def encode_partitions(partitions: Iterable[int]) -> bytes:
    """The stored form of a set of partitions."""
    return cbor.dumps(sorted(partitions))
