"""Gives what this node holds beyond its ranges to those who hold them, and drops it when they have it (decision 0007).

After a plan an old owner still has its copy. Mostly that is the same as what the new ones have; but this node may have
been away for the whole plan, with a write of w=1 that nobody else has, so nothing is dropped on the strength of a plan.
A range is a *leftover* while this node is no holder of it and its tree has any key in it. Leftovers are looked for by a
scan for the first key of each run of foreign partitions: at the start, whenever metadata change the ranges or the n of
a bucket, and every LOOK_EVERY_S, for what comes late (a merge that waited for the disk while the ring changed). So the
store itself remembers what there is to do, and a crash anywhere means: look again.

A page of the range is entrusted to each holder in turn: it says which of the records it has exactly so, by digest, is
given the others, and merges and syncs them. Then each record of the page is deleted, in the same call in which it is
seen that it is still the very record that was proved and that the proof stands (leftover_rules has the why). What has
changed meanwhile stays, for the next pass. Nothing is ever dropped because something else was: neither order nor
completeness of a pass matters to safety.

While a holder cannot be reached the range waits, for ever if need be, and `problem` says so. Everything goes at the
pace of background work; the deletions cost little room, so a full disk does not stop them: they make room.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Final, NamedTuple

import trio

from leafdb.errors import StorageError
from leafdb.node.debts import bits
from leafdb.node.key_queue import ReplicaOverloaded
from leafdb.node.leftover_rules import Proof, foreign_runs, stands, wanted
from leafdb.node.logs import Log
from leafdb.node.metrics import Metrics
from leafdb.node.pace import Pace
from leafdb.node.peer_backoff import PeerBackoff
from leafdb.node.range_scanner import RangeScanner
from leafdb.node.record_mover import ExchangeFault, RecordMover
from leafdb.node.replica import Replica
from leafdb.node.view import BucketView, ClusterView
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.ring import Ring
from leafdb.ring.token import partition_range, split_storage_key
from leafdb.types import BucketId, Durability, Epoch, NodeId, PartitionId, TreeId

LOOK_EVERY_S: Final = 600.0
LOOK_AGAIN_S: Final = 60.0
"""After a change of the ring: what was under way then has come to its end."""
PAGE_KEYS: Final = 256
GROUP_KEYS: Final = 32
AGAIN_S: Final = 1.0
"""Before the next pass over a range that was not empty after one."""
STORE_FAILED_WAIT_S: Final = 10.0

log: Log = Log("leftovers")


class _Drop(NamedTuple):
    """Delete one record, unless it is not the one that was proved."""

    leftovers: Leftovers
    bucket: BucketId
    partition: PartitionId
    key: bytes
    record: bytes
    proof: Proof

    def run(self, value: bytes | None, sequence: int) -> None:
        if value == self.record:
            self.leftovers.drop(self.bucket, self.partition, self.key, self.record, self.proof)

    def refuse(self, error: Exception) -> None:
        """It stays, and is met again by the next pass."""


class Leftovers:
    """See the top of this file. `run` is its one task."""

    def __init__(
        self,
        *,
        view: ClusterView,
        replica: Replica,
        scanner: RangeScanner,
        mover: RecordMover,
        pace: Pace,
        metrics: Metrics,
        forget: Callable[[], None],
        retract: Callable[[Iterable[int], str], None],
        connected: Callable[[NodeId], bool],
        now: Callable[[], float],
    ) -> None:
        """`forget` is called before this store forgets any record (model/epochs), `retract` takes its marks back, where
        it has nothing of a range by right any more."""
        self._retract = retract
        self._forget_dots = forget
        self._forgot = False
        """It was called in this pass."""
        self._view = view
        self._replica = replica
        self._scanner = scanner
        self._mover = mover
        self._pace = pace
        self._metrics = metrics
        self._now = now
        self._peers = PeerBackoff(connected, now)
        self._left: dict[BucketId, int] = {}
        """Partitions of each bucket that are leftovers, as bits. Never empty ones."""
        self._unlooked: set[BucketId] = set()
        """Buckets to be looked through."""
        self._look_at = inf
        self._late = False
        """The owners have changed in this life, and what came late has not been looked for since."""
        self._known: dict[BucketId, int] = {}
        """The buckets there were at the last change, with their n."""
        self._range_epochs: tuple[Epoch, ...] = ()
        self._again = False
        """A range was gone through and is not empty."""
        self._awaited: set[NodeId] = set()
        """Holders of the ranges that wait."""
        self._changed = trio.Event()
        view.on_install.append(self._installed)

    # -- for people

    @property
    def ranges(self) -> int:
        """How many ranges, each of one bucket, are still here and should not be."""
        return sum(mask.bit_count() for mask in self._left.values())

    @property
    def partitions(self) -> int:
        """Those of which something is left in any bucket, as bits."""
        mask = 0
        for left in self._left.values():
            mask |= left
        return mask

    @property
    def looked(self) -> bool:
        """Whether everything that is left is known, what came late too."""
        return not self._unlooked and not self._late

    @property
    def quiet(self) -> bool:
        """Nothing is known to be left, and there is nothing to look through."""
        return not self._left and not self._unlooked

    def problem(self) -> str:
        """What keeps leftovers here, in words; empty when nothing does."""
        waits = self._peers.waits_for(self._awaited) if self._left else {}
        if not waits:
            return ""
        name = self._view.name_of
        told = ", ".join(f"{name(peer)} ({reason})" for peer, reason in waits.items())
        return f"it keeps {self.ranges} ranges that are not its own any more until their holders have them: {told}"

    # -- reasons to look

    def wake(self) -> None:
        """A peer is there that was not."""
        self._changed.set()

    def _installed(self, metadata: ClusterMetadata) -> None:
        known = {BucketId(number): bucket.properties.n for number, bucket in self._view.buckets.items()}
        if metadata.range_epochs != self._range_epochs:
            self._unlooked.update(known)
            self._look_at = self._now() + LOOK_AGAIN_S
            self._late = bool(self._range_epochs)
        else:
            self._unlooked.update(bucket for bucket, n in known.items() if self._known.get(bucket) != n)
        self._range_epochs = metadata.range_epochs
        self._known = known
        self._unlooked &= known.keys()
        for bucket in self._left.keys() - known.keys():
            del self._left[bucket]
        self._peers.keep(metadata.members)
        self._changed.set()

    # -- the task

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            self._changed = trio.Event()
            buckets = self._known.keys()
            try:
                await self._look()
                await self._pass()
            except StorageError as error:
                if buckets - self._known.keys():
                    continue  # a bucket was dropped under our hands
                log.error("leftovers cannot be read", reason=str(error))
                await trio.sleep(STORE_FAILED_WAIT_S)
                continue
            with trio.move_on_after(self._idle_s()):
                await self._changed.wait()

    def _idle_s(self) -> float:
        if self._unlooked:
            return 0.0
        wait_s = min(self._look_at - self._now(), self._peers.retry_in() if self._left else inf)
        return max(0.0, min(wait_s, AGAIN_S) if self._again else wait_s)

    async def _look(self) -> None:
        """Find the leftovers of every bucket that is to be looked through."""
        if self._now() >= self._look_at:
            self._look_at = self._now() + LOOK_EVERY_S
            self._late = False
            self._unlooked.update(map(BucketId, self._view.buckets))
        while self._unlooked:
            number = min(self._unlooked)
            bucket, ring = self._view.buckets.get(number), self._view.ring
            found = 0
            if bucket is not None and ring is not None and self._is_member():
                found = await self._find(bucket, ring)
                if self._view.ring is not ring:
                    continue  # what it found is of yesterday
            self._unlooked.discard(number)
            before = self._left.pop(number, 0)
            if found:
                self._left[number] = found
            if found & ~before:
                log.info("holds ranges that are not its own any more", bucket=int(number), ranges=found.bit_count())

    async def _find(self, bucket: BucketView, ring: Ring) -> int:
        """The partitions of a bucket in which this node has anything and should have nothing."""
        found = 0
        for first, last in foreign_runs(ring, self._view.self_id, bucket.properties.n):
            _, stop = partition_range(last, ring.partitions)
            partition = first
            while partition <= last:
                start, _ = partition_range(partition, ring.partitions)
                key = await self._scanner.first(bucket, (start, stop))
                if key is None:
                    break
                partition = ring.partition_of(split_storage_key(key)[0])
                found |= 1 << partition
                partition = PartitionId(partition + 1)
        return found

    def _is_member(self) -> bool:
        """Whether others would take anything from this node."""
        metadata = self._view.metadata
        return metadata is not None and self._view.self_id in metadata.members

    # -- giving away

    async def _pass(self) -> None:
        """Go once through every leftover whose holders are all there."""
        self._again = self._forgot = False
        awaited: set[NodeId] = set()
        for number, mask in sorted(self._left.items()):
            for partition in bits(mask):
                awaited.update(await self._give_up(number, PartitionId(partition)))
                await trio.lowlevel.checkpoint()
        self._awaited = awaited

    async def _give_up(self, number: BucketId, partition: PartitionId) -> Sequence[NodeId]:
        """Go once through a leftover: entrust it page by page, and drop what is proved. Answers the holders when not
        all of them do their part."""
        start, _ = span = self._span(partition)
        while True:
            bucket, proof = self._view.buckets.get(number), self._proof(number, partition)
            if bucket is None or proof is None:
                self._forget(number, partition)
                return ()
            if not all(map(self._peers.ready, proof.holders)):
                return proof.holders
            page = await self._scanner.page(bucket, start, span[1], keys=PAGE_KEYS)
            if page.items:
                if not await self._entrust(bucket, page.items, proof):
                    return proof.holders
                await self._drop_all(bucket, partition, page.items, proof)
            if page.next_key is None:
                break
            start = page.next_key
        if await self._scanner.first(bucket, span) is None:
            self._forget(number, partition)
            self._metrics.leftover_ranges_dropped_total += 1
        else:
            self._again = True
        return ()

    def _span(self, partition: PartitionId) -> tuple[bytes, bytes]:
        assert self._view.ring is not None
        return partition_range(partition, self._view.ring.partitions)

    def _proof(self, number: BucketId, partition: PartitionId) -> Proof | None:
        """What it takes to drop the range; None when it is no leftover."""
        bucket, ring = self._view.buckets.get(number), self._view.ring
        if bucket is None or ring is None or not self._left.get(number, 0) >> partition & 1 or not self._is_member():
            return None
        proof = wanted(ring, partition, bucket.properties.n)
        return None if self._view.self_id in proof.holders else proof

    def _forget(self, number: BucketId, partition: PartitionId) -> None:
        left = self._left.pop(number, 0) & ~(1 << partition)
        if left:
            self._left[number] = left

    async def _entrust(self, bucket: BucketView, items: Sequence[tuple[bytes, bytes]], proof: Proof) -> bool:
        """Whether every holder has these records, and on its disk."""
        for holder in proof.holders:
            try:
                await self._mover.entrust(holder, bucket.id, items, proof.epoch)
            except ExchangeFault as error:
                self._peers.failed(holder, str(error))
                log.debug("a leftover is not taken", member=self._view.name_of(holder), reason=str(error))
                return False
            self._peers.worked(holder)
        return True

    async def _drop_all(
        self, bucket: BucketView, partition: PartitionId, items: Sequence[tuple[bytes, bytes]], proof: Proof
    ) -> None:
        if not self._forgot:
            self._forgot = True
            self._forget_dots()
        ring = self._view.ring
        counts = {each.properties.n for each in self._view.buckets.values()}
        if ring is not None and not any(ring.is_primary(self._view.self_id, partition, n) for n in counts):
            self._retract((partition,), "the range is no longer held")
        for at in range(0, len(items), GROUP_KEYS):
            await self._room()
            began = self._pace.begin()
            for key, record in items[at : at + GROUP_KEYS]:
                work = _Drop(self, bucket.id, partition, key, record, proof)
                self._replica.queue.do(bucket.tree, key, work)
            await self._pace.spent(began)

    async def _room(self) -> None:
        """Return when the engine has no objection to writes, but for a full disk."""
        while True:
            try:
                self._replica.admit()
            except ReplicaOverloaded as error:
                await trio.sleep(error.retry_after_s)
                continue
            except StorageError:
                pass
            return

    def drop(self, number: BucketId, partition: PartitionId, key: bytes, record: bytes, proof: Proof) -> None:
        """Delete a record of which everybody in `proof` has what is here now, if that still is everybody it takes."""
        bucket, ring = self._view.buckets.get(number), self._view.ring
        assert self._view.self_id not in proof.holders, "so while it stands this node is none"
        if bucket is None or ring is None or not stands(proof, ring, partition, bucket.properties.n):
            return
        try:
            # Not synced: a crash that undoes it only leaves the record to be entrusted once more.
            self._replica.remove(TreeId(number), key, record, Durability.PERIODIC)
        except StorageError as error:
            log.debug("a leftover cannot be deleted", reason=str(error))  # the store has failed, or the bucket is gone
            return
        self._metrics.leftover_records_dropped_total += 1

    def check(self) -> None:
        """What is known is about buckets that exist, in bounds."""
        ring = self._view.ring
        for number, mask in self._left.items():
            assert number in self._view.buckets
            assert ring is not None
            assert 0 < mask < 1 << ring.partitions
