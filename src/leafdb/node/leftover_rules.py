"""When a node may let go of a record that it does not hold by right: the rules, pure.

Two things end up where they do not belong: *leftovers*, records in the tree of a node that is no holder of their range
any more, and *orphan hints*, kept for a node that is none. Either may be all that is left of an acknowledged write, so
either goes only once every holder has it. What is known of that is a `Proof`: these nodes, the holders of a range
under one epoch of it, have each said that the record is on their disk, at a moment when that was still the epoch of the
range there (`record_mover.entrust`).

**A proof holds for as long as the range's epoch here is the one it was made under.** Let it be e, and let the record go
then. Each holder h under e had it durably while h itself was at e. The next change of the range begins with a copy of
what old owners have in their stores, taken by the new ones from each of them that is not given up, after h has
installed it: so after h stored the record. Whoever holds the range by any later epoch has the record then, as if h had
acknowledged a write of it. A holder that is ahead of us says another epoch, and one that is behind us does too: neither
proves anything, and we ask again when the epochs meet.

Without the epoch: we are behind and ask X, n = 1, who is being replaced by W. W has copied everything from X already; X
says yes as the old owner it still is, is done with, and goes. Our copy was the last.

During a plan the holders are those of both tables, and a member that the plan gives up as dead is one of them to its
end: what waits for it waits for the plan.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from leafdb.ring.ring import Ring
from leafdb.types import Epoch, NodeId, PartitionId


class Proof(NamedTuple):
    """Who must have a record before another may let it go."""

    epoch: Epoch
    """Of the range."""
    holders: tuple[NodeId, ...]


def wanted(ring: Ring, partition: PartitionId, n: int) -> Proof:
    """What it takes now, where there are n copies of the partition."""
    return Proof(ring.range_epoch(partition), ring.holders(partition, n))


def stands(proof: Proof, ring: Ring, partition: PartitionId, n: int) -> bool:
    """Whether what `proof` was made of is what it takes now: n may have changed, too, which moves no epoch."""
    return proof.epoch == ring.range_epoch(partition) and set(ring.holders(partition, n)) <= set(proof.holders)


def foreign_runs(ring: Ring, node: NodeId, n: int) -> Iterator[tuple[PartitionId, PartitionId]]:
    """The partitions of which `node` is no holder, as runs: (first, last)."""
    begun: int | None = None
    for partition in range(ring.partitions):
        if ring.is_primary(node, PartitionId(partition), n):
            if begun is not None:
                yield PartitionId(begun), PartitionId(partition - 1)
                begun = None
        elif begun is None:
            begun = partition
    if begun is not None:
        yield PartitionId(begun), PartitionId(ring.partitions - 1)
