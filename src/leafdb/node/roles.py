"""What each holder of a range is to it, in the words that people read; pure.

Without a plan every holder is a primary, and whoever else keeps a copy is a fallback. In a plan a holder is an owner of
both sets, or an old or a new one, and "pending" as long as its copy is being made.
"""

from __future__ import annotations

from collections.abc import Collection

from leafdb.ring.ring import Ring
from leafdb.types import NodeId, PartitionId

PRIMARY = "primary"
FALLBACK = "fallback"
PENDING = "pending"


def role_in_plan(node: NodeId, old: Collection[NodeId], new: Collection[NodeId], copying: Collection[NodeId]) -> str:
    """A holder's role in a range with two sets of owners."""
    if node in copying:
        return PENDING
    if node not in old:
        return "new owner"
    return "both" if node in new else "old owner"


def roles_of(ring: Ring, partition: PartitionId, n: int) -> dict[NodeId, str]:
    """Each holder of the partition and its role, those that reads ask first."""
    holders, sets = ring.holders(partition, n), ring.write_sets(partition, n)
    if len(sets) == 1:
        return dict.fromkeys(holders, PRIMARY)
    old, new = sets
    copying = ring.copying(partition, n)
    return {node: role_in_plan(node, old, new, copying) for node in holders}
