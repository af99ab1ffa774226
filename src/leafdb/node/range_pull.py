"""Pages through one old owner's copy of a range that this node is to hold and does not hold yet.

An exchange of an empty range would list every key with its digest before a record moves. So the records come first, in
order, a page at a time; each is merged through the one door, and the place is kept on the disk. It may go on from
another source than it began with: what that one had before the place, the exchanges find, which follow with every old
owner in any case. If the first page holds mostly what is here already, the range is not empty, and exchanges alone move
less. Only a source that vouches for what lies below the purge horizon shows anything, so all of it is taken, however
old.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from leafdb.limits import EXCHANGE_BYTES_MAX
from leafdb.node.accords import Accord
from leafdb.node.rate_limit import LOOK_S, RateLimit
from leafdb.node.record_messages import Page, Pull
from leafdb.node.record_mover import ExchangeFault, RecordMover
from leafdb.node.record_store import Item
from leafdb.node.transfer_progress import Slot, TransferProgress
from leafdb.node.transfer_sizes import TransferSizes
from leafdb.node.view import BucketView, ClusterView
from leafdb.ring.ring import Ring
from leafdb.ring.token import partition_range, storage_key
from leafdb.types import Epoch, NodeId

KNOWN_SHARE: Final = 0.5
"""If more of the first page than this is here already, exchanges take over."""


class RangePull:
    """Pulls one range at a time for `transfers`."""

    def __init__(
        self,
        *,
        view: ClusterView,
        mover: RecordMover,
        progress: TransferProgress,
        sizes: TransferSizes,
        limit: RateLimit,
        received: Callable[[NodeId, int], None],
        agreed: Callable[[NodeId, Slot], AbstractContextManager[Accord]],
    ) -> None:
        """`received`: so many bytes of records came from a source. `agreed`: by what its pages are taken, for as long
        as neither horizon nor marks change."""
        self._agreed = agreed
        self._view = view
        self._mover = mover
        self._progress = progress
        self._sizes = sizes
        self._limit = limit
        self._received = received

    async def run(self, source: NodeId, slot: Slot) -> bool:
        """Go on to the end of the range; False when the source has no copy worth reading. Raises ExchangeFault; what
        was merged by then is not asked for again."""
        ring, bucket = self._view.ring, self._view.buckets.get(slot[0])
        if ring is None or bucket is None:
            raise ExchangeFault("the bucket is gone")
        with self._agreed(source, slot) as accord:
            return await self._run(source, slot, ring, bucket, accord)

    async def _run(self, source: NodeId, slot: Slot, ring: Ring, bucket: BucketView, accord: Accord) -> bool:
        epoch = ring.range_epoch(slot[1])
        first, stop = partition_range(slot[1], ring.partitions)
        known = self._progress.cursor(slot)
        start = first if known is None else known
        self._sizes.begin(slot, start, (first, stop))
        while True:
            self._mover.require_room()
            if accord.spoilt:
                raise ExchangeFault(accord.spoilt)
            request = Pull(slot[0], slot[1], start, EXCHANGE_BYTES_MAX, epoch, accord.ours.horizon)
            page = await self._mover.pull(source, request)
            if not page.complete:
                return False
            items = items_of(bucket, page, start, stop)
            size = sum(len(key) + len(record) for key, record in items)
            self._still(slot, epoch)
            self._received(source, size)
            if known is None and start == first and await self._mostly_here(bucket, items):
                self._still(slot, epoch)
                self._finish(slot)
                return True
            await self._mover.take_page(items, accord)
            self._still(slot, epoch)
            self._sizes.moved(size, page.next or stop)
            if not page.next:
                self._finish(slot)
                await self._pay(size, slot, epoch)
                return True
            start = page.next
            self._progress.advance(slot, start)
            await self._pay(size, slot, epoch)
            self._still(slot, epoch)

    async def _pay(self, size: int, slot: Slot, epoch: Epoch) -> None:
        """Return when the bytes are paid for, or the ring has changed: at a low limit a page may take minutes."""
        await self._limit.spent(size, LOOK_S)
        while self._limit.owing and self._is_still(slot, epoch):
            await self._limit.spent(0, LOOK_S)

    def _finish(self, slot: Slot) -> None:
        self._progress.finish(slot)
        self._sizes.finish()

    async def _mostly_here(self, bucket: BucketView, items: list[Item]) -> bool:
        return bool(items) and await self._mover.same(bucket.id, items) > KNOWN_SHARE * len(items)

    def _still(self, slot: Slot, epoch: Epoch) -> None:
        """What is written down must be of the plan that asked for it."""
        if not self._is_still(slot, epoch):
            raise ExchangeFault("the ring has changed")

    def _is_still(self, slot: Slot, epoch: Epoch) -> bool:
        ring = self._view.ring
        return ring is not None and ring.range_epoch(slot[1]) == epoch and slot[0] in self._view.buckets


def items_of(bucket: BucketView, page: Page, start: bytes, stop: bytes) -> list[Item]:
    """The records of a page by storage keys. ExchangeFault unless they ascend within the range, and so does what
    follows."""
    try:
        items = [(storage_key(bucket.id, key), record) for key, record in zip(page.keys, page.records, strict=True)]
    except ValueError as error:
        raise ExchangeFault(f"a malformed key in a page: {error}") from None
    place = start
    for key, _ in items:
        if not place <= key < stop:
            raise ExchangeFault("a page that is out of order")
        place = key + b"\0"
    if page.next and not (place <= page.next <= stop and page.next > start):
        raise ExchangeFault("a page that leads nowhere")
    return items
