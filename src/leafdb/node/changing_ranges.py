"""What a plan in progress asks of this node: which partitions change their owners, as bits of one number per node.

Pure answers from the view's present ring, kept until that changes. In a retreat, as without a plan, nothing changes:
the owners of before are the owners, and nothing has to be copied.
"""

from __future__ import annotations

from typing import NamedTuple

from leafdb.node.view import BucketView, ClusterView
from leafdb.ring.plan import Phase, Plan
from leafdb.ring.ring import Ring
from leafdb.types import BucketId, NodeId, PartitionId


class _Sets(NamedTuple):
    """For one n: the changing partitions of which a node is an old owner, and those of which it is a new one."""

    old: dict[NodeId, int]
    new: dict[NodeId, int]
    all: int


_NOTHING = _Sets({}, {}, 0)


class ChangingRanges:
    """See the top of this file."""

    def __init__(self, view: ClusterView) -> None:
        self._view = view
        self._ring: Ring | None = None
        self._sets: dict[int, _Sets] = {}

    @property
    def plan(self) -> Plan | None:
        """The plan for which copies are made; None in a retreat."""
        metadata = self._view.metadata
        plan = None if metadata is None else metadata.plan
        return None if plan is None or plan.phase is Phase.RETREAT else plan

    def old(self, node: NodeId, bucket: BucketId) -> int:
        """The changing partitions that `node` held before."""
        return self._of(bucket).old.get(node, 0)

    def new(self, node: NodeId, bucket: BucketId) -> int:
        """The changing partitions that `node` is to hold."""
        return self._of(bucket).new.get(node, 0)

    def changing(self, bucket: BucketId) -> int:
        """All partitions of a bucket with two sets of owners."""
        return self._of(bucket).all

    def arriving(self, bucket: BucketId) -> int:
        """What this node is to hold and did not hold before."""
        own = self._view.self_id
        return self.new(own, bucket) & ~self.old(own, bucket)

    def between(self, peer: NodeId, bucket: BucketId) -> int:
        """Where one of `peer` and this node is an old owner and the other a new one."""
        own = self._view.self_id
        receives = self.new(own, bucket) & self.old(peer, bucket)
        return receives | self.old(own, bucket) & self.new(peer, bucket)

    def to_copy(self) -> dict[tuple[NodeId, BucketId], int]:
        """Of whose copies this node must have seen everything before reads may move to it: all old owners' of what it
        is to hold. A bucket made under the plan was never written to by old owners alone, and is left out."""
        plan = self.plan
        if plan is None:
            return {}
        own = self._view.self_id
        found: dict[tuple[NodeId, BucketId], int] = {}
        for bucket in map(BucketId, self._view.buckets):
            wanted = self.new(own, bucket) if self.is_older(bucket) else 0
            for peer, held in self._of(bucket).old.items() if wanted else ():
                if peer != own and wanted & held:
                    found[peer, bucket] = wanted & held
        return found

    def is_older(self, bucket: BucketId) -> bool:
        """Whether the bucket was there before the plan."""
        plan, found = self.plan, self._view.buckets.get(bucket)
        return plan is not None and found is not None and found.generation < plan.epoch

    def _of(self, bucket: BucketId) -> _Sets:
        found: BucketView | None = self._view.buckets.get(bucket)
        ring = self._view.ring
        if found is None or ring is None or self.plan is None:
            return _NOTHING
        if ring is not self._ring:
            self._ring = ring
            self._sets.clear()
        n = found.properties.n
        sets = self._sets.get(n)
        if sets is None:
            sets = self._sets[n] = _sets(ring, n)
        return sets


def _sets(ring: Ring, n: int) -> _Sets:
    size = (ring.partitions + 7) // 8
    masks: tuple[dict[NodeId, bytearray], dict[NodeId, bytearray]] = {}, {}
    everything = 0
    for partition in map(PartitionId, range(ring.partitions)):
        both = ring.write_sets(partition, n)
        if len(both) < 2:
            continue
        everything |= 1 << partition
        for by_node, owners in zip(masks, both, strict=True):
            for node in owners:
                by_node.setdefault(node, bytearray(size))[partition >> 3] |= 1 << (partition & 7)
    old, new = ({node: int.from_bytes(mask, "little") for node, mask in by_node.items()} for by_node in masks)
    return _Sets(old, new, everything)
