"""What a node says of the copies it makes for a change of the ring: values for the plan's driver and for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from leafdb.types import BucketId, NodeId


class Waiting(NamedTuple):
    """Somebody who is needed and cannot be reached."""

    node: NodeId
    seconds: float
    """Since it was seen to be so."""


class BucketTransfer(NamedTuple):
    """What is left in one bucket."""

    bucket: BucketId
    name: str
    left: int
    """Exchanges."""
    to_pull: int
    """Ranges of which the records have not come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferReport:
    """How far one node is. `plan_id` is empty without a plan."""

    plan_id: bytes
    epoch: int
    """Of the metadata in force here."""
    total: int
    left: int
    """Exchanges that the plan waits for."""
    bytes_done: int
    """Of records moved, since the plan began."""
    bytes_left: int | None
    """About; None while nobody can say. What exchanges will find to differ is not in it."""
    bytes_per_s: int
    """Of the last seconds."""
    waiting: tuple[Waiting, ...]
    buckets: tuple[BucketTransfer, ...]
    """Those in which something is left."""
    last_error: str

    @property
    def waiting_for(self) -> tuple[NodeId, ...]:
        """Old owners that cannot be reached."""
        return tuple(waiting.node for waiting in self.waiting)
