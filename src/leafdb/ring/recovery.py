"""The metadata with which a register is begun anew, when the majority of its control set is gone for good.

Nothing proves that the value found is the last one: whoever is gone may have chosen more, and may even go on, if it is
not gone after all. So the new generation keeps clear of everything the old one can have said since:

- its epoch is EPOCHS_SKIPPED above, so that whoever compares epochs alone, as gossip and requests do, takes the later
  generation for the later one;
- every range has that epoch, so that requests of the old generation are refused everywhere until it has heard;
- EPOCHS_SKIPPED, BUCKETS_SKIPPED and NODES_SKIPPED numbers are given up: one that was handed out without our knowledge
  is never handed out again. A node number given twice would be the worst, since two nodes would mint the same dots.

Purge horizons are the highest that anybody who is left has believed: some store has forgotten by them.

The ring stays as it is, a plan in progress too: those who are gone are members still, and go by a plan like others.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Final

from leafdb.errors import NotApplied, Reason
from leafdb.limits import NODE_ID_MAX
from leafdb.model.bucket import BUCKET_ID_MAX
from leafdb.ring.horizons import Horizon, highest
from leafdb.ring.metadata import ClusterMetadata
from leafdb.types import BucketId, Epoch, NodeId

EPOCHS_SKIPPED: Final = 1 << 20
BUCKETS_SKIPPED: Final = 1 << 12
NODES_SKIPPED: Final = 1 << 10
"""As many as one plan can bring."""


def recovered(
    base: ClusterMetadata, control: Collection[NodeId], lost: int, horizons: tuple[Horizon, ...] = ()
) -> ClusterMetadata:
    """The first value of a new generation, kept by `control`, with its horizons no lower than these. Raises NotApplied
    when there is none.

    The generation is one up, and one more for each of the `lost` members: if somebody who was to take part is lost
    before anybody else heard of it, the next attempt counts it among the lost, and makes a later generation.
    """
    epoch = Epoch(base.epoch + EPOCHS_SKIPPED)
    made = replace(
        base,
        generation=base.generation + 1 + lost,
        epoch=epoch,
        control=tuple(sorted(control)),
        control_next=(),
        control_epoch=epoch,
        range_epochs=(epoch,) * base.partitions,
        horizons=highest((base.horizons, horizons)),
        next_bucket_id=BucketId(min(base.next_bucket_id + BUCKETS_SKIPPED, BUCKET_ID_MAX + 1)),
        next_node_id=NodeId(min(base.next_node_id + NODES_SKIPPED, NODE_ID_MAX + 1)),
    )
    if problems := made.check():
        raise NotApplied("this cluster cannot be recovered: " + "; ".join(problems), reason=Reason.BAD_REQUEST)
    return made
