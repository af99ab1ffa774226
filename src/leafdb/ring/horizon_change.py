"""The change of the register that raises purge horizons: all that one proof has made, at once (decision 0008).

It raises those of the partitions that are still as they were when the proof began. If a member came, went or became
another store since, or a plan is in progress, it raises none: who was not asked may have minted something older.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from leafdb.errors import NotApplied, Reason
from leafdb.ring.horizons import UNPROVED, Horizon
from leafdb.ring.metadata import ClusterMetadata
from leafdb.types import Epoch, NodeId, PartitionId


@dataclass(frozen=True, slots=True)
class Proof:
    """What was proved: below `stamp`, in these partitions, by these members."""

    stamp: int
    partitions: Mapping[PartitionId, Epoch]
    """With the range epoch of each when the proof began."""
    members: Mapping[NodeId, int]
    """Who was asked, with the incarnation that answered."""
    generation: int
    """The cluster's when it began."""


def raise_horizons(metadata: ClusterMetadata, proof: Proof, *, change_id: bytes = b"") -> ClusterMetadata:
    """With the horizons of the proof's partitions raised; the same value when that raises none, or the change of this
    id is in already. Raises NotApplied when those who were asked are not the cluster."""
    if change_id and metadata.epoch_of_change(change_id) is not None:
        return metadata
    now = {node: member.incarnation for node, member in metadata.members.items()}
    if metadata.generation != proof.generation or now != dict(proof.members):
        raise NotApplied("the members are not those that were asked", reason=Reason.STALE_EPOCH)
    if metadata.plan is not None:
        raise NotApplied("a plan is in progress", reason=Reason.PLAN_IN_PROGRESS)
    before = metadata.horizons or (UNPROVED,) * metadata.partitions
    raised = tuple(
        Horizon(proof.stamp, epoch)
        if horizon.stamp < proof.stamp and proof.partitions.get(PartitionId(partition)) == epoch
        else horizon
        for partition, (horizon, epoch) in enumerate(zip(before, metadata.range_epochs, strict=True))
    )
    return metadata if raised == before else metadata.next_epoch(change_id, horizons=raised)
