"""This node as a replica in a scan: pages of ranges in which it is a primary everywhere.

A page is shown only when everything in it is safe. It says whether this replica is complete for the whole range: if it
may have forgotten something there, what the page does not show is not thereby absent. As with single keys, both sides
must mean the same ring: the asker's counts hold for the owners it knows. So a sender behind is refused, and for a
sender ahead this node catches up first.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import trio

from leafdb.errors import DeadlineExceeded, LeafdbError, NotApplied, Overloaded, Reason, StorageError
from leafdb.limits import REPLICA_SCANS_MAX
from leafdb.model.record import RecordError
from leafdb.node.coordinator import Coordinator
from leafdb.node.scan_merge import RUN_PARTITIONS_MAX, ReplicaPage, holds, partitions_between, range_epoch
from leafdb.node.view import BucketView
from leafdb.ring.ring import Ring
from leafdb.ring.token import STORAGE_KEY_END, TOKEN_BYTES
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
        self.serving = 0

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
                reply = ScanReply(tuple(page.items), page.next, coordinator.view.epoch, page.complete)
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
        # Asked before the read: what becomes complete meanwhile may have been read before it was.
        definitive = partial(coordinator.completeness.definitive, bucket)
        complete = all(definitive(PartitionId(partition)) for partition in partitions)
        try:
            page = await read_range(self._engine, bucket, request)
            items = [(key, shown) for key, record in page.items if (shown := coordinator.replica.given(key, record))]
        except (StorageError, RecordError) as error:
            raise NotApplied(str(error), reason=Reason.FAILED) from None
        return ReplicaPage(items, page.next_key or b"", complete)

    def check(self) -> None:
        """The count is within its bound."""
        assert 0 <= self.serving <= REPLICA_SCANS_MAX


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
