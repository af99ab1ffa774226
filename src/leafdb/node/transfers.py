"""The copies that a change of the ring asks of this node: which are owed, when one may begin, how far they are.

A new owner of a range, also one that stays, owes every old owner that is not given up an exchange (decision 0007).
These are debts of anti-entropy like others, worked off by the same workers; beside them `transfer_progress` knows which
of them the plan waits for. A session that breaks later makes debts again, but no copies: once both sides had the
range's new epoch, whatever an old owner takes is written to the new ones too. One thing alone reaches an old owner past
that rule, a hint that comes late: then it owes the new owners.

What keeps the copies true:

- both sides of an exchange mean the same owners (`range_epoch` in COMPARE and in pulls); a change spoils what is under
  way;
- nobody begins, and nobody answers, while a mutation admitted under the owners before waits for the disk;
- a range that is to be pulled (`range_pull`) is exchanged with nobody before that, and this node does not say what is
  absent from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final

from leafdb.node.accords import Accord
from leafdb.node.changing_ranges import ChangingRanges
from leafdb.node.completeness import Completeness
from leafdb.node.debts import Claim, Masks, bits
from leafdb.node.horizons import Horizons
from leafdb.node.key_queue import KeyQueue
from leafdb.node.logs import Log
from leafdb.node.metrics import Metrics
from leafdb.node.range_pull import RangePull
from leafdb.node.rate_limit import RateLimit
from leafdb.node.record_mover import RecordMover
from leafdb.node.shared_ranges import SharedRanges
from leafdb.node.transfer_progress import Slot, TransferProgress
from leafdb.node.transfer_report import BucketTransfer, TransferReport, Waiting
from leafdb.node.transfer_sizes import TransferSizes
from leafdb.node.view import ClusterView
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.token import split_storage_key
from leafdb.types import BucketId, NodeId, PartitionId

PAID_S_MAX: Final = 5.0
"""The longest wait of an exchange for its bytes, which others of this node wait for; pulls pay what is left."""
USELESS_S: Final = 30.0
"""A source that may have forgotten something may be whole again after that."""
REASON: Final = "the ring is changing"

log: Log = Log("transfers")


class Transfers:
    """See the top of this file. `owe` makes debts for a reason; `connected` says whether a peer can be reached."""

    def __init__(
        self,
        *,
        view: ClusterView,
        ranges: ChangingRanges,
        shared: SharedRanges,
        progress: TransferProgress,
        completeness: Completeness,
        queue: KeyQueue,
        mover: RecordMover,
        metrics: Metrics,
        now: Callable[[], float],
        owe: Callable[[Masks, str], None],
        connected: Callable[[NodeId], bool],
        horizons: Horizons,
        agreed: Callable[[NodeId, Slot], AbstractContextManager[Accord]],
    ) -> None:
        """`agreed`: by what the pages of a source are taken."""
        self._horizons = horizons
        self.progress = progress
        self._view = view
        self._ranges = ranges
        self._shared = shared
        self._completeness = completeness
        self._queue = queue
        self._metrics = metrics
        self._now = now
        self._owe = owe
        self._connected = connected
        self._limit = RateLimit(now)
        self._sizes = TransferSizes(now)
        self._pull = RangePull(
            view=view,
            mover=mover,
            progress=progress,
            sizes=self._sizes,
            limit=self._limit,
            received=self._received,
            agreed=agreed,
        )
        self._pulling: Slot | None = None
        self._useless: dict[tuple[NodeId, BucketId], int] = {}
        """Partitions of which a source has no copy worth reading; forgotten when the ring changes, and after a time."""
        self._useless_until = 0.0
        self._pulled_from: dict[NodeId, int] = {}
        self._held: dict[BucketId, int] = {}
        """What this node held, while there is a plan."""
        self._apart_since: dict[NodeId, float] = {}
        self._last_error = ""
        self._first = True

    # -- the ring changes

    def installed(self, metadata: ClusterMetadata, *, again: bool = False) -> Mapping[BucketId, int]:
        """New metadata is in force; answers the partitions, by bucket, that this node holds no more. `again`: what this
        store may have forgotten it must copy once more."""
        progress = self.progress
        for bucket in progress.buckets() - self._view.buckets.keys():
            progress.forget_bucket(BucketId(bucket))
        plan = self._ranges.plan
        self._useless.clear()
        if plan is None:
            progress.end()
            self._sizes.clear()
            self._pulled_from.clear()
            self._last_error = ""
        elif plan.epoch != progress.plan_epoch:
            self._horizons.retract(bits(self._arriving()), "it is a new owner")
            masks = self._ranges.to_copy()
            self._owe(masks, REASON)
            progress.begin(plan.epoch, self._waited_for(masks))
            log.info("copies to be made", exchanges=progress.total, plan=plan.id.hex())
        elif self._first or again:
            self._again()
        progress.copies.keep(self._ranges.between)
        self._first = False
        self._note_apart()
        return self._note_held(metadata)

    def _again(self) -> None:
        """What this store may have forgotten it must copy again, also what the plan knew it to have."""
        forgotten = sum(1 << partition for partition in self._completeness.incomplete)
        masks = {slot: mask & forgotten for slot, mask in self._ranges.to_copy().items()}
        self._owe(masks, REASON)
        self.progress.owe(self._waited_for(masks))

    def _waited_for(self, masks: Masks) -> Masks:
        """Who is given up is asked as well, and waited for by nobody."""
        plan = self._ranges.plan
        given_up = plan.given_up if plan is not None else ()
        return {slot: mask for slot, mask in masks.items() if slot[0] not in given_up}

    def _note_held(self, metadata: ClusterMetadata) -> Mapping[BucketId, int]:
        own = self._view.self_id
        lost = {bucket: mask & ~self._shared.held(own, bucket) for bucket, mask in self._held.items()}
        self._held = {}
        if metadata.plan is not None:
            self._held = {BucketId(bucket): self._shared.held(own, BucketId(bucket)) for bucket in self._view.buckets}
        return {bucket: mask for bucket, mask in lost.items() if mask}

    def hint_taken(self, bucket: BucketId, storage_key: bytes) -> bool:
        """A hint was merged here: it may be of a write that only old owners acknowledged. Answers whether this node
        owes anybody anything for it."""
        ring, plan = self._view.ring, self._ranges.plan
        if plan is None or ring is None or not self._ranges.is_older(bucket):
            return False
        bit = 1 << ring.partition_of(split_storage_key(storage_key)[0])
        if not bit & self._ranges.old(self._view.self_id, bucket):
            return False
        members = self._view.metadata.members if self._view.metadata is not None else ()
        masks = {(peer, bucket): bit & self._ranges.new(peer, bucket) for peer in members if peer != self._view.self_id}
        self._owe(masks, "hints came late")
        self.progress.owe(masks)
        return True

    # -- when what may begin

    def closed(self, peer: NodeId, bucket: BucketId) -> int:
        """The partitions in which this node may not begin an exchange with `peer` now."""
        changing = self._ranges.changing(bucket)
        if not changing:
            return 0
        closed = changing if self._queue.older_waiting else 0
        waiting = self.to_pull(bucket)
        return closed | (waiting if self._pulling is not None else waiting & ~self._offered(peer, bucket))

    def _offered(self, peer: NodeId, bucket: BucketId) -> int:
        """The partitions that `peer` may have a copy of that is worth reading, and owes us."""
        if self._useless and self._now() >= self._useless_until:
            self._useless.clear()
        return self.progress.copies.mask(peer, bucket) & ~self._useless.get((peer, bucket), 0)

    def rank(self, bucket: BucketId) -> int:
        """Buckets with a lower one are worked on first: those of which nothing is known yet."""
        return int(self._sizes.is_known(bucket) or not self.to_pull(bucket))

    def may_answer(self, bucket: BucketId, partition: PartitionId) -> bool:
        """Whether an exchange of the range may be answered now."""
        if not self._ranges.changing(bucket) >> partition & 1:
            return True
        return not (self._queue.older_waiting or self.to_pull(bucket) >> partition & 1)

    def to_pull(self, bucket: BucketId) -> int:
        """The partitions that this node has to page through before it exchanges them."""
        waiting = self._ranges.arriving(bucket) & ~self.progress.pulled(bucket)
        return waiting and waiting & self._copied(bucket)

    def _copied(self, bucket: BucketId) -> int:
        """Of which partitions any copy is left to be made."""
        left = 0
        for peer in self.progress.copies.peers():
            left |= self.progress.copies.mask(peer, bucket)
        return left

    # -- work

    def source(self, slot: Slot, peers: Sequence[NodeId]) -> NodeId | None:
        """From whom to pull a range: the nearest of these, and of those the one that has given least so far. None:
        there is nothing to pull, and exchanges may begin."""
        bucket, partition = slot
        if not self.to_pull(bucket) >> partition & 1:
            return None
        sources = [peer for peer in peers if self._offered(peer, bucket) >> partition & 1]
        assert sources, "what is to be pulled is closed to everybody else"
        return min(sources, key=self._distance)

    def _distance(self, peer: NodeId) -> tuple[bool, int, int]:
        members = self._view.metadata.members if self._view.metadata is not None else {}
        own, other = members.get(self._view.self_id), members.get(peer)
        near = own is not None and other is not None and own.zone == other.zone
        return not near, self._pulled_from.get(peer, 0), peer

    async def pull(self, source: NodeId, slot: Slot) -> None:
        """Page through a source's copy of a range. Raises ExchangeFault."""
        self._pulling = slot
        try:
            if not await self._pull.run(source, slot):
                self._pass_over(source, slot)
        finally:
            self._pulling = None
            self._sizes.broken_off()

    def _received(self, source: NodeId, size: int) -> None:
        self.progress.moved(size)
        self._pulled_from[source] = self._pulled_from.get(source, 0) + size
        self._metrics.transfer_bytes_received_total += size

    def _pass_over(self, source: NodeId, slot: Slot) -> None:
        """The source may have forgotten something: take another, or leave everything to exchanges when all have."""
        bucket, partition = slot
        self._useless[source, bucket] = self._useless.get((source, bucket), 0) | 1 << partition
        self._useless_until = self._now() + USELESS_S
        if not any(self._offered(peer, bucket) >> partition & 1 for peer in self.progress.copies.peers()):
            self.progress.finish(slot)

    async def moved(self, claim: Claim, size: int) -> None:
        """An exchange moved so many bytes of records; returns when it may move more."""
        if self.progress.copies.owes(claim):
            self.progress.moved(size)
            self._sizes.count(size)
            self._metrics.transfer_bytes_received_total += size
            await self._limit.spent(size, PAID_S_MAX)

    def made(self, claim: Claim) -> None:
        """An exchange came to its end, and its claim held."""
        self.progress.made(claim)

    def failed(self, claim: Claim, reason: str) -> None:
        """An exchange or a pull was given up; it will be tried again."""
        if self.progress.copies.owes(claim):
            self._last_error = f"{self._view.name_of(claim.peer)}: {reason}"

    # -- sessions

    def on_session_up(self, node: NodeId) -> None:
        """The bulk lane to a peer is up."""
        self._apart_since.pop(node, None)

    def on_session_down(self, node: NodeId) -> None:
        """The bulk lane to a peer broke."""
        self._note_apart()

    def _note_apart(self) -> None:
        """Since when those who are waited for cannot be reached."""
        away = {peer for peer in self.progress.copies.peers() if not self._connected(peer)}
        now = self._now()
        self._apart_since = {peer: self._apart_since.get(peer, now) for peer in away}

    # -- for the driver and for people

    def settled(self) -> bool:
        """Whether nothing is left to copy between this node and the other owners of changing ranges, and of those that
        come to it it could say what is absent."""
        return not self.progress.copies.pending and not self._unvouched()

    def _arriving(self) -> int:
        """The partitions of which this node is to hold something that it did not hold before."""
        arriving = 0
        for bucket in self._view.buckets:
            arriving |= self._ranges.arriving(BucketId(bucket)) if self._ranges.is_older(BucketId(bucket)) else 0
        return arriving

    def _unvouched(self) -> list[int]:
        """Of those the ones that no owner who vouches has made whole yet."""
        return [partition for partition in bits(self._arriving()) if not self._horizons.vouches(partition)]

    def set_limit(self, bytes_per_s: int) -> None:
        """Copy no more than so many bytes a second; 0: as fast as background work may go."""
        self._limit.set(bytes_per_s)

    @property
    def bytes_per_s_max(self) -> int:
        """What `set_limit` said."""
        return self._limit.bytes_per_s

    def report(self) -> TransferReport:
        """How far it is."""
        plan, progress = self._ranges.plan, self.progress
        now = self._now()
        buckets = tuple(self._line(bucket) for bucket in sorted(map(BucketId, self._view.buckets)))
        self._note_apart()
        waiting = (Waiting(peer, now - since) for peer, since in sorted(self._apart_since.items()))
        return TransferReport(
            plan_id=b"" if plan is None else plan.id,
            epoch=self._view.epoch,
            total=progress.total,
            left=progress.copies.pending,
            bytes_done=progress.bytes_done,
            bytes_left=self._sizes.left({line.bucket: line.to_pull for line in buckets}),
            bytes_per_s=self._sizes.bytes_per_s(),
            waiting=tuple(waiting),
            buckets=tuple(line for line in buckets if line.left),
            last_error=self._last_error if progress.copies.pending else self._waits_for_marks(),
        )

    def _waits_for_marks(self) -> str:
        unvouched = self._unvouched()
        return f"{len(unvouched)} ranges wait for an owner that vouches for what was deleted" if unvouched else ""

    def _line(self, bucket: BucketId) -> BucketTransfer:
        copies = self.progress.copies
        left = sum(copies.mask(peer, bucket).bit_count() for peer in copies.peers())
        found = self._view.buckets[bucket]
        return BucketTransfer(bucket, found.properties.name, left, self.to_pull(bucket).bit_count())

    def check(self) -> None:
        """What is kept is of the plan in progress."""
        self.progress.check()
        plan = self._ranges.plan
        assert self.progress.plan_epoch == (0 if plan is None else plan.epoch)
