"""Who holds what, as the stores were told: an acknowledgement by k nodes is k nodes that have a copy (I7).

Clients cannot see whether a count is honest until stores are lost, and then seldom. From outside of the cluster it can
be seen at once: every write of every store passes by here, and what a node has written to its own copy of the bucket,
or keeps as a fallback, it holds. A coordinator's note that somebody missed a write is no copy.
"""

from __future__ import annotations

from leafdb.hints.hint import Kind
from leafdb.hints.hint import decode as decode_hint
from leafdb.hints.hint import decode_key as decode_hint_key
from leafdb.model.clock import CausalClock, Dot
from leafdb.model.record import clock_of
from leafdb.node.hint_keeper import HINTS_TREE
from leafdb.testing.cluster import MemoryCluster
from leafdb.testing.violation import Invariant, require
from leafdb.types import BucketId, NodeId, TreeId


class Copies:
    """Of one bucket, from the moment it is made."""

    def __init__(self, cluster: MemoryCluster, bucket: BucketId) -> None:
        self._bucket = bucket
        self._tree = TreeId(bucket)
        self._known: dict[bytes, dict[NodeId, CausalClock]] = {}
        cluster.observe_writes(self._written)

    def check(self, storage_key: bytes, dot: Dot, acks: int, text: str, key: str) -> None:
        """`acks` nodes were said to hold the write of this dot."""
        known = self._known.get(storage_key, {})
        holders = [node for node, clock in known.items() if clock.covers(dot)]
        told = " ".join(f"n{node}" for node in sorted(holders)) or "nobody"
        what = f"{text} is acknowledged by {acks}, and {told} has been given a copy"
        require(len(holders) >= acks, Invariant.SURVIVES_STORES, what, key)

    def _written(self, node: NodeId, tree: TreeId, key: bytes, value: bytes | None) -> None:
        if value is None:
            return
        if tree == self._tree:
            record = value
        elif tree == HINTS_TREE:
            of = decode_hint_key(key)
            hint = decode_hint(value)
            if of.bucket != self._bucket or hint.kind is Kind.COORDINATOR:
                return
            key, record = of.storage_key, hint.record
        else:
            return
        clock = clock_of(record)
        known = self._known.setdefault(key, {})
        before = known.get(node)
        known[node] = clock if before is None else before.merge(clock)
