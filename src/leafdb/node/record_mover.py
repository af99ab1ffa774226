"""Moves records between two replicas that compare themselves: asks for the peer's, gives ours, and serves both.

Requests and answers travel in RECORDS frames on the bulk lane, at most EXCHANGE_KEYS_MAX keys and EXCHANGE_BYTES_MAX
bytes in each (one record always fits). What arrives is merged by `replica.merge` with the durability its bucket
promises, before it is answered for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, NamedTuple, Protocol, assert_never

import trio

from leafdb.errors import LeafdbError, NotApplied, Overloaded, ProtocolError, Reason, StorageError
from leafdb.limits import EXCHANGE_BYTES_MAX, EXCHANGE_KEYS_MAX, FRAME_BYTES_MAX, KIB
from leafdb.node.metrics import Metrics
from leafdb.node.outcomes import refusal_of, status_of
from leafdb.node.record_messages import (
    Fetch,
    Hold,
    Look,
    Mark,
    Offer,
    Outlines,
    Page,
    Pull,
    Records,
    RecordsRequest,
    Results,
    decode_page,
    decode_records,
    decode_results,
    digest_of,
)
from leafdb.node.record_store import Item, RecordStore
from leafdb.node.view import BucketView, ClusterView
from leafdb.quorum.messages import ReplicaStatus
from leafdb.ring.token import TOKEN_BYTES, split_storage_key, storage_key
from leafdb.types import BucketId, Durability, NodeId
from leafdb.wire.errors import encode_error
from leafdb.wire.frame import Frame, encode_frame
from leafdb.wire.handshake import Facts
from leafdb.wire.registry import Lane, MessageType

CALL_TIMEOUT_S: Final = 60.0
BUSY_TRIES: Final = 20
PAGE_GROUP_KEYS: Final = 16
"""Read at once while a message is filled: what does not fit any more was read in vain."""
RECORD_BYTES_SENT_MAX: Final = FRAME_BYTES_MAX - 64 * KIB
"""A merge of many large siblings may not fit into a frame; such a record stays where it is, and is reported."""


class ExchangeFault(Exception):
    """What keeps an exchange from going on: the reason, for people."""


class Peer(Protocol):
    """The session a request came on."""

    def send(self, frame: bytes) -> bool:
        """Queue one frame; False when the peer is gone or too slow."""


class PeerSession(Protocol):
    """An open session."""

    @property
    def facts(self) -> Facts:
        """Who the peer said it is."""


class PeerCalls(Protocol):
    """What is needed of `transport.peers.Peers`."""

    def send(self, node: NodeId, lane: Lane, frame: bytes) -> bool:
        """Queue a frame; False when there is no session."""

    def session(self, node: NodeId, lane: Lane) -> PeerSession | None:
        """The open session with a node."""

    async def call(self, node: NodeId, lane: Lane, message_type: int, body: bytes, timeout_s: float) -> Frame:
        """Ask and wait. Raises LeafdbError."""


class Fetched(NamedTuple):
    """What came of asking for records."""

    records: int
    size: int
    settled: list[bytes]
    """Keys of which both sides now hold the same record."""


class RecordMover:
    """Both ends of the movement of records, of one node."""

    def __init__(
        self,
        *,
        view: ClusterView,
        store: RecordStore,
        peers: PeerCalls,
        metrics: Metrics,
        marked: Callable[[Mark], Awaitable[None]],
        pulled: Callable[[NodeId, Pull], Awaitable[Page]],
        looked: Callable[[Look], Awaitable[Outlines]],
    ) -> None:
        """`marked`: a debt that another node passes on to this one; `pulled` answers a node that pages through a
        range, `looked` one that wants to know what records look like."""
        self._looked = looked
        self._pulled = pulled
        self._view = view
        self._store = store
        self._peers = peers
        self._metrics = metrics
        self._marked = marked

    # -- the side that asks; all raise ExchangeFault

    async def fetch(self, peer: NodeId, bucket: BucketId, keys: Iterable[bytes]) -> Fetched:
        """Get the peer's records of these storage keys and merge them here."""
        left = list(keys)
        records = size = 0
        settled: list[bytes] = []
        while left:
            asked = left[:EXCHANGE_KEYS_MAX]
            body = await self._call(peer, Fetch(bucket, tuple(key[TOKEN_BYTES:] for key in asked)).encode())
            try:
                answer = decode_records(body, len(asked)).records
            except ProtocolError as error:
                raise ExchangeFault(str(error)) from None
            items = [(key, record) for key, record in zip(asked, answer, strict=False) if record]
            settled += await self._take(bucket, items)
            records += len(items)
            size += sum(len(record) for _, record in items)
            left = left[len(answer) :]
        return Fetched(records, size, settled)

    async def _take(self, bucket: BucketId, items: list[Item]) -> list[bytes]:
        """Merge the peer's records; answers the keys for which that gave exactly the peer's record."""
        await self._merge(bucket, items)
        try:
            merged = await self._store.read(self._bucket(bucket), [key for key, _ in items])
        except StorageError as error:
            raise ExchangeFault(str(error)) from None
        return [key for (key, theirs), ours in zip(items, merged, strict=True) if ours == theirs]

    async def _merge(self, bucket: BucketId, items: list[Item]) -> None:
        for error in await self._store.merge(self._bucket(bucket), items):
            if error is not None:
                raise ExchangeFault(f"a record could not be merged here: {error}")
        self._metrics.exchange_keys_received_total += len(items)

    async def offer(self, peer: NodeId, bucket: BucketId, keys: Iterable[bytes]) -> tuple[int, int]:
        """Give the peer our records of these storage keys; answers how many it merged, and their bytes."""
        left = list(keys)
        sent = size = 0
        while left:
            try:
                items, taken = await self._page(self._bucket(bucket), left)
            except StorageError as error:
                raise ExchangeFault(str(error)) from None
            left = left[taken:]
            if items:
                await self._give(peer, bucket, items)
                sent += len(items)
                size += sum(len(record) for _, record in items)
        return sent, size

    async def entrust(self, peer: NodeId, bucket: BucketId, items: Sequence[Item], epoch: int) -> None:
        """Return when the peer, a holder of these records' range by its `epoch`, has every one of them on its disk, as
        it is or merged into more. What it has already does not travel: at most EXCHANGE_KEYS_MAX records."""
        digests = tuple(digest_of(record) for _, record in items)
        hold = Hold(bucket, epoch, tuple(key[TOKEN_BYTES:] for key, _ in items), digests)
        held = await self._results(peer, hold.encode(), len(items))
        if refused := [status for status in held if status not in (ReplicaStatus.APPLIED, ReplicaStatus.UNKNOWN)]:
            raise ExchangeFault(f"it does not take the range (status {refused[0]})")
        group: list[Item] = []
        size = 0
        for item, status in zip(items, held, strict=True):
            if status == ReplicaStatus.APPLIED:
                continue
            weight = len(item[0]) + len(item[1])
            if weight > RECORD_BYTES_SENT_MAX:
                raise ExchangeFault(f"a record of {weight} bytes is too large to travel")
            if group and size + weight > EXCHANGE_BYTES_MAX:
                await self._give(peer, bucket, group, epoch)
                group, size = [], 0
            group.append(item)
            size += weight
        if group:
            await self._give(peer, bucket, group, epoch)

    async def _give(self, peer: NodeId, bucket: BucketId, items: list[Item], epoch: int = 0) -> None:
        keys, records = tuple(key[TOKEN_BYTES:] for key, _ in items), tuple(record for _, record in items)
        results = await self._results(peer, Offer(bucket, keys, records, epoch).encode(), len(items))
        refused = [status for status in results if status != ReplicaStatus.APPLIED]
        self._metrics.exchange_keys_sent_total += len(items) - len(refused)
        if refused:
            raise ExchangeFault(f"{len(refused)} of {len(items)} records were not taken (status {refused[0]})")

    async def pass_on(self, owner: NodeId, mark: Mark) -> None:
        """Hand a debt to a node that holds the range; returns when that node has it on its disk."""
        (status,) = await self._results(owner, mark.encode(), 1)
        if status != ReplicaStatus.APPLIED:
            raise ExchangeFault(f"the mark was not taken (status {status})")

    async def _results(self, peer: NodeId, body: bytes, records: int) -> tuple[int, ...]:
        """What a peer says of so many records."""
        try:
            return decode_results(await self._call(peer, body), records).results
        except ProtocolError as error:
            raise ExchangeFault(str(error)) from None

    async def pull(self, source: NodeId, request: Pull) -> Page:
        """The next page of the source's copy of a range."""
        try:
            return decode_page(await self._call(source, request.encode()))
        except ProtocolError as error:
            raise ExchangeFault(str(error)) from None

    def require_room(self) -> None:
        """To be asked before anything is moved here: what could not be kept need not travel."""
        try:
            self._store.require_room()
        except StorageError as error:
            raise ExchangeFault(f"nothing can be merged here: {error}") from None

    async def take_page(self, bucket: BucketId, items: list[Item]) -> None:
        """Merge the records of a page; returns when they are as durable as the bucket promises."""
        await self._merge(bucket, items)

    async def same(self, bucket: BucketId, items: list[Item]) -> int:
        """How many of these records this node holds just so."""
        try:
            held = await self._store.read(self._bucket(bucket), [key for key, _ in items])
        except StorageError as error:
            raise ExchangeFault(str(error)) from None
        return sum(ours == theirs for (_, theirs), ours in zip(items, held, strict=True))

    async def _call(self, peer: NodeId, body: bytes) -> bytes:
        for _ in range(BUSY_TRIES):
            try:
                frame = await self._peers.call(peer, Lane.BULK, MessageType.RECORDS, body, CALL_TIMEOUT_S)
            except Overloaded as error:
                await trio.sleep(max(0.05, error.retry_after))
            except LeafdbError as error:
                raise ExchangeFault(str(error)) from None
            else:
                return frame.body
        raise ExchangeFault("the peer has too much to do")

    def _bucket(self, bucket: BucketId) -> BucketView:
        found = self._view.buckets.get(bucket)
        if found is None:
            raise ExchangeFault("the bucket is gone")
        return found

    async def _page(self, bucket: BucketView, keys: list[bytes]) -> tuple[list[Item], int]:
        """Records of the first of these storage keys, as many as one message holds, and how many keys that were."""
        items: list[Item] = []
        size = taken = 0
        keys = keys[:EXCHANGE_KEYS_MAX]
        while taken < len(keys):
            group = keys[taken : taken + PAGE_GROUP_KEYS]
            for key, record in zip(group, await self._store.read(bucket, group), strict=True):
                weight = len(key) + len(record or b"")
                if taken and size + weight > EXCHANGE_BYTES_MAX:
                    return items, taken
                if weight > RECORD_BYTES_SENT_MAX:
                    raise ExchangeFault(f"a record of {weight} bytes is too large to travel")
                taken += 1
                size += weight
                if record is not None:
                    items.append((key, record))
        return items, taken

    # -- the side that is asked

    async def serve(self, session: Peer, node: NodeId, request_id: int, request: RecordsRequest) -> None:
        """Answer a RECORDS frame of `node`."""
        try:
            match request:
                case Fetch():
                    body = (await self._serve_fetch(request)).encode()
                case Offer():
                    body = (await self._serve_offer(request)).encode()
                case Hold():
                    body = (await self._serve_hold(request)).encode()
                case Look():
                    body = (await self._looked(request)).encode()
                case Pull():
                    body = (await self._pulled(node, request)).encode()
                case Mark():
                    await self._marked(request)
                    body = Results((ReplicaStatus.APPLIED,)).encode()
                case _:
                    assert_never(request)
        except (StorageError, LeafdbError, ExchangeFault) as error:
            if isinstance(error, ExchangeFault):
                refusal: LeafdbError = NotApplied(str(error), reason=Reason.FAILED)
            else:
                refusal = refusal_of(error)
            session.send(encode_frame(MessageType.ERROR, request_id, encode_error(refusal)))
            return
        session.send(encode_frame(MessageType.RECORDS_REPLY, request_id, body))

    async def _serve_fetch(self, request: Fetch) -> Records:
        bucket = self._bucket(BucketId(request.bucket))
        keys = _storage_keys(bucket, request.keys)
        items, taken = await self._page(bucket, keys)
        found = dict(items)
        self._metrics.exchange_keys_sent_total += len(items)
        return Records(tuple(found.get(key, b"") for key in keys[:taken]))

    async def _serve_offer(self, request: Offer) -> Results:
        bucket = self._bucket(BucketId(request.bucket))
        keys = _storage_keys(bucket, request.keys)
        results = self._refusals(bucket, keys, request.epoch)
        ours = [place for place, refusal in enumerate(results) if not refusal]
        durability = Durability.ALWAYS if request.epoch else None
        errors = await self._store.merge(bucket, [(keys[place], request.records[place]) for place in ours], durability)
        after = self._refusals(bucket, keys, request.epoch) if request.epoch else results
        for place, error in zip(ours, errors, strict=True):
            results[place] = after[place] or int(ReplicaStatus.APPLIED if error is None else status_of(error))
        self._metrics.exchange_keys_received_total += results.count(ReplicaStatus.APPLIED)
        return Results(tuple(results))

    async def _serve_hold(self, request: Hold) -> Results:
        bucket = self._bucket(BucketId(request.bucket))
        keys = _storage_keys(bucket, request.keys)
        records = await self._store.read(bucket, keys, Durability.ALWAYS)
        results = self._refusals(bucket, keys, request.epoch)
        for place, (record, digest) in enumerate(zip(records, request.digests, strict=True)):
            held = record is not None and digest_of(record) == digest
            results[place] = results[place] or int(ReplicaStatus.APPLIED if held else ReplicaStatus.UNKNOWN)
        return Results(tuple(results))

    def _refusals(self, bucket: BucketView, keys: Iterable[bytes], epoch: int) -> list[int]:
        """For each storage key why this node does not take its record, 0 if it does: it is no holder, or `epoch`, if
        there is one, is not that of the range here.

        Who drops its copy on our word needs this to be so *after* our commit: then no later change of the ring can
        pass the record by, for it begins with a copy of what is in our store. (leftovers.py)
        """
        ring, own = self._view.ring, self._view.self_id
        assert ring is not None, "buckets come with a ring"
        found: list[int] = []
        for key in keys:
            partition = ring.partition_of(split_storage_key(key)[0])
            if not ring.is_primary(own, partition, bucket.properties.n):
                found.append(int(ReplicaStatus.REFUSED_NOT_REPLICA))
            else:
                stale = epoch and epoch != ring.range_epoch(partition)
                found.append(int(ReplicaStatus.REFUSED_STALE_EPOCH) if stale else 0)
        return found


def _storage_keys(bucket: BucketView, keys: Iterable[bytes]) -> list[bytes]:
    try:
        return [storage_key(bucket.id, key) for key in keys]
    except ValueError as error:
        raise NotApplied(f"a malformed key: {error}", reason=Reason.BAD_REQUEST) from None
