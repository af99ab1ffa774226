"""What other coordinators ask of this node's replica: merge this record, show me that one.

A request is executed only if both sides mean the same ring and bucket: a sender behind is told, a sender ahead waits
while this node catches up, and is refused if its deadline has passed by then. A copy for an absent primary is kept as
that primary's hint, never in the bucket's own tree. In a plan old and new owners take copies alike; one that is still
copying the range answers as incomplete: what it has, and that it may not be all.

A get names the newest horizon that its coordinator knows of. What counts is what a store vouches for below that one and
its own; whoever does not vouch shows what lies above both. Who knows of a newer one says only that: others have been
asked by the old one, and it is a round trip in the second in which a horizon spreads. It is asked when the record is
there, for a sweep by the newer horizon may have come before it was read. A get that asks about an operation names no
horizon: what comes of it is merged, and admitted there (quorum/get_operation, retried_put).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from leafdb.errors import ProtocolError, StorageError
from leafdb.model.key import partition_part
from leafdb.node.catch_up import CatchUp
from leafdb.node.completeness import Completeness
from leafdb.node.hint_keeper import HintKeeper
from leafdb.node.key_queue import ReplicaOverloaded
from leafdb.node.outcomes import status_of
from leafdb.node.replica import Found, Replica
from leafdb.node.view import BucketView, ClusterView
from leafdb.quorum.messages import (
    FLAG_DURABLE,
    MalformedMessage,
    ReplicaGet,
    ReplicaPut,
    ReplicaStatus,
    decode_replica_get,
    decode_replica_put,
    encode_newer_horizon,
    encode_replaced,
    encode_reply,
)
from leafdb.ring.token import token_of
from leafdb.types import Durability, NodeId, PartitionId
from leafdb.wire.frame import encode_frame
from leafdb.wire.registry import MessageType


class Peer(Protocol):
    """The session a request came on."""

    def send(self, frame: bytes) -> bool:
        """Queue one frame; False when the peer is gone or too slow."""


class ReplicaService:
    """Serves REPLICA_PUT and REPLICA_GET."""

    def __init__(
        self,
        *,
        view: ClusterView,
        replica: Replica,
        hints: HintKeeper,
        completeness: Completeness,
        catch_up: CatchUp,
        now: Callable[[], float],
    ) -> None:
        self._view = view
        self._replica = replica
        self._hints = hints
        self._completeness = completeness
        self._catch_up = catch_up
        self._now = now

    def put(self, session: Peer, request_id: int, body: bytes, deadline: float | None = None) -> None:
        """Merge a record a coordinator sent; answers when it is as durable as its bucket promises.

        One that has waited for metadata keeps its `deadline`.
        """
        try:
            message = decode_replica_put(body)
        except MalformedMessage as error:
            raise ProtocolError(str(error)) from None
        placed = self._place(message, partial(self.put, session, request_id, body), deadline)
        if placed is None:
            return
        if isinstance(placed, ReplicaStatus):
            self._put_answer(session, request_id, placed)
            return
        bucket, storage_key, _, holder = placed
        done = partial(self._merged, session, request_id)
        try:
            self._replica.admit()
        except (ReplicaOverloaded, StorageError) as error:
            self._put_answer(session, request_id, status_of(error))
            return
        if message.hint_target:
            target = NodeId(message.hint_target)
            self._hints.keep(target, bucket, storage_key, message.record, done)
        elif holder:
            durability = Durability.ALWAYS if message.flags & FLAG_DURABLE else bucket.durability
            self._replica.merge(bucket.tree, storage_key, message.record, bucket.conflict, durability, done)
        else:
            self._put_answer(session, request_id, ReplicaStatus.REFUSED_NOT_REPLICA)

    def get(self, session: Peer, request_id: int, body: bytes, deadline: float | None = None) -> None:
        """Show a coordinator this node's record of a key. One that has waited for metadata keeps its `deadline`."""
        try:
            message = decode_replica_get(body)
        except MalformedMessage as error:
            raise ProtocolError(str(error)) from None
        placed = self._place(message, partial(self.get, session, request_id, body), deadline)
        if placed is None:
            return
        if isinstance(placed, ReplicaStatus):
            session.send(encode_frame(MessageType.REPLICA_GET_REPLY, request_id, encode_reply(placed)))
            return
        bucket, storage_key, partition, holder = placed
        horizon = message.horizon
        definitive = holder and self._completeness.definitive(bucket, partition, horizon)
        done: Found = partial(self._found, session, request_id, definitive, not holder)
        if message.op_id:
            done = partial(self._told, session, request_id, bucket, storage_key, message.op_id, done)
        else:
            done = partial(self._unless_newer, session, request_id, storage_key, horizon, done)
        if holder:
            self._replica.show(bucket.tree, storage_key, bucket.durability, horizon, done)
        else:
            self._hints.read_fallback(bucket, partition, storage_key, horizon, done)

    def _place(
        self, message: ReplicaPut | ReplicaGet, retry: Callable[[float], None], deadline: float | None
    ) -> tuple[BucketView, bytes, PartitionId, bool] | ReplicaStatus | None:
        """(bucket, storage key, partition, whether we hold it); a status refuses; None waits for metadata.

        `deadline` is that of a request that has waited, on this node's clock.
        """
        if not message.deadline_ms or (deadline is not None and self._now() >= deadline):
            return ReplicaStatus.REFUSED_EXPIRED
        try:
            part = partition_part(message.key)
        except ValueError as error:
            raise ProtocolError(f"a malformed key: {error}") from None
        view = self._view
        bucket = view.buckets.get(message.bucket_id)
        ring = view.ring
        if bucket is None or ring is None or bucket.generation < message.generation:
            return None if self._waits(message, retry) else ReplicaStatus.REFUSED_NO_BUCKET
        if bucket.generation > message.generation:
            return ReplicaStatus.REFUSED_STALE_EPOCH
        token = token_of(bucket.id, part)
        partition = ring.partition_of(token)
        range_epoch = ring.range_epoch(partition)
        if message.range_epoch != range_epoch:
            if message.range_epoch < range_epoch:
                return ReplicaStatus.REFUSED_STALE_EPOCH
            return None if self._waits(message, retry) else ReplicaStatus.REFUSED_STALE_EPOCH
        holder = view.self_id in ring.holders(partition, bucket.properties.n)
        return bucket, token.to_bytes(8, "big") + message.key, partition, holder

    def _waits(self, message: ReplicaPut | ReplicaGet, retry: Callable[[float], None]) -> bool:
        return self._catch_up.wait(partial(retry, self._now() + message.deadline_ms / 1000))

    def _merged(self, session: Peer, request_id: int, error: Exception | None) -> None:
        self._put_answer(session, request_id, ReplicaStatus.APPLIED if error is None else status_of(error))

    def _put_answer(self, session: Peer, request_id: int, status: ReplicaStatus) -> None:
        session.send(encode_frame(MessageType.REPLICA_PUT_REPLY, request_id, encode_reply(status)))

    def _found(
        self,
        session: Peer,
        request_id: int,
        definitive: bool,
        fallback: bool,
        value: bytes | None,
        error: Exception | None,
    ) -> None:
        if error is not None:
            reply = encode_reply(status_of(error))
        elif value is None:
            reply = encode_reply(ReplicaStatus.ABSENT if definitive else ReplicaStatus.UNKNOWN)
        else:
            reply = encode_reply(ReplicaStatus.FOUND if definitive or fallback else ReplicaStatus.UNKNOWN, value)
        session.send(encode_frame(MessageType.REPLICA_GET_REPLY, request_id, reply))

    def _unless_newer(
        self,
        session: Peer,
        request_id: int,
        storage_key: bytes,
        horizon: int,
        as_ever: Found,
        value: bytes | None,
        error: Exception | None,
    ) -> None:
        """The answer to one who knows of that `horizon`: that there is a newer one, if there is; else the record."""
        newest = self._replica.horizon_at(storage_key)
        if newest <= horizon:
            as_ever(value, error)
            return
        reply = encode_reply(ReplicaStatus.NEWER_HORIZON, encode_newer_horizon(newest))
        session.send(encode_frame(MessageType.REPLICA_GET_REPLY, request_id, reply))

    def _told(
        self,
        session: Peer,
        request_id: int,
        bucket: BucketView,
        storage_key: bytes,
        op_id: bytes,
        as_ever: Found,
        value: bytes | None,
        error: Exception | None,
    ) -> None:
        """The answer about an operation: that it was replaced, if that is remembered; else the record, as ever."""
        dot = self._replica.operations.dot_in(op_id, bucket.tree, storage_key)
        if dot is None or error is not None:
            as_ever(value, error)
            return
        reply = encode_reply(ReplicaStatus.REPLACED, encode_replaced(*dot, value or b""))
        session.send(encode_frame(MessageType.REPLICA_GET_REPLY, request_id, reply))
