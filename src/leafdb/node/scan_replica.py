"""This node as a replica in a scan: pages of ranges in which it is a primary everywhere.

A page is shown only when everything in it is safe. It says whether this replica is complete for the whole range: if it
may have forgotten something there, what the page does not show is not thereby absent. As with single keys, both sides
must mean the same ring: the asker's counts hold for the owners it knows. So a sender behind is refused, and for a
sender ahead this node catches up first.

And both go by the same horizons (quorum/get_operation): where this node does not vouch below the newer one of those
that either knows, it shows only what lies above; an asker who knows of none so new is told that, and shown nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import gt
from typing import Final

import trio

from leafdb.errors import DeadlineExceeded, LeafdbError, NotApplied, Overloaded, Reason, StorageError
from leafdb.limits import REPLICA_SCANS_MAX
from leafdb.model.admission import admitted
from leafdb.model.record import RecordError
from leafdb.node.coordinator import Coordinator
from leafdb.node.replica import Replica
from leafdb.node.scan_merge import (
    RUN_PARTITIONS_MAX,
    ReplicaPage,
    holds,
    partition_at,
    partitions_between,
    range_epoch,
)
from leafdb.node.view import BucketView
from leafdb.ring.ring import Ring
from leafdb.ring.token import STORAGE_KEY_END, TOKEN_BYTES, partition_range
from leafdb.storage.engine import Engine
from leafdb.storage.lsm_tree import Page
from leafdb.transport.session import Session
from leafdb.types import PartitionId
from leafdb.wire.control import ScanReply, ScanRequest
from leafdb.wire.frame import encode_frame
from leafdb.wire.registry import MessageType

RETRY_AFTER_S: Final = 0.2


class ScanReplica:
    """Serves REPLICA_SCAN, and this node's own coordinator."""

    def __init__(self, coordinator: Coordinator, engine: Engine) -> None:
        self._coordinator = coordinator
        self._engine = engine
        self.serving: int = 0

    def on_request(
        self,
        nursery: trio.Nursery | None,
        session: Session,
        request_id: int,
        body: bytes,
        deadline: float | None = None,
    ) -> None:
        """A REPLICA_SCAN frame: a coordinator asks for a part of a range. After a wait it keeps its `deadline`."""
        coordinator = self._coordinator
        request = ScanRequest.decode(body)
        if deadline is None:
            deadline = coordinator.deadline(request.deadline_ms)
        try:
            retry = partial(self.on_request, nursery, session, request_id, body, deadline)
            bucket = bucket_of(coordinator, request, retry)
            if bucket is None:
                return
            if coordinator.now() >= deadline:
                raise DeadlineExceeded("the deadline had passed before the scan could begin", stage="queue")
            partitions = _partitions(coordinator, request)
            if request.range_epoch > range_epoch(_ring(coordinator), partitions) and coordinator.catch_up.wait(retry):
                return
            if self.serving >= REPLICA_SCANS_MAX or coordinator.memory.full or nursery is None:
                raise Overloaded("this node reads as many pages as it may", retry_after=RETRY_AFTER_S)
        except LeafdbError as error:
            coordinator.refuse(session, request_id, error)
            return
        self.serving += 1
        nursery.start_soon(self._serve, session, request_id, request, bucket, deadline, name="replica scan")

    async def _serve(
        self, session: Session, request_id: int, request: ScanRequest, bucket: BucketView, deadline: float
    ) -> None:
        coordinator = self._coordinator
        try:
            with trio.move_on_after(max(0.0, deadline - coordinator.now())):
                page = await self.read(request, bucket)
                reply = ScanReply(tuple(page.items), page.next, coordinator.view.epoch, page.complete, page.horizons)
                session.send(encode_frame(MessageType.REPLICA_SCAN_REPLY, request_id, reply.encode()))
        except LeafdbError as error:
            coordinator.refuse(session, request_id, error)
        finally:
            self.serving -= 1

    async def read(self, request: ScanRequest, bucket: BucketView) -> ReplicaPage:
        """This node's page of the range. Raises NotApplied."""
        coordinator = self._coordinator
        view, ring = coordinator.view, _ring(coordinator)
        partitions = _partitions(coordinator, request)
        same_ring = request.range_epoch == range_epoch(ring, partitions)
        if not same_ring or not holds(ring, view.self_id, bucket.properties.n, partitions):
            raise NotApplied("the nodes disagree about who holds the range", reason=Reason.STALE_EPOCH)
        asked_by = request.horizons or (0,) * len(partitions)
        if len(asked_by) != len(partitions):
            raise NotApplied("a horizon for each partition is to be named", reason=Reason.BAD_REQUEST)
        # Asked before the read: what becomes complete meanwhile may have been read before it was.
        definitive = coordinator.completeness.definitive
        complete = all(definitive(bucket, PartitionId(at), by) for at, by in zip(partitions, asked_by, strict=True))
        before = self._doubted(ring, partitions, asked_by)
        try:
            page = await read_range(self._engine, bucket, request)
            known = horizons_of(coordinator.replica, ring, partitions)
            if any(map(gt, known, asked_by)):
                return ReplicaPage((), b"", complete=False, horizons=known)
            below = tuple(map(max, before, self._doubted(ring, partitions, asked_by)))
            items: Sequence[tuple[bytes, bytes]] = page.items
            if any(below):
                at = [below[partition_at(ring, key) - partitions.start] for key, _ in items]
                shown = [(key, admitted(None, record, stamp)) for (key, record), stamp in zip(items, at, strict=True)]
                items = [(key, record) for key, record in shown if record is not None]
        except (StorageError, RecordError) as error:
            raise NotApplied(str(error), reason=Reason.FAILED) from None
        return ReplicaPage(items, page.next_key or b"", complete)

    def _doubted(self, ring: Ring, partitions: range, asked_by: Sequence[int]) -> tuple[int, ...]:
        """Below which stamp nothing is shown, for each of the partitions."""
        doubted = self._coordinator.replica.doubted
        lows = (partition_range(PartitionId(at), ring.partitions)[0] for at in partitions)
        return tuple(doubted(low, by) for low, by in zip(lows, asked_by, strict=True))

    def check(self) -> None:
        """The count is within its bound."""
        assert 0 <= self.serving <= REPLICA_SCANS_MAX


def horizons_of(replica: Replica, ring: Ring, partitions: range) -> tuple[int, ...]:
    """The newest horizon that this node knows, of each of the partitions; 0: none."""
    horizon_at, count = replica.horizon_at, ring.partitions
    return tuple(horizon_at(partition_range(PartitionId(at), count)[0]) for at in partitions)


def _ring(coordinator: Coordinator) -> Ring:
    assert coordinator.view.ring is not None
    return coordinator.view.ring


def _partitions(coordinator: Coordinator, request: ScanRequest) -> range:
    """The partitions of a page asked for. Raises NotApplied when it is no range, or too long."""
    if not request.start < request.stop or len(request.start) < TOKEN_BYTES:
        raise NotApplied("a range of no keys", reason=Reason.BAD_REQUEST)
    partitions = partitions_between(_ring(coordinator), request.start, min(request.stop, STORAGE_KEY_END))
    if len(partitions) > RUN_PARTITIONS_MAX:
        raise NotApplied(f"{len(partitions)} partitions are too many for one page", reason=Reason.BAD_REQUEST)
    return partitions


def bucket_of(coordinator: Coordinator, request: ScanRequest, retry: Callable[[], None]) -> BucketView | None:
    """The request's bucket; None: it waits for newer metadata (`retry` runs it again). Raises NotApplied."""
    view = coordinator.view
    if view.ring is None:
        raise coordinator.refusal(Reason.NOT_READY)
    bucket = view.buckets.get(request.bucket_id)
    if bucket is None or bucket.generation < request.generation:
        if coordinator.catch_up.wait(retry):
            return None
        raise NotApplied(f"no bucket has the number {request.bucket_id}", reason=Reason.NO_SUCH_BUCKET)
    if bucket.generation > request.generation:
        raise NotApplied("the bucket's properties have changed", reason=Reason.STALE_EPOCH)
    return bucket


async def read_range(engine: Engine, bucket: BucketView, request: ScanRequest) -> Page:
    """One page of the bucket's tree that may be shown, waiting for the disk and the log. Raises StorageError."""
    ready = trio.Event()
    found: list[Page | StorageError] = []

    def read(page: Page | StorageError) -> None:
        found.append(page)
        if isinstance(page, StorageError):
            ready.set()
        else:
            engine.when_safe(page.sequence, bucket.durability, safe)

    def safe(error: StorageError | None) -> None:
        if error is not None:
            found[0] = error
        ready.set()

    engine.scan_soon(
        bucket.tree,
        request.start,
        request.stop,
        limit=request.limit,
        bytes_max=request.bytes_max,
        reverse=request.reverse,
        done=read,
    )
    await ready.wait()
    page = found[0]
    if isinstance(page, StorageError):
        raise page
    return page
