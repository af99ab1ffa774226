"""Looks at records without moving them: their outlines, here and at a peer, for who wants to know what would move."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import trio

from leafdb.errors import LeafdbError, NotApplied, Overloaded, ProtocolError, Reason, StorageError
from leafdb.limits import EXCHANGE_BYTES_MAX, EXCHANGE_KEYS_MAX
from leafdb.model.outline import Outline, outline_of
from leafdb.model.record import RecordError
from leafdb.node.record_messages import Look, Outlines, decode_outlines
from leafdb.node.record_mover import BUSY_TRIES, CALL_TIMEOUT_S, ExchangeFault, PeerCalls
from leafdb.node.record_store import RecordStore
from leafdb.node.view import BucketView
from leafdb.ring.token import TOKEN_BYTES, storage_key
from leafdb.types import BucketId, NodeId
from leafdb.wire.registry import Lane, MessageType

GROUP_KEYS: Final = 16
"""Read at once: their values are in memory for a moment."""


class RecordLooker:
    """Of one node. `bucket_of` finds a bucket by its number."""

    def __init__(
        self, store: RecordStore, peers: PeerCalls, bucket_of: Callable[[BucketId], BucketView | None]
    ) -> None:
        self._store = store
        self._peers = peers
        self._bucket_of = bucket_of

    async def own(self, bucket: BucketId, keys: Iterable[bytes]) -> list[Outline | None]:
        """The outlines of our records of these storage keys. Raises ExchangeFault."""
        found = self._bucket_of(bucket)
        if found is None:
            raise ExchangeFault("the bucket is gone")
        left, outlines = list(keys), list[Outline | None]()
        try:
            while left:
                records = await self._store.read(found, left[:GROUP_KEYS])
                outlines += [None if record is None else outline_of(record) for record in records]
                left = left[GROUP_KEYS:]
        except (StorageError, RecordError) as error:
            raise ExchangeFault(str(error)) from None
        return outlines

    async def theirs(self, peer: NodeId, bucket: BucketId, keys: Iterable[bytes]) -> list[Outline | None]:
        """Those of a peer. Raises ExchangeFault."""
        left, outlines = list(keys), list[Outline | None]()
        while left:
            asked = left[:EXCHANGE_KEYS_MAX]
            body = await self._call(peer, Look(bucket, tuple(key[TOKEN_BYTES:] for key in asked)).encode())
            try:
                answer = decode_outlines(body, len(asked)).outlines
            except ProtocolError as error:
                raise ExchangeFault(str(error)) from None
            outlines += answer
            left = left[len(answer) :]
        return outlines

    async def serve(self, request: Look) -> Outlines:
        """Answer a peer, with as many as one message holds. Raises NotApplied, ExchangeFault."""
        bucket = BucketId(request.bucket)
        try:
            left = [storage_key(bucket, key) for key in request.keys]
        except ValueError as error:
            raise NotApplied(f"a malformed key: {error}", reason=Reason.BAD_REQUEST) from None
        outlines: list[Outline | None] = []
        size = 0
        while left and size < EXCHANGE_BYTES_MAX:
            group = await self.own(bucket, left[:GROUP_KEYS])
            outlines += group
            size += sum(len(outline.hollow) for outline in group if outline is not None)
            left = left[GROUP_KEYS:]
        return Outlines(tuple(outlines))

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
