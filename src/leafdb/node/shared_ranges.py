"""Which partitions two nodes hold copies of, as bits of one number, for one ring.

While a plan is on its way old and new owners hold copies: both take every write. In a retreat only the old ones do:
nobody will ask the others any more, so there is nothing to mend at them.
"""

from __future__ import annotations

from leafdb.node.view import ClusterView
from leafdb.ring.plan import Phase
from leafdb.ring.ring import Ring
from leafdb.types import BucketId, NodeId, PartitionId


class SharedRanges:
    """Answers from the view's present ring; what was worked out is kept until that changes."""

    def __init__(self, view: ClusterView) -> None:
        self._view = view
        self._ring: Ring | None = None
        self._held: dict[int, dict[NodeId, int]] = {}

    @property
    def epoch(self) -> int:
        """Of the view that answers are from."""
        return self._view.epoch

    def members(self) -> list[NodeId]:
        """Everybody there is, this node too."""
        return list(self._view.metadata.members) if self._view.metadata else []

    def held(self, node: NodeId, bucket: BucketId) -> int:
        """The partitions of a bucket that `node` holds by right; none of a bucket that is not there."""
        found = self._view.buckets.get(bucket)
        ring = self._view.ring
        if found is None or ring is None:
            return 0
        if ring is not self._ring:
            self._ring = ring
            self._held.clear()
        n = found.properties.n
        by_node = self._held.get(n)
        if by_node is None:
            by_node = self._held[n] = _held(ring, n)
        return by_node.get(node, 0)

    def shared(self, peer: NodeId, bucket: BucketId) -> int:
        """The partitions of a bucket that both `peer` and this node hold."""
        return self.held(self._view.self_id, bucket) & self.held(peer, bucket)

    def with_all(self, bucket: BucketId | None = None) -> dict[tuple[NodeId, BucketId], int]:
        """Everything this node shares with others, or that in one bucket."""
        members = self._view.metadata.members if self._view.metadata else {}
        found: dict[tuple[NodeId, BucketId], int] = {}
        for peer in members:
            if peer != self._view.self_id:
                found.update(self.with_peer(peer, bucket))
        return found

    def with_peer(self, peer: NodeId, bucket: BucketId | None = None) -> dict[tuple[NodeId, BucketId], int]:
        """Everything this node shares with one peer, or that in one bucket."""
        buckets = [BucketId(each) for each in self._view.buckets] if bucket is None else [bucket]
        masks = {(peer, each): self.shared(peer, each) for each in buckets}
        return {slot: mask for slot, mask in masks.items() if mask}


def holders_by_right(ring: Ring, partition: PartitionId, n: int) -> tuple[NodeId, ...]:
    """Whose copies of a partition are to be the same."""
    plan = ring.metadata.plan
    retreats = plan is not None and plan.phase is Phase.RETREAT
    return ring.primaries(partition, n) if retreats else ring.holders(partition, n)


def _held(ring: Ring, n: int) -> dict[NodeId, int]:
    masks: dict[NodeId, bytearray] = {}
    size = (ring.partitions + 7) // 8
    for partition in range(ring.partitions):
        for node in holders_by_right(ring, PartitionId(partition), n):
            mask = masks.get(node)
            if mask is None:
                mask = masks[node] = bytearray(size)
            mask[partition >> 3] |= 1 << (partition & 7)
    return {node: int.from_bytes(mask, "little") for node, mask in masks.items()}
