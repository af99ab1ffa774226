"""Hands hints on that cannot stay here: those kept for a node that is no holder of their keys any more, to the nodes
that are; and when this node goes itself, all others that nobody takes home.

A hint becomes an *orphan* when a plan ends: its target was removed or replaced, or gave the range away. A fallback copy
may be all that is left of an acknowledged write, so it goes only by the same proof as a leftover (leftover_rules):
every holder of the range has the record on its disk. Holders with a session are entrusted with it; if this node is one
of them it merges it into its own tree; for those that are away it becomes a hint like any other, under their name, as
far as there is room, and replay and fallback reads go on from there. Then the orphan is removed, if it has not changed.

What a hint says about minting (Kind.MINTED) is about the copy kept for one target, so it does not go along: the first
dot minted into a copy that was handed on takes a fresh epoch.

Looked through are the hints of all targets at the start and when metadata change the ranges; and every LOOK_EVERY_S
those of targets that are gone, or are there and should have none left, for hints that were written while the ring
changed. A target that is no holder refuses them (hinted_handoff), so none is delivered to the wrong place meanwhile.
Until it is handed on, an orphan is not found by reads; its write is acknowledged, and a sloppy one that no primary took
shows as soon as holders have it.

**Parting.** While this node drains, or goes by a plan, each hint whose target cannot be reached, or is to get none for
now (`hint_pauses`), is given to an heir
(`heirs`), and the rest is delivered as always. Without an heir it stays, and a node that goes waits with it; unless its
target goes too, as dead: then every other holder has to have the record, and nobody keeps a hint.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from math import inf
from typing import Final, NamedTuple

import trio

from leafdb.errors import StorageError
from leafdb.hints.hint import HintKey, Kind, decode, decode_key, target_range
from leafdb.hints.ledger import Ledger
from leafdb.limits import EXCHANGE_BYTES_MAX
from leafdb.model.admission import admitted
from leafdb.model.record import RecordError
from leafdb.node.engine_reads import read_page
from leafdb.node.heirs import Calls, Heirs, goers
from leafdb.node.hint_keeper import HINTS_TREE, HintKeeper
from leafdb.node.hinted_handoff import HintedHandoff
from leafdb.node.left_out import LeftOut
from leafdb.node.leftover_rules import Proof, stands, wanted
from leafdb.node.logs import Log
from leafdb.node.pace import Pace
from leafdb.node.peer_backoff import PeerBackoff
from leafdb.node.record_mover import ExchangeFault, RecordMover
from leafdb.node.record_store import RecordStore
from leafdb.node.replica import Replica
from leafdb.node.view import BucketView, ClusterView
from leafdb.ring.metadata import ClusterMetadata
from leafdb.storage.engine import Engine
from leafdb.types import BucketId, Durability, Epoch, NodeId, PartitionId

LOOK_EVERY_S: Final = 600.0
LOOK_AGAIN_S: Final = 60.0
PAGE_HINTS: Final = 128
AGAIN_S: Final = 30.0
"""Before hints that could not be handed on are tried again, if nothing else changes."""
PARTING_AGAIN_S: Final = 1.0
STORE_FAILED_WAIT_S: Final = 10.0

log: Log = Log("orphan_hints")


class Orphan(NamedTuple):
    """A hint of which the target is no holder."""

    key: bytes
    value: bytes
    parts: HintKey
    kind: Kind
    record: bytes


class _Remove(NamedTuple):
    """Remove one orphan, unless it has changed since it was handed on."""

    orphans: OrphanHints
    orphan: Orphan
    partition: PartitionId
    proof: Proof

    def run(self, value: bytes | None, sequence: int) -> None:
        if value is not None and not (value == self.orphan.value and self.orphans.remove(self)):
            self.orphans.look_at(self.orphan.parts.target)

    def refuse(self, error: Exception) -> None:
        self.orphans.look_at(self.orphan.parts.target)


class OrphanHints:
    """See the top of this file. `run` is its one task."""

    def __init__(
        self,
        *,
        engine: Engine,
        view: ClusterView,
        replica: Replica,
        keeper: HintKeeper,
        handoff: HintedHandoff,
        store: RecordStore,
        mover: RecordMover,
        pace: Pace,
        peers: Calls,
        connected: Callable[[NodeId], bool],
        now: Callable[[], float],
        paused: Callable[[NodeId], bool],
    ) -> None:
        self._engine = engine
        self._view = view
        self._replica = replica
        self._keeper = keeper
        self._ledger: Ledger = keeper.ledger
        self._handoff = handoff
        self._store = store
        self._mover = mover
        self._pace = pace
        self._now = now
        self._paused = paused
        self._peers = PeerBackoff(connected, now)
        self._heirs = Heirs(view, peers, self._peers.ready, self._peers.failed)
        self._goes = False
        self._drains = False
        self._passes = 0
        """That began since this node parts, and are over."""
        self._due: set[NodeId] = set()
        """Targets whose hints are to be looked through."""
        self._look_at = inf
        self._topology: tuple[tuple[Epoch, ...], tuple[NodeId, ...]] = ((), ())
        self._known: dict[BucketId, int] = {}
        """The buckets there were at the last change, with their n."""
        self._awaited: set[NodeId] = set()
        """Holders that orphans wait for."""
        self._changed = trio.Event()
        view.on_install.append(self._installed)

    @property
    def quiet(self) -> bool:
        """No orphan is known of, and nothing is to be looked through."""
        return not self._due

    def problem(self) -> str:
        """What keeps orphans here, in words; empty when nothing does."""
        waits = self._peers.waits_for(self._awaited)
        if not waits:
            return ""
        name = self._view.name_of
        told = ", ".join(f"{name(peer)} ({reason})" for peer, reason in waits.items())
        what = (
            "that others must have before it goes" if self.parts else "for nodes that are gone until others have them"
        )
        return f"it keeps hints {what}: {told}"

    # -- reasons to look

    def wake(self) -> None:
        """A peer is there that was not."""
        self._changed.set()

    def part(self, *, goes: bool, drains: bool) -> None:
        """Whether this node goes by the plan in progress, and whether it drains."""
        parted = self.parts
        self._goes, self._drains = goes, drains
        if self.parts and not parted:
            self._passes = 0
            self._due.update(self._ledger.targets())
            self._changed.set()

    @property
    def parts(self) -> bool:
        """Every hint of this node is to be handed on."""
        return self._goes or self._drains

    @property
    def parted(self) -> bool:
        """All was tried once since this node parts."""
        return self._passes > 0 or not self._ledger.targets()

    def kept(self, target: NodeId) -> None:
        """There is another hint for a node, or that node was lost."""
        if self.parts:
            self.look_at(target)

    def _installed(self, metadata: ClusterMetadata) -> None:
        topology = (metadata.range_epochs, tuple(metadata.members))
        known = {BucketId(number): bucket.properties.n for number, bucket in self._view.buckets.items()}
        if topology != self._topology or any(known.get(bucket) != n for bucket, n in self._known.items()):
            self._topology = topology
            self._due.update(self._ledger.targets())
            self._look_at = self._now() + LOOK_AGAIN_S
        self._known = known
        self._peers.keep(metadata.members)
        self._changed.set()

    def look_at(self, target: NodeId) -> None:
        """Hints of a target may have to be handed on."""
        self._due.add(target)
        self._changed.set()

    def _suspects(self) -> list[NodeId]:
        """Targets that are gone, and those that are there and have not taken everything."""
        metadata = self._view.metadata
        members = metadata.members if metadata is not None else {}
        targets = self._ledger.targets()
        return [target for target in targets if target not in members or self._peers.connected(target)]

    # -- the task

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            self._changed = trio.Event()
            parts = self.parts
            if self._now() >= self._look_at:
                self._look_at = self._now() + LOOK_EVERY_S
                self._due.update(self._suspects())
            try:
                await self._pass()
            except StorageError as error:
                log.error("hints cannot be read", reason=str(error))
                await trio.sleep(STORE_FAILED_WAIT_S)
                continue
            self._passes += parts and self.parts
            wait_s = self._look_at - self._now()
            if self._due:
                wait_s = min(wait_s, PARTING_AGAIN_S if self.parts else AGAIN_S, self._peers.retry_in())
            with trio.move_on_after(max(0.0, wait_s)):
                await self._changed.wait()

    async def _pass(self) -> None:
        """Go once through the hints of everybody who is due."""
        metadata = self._view.metadata
        if metadata is None or self._view.self_id not in metadata.members:
            self._due.clear()
            return
        awaited: set[NodeId] = set()
        for target in sorted(self._due):
            self._due.discard(target)
            if not await self._hand_on_all(target, awaited):
                self._due.add(target)
        self._awaited = awaited

    async def _hand_on_all(self, target: NodeId, awaited: set[NodeId]) -> bool:
        """Go once through a target's hints; whether no orphan is left. `awaited` gets the peers they wait for."""
        start, stop = target_range(target)
        everything = True
        while True:
            page = await read_page(
                self._engine, HINTS_TREE, start, stop, limit=PAGE_HINTS, bytes_max=EXCHANGE_BYTES_MAX,
                durability=Durability.ALWAYS,
            )  # fmt: skip
            began = self._pace.begin()
            found = self._orphans(page.items)
            await self._pace.spent(began)
            for (number, partition, has_target), orphans in found.items():
                hand_on = self._part_with if has_target else self._hand_on
                everything &= await hand_on(number, partition, orphans, awaited)
            if page.next_key is None:
                return everything
            start = page.next_key

    def _orphans(self, items: Sequence[tuple[bytes, bytes]]) -> dict[tuple[BucketId, PartitionId, bool], list[Orphan]]:
        """The hints that cannot stay among some of one target, by range, and whether the target holds that."""
        ring, metadata = self._view.ring, self._view.metadata
        assert ring is not None
        assert metadata is not None
        found: dict[tuple[BucketId, PartitionId, bool], list[Orphan]] = defaultdict(list)
        for key, value in items:
            parts, hint = decode_key(key), decode(value)
            partition = parts.partition(ring.partitions)
            bucket = self._view.buckets.get(parts.bucket)
            holds = bucket is not None and parts.target in ring.holders(partition, bucket.properties.n)
            if bucket is None:
                goes = parts.bucket < metadata.next_bucket_id  # else its bucket is not known here yet
            else:
                goes = not holds or (self.parts and not self._delivers(parts.target))
            if goes:
                found[parts.bucket, partition, holds].append(Orphan(key, value, parts, hint.kind, hint.record))
        return found

    def _delivers(self, target: NodeId) -> bool:
        """Whether hints for a target go home by themselves."""
        return self._peers.connected(target) and not self._paused(target)

    # -- handing on

    async def _hand_on(
        self, number: BucketId, partition: PartitionId, orphans: Sequence[Orphan], awaited: set[NodeId]
    ) -> bool:
        """See that every holder of a range has these hints' records, then remove them; False when one has not."""
        bucket, ring = self._view.buckets.get(number), self._view.ring
        assert ring is not None
        proof = Proof(ring.range_epoch(partition), ())  # of a bucket that is gone, nobody needs anything
        if bucket is not None:
            proof = wanted(ring, partition, bucket.properties.n)
            for holder in proof.holders:
                if holder == self._view.self_id:
                    if not await self._take(bucket, orphans):
                        return False
                elif not await self._give(holder, bucket, orphans, proof):
                    awaited.add(holder)
                    return False
        await self._remove_all(partition, orphans, proof)
        return True

    async def _part_with(
        self, number: BucketId, partition: PartitionId, hints: Sequence[Orphan], awaited: set[NodeId]
    ) -> bool:
        """See that somebody else keeps these hints, then remove them; False when nobody does."""
        bucket, ring, target = self._view.buckets.get(number), self._view.ring, hints[0].parts.target
        if bucket is None or ring is None:
            return False
        proof = wanted(ring, partition, bucket.properties.n)
        if not await self._keep_elsewhere(target, bucket, partition, hints):
            gone = goers(ring.metadata)
            if not self._goes or target not in gone:
                awaited.add(target)
                return False
            for holder in proof.holders:
                if holder not in gone and not await self._give(holder, bucket, hints, proof):
                    awaited.add(holder)
                    return False
        await self._remove_all(partition, hints, proof)
        return True

    async def _keep_elsewhere(
        self, target: NodeId, bucket: BucketView, partition: PartitionId, hints: Sequence[Orphan]
    ) -> bool:
        kept = [(hint.parts.storage_key, self._still_wanted(hint)) for hint in hints]
        items = [(key, record) for key, record in kept if record is not None]
        return await self._heirs.keep(target, bucket, partition, items)

    def _still_wanted(self, hint: Orphan) -> bytes | None:
        """What others would keep of it: nobody takes in what was forgotten by right."""
        try:
            return admitted(None, hint.record, self._replica.doubted(hint.parts.storage_key, holder=False))
        except RecordError:
            return hint.record

    async def _remove_all(self, partition: PartitionId, orphans: Sequence[Orphan], proof: Proof) -> None:
        began = self._pace.begin()
        for orphan in orphans:
            self._replica.queue.do(HINTS_TREE, orphan.key, _Remove(self, orphan, partition, proof))
        await self._pace.spent(began)

    async def _take(self, bucket: BucketView, orphans: Sequence[Orphan]) -> bool:
        """Whether this node has merged all of these records into its own tree."""
        items = [(orphan.parts.storage_key, orphan.record) for orphan in orphans]
        return not any(await self._store.merge(bucket, items, Durability.ALWAYS))

    async def _give(self, holder: NodeId, bucket: BucketView, orphans: Sequence[Orphan], proof: Proof) -> bool:
        """Whether a holder has all of these records, or its hints have them here."""
        if not self._peers.connected(holder):
            if self.parts:
                partition = orphans[0].parts.partition(self._ledger.partitions)
                return await self._keep_elsewhere(holder, bucket, partition, orphans)
            return await self._keep(holder, bucket, orphans)
        if not self._peers.ready(holder):
            return False
        items = [(orphan.parts.storage_key, orphan.record) for orphan in orphans]
        try:
            await self._mover.entrust(holder, bucket.id, items, proof.epoch)
        except ExchangeFault as error:
            self._peers.failed(holder, str(error))
            return False
        self._peers.worked(holder)
        return True

    async def _keep(self, holder: NodeId, bucket: BucketView, orphans: Sequence[Orphan]) -> bool:
        """Turn orphans into hints for a holder that is away; False when not all of them have room."""
        if not self._ledger.has_room(sum(len(orphan.key) + len(orphan.value) for orphan in orphans)):
            return False
        kept: list[Exception | None] = []
        over = trio.Event()

        def done(error: Exception | None) -> None:
            kept.append(error)
            if len(kept) == len(orphans):
                over.set()

        for orphan in orphans:
            kind = Kind.COORDINATOR if orphan.kind is Kind.COORDINATOR else Kind.FALLBACK
            self._keeper.take_over(holder, bucket, orphan.parts.storage_key, kind, orphan.record, done)
        await over.wait()
        return all(error is None or isinstance(error, LeftOut) for error in kept)

    def remove(self, work: _Remove) -> bool:
        """Remove an orphan that is in the tree as it was handed on; False when that is not everybody it takes now."""
        parts = work.orphan.parts
        bucket, ring = self._view.buckets.get(parts.bucket), self._view.ring
        assert ring is not None
        if bucket is not None and not stands(work.proof, ring, work.partition, bucket.properties.n):
            return False
        self._handoff.handed_on(work.orphan.key, work.orphan.value)
        return True
