"""Moves records between two replicas that compare themselves: asks for the peer's, gives ours, and serves both.

Requests and answers travel in RECORDS frames on the bulk lane, at most EXCHANGE_KEYS_MAX keys and EXCHANGE_BYTES_MAX
bytes in each (one record always fits). What arrives is as durable as its bucket promises before it is answered for.

What belongs to an exchange is taken by its accord (`accords`), on both sides, and refused when there is none: the
asking side names the exchange. "Nothing here" is told too, to who is made whole. Anything else is a message:
`replica.merge`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol

import trio

from leafdb.errors import LeafdbError, Overloaded, ProtocolError, StorageError
from leafdb.limits import EXCHANGE_BYTES_MAX, EXCHANGE_KEYS_MAX, FRAME_BYTES_MAX, KIB
from leafdb.node.accords import Accord
from leafdb.node.metrics import Metrics
from leafdb.node.record_messages import (
    Fetch,
    Hold,
    Mark,
    Offer,
    Page,
    Pull,
    Restore,
    decode_page,
    decode_records,
    decode_results,
    digest_of,
)
from leafdb.node.record_store import Item, RecordStore, Told
from leafdb.node.view import BucketView, ClusterView
from leafdb.quorum.messages import ReplicaStatus
from leafdb.ring.token import TOKEN_BYTES
from leafdb.types import BucketId, NodeId
from leafdb.wire.frame import Frame
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
    """The side that asks, of one node; `record_server` answers."""

    def __init__(
        self,
        view: ClusterView,
        store: RecordStore,
        peers: PeerCalls,
        metrics: Metrics,
    ) -> None:
        self._view = view
        self._store = store
        self._peers = peers
        self._metrics = metrics

    # -- all raise ExchangeFault

    async def fetch(self, accord: Accord, keys: Iterable[bytes]) -> Fetched:
        """Get the peer's records of these storage keys and take them here."""
        left, peer, bucket = list(keys), accord.peer, accord.bucket
        records = size = 0
        settled: list[bytes] = []
        while left:
            asked = left[:EXCHANGE_KEYS_MAX]
            request = Fetch(bucket, tuple(key[TOKEN_BYTES:] for key in asked), accord.number)
            body = await self._call(peer, request.encode())
            try:
                answer = decode_records(body, len(asked)).records
            except ProtocolError as error:
                raise ExchangeFault(str(error)) from None
            items = [(key, record or None) for key, record in zip(asked, answer, strict=False)]
            settled += await self._take(bucket, items, accord)
            found = [record for _, record in items if record is not None]
            records += len(found)
            size += sum(map(len, found))
            left = left[len(answer) :]
        return Fetched(records, size, settled)

    async def _take(self, bucket: BucketId, items: list[Told], accord: Accord) -> list[bytes]:
        """Take what the peer has; answers the keys of which exactly that is here now."""
        errors = await self._store.exchange(self._bucket(bucket), items, accord)
        judge(errors)
        self._metrics.exchange_keys_received_total += sum(record is not None for _, record in items)
        try:
            merged = await self._store.read(self._bucket(bucket), [key for key, _ in items])
        except StorageError as error:
            raise ExchangeFault(str(error)) from None
        return [key for (key, theirs), ours in zip(items, merged, strict=True) if ours == theirs]

    async def offer(self, accord: Accord, keys: Iterable[bytes]) -> tuple[int, int]:
        """Give the peer our records of these storage keys, and if it is made whole by us say where we have none;
        answers how many records it took, and their bytes."""
        left, peer, bucket = list(keys), accord.peer, accord.bucket
        sent = size = 0
        while left:
            try:
                items, taken = await page_of(self._store, self._bucket(bucket), left)
            except StorageError as error:
                raise ExchangeFault(str(error)) from None
            if accord.spoilt:
                raise ExchangeFault(accord.spoilt)
            asked, left = left[:taken], left[taken:]
            records = dict(items)
            told = [(key, records.get(key, b"")) for key in asked if accord.restores or key in records]
            if told:
                await self._give(peer, bucket, told, accord.number)
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
                await self._entrust(peer, bucket, group, epoch)
                group, size = [], 0
            group.append(item)
            size += weight
        if group:
            await self._entrust(peer, bucket, group, epoch)

    async def restore(self, peer: NodeId, request: Restore) -> tuple[int, ...]:
        """Give the peer records of a backup, as many as one message holds; a ReplicaStatus for each."""
        return await self._results(peer, request.encode(), len(request.keys))

    async def _entrust(self, peer: NodeId, bucket: BucketId, items: list[Item], epoch: int) -> None:
        await self._offer(peer, Offer(bucket, *_told(items), epoch=epoch))

    async def _give(self, peer: NodeId, bucket: BucketId, items: list[Item], exchange: int) -> None:
        await self._offer(peer, Offer(bucket, *_told(items), exchange=exchange))

    async def _offer(self, peer: NodeId, offer: Offer) -> None:
        results = await self._results(peer, offer.encode(), len(offer.keys))
        refused = [status for status in results if status != ReplicaStatus.APPLIED]
        self._metrics.exchange_keys_sent_total += sum(map(bool, offer.records)) - len(refused)
        if refused:
            raise ExchangeFault(f"{len(refused)} of {len(results)} records were not taken (status {refused[0]})")

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

    async def take_page(self, items: list[Item], accord: Accord) -> None:
        """Take the records of a page; returns when they are as durable as the bucket promises."""
        judge(await self._store.exchange(self._bucket(accord.bucket), items, accord))
        self._metrics.exchange_keys_received_total += len(items)

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


def judge(errors: Iterable[Exception | None]) -> None:
    """What came of taking records of an exchange: ExchangeFault unless all went well."""
    problems = [error for error in errors if error is not None]
    if problems:
        raise ExchangeFault(f"a record could not be taken here: {problems[0]}")


async def page_of(store: RecordStore, bucket: BucketView, keys: list[bytes]) -> tuple[list[Item], int]:
    """Records of the first of these storage keys, as many as one message holds, and how many keys that were. Raises
    StorageError, ExchangeFault."""
    items: list[Item] = []
    size = taken = 0
    keys = keys[:EXCHANGE_KEYS_MAX]
    while taken < len(keys):
        group = keys[taken : taken + PAGE_GROUP_KEYS]
        for key, record in zip(group, await store.read(bucket, group), strict=True):
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


def _told(items: Sequence[Item]) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Keys and records as they travel."""
    return tuple(key[TOKEN_BYTES:] for key, _ in items), tuple(record for _, record in items)
