"""How a store that cannot vouch for what lies below a purge horizon becomes one that can (0008, section 2).

Of each such partition it owes every other owner an exchange. It is made whole in one bucket by one exchange with an
owner that vouches: it has become what that one has. When that is so in every bucket of the partition that it holds,
it writes its mark.

Where no owner vouches, and all of them have said so at the present horizon since the sessions with them last broke,
all give each other everything: then nobody can tell what was forgotten by right from what was lost. Who has done that
with all of them vouches again, and notes that deleted values may be back. A store that holds a bucket alone has nobody
to ask; it is the same with nobody.

What is kept here is of this life of the process, and bounded by partitions and their owners. Nothing is exchanged a
second time without news: that somebody vouches, or that nobody does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from leafdb.node.debts import Claim, Debts, Masks, bits
from leafdb.node.exchange_terms import Terms
from leafdb.node.horizons import Horizons, Standing
from leafdb.node.logs import Log
from leafdb.node.possible_losses import PossibleLosses
from leafdb.node.shared_ranges import SharedRanges, holders_by_right
from leafdb.node.unswept import mask_of
from leafdb.node.view import ClusterView
from leafdb.types import BucketId, NodeId, PartitionId

REASON: Final = "this store cannot vouch for what was deleted long ago"
MEET_AGAIN: Final = "nobody vouches for what was deleted long ago"
HELP: Final = "this store vouches again for what was deleted long ago"

log: Log = Log("anti_entropy")


class Wholeness:
    """Of one store. `owe` makes debts for a reason; `whole` is told of partitions for which this store vouches now."""

    def __init__(
        self,
        view: ClusterView,
        shared: SharedRanges,
        horizons: Horizons,
        debts: Debts,
        losses: PossibleLosses,
        owe: Callable[[Masks, str], None],
        whole: Callable[[Iterable[int]], None],
    ) -> None:
        self._view = view
        self._shared = shared
        self._horizons = horizons
        self._debts = debts
        self._losses = losses
        self._owe = owe
        self._told = whole
        self._running = False
        self._unvouched: set[int] = set()
        """Partitions that this store does not vouch for, held here or not."""
        self._said: dict[NodeId, dict[int, Standing]] = {}
        """Of those: where each peer stands, by its last word."""
        self._whole: dict[BucketId, int] = {}
        """Of those: where this store was made whole by one that vouches."""
        self._given: dict[tuple[NodeId, BucketId], int] = {}
        """Of those: where this store and a peer have given each other everything."""

    # -- what there is

    def unvouched(self) -> int:
        """The partitions this node holds, in any bucket, and does not vouch for."""
        return mask_of(self._unvouched) & self._held() if self._unvouched else 0

    def nobody(self, bucket: BucketId, partition: PartitionId) -> bool:
        """Whether no other owner of the range vouches, and all have said so."""
        if self._vouching(bucket, partition):
            return False
        silent = Standing(self._horizons.of(partition), vouches=False)
        return all(self._said.get(peer, {}).get(partition) == silent for peer in self._owners(bucket, partition))

    def _held(self) -> int:
        held = 0
        for bucket in self._view.buckets:
            held |= self._shared.held(self._view.self_id, BucketId(bucket))
        return held

    def _owners(self, number: BucketId, partition: PartitionId) -> Iterator[NodeId]:
        """The others whose word counts: who copies the range yet, or is given up, is not waited for."""
        ring, bucket = self._view.ring, self._view.buckets.get(number)
        if ring is None or bucket is None:
            return
        n = bucket.properties.n
        plan = ring.metadata.plan
        left_out = {self._view.self_id, *ring.copying(partition, n), *(plan.given_up if plan is not None else ())}
        yield from (node for node in holders_by_right(ring, partition, n) if node not in left_out)

    def _buckets(self, partition: int) -> list[BucketId]:
        """Those of which this node holds the partition."""
        own = self._view.self_id
        return [
            bucket for bucket in map(BucketId, self._view.buckets) if self._shared.held(own, bucket) >> partition & 1
        ]

    # -- what changes

    def begin(self) -> None:
        """From now on debts are made: the store has been read, and the ring is known."""
        self._running = True
        self._require(self._unvouched)

    def changed(self, partitions: Iterable[int]) -> None:
        """Horizons or marks have changed there: what was done under others counts for nothing."""
        changed = set(partitions)
        unvouched = {at for at in changed if not self._horizons.vouches(at)}
        whole = sorted((changed - unvouched) & self._unvouched)
        self._unvouched = self._unvouched - changed | unvouched
        self._forget(changed)
        waiting = {
            peer: [at for at in whole if at in said and not said[at].vouches] for peer, said in self._said.items()
        }
        for said in self._said.values():
            for at in changed & said.keys():
                if at not in unvouched or said[at].horizon != self._horizons.of(at):
                    del said[at]
        if not self._running:
            return
        self._require(unvouched)
        for peer, places in waiting.items():
            if places:
                mask = mask_of(places)
                self._owe({slot: each & mask for slot, each in self._shared.with_peer(peer).items()}, HELP)
        if whole:
            self._told(whole)

    def installed(self, changed: int, *, buckets: bool) -> None:
        """New metadata: these partitions have other owners, and there are other `buckets` or not."""
        if self._unvouched and self._running and (changed or buckets):
            again = self._unvouched if buckets else self._unvouched.intersection(bits(changed))
            self._forget(set(bits(changed)) & again)
            self._require(again)

    def lost(self, peer: NodeId) -> None:
        """The session with a peer is gone: what it said was of another life."""
        self._said.pop(peer, None)
        for slot in [slot for slot in self._given if slot[0] == peer]:
            del self._given[slot]

    def _forget(self, partitions: set[int]) -> None:
        mask = mask_of(partitions)
        for whole in (self._whole, self._given):
            for slot in whole:
                whole[slot] &= ~mask  # type: ignore[index]  # a key of that very dict

    def _require(self, partitions: Iterable[int]) -> None:
        """Of these every other owner is owed an exchange."""
        mask = mask_of(partitions)
        masks = {slot: each & mask for slot, each in self._shared.with_all().items()} if mask else {}
        if any(masks.values()):
            self._owe(masks, REASON)
        for partition in bits(mask & self._held()) if mask else ():
            self.review(PartitionId(partition))

    # -- what is done

    def heard(self, peer: NodeId, partition: PartitionId, standing: Standing) -> None:
        """Where a peer stands, at the beginning of an exchange."""
        if partition not in self._unvouched:
            return
        self._said.setdefault(peer, {})[partition] = standing
        if standing.vouches:
            for slot in self._given:
                self._given[slot] &= ~(self._shared.shared(peer, slot[1]) & 1 << partition)

    def ended(self, claim: Claim, terms: Terms | None) -> None:
        """An exchange came to its end, and its claim held."""
        if claim.partition not in self._unvouched:
            return
        bit = 1 << claim.partition
        if terms is Terms.MADE_WHOLE:
            self._whole[claim.bucket] = self._whole.get(claim.bucket, 0) | bit
        elif terms is Terms.EVERYTHING:
            slot = claim.peer, claim.bucket
            self._given[slot] = self._given.get(slot, 0) | bit
        self.review(claim.partition)

    def review(self, partition: PartitionId) -> None:
        """Vouch for a partition if nothing is missing for it; else owe what there is news for."""
        buckets = self._buckets(partition)
        left = [bucket for bucket in buckets if not self._whole.get(bucket, 0) >> partition & 1]
        by_all = [bucket for bucket in left if self._is_given(bucket, partition)]
        if not buckets or partition not in self._unvouched:
            return
        if len(by_all) < len(left):
            masks = {slot: 1 << partition for bucket in left for slot in self._missing(bucket, partition)}
            if masks:
                self._owe(masks, MEET_AGAIN)
            return
        if by_all:
            self._losses.note(1 << partition, returned=True)
            log.error("deleted values may return: no owner could vouch below the horizon", partition=int(partition))
        self._horizons.vouch([partition], self._horizons.of(partition))

    def _is_given(self, bucket: BucketId, partition: PartitionId) -> bool:
        return self.nobody(bucket, partition) and all(
            self._given.get((peer, bucket), 0) >> partition & 1 for peer in self._owners(bucket, partition)
        )

    def _missing(self, bucket: BucketId, partition: PartitionId) -> Iterator[tuple[NodeId, BucketId]]:
        """With whom an exchange would be news now, and is not owed."""
        wanted = self._vouching(bucket, partition)
        if not wanted and self.nobody(bucket, partition):
            owners = self._owners(bucket, partition)
            wanted = [peer for peer in owners if not self._given.get((peer, bucket), 0) >> partition & 1]
        for peer in wanted:
            if not self._debts.mask(peer, bucket) >> partition & 1:
                yield peer, bucket

    def _vouching(self, bucket: BucketId, partition: PartitionId) -> list[NodeId]:
        """Which holders of the range have said that they vouch, also of those whose word is not waited for."""
        vouching = Standing(self._horizons.of(partition), vouches=True)
        said = [peer for peer, words in self._said.items() if words.get(partition) == vouching]
        return [peer for peer in said if self._shared.shared(peer, bucket) >> partition & 1]
