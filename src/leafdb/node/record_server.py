"""The side that is asked for records, or given some: serves the RECORDS frames of peers (`record_mover` sends them).

What belongs to an exchange is shown and taken only while that exchange is under way here, by its accord, and within its
range: its terms are those of two known stores, and of no others.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import assert_never

from leafdb.errors import LeafdbError, NotApplied, Reason, StorageError
from leafdb.node.accords import Accord
from leafdb.node.exchange_terms import Terms
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
    Restore,
    Results,
    digest_of,
)
from leafdb.node.record_mover import ExchangeFault, Peer, judge, page_of
from leafdb.node.record_store import Item, RecordStore
from leafdb.node.view import BucketView, ClusterView
from leafdb.quorum.messages import ReplicaStatus
from leafdb.ring.token import split_storage_key, storage_key
from leafdb.types import BucketId, Durability, NodeId
from leafdb.wire.errors import encode_error
from leafdb.wire.frame import encode_frame
from leafdb.wire.registry import MessageType

Take = Callable[[Sequence[Item]], Awaitable[list[Exception | None]]]
"""Merges records; the error of each that was not."""


class RecordServer:
    """Of one node."""

    def __init__(
        self,
        *,
        view: ClusterView,
        store: RecordStore,
        restores: RecordStore,
        metrics: Metrics,
        marked: Callable[[Mark], Awaitable[None]],
        pulled: Callable[[NodeId, Pull], Awaitable[Page]],
        looked: Callable[[Look], Awaitable[Outlines]],
        accord: Callable[[NodeId, int], Accord | None],
    ) -> None:
        """`restores`: the same records, at the pace of a restore. `marked`: a debt that another node passes on to this
        one; `pulled` answers a node that pages through a range, `looked` one that wants to know what records look like.
        `accord` is that of an exchange which a peer began under a number."""
        self._view = view
        self._store = store
        self._restores = restores
        self._metrics = metrics
        self._marked = marked
        self._pulled = pulled
        self._looked = looked
        self._accord = accord

    def _bucket(self, bucket: BucketId) -> BucketView:
        found = self._view.buckets.get(bucket)
        if found is None:
            raise ExchangeFault("the bucket is gone")
        return found

    async def serve(self, session: Peer, node: NodeId, request_id: int, request: RecordsRequest) -> None:
        """Answer a RECORDS frame of `node`."""
        try:
            match request:
                case Fetch():
                    body = (await self._serve_fetch(node, request)).encode()
                case Offer(epoch=0):
                    body = (await self._serve_exchanged(node, request)).encode()
                case Offer():
                    body = (await self._serve_offer(request)).encode()
                case Restore():
                    body = Results(await self.restore(request)).encode()
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

    def _agreed(self, node: NodeId, request: Fetch | Offer, keys: Iterable[bytes]) -> Accord:
        """By what a record of an exchange that `node` began moves. Raises NotApplied."""
        accord = self._accord(node, request.exchange)
        if accord is None or accord.spoilt or accord.terms is None:
            why = "no such exchange is under way" if accord is None else accord.spoilt
            raise NotApplied(f"the records belong to an exchange that is over: {why}", reason=Reason.FAILED)
        ring = self._view.ring
        assert ring is not None, "exchanges come with a ring"
        partitions = {ring.partition_of(split_storage_key(key)[0]) for key in keys}
        if request.bucket != accord.bucket or partitions != {accord.partition}:
            raise NotApplied("the exchange is of another range", reason=Reason.BAD_REQUEST)
        return accord

    async def _serve_fetch(self, node: NodeId, request: Fetch) -> Records:
        bucket = self._bucket(BucketId(request.bucket))
        keys = _storage_keys(bucket, request.keys)
        accord = self._agreed(node, request, keys)
        items, taken = await page_of(self._store, bucket, keys)
        if accord.spoilt:
            raise ExchangeFault(accord.spoilt)
        found = dict(items)
        self._metrics.exchange_keys_sent_total += len(items)
        return Records(tuple(found.get(key, b"") for key in keys[:taken]))

    async def _serve_exchanged(self, node: NodeId, request: Offer) -> Results:
        bucket = self._bucket(BucketId(request.bucket))
        keys = _storage_keys(bucket, request.keys)
        accord = self._agreed(node, request, keys)
        if not all(request.records) and accord.terms is not Terms.MADE_WHOLE:
            raise NotApplied("nothing is told where this store vouches for what it has", reason=Reason.BAD_REQUEST)
        results = self._refusals(bucket, keys, 0)
        if not any(results):
            told = [(key, record or None) for key, record in zip(keys, request.records, strict=True)]
            judge(await self._store.exchange(bucket, told, accord))
            results = [int(ReplicaStatus.APPLIED)] * len(keys)
        self._metrics.exchange_keys_received_total += sum(map(bool, request.records))
        return Results(tuple(results))

    async def _serve_offer(self, request: Offer) -> Results:
        bucket = self._bucket(BucketId(request.bucket))
        results = await self._held(bucket, request, lambda items: self._store.merge(bucket, items, Durability.ALWAYS))
        self._metrics.exchange_keys_received_total += results.count(ReplicaStatus.APPLIED)
        return Results(results)

    async def restore(self, request: Restore) -> tuple[int, ...]:
        """Take records of a backup here; a ReplicaStatus for each. Raises ExchangeFault, NotApplied, StorageError."""
        bucket = self._bucket(BucketId(request.bucket))
        results = await self._held(bucket, request, partial(self._restores.restore, bucket))
        self._metrics.records_restored_total += results.count(ReplicaStatus.APPLIED)
        return results

    async def _held(self, bucket: BucketView, request: Offer | Restore, take: Take) -> tuple[int, ...]:
        """Take records as a holder of their ranges by the epoch of the request, which it must be afterwards too."""
        keys = _storage_keys(bucket, request.keys)
        results = self._refusals(bucket, keys, request.epoch)
        ours = [place for place, refusal in enumerate(results) if not refusal]
        errors = await take([(keys[place], request.records[place]) for place in ours])
        after = self._refusals(bucket, keys, request.epoch)
        for place, error in zip(ours, errors, strict=True):
            results[place] = after[place] or int(ReplicaStatus.APPLIED if error is None else status_of(error))
        return tuple(results)

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
