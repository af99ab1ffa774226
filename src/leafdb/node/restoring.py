"""Gives records of a backup to all who hold them in this cluster, whatever its shape.

A record counts as restored when every holder of its range, pending owners too, has it on its disk, under one epoch of
the range that was still in force afterwards. So it is where readers look, it takes part in whatever the ring does next,
and no exchange finds one store with it and another without. Fewer would do for readers, and would leave to anti-entropy
what the horizon tells it to distrust (`restored_record`). A holder that is away therefore stops a restore, and does it
no harm: giving the same records again changes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import trio

from leafdb.codec.batches import batches
from leafdb.errors import LeafdbError, NotApplied, Reason, StorageError
from leafdb.limits import EXCHANGE_BYTES_MAX, EXCHANGE_KEYS_MAX, RESTORE_KEYS_MAX
from leafdb.model.key import decode_key
from leafdb.model.record import RecordError, header
from leafdb.node.record_messages import Restore
from leafdb.node.record_mover import RECORD_BYTES_SENT_MAX, ExchangeFault, RecordMover
from leafdb.node.record_server import RecordServer
from leafdb.node.view import BucketView, ClusterView
from leafdb.quorum.messages import ReplicaStatus
from leafdb.ring.token import split_storage_key, storage_key
from leafdb.types import NodeId

PARTS_AT_ONCE_MAX: Final = 3
"""Messages that a holder is given at a time, by one request: what they bring shares its syncs. It serves four."""
PART_KEYS_MAX: Final = 256


class Restored(NamedTuple):
    """A record of a backup, under its encoded key."""

    key: bytes
    record: bytes

    def size(self) -> int:
        return len(self.key) + len(self.record)


class Restoring:
    """Of one node, for whoever asks it."""

    def __init__(self, view: ClusterView, server: RecordServer, mover: RecordMover) -> None:
        self._view = view
        self._server = server
        self._mover = mover

    async def restore(self, bucket: BucketView, items: Sequence[Restored]) -> dict[NodeId, str]:
        """Give these to their holders; of each that has not taken all of them, why. Raises NotApplied for what is no
        record of a key: then nobody was given anything."""
        problems: dict[NodeId, str] = {}
        places = defaultdict[NodeId, trio.CapacityLimiter](lambda: trio.CapacityLimiter(PARTS_AT_ONCE_MAX))

        async def give(holder: NodeId, request: Restore) -> None:
            async with places[holder]:
                if holder not in problems and (problem := await self._give(holder, request)):
                    problems[holder] = problem

        groups = self._groups(bucket, items)
        async with trio.open_nursery() as nursery:
            for (holder, epoch), group in groups.items():
                for part in batches(group, Restored.size, count_max=PART_KEYS_MAX, bytes_max=EXCHANGE_BYTES_MAX):
                    keys, records = tuple(item.key for item in part), tuple(item.record for item in part)
                    nursery.start_soon(give, holder, Restore(int(bucket.id), epoch, keys, records))
        return problems

    def _groups(self, bucket: BucketView, items: Sequence[Restored]) -> Mapping[tuple[NodeId, int], Sequence[Restored]]:
        """What goes to whom, under which epoch of the range."""
        ring = self._view.ring
        assert ring is not None, "buckets come with a ring"
        groups: dict[tuple[NodeId, int], list[Restored]] = {}
        for item in items:
            try:
                decode_key(item.key)
                partition = ring.partition_of(split_storage_key(storage_key(bucket.id, item.key))[0])
                header(item.record)
            except (RecordError, ValueError) as error:
                raise NotApplied(f"no record of a key: {error}", reason=Reason.BAD_REQUEST) from None
            if len(item.key) + len(item.record) > RECORD_BYTES_SENT_MAX:
                what = f"a record of {len(item.record)} bytes is too large to travel"
                raise NotApplied(what, reason=Reason.TOO_LARGE)
            for holder in ring.holders(partition, bucket.properties.n):
                groups.setdefault((holder, int(ring.range_epoch(partition))), []).append(item)
        return groups

    async def _give(self, holder: NodeId, request: Restore) -> str:
        """Why a holder has not taken all of these; empty when it has."""
        try:
            if holder == self._view.self_id:
                results = await self._server.restore(request)
            else:
                results = await self._mover.restore(holder, request)
        except (ExchangeFault, LeafdbError, StorageError) as error:
            return str(error)
        refused = [status for status in results if status != ReplicaStatus.APPLIED]
        if not refused:
            return ""
        return f"{len(refused)} of {len(results)} records were not taken ({WORDS.get(refused[0], 'it failed')})"


WORDS: Final[Mapping[int, str]] = {
    ReplicaStatus.REFUSED_STALE_EPOCH: "the ring has just changed",
    ReplicaStatus.REFUSED_NOT_REPLICA: "the ring has just changed",
    ReplicaStatus.REFUSED_OVERLOADED: "it has too much to do",
    ReplicaStatus.REFUSED_DISK_FULL: "its disk is full",
}


assert PART_KEYS_MAX <= EXCHANGE_KEYS_MAX <= RESTORE_KEYS_MAX
