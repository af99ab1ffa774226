"""How many of the ranges held here have too few replicas that can be reached: those requests are refused, or wait for
fallbacks. What an operator is woken for.

Each bucket asks for its own r and w; buckets that ask alike are counted once, so a range counts once however many
buckets lie in it. The count changes with the ring and with who is there, and is kept until one of them does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from leafdb.model.bucket import BucketProperties
from leafdb.node.view import ClusterView
from leafdb.quorum.policy import ImpossibleQuorum, TooFewMembers, read_policy, write_policy
from leafdb.ring.ring import Ring
from leafdb.types import NodeId, PartitionId

_Needs = tuple[int, int, int]
"""(n, r, w) of a bucket."""


NONE: Final[Mapping[str, float]] = {"get": 0.0, "put": 0.0}


class ShortRanges:
    """Of one node, with the last answer."""

    def __init__(self) -> None:
        self._state: tuple[Ring | None, frozenset[NodeId]] = (None, frozenset())
        self._counts: Mapping[str, float] = NONE

    def read(self, view: ClusterView) -> Mapping[str, float]:
        """By operation: ranges held by this node that have fewer replicas there than it needs."""
        state = view.ring, frozenset(view.usable)
        if state != self._state:
            self._state = state
            self._counts = count_short(view.ring, view.self_id, {view.self_id, *view.usable}) if view.ring else NONE
        return self._counts


def count_short(ring: Ring, own: NodeId, there: set[NodeId]) -> Mapping[str, float]:
    """The same of a ring, when `there` can be reached."""
    needs = sorted({_needs(bucket, ring) for bucket in ring.metadata.buckets.values()})
    reads = writes = 0
    for partition in map(PartitionId, range(ring.partitions)):
        short_of = [_short(ring, partition, need, there) for need in needs if own in ring.holders(partition, need[0])]
        reads += any(read for read, _ in short_of)
        writes += any(write for _, write in short_of)
    return {"get": float(reads), "put": float(writes)}


def _short(ring: Ring, partition: PartitionId, need: _Needs, there: set[NodeId]) -> tuple[bool, bool]:
    n, r, w = need
    asked = ring.primaries(partition, n)
    read = _present(asked, there) < min(r, len(asked))
    return read, any(_present(owners, there) < min(w, len(owners)) for owners in ring.write_sets(partition, n))


def _present(owners: tuple[NodeId, ...], there: set[NodeId]) -> int:
    return sum(node in there for node in owners)


def _needs(bucket: BucketProperties, ring: Ring) -> _Needs:
    """What its requests need by default; all replicas where it asks for more than there can be."""
    size = ring.effective_n(bucket.n)
    try:
        r = read_policy(bucket, size, r=0, pr=0).r
        w = write_policy(bucket, size, w=0, pw=0, dw=0, sloppy=None).w
    except (ImpossibleQuorum, TooFewMembers):
        r = w = size
    return bucket.n, r, w
