"""Shows a range of this store, page by page in order of keys, to a new owner that starts without it.

A page is given only to a holder of the range that means the same owners as this node, and only when nothing waits for
the disk that was admitted before those owners were known: such a mutation may have been acknowledged by old owners
alone, and must be in the store when it is read (docs/walks/transfers.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from leafdb.errors import NotApplied, Overloaded, Reason
from leafdb.limits import EXCHANGE_BYTES_MAX, EXCHANGE_KEYS_MAX
from leafdb.node.engine_reads import read_page
from leafdb.node.horizons import Horizons
from leafdb.node.metrics import Metrics
from leafdb.node.record_messages import Page, Pull
from leafdb.node.record_mover import RECORD_BYTES_SENT_MAX, ExchangeFault
from leafdb.node.view import BucketView, ClusterView
from leafdb.ring.token import TOKEN_BYTES, partition_range
from leafdb.storage.engine import Engine
from leafdb.types import BucketId, NodeId, PartitionId

RETRY_AFTER_S: Final = 0.1
NOTHING: Final = Page(complete=False, keys=(), records=(), next=b"")


class RangeSource:
    """See the top of this file."""

    def __init__(
        self,
        *,
        engine: Engine,
        view: ClusterView,
        metrics: Metrics,
        horizons: Horizons,
        complete: Callable[[BucketId, PartitionId], bool],
        older_waiting: Callable[[], bool],
        behind: Callable[[NodeId], None],
    ) -> None:
        """`complete`: whether this store's "absent" can be believed, also of what lies below the purge horizon;
        `behind`: a peer knows newer metadata."""
        self._engine = engine
        self._view = view
        self._metrics = metrics
        self._complete = complete
        self._horizons = horizons
        self._older_waiting = older_waiting
        self._behind = behind

    async def page(self, node: NodeId, request: Pull) -> Page:
        """The page `node` asks for. Raises NotApplied, Overloaded, ExchangeFault or StorageError."""
        bucket = self._admitted(node, request)
        partition = PartitionId(request.partition)
        if not self._complete(bucket.id, partition):
            return NOTHING
        assert self._view.ring is not None
        start, stop = partition_range(partition, self._view.ring.partitions)
        found = await read_page(
            self._engine,
            bucket.tree,
            max(start, request.start),
            stop,
            limit=EXCHANGE_KEYS_MAX,
            bytes_max=min(request.bytes_max, EXCHANGE_BYTES_MAX),
            durability=bucket.durability,
        )
        if not self._complete(bucket.id, partition) or self._horizons.of(partition) != request.horizon:
            raise ExchangeFault("the purge horizon, or what this store vouches for, has changed meanwhile")
        keys: list[bytes] = []
        records: list[bytes] = []
        size, following = 0, found.next_key or b""
        for key, record in found.items:
            weight = len(key) + len(record)
            if keys and size + weight > EXCHANGE_BYTES_MAX:
                following = key
                break
            if weight > RECORD_BYTES_SENT_MAX:
                raise ExchangeFault(f"a record of {weight} bytes is too large to travel")
            keys.append(key[TOKEN_BYTES:])
            records.append(record)
            size += weight
        self._metrics.exchange_keys_sent_total += len(keys)
        self._metrics.transfer_bytes_sent_total += size
        return Page(complete=True, keys=tuple(keys), records=tuple(records), next=following)

    def _admitted(self, node: NodeId, request: Pull) -> BucketView:
        ring = self._view.ring
        bucket = self._view.buckets.get(request.bucket)
        if ring is None or bucket is None:
            raise NotApplied("the bucket is not known here", reason=Reason.NO_SUCH_BUCKET)
        if request.partition >= ring.partitions:
            raise NotApplied("there is no such partition", reason=Reason.BAD_REQUEST)
        partition = PartitionId(request.partition)
        epoch = ring.range_epoch(partition)
        if request.range_epoch != epoch:
            if request.range_epoch > epoch:
                self._behind(node)
            raise NotApplied("the owners of the range are not the same here", reason=Reason.STALE_EPOCH)
        if not {node, self._view.self_id} <= set(ring.holders(partition, bucket.properties.n)):
            raise NotApplied("both must hold the range", reason=Reason.BAD_REQUEST)
        horizon = self._horizons.of(partition)
        if request.horizon != horizon:
            if request.horizon > horizon:
                self._behind(node)
            raise NotApplied("the purge horizon of the range is not the same here", reason=Reason.STALE_EPOCH)
        if self._horizons.swept(partition) < horizon:
            raise Overloaded("what died is still being forgotten here", retry_after=RETRY_AFTER_S)
        if self._older_waiting():
            raise Overloaded("older writes of the range wait for the disk", retry_after=RETRY_AFTER_S)
        return bucket
