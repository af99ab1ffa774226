"""Who keeps the hints of a node that goes, or is about to stop, instead of it; and how they get them.

A fallback copy may be half of what an acknowledged write rests on: while the node that keeps it is away, so is that
half, and when the node is banned at the end of a plan it is gone. So it is given to an *heir*, as a fallback copy for
the same target: a node that may stand in for the target and stays, under the same owners of the range, synced before it
is confirmed. Nothing else changes: replay and fallback reads go on from there.

No holder of the key is an heir. It has a copy of its own, so that two of the copies that were counted would come to lie
on one disk. The walk is gone through from its end: whoever stands in for another of the key's holders already is mostly
found at its beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import trio

from leafdb.errors import LeafdbError
from leafdb.node.record_store import Item
from leafdb.node.view import BucketView, ClusterView
from leafdb.quorum.messages import MalformedMessage, ReplicaStatus, decode_reply, encode_replica_put
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.plan import Phase
from leafdb.ring.token import TOKEN_BYTES
from leafdb.types import NodeId, PartitionId
from leafdb.wire.frame import Frame
from leafdb.wire.registry import Lane, MessageType

GIVE_TIMEOUT_S: Final = 5.0
GIVEN_AT_ONCE_MAX: Final = 16


class Calls(Protocol):
    """What is needed of `transport.peers.Peers`."""

    async def call(self, node: NodeId, lane: Lane, message_type: int, body: bytes, timeout_s: float) -> Frame:
        """Ask and wait. Raises LeafdbError."""


def goers(metadata: ClusterMetadata) -> frozenset[NodeId]:
    """The members that will be none when the plan in progress ends, the way it is going."""
    plan = metadata.plan
    if plan is None:
        return frozenset()
    return frozenset(plan.joining) if plan.phase is Phase.RETREAT else plan.going


class Heirs:
    """Of one node. `ready` says whether a peer can be asked now, `failed` hears why one did not do it."""

    def __init__(
        self,
        view: ClusterView,
        peers: Calls,
        ready: Callable[[NodeId], bool],
        failed: Callable[[NodeId, str], None],
    ) -> None:
        self._view = view
        self._peers = peers
        self._ready = ready
        self._failed = failed

    def of(self, partition: PartitionId, bucket: BucketView) -> list[NodeId]:
        """Who could keep a hint of the range, the best first."""
        view, ring = self._view, self._view.ring
        assert ring is not None, "buckets come with a ring"
        passed_over = goers(ring.metadata) | view.draining
        return [
            node
            for node in reversed(ring.fallbacks(partition, bucket.properties.n))
            if node in view.usable and node not in passed_over and self._ready(node)
        ]

    async def keep(self, target: NodeId, bucket: BucketView, partition: PartitionId, items: Sequence[Item]) -> bool:
        """Return whether some heir has every one of these records on its disk, as hints for `target`."""
        for heir in self.of(partition, bucket):
            if await self._give(heir, target, bucket, partition, items):
                return True
        return False

    async def _give(
        self, heir: NodeId, target: NodeId, bucket: BucketView, partition: PartitionId, items: Sequence[Item]
    ) -> bool:
        ring = self._view.ring
        assert ring is not None
        epoch = ring.range_epoch(partition)
        limit = trio.CapacityLimiter(GIVEN_AT_ONCE_MAX)
        refusals: list[str] = []

        async def give(storage_key: bytes, record: bytes) -> None:
            body = encode_replica_put(
                bucket.id, bucket.generation, epoch, int(GIVE_TIMEOUT_S * 1000), 0, target, storage_key[TOKEN_BYTES:],
                record,
            )  # fmt: skip
            async with limit:
                if refusals:
                    return
                try:
                    frame = await self._peers.call(heir, Lane.REQUESTS, MessageType.REPLICA_PUT, body, GIVE_TIMEOUT_S)
                    status = decode_reply(frame.body)[0]
                except (LeafdbError, MalformedMessage) as error:
                    refusals.append(str(error))
                    return
            if status is not ReplicaStatus.APPLIED:
                refusals.append(f"it does not take hints ({status.name.lower().replace('_', ' ')})")

        async with trio.open_nursery() as nursery:
            for item in items:
                nursery.start_soon(give, *item)
        if refusals:
            self._failed(heir, refusals[0])
        return not refusals
