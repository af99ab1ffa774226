"""A scan's page, from the client's frame to its answer: asks replicas for parts of the range and merges them.

Any node coordinates. From where the scan stands it reads a run of partitions that have the same primaries (scan_merge):
R of them are asked for a page each, this node through scan_replica, others by REPLICA_SCAN; one that cannot answer, or
that may have forgotten something of the range, is replaced by another primary. The merged part is shown as gets show
it: keys with nothing live are passed over, contexts are sealed. Then comes the next part, until the page is full, the
range ends, or the request has had its share of time: what is there then is the answer, with where to go on.

`next` in the answer is a position, as in scan_merge: forward the next page's `start`, in reverse its `stop`; empty at
the end of the range. A page that shows nothing has moved on all the same.

Scans read and repair nothing: gets and anti-entropy do that. They are background work, so they are tasks, few at a
time; one more is refused at once.

In a plan a part asks the set of owners that reads ask, and no other. A get shows only what R of both sets hold, so that
nothing it has shown is missing once reads have moved (joint_get_operation). A scan never promised that: without a plan
too it shows what one replica of R has, and the next scan may ask others. What it promises, whatever W replicas have
acknowledged, needs R of the set asked and that all of them mean the same ring, so pages carry the range's epoch.

They carry its horizons as well, as reads do (quorum/get_operation): where somebody knows of a newer one than this node
named, and R complete replicas have not answered without it, the part is asked for again by the newer ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

import trio

from leafdb.errors import DeadlineExceeded, LeafdbError, Overloaded, ProtocolError, Reason, ServerBug
from leafdb.limits import SCANS_MAX
from leafdb.model.record import RecordError, decode, live
from leafdb.node.coordinator import Coordinator, Place, not_enough
from leafdb.node.get_under_way import get_reply_body
from leafdb.node.logs import Log
from leafdb.node.scan_merge import (
    RUN_PARTITIONS_MAX,
    MergedPage,
    ReplicaPage,
    Run,
    merge_pages,
    problem,
    run_at,
    whole_range,
)
from leafdb.node.scan_replica import RETRY_AFTER_S, ScanReplica, bucket_of, horizons_of
from leafdb.node.view import BucketView
from leafdb.ring.ring import Ring
from leafdb.ring.token import TOKEN_BYTES
from leafdb.storage.engine import Engine
from leafdb.transport.peers import Peers
from leafdb.transport.session import Session
from leafdb.types import NodeId
from leafdb.wire.control import ScanReply, ScanRequest
from leafdb.wire.frame import encode_frame
from leafdb.wire.registry import Lane, MessageType

SHARE_S: Final = 0.5
"""After so long a request that has moved on is answered, full or not: a client hears from its scan."""
PARTS_MAX: Final = 64
"""Parts read for one request, empty ones included."""
PART_ITEMS_MAX: Final = 512
PART_ITEMS_MIN: Final = 8
"""More than one, so that a part gets past a key with nothing live even where a client asks for the last one again."""
PART_BYTES_MAX: Final = 512 * 1024
SHOWN_PER_TURN: Final = 32
"""Records decoded and sealed before others have their turn on the loop."""

log: Log = Log("scan")


class _Scan(NamedTuple):
    """One request as its coordinator sees it."""

    request: ScanRequest
    bucket: BucketView
    deadline: float


class _Progress:
    """The answer so far, and what is left of the range, [start, stop): a scan eats it from one end."""

    __slots__ = ("_bytes_max", "_items_max", "_reverse", "_size", "full", "items", "start", "stop")

    def __init__(self, request: ScanRequest) -> None:
        self.start, self.stop = whole_range(request.start, request.stop)
        self.items: list[tuple[bytes, bytes]] = []
        self.full = False
        self._reverse = request.reverse
        self._items_max = request.limit
        self._bytes_max = request.bytes_max
        self._size = 0

    @property
    def over(self) -> bool:
        """Nothing is left of the range."""
        return self.start >= self.stop

    @property
    def next(self) -> bytes:
        """For the answer."""
        if self.over:
            return b""
        return self.stop if self._reverse else self.start

    def limits(self) -> tuple[int, int]:
        """How many items and bytes to ask a replica for."""
        items = min(max(self._items_max - len(self.items), PART_ITEMS_MIN), PART_ITEMS_MAX)
        return items, min(max(self._bytes_max - self._size, 1), PART_BYTES_MAX)

    def passed(self, key: bytes) -> None:
        """`key` needs no showing."""
        self._go_to(key if self._reverse else key + b"\0")

    def shown(self, key: bytes, body: bytes) -> None:
        """Add an item, unless the page is full without it. The first one always has room."""
        self._size += len(key) + len(body)
        if self.items and self._size > self._bytes_max:
            self.full = True
            return
        self.items.append((key, body))
        self.full = len(self.items) >= self._items_max or self._size >= self._bytes_max
        self.passed(key)

    def finished(self, run: Run, part: MergedPage) -> None:
        """All that the part covers has been shown or passed."""
        self._go_to(part.next or (run.start if self._reverse else run.stop))

    def _go_to(self, position: bytes) -> None:
        assert self.start <= position <= self.stop, "a scan goes one way"
        if self._reverse:
            self.stop = position
        else:
            self.start = position


class ScanDriver:
    """Coordinates SCAN; passes REPLICA_SCAN on to the replica. `run` owns the tasks of both."""

    def __init__(self, coordinator: Coordinator, engine: Engine, peers: Peers) -> None:
        self._coordinator = coordinator
        self._replica = ScanReplica(coordinator, engine)
        self._peers = peers
        self._nursery: trio.Nursery | None = None
        self.running: int = 0

    async def run(self) -> None:
        """Run scans until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None  # before it closes: a request may come in this very moment

    def on_replica_scan(self, session: Session, node: NodeId, request_id: int, body: bytes) -> None:
        """A REPLICA_SCAN frame."""
        self._replica.on_request(self._nursery, session, request_id, body)

    def on_scan(self, session: Session, request_id: int, body: bytes, deadline: float | None = None) -> None:
        """A SCAN frame. One that has waited for metadata keeps its `deadline`."""
        coordinator = self._coordinator
        request = ScanRequest.decode(body)
        if deadline is None:
            deadline = coordinator.deadline(request.deadline_ms)
        try:
            bucket = bucket_of(coordinator, request, partial(self.on_scan, session, request_id, body, deadline))
            if bucket is None:
                return
            if coordinator.draining:
                raise coordinator.refusal(Reason.DRAINING)
            if coordinator.now() >= deadline:
                raise DeadlineExceeded("the deadline had passed before the scan could begin", stage="queue")
            if self.running >= SCANS_MAX or coordinator.memory.full or self._nursery is None:
                raise Overloaded("this node runs as many scans as it may", retry_after=RETRY_AFTER_S)
            _read_count(bucket, request)
            scan = _Scan(request, bucket, deadline)
        except LeafdbError as error:
            coordinator.refuse(session, request_id, error)
            return
        self.running += 1
        session.requests_in_flight += 1
        self._nursery.start_soon(self._coordinate, session, request_id, scan, name="scan")

    async def _coordinate(self, session: Session, request_id: int, scan: _Scan) -> None:
        coordinator = self._coordinator
        began = coordinator.now()
        try:
            reply = await self._page(scan)
            session.send(encode_frame(MessageType.SCAN_REPLY, request_id, reply.encode()))
            coordinator.metrics.scans_total += 1
            coordinator.metrics.scan_duration.observe(coordinator.now() - began)
        except LeafdbError as error:
            coordinator.refuse(session, request_id, error)
        finally:
            self.running -= 1
            session.requests_in_flight -= 1

    async def _page(self, scan: _Scan) -> ScanReply:
        """One page. A failure is told only where the scan stands still: else the next request will meet it."""
        coordinator = self._coordinator
        progress = _Progress(scan.request)
        until = coordinator.now() + SHARE_S
        parts = 0
        while not progress.over and not progress.full and parts < PARTS_MAX:
            if parts and coordinator.now() >= until:
                break
            stood = progress.next
            try:
                run, part = await self._part(scan, progress)
                await self._show(scan, part, progress)
            except LeafdbError:
                if not parts and progress.next == stood:
                    raise
                break
            if not progress.full:
                progress.finished(run, part)
            parts += 1
        return ScanReply(tuple(progress.items), progress.next, coordinator.view.epoch)

    async def _show(self, scan: _Scan, part: MergedPage, progress: _Progress) -> None:
        """Add what is live in the part to the answer, as long as that has room."""
        coordinator = self._coordinator
        ring = _ring(coordinator)
        for count, (storage_key, record) in enumerate(part.items, 1):
            if count % SHOWN_PER_TURN == 0:
                await trio.lowlevel.checkpoint()
            try:
                if not live(decode(record), coordinator.now_ms(), scan.bucket.conflict):
                    progress.passed(storage_key)
                    continue
                place = Place(scan.bucket, storage_key[TOKEN_BYTES:], ring)
                progress.shown(storage_key, get_reply_body(coordinator, place, record))
            except ValueError as error:
                raise ServerBug(f"a key of this range holds no record: {error}") from None
            if progress.full:
                return

    # -- one part of the range

    async def _part(self, scan: _Scan, progress: _Progress) -> tuple[Run, MergedPage]:
        """What enough replicas say of the next part. Raises NotEnoughReplicas, DeadlineExceeded, ServerBug."""
        request = scan.request
        items_max, bytes_max = progress.limits()
        partitions_max = RUN_PARTITIONS_MAX
        heard: dict[int, int] = {}
        while True:
            ring = _ring(self._coordinator)
            r = self._r_now(scan)
            run = run_at(
                ring,
                scan.bucket.properties.n,
                progress.start,
                progress.stop,
                reverse=request.reverse,
                partitions_max=partitions_max,
            )
            ask = request._replace(
                start=run.start, stop=run.stop, limit=items_max, bytes_max=bytes_max, r=1, range_epoch=run.range_epoch,
                horizons=self._horizons(ring, run, heard),
            )  # fmt: skip
            pages = await self._gather(scan, run, ask, r)
            whole = sum(page.complete for page in pages)
            if whole >= r:
                break
            if self._newer(run, ask.horizons, pages, heard) and self._coordinator.now() < scan.deadline:
                continue
            if _ring(self._coordinator) is not ring and self._coordinator.now() < scan.deadline:
                continue  # others knew of the change before this node did
            if run.partitions == 1 or whole == len(pages):
                raise self._too_few(scan, whole, r)
            # A replica that may have forgotten something of one partition may be complete for its neighbours.
            partitions_max = 1
        try:
            return run, merge_pages(pages, scan.bucket.conflict, reverse=request.reverse)
        except RecordError as error:
            raise ServerBug(f"records of one key cannot be merged: {error}") from None

    def _horizons(self, ring: Ring, run: Run, heard: Mapping[int, int]) -> tuple[int, ...]:
        """By what horizons the run is asked for: the newest that this node knows, or has just heard of."""
        partitions = range(run.first, run.first + run.partitions)
        known = horizons_of(self._coordinator.replica, ring, partitions)
        newest = tuple(max(stamp, heard.get(at, 0)) for at, stamp in zip(partitions, known, strict=True))
        return newest if any(newest) else ()

    def _newer(self, run: Run, named: Sequence[int], pages: Sequence[ReplicaPage], heard: dict[int, int]) -> bool:
        """Whether replicas have heard of horizons newer than were named; they are noted."""
        newer = False
        for page in pages:
            for number, stamp in enumerate(page.horizons[: run.partitions]):
                if stamp > (named[number] if named else 0):
                    heard[run.first + number] = max(stamp, heard.get(run.first + number, 0))
                    newer = True
        if newer:
            self._coordinator.catch_up.fetch()
        return newer

    def _r_now(self, scan: _Scan) -> int:
        """R under the ring of this moment: "quorum" is another number when the ring has grown from one to three."""
        return _read_count(self._coordinator.view.buckets.get(scan.request.bucket_id, scan.bucket), scan.request)

    def _too_few(self, scan: _Scan, whole: int, r: int) -> LeafdbError:
        if self._coordinator.now() >= scan.deadline:
            text = f"{whole} of {r} replicas answered in time"
            return DeadlineExceeded(text, stage="replicas", got=whole, required=r)
        return not_enough(whole, r, "replicas that can answer")

    async def _gather(self, scan: _Scan, run: Run, ask: ScanRequest, r: int) -> list[ReplicaPage]:
        """Pages of the run, until R complete replicas have answered or there is nobody left to ask."""
        candidates = self._candidates(run)
        pages: list[ReplicaPage] = []
        while candidates:
            missing = r - sum(page.complete for page in pages)
            left_s = scan.deadline - self._coordinator.now()
            if missing <= 0 or left_s <= 0 or any(page.horizons for page in pages):
                break
            asked, candidates = candidates[:missing], candidates[missing:]
            # A replica that hangs must leave time for the one that takes its place.
            timeout_s = left_s / 2 if candidates else left_s
            async with trio.open_nursery() as nursery:
                for node in asked:
                    nursery.start_soon(self._collect, node, scan, ask, timeout_s, pages)
        return pages

    def _candidates(self, run: Run) -> list[NodeId]:
        """The primaries in the order in which they are asked: this node, then those that can be reached, in turn."""
        view = self._coordinator.view
        others = [node for node in run.primaries if node != view.self_id and node in view.usable]
        if len(others) > 1:
            turn = self._coordinator.turn(len(others))
            others = others[turn:] + others[:turn]
        return [view.self_id, *others] if view.self_id in run.primaries else others

    async def _collect(
        self, node: NodeId, scan: _Scan, ask: ScanRequest, timeout_s: float, pages: list[ReplicaPage]
    ) -> None:
        """Add one replica's page; where there is none it is another replica's turn."""
        try:
            if node == self._coordinator.view.self_id:
                with trio.move_on_after(timeout_s):
                    pages.append(await self._replica.read(ask, scan.bucket))
            else:
                pages.append(await self._ask(node, ask, timeout_s))
        except LeafdbError as error:
            log.info("a replica gave no page", member=self._coordinator.view.name_of(node), reason=str(error))

    async def _ask(self, node: NodeId, ask: ScanRequest, timeout_s: float) -> ReplicaPage:
        body = ask._replace(deadline_ms=max(1, int(timeout_s * 1000))).encode()
        # Pages are bulk, and must not stand before puts; but who can be reached is judged by the requests lane.
        lane = Lane.REQUESTS if self._peers.session(node, Lane.BULK) is None else Lane.BULK
        frame = await self._peers.call(node, lane, MessageType.REPLICA_SCAN, body, timeout_s)
        reply = ScanReply.decode(frame.body)
        page = ReplicaPage(reply.items, reply.next, reply.complete, reply.horizons)
        wrong = problem(page, ask.start, ask.stop, reverse=ask.reverse)
        if wrong is not None:
            raise ProtocolError(f"a page with {wrong}")
        return page

    def check(self) -> None:
        """The counts are within their bounds."""
        assert 0 <= self.running <= SCANS_MAX
        self._replica.check()


def _ring(coordinator: Coordinator) -> Ring:
    assert coordinator.view.ring is not None, "a node leaves no cluster while it runs"
    return coordinator.view.ring


def _read_count(bucket: BucketView, request: ScanRequest) -> int:
    """R as a plain count. Raises NotApplied, NotEnoughReplicas."""
    return bucket.read_policy(request.r, 0).r
