"""The workers of anti-entropy: take the next debt that can be worked off, and work it off. A range that has to be
copied from its beginning is pulled first (`transfers`); then it comes up again.

Each exchange begins with the tree of its moment. A peer that fails us is left alone for a while; the debt stays until
an exchange with it has come to its end.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final

import trio

from leafdb.errors import StorageError
from leafdb.merkle.effects import Done
from leafdb.node.debts import Claim, Debts
from leafdb.node.exchange_queue import LOOK_S, ExchangeQueue, Wait, Work
from leafdb.node.exchanges import Exchanges
from leafdb.node.logs import Log
from leafdb.node.record_messages import Mark
from leafdb.node.record_mover import ExchangeFault, RecordMover
from leafdb.node.repair_tasks import RepairTasks
from leafdb.node.shared_ranges import holders_by_right
from leafdb.node.transfers import Transfers
from leafdb.node.tree_rebuild import TreeRebuild
from leafdb.node.view import BucketView, ClusterView
from leafdb.types import NodeId

WORKERS: Final = 2
"""Exchanges this node begins at once."""
STORE_FAILED_WAIT_S: Final = 1.0

log: Log = Log("anti_entropy")


class RepairWorkers:
    """What the workers share. `run` is one worker."""

    def __init__(
        self,
        *,
        view: ClusterView,
        debts: Debts,
        tasks: RepairTasks,
        queue: ExchangeQueue,
        trees: TreeRebuild,
        exchanges: Exchanges,
        transfers: Transfers,
        mover: RecordMover,
        afterthoughts: Callable[[], bool],
        connected: Callable[[NodeId], bool],
    ) -> None:
        """`afterthoughts` makes debts of them, as far as it can; answers whether some are left."""
        self._afterthoughts = afterthoughts
        self._view = view
        self._debts = debts
        self._tasks = tasks
        self._queue = queue
        self._trees = trees
        self._exchanges = exchanges
        self._transfers = transfers
        self._mover = mover
        self._connected = connected
        self._changed = trio.Event()

    def wake(self) -> None:
        """There may be something to do that was not there before."""
        event, self._changed = self._changed, trio.Event()
        event.set()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            try:
                again_s = LOOK_S if self._afterthoughts() else inf
                stray = self._queue.stray()
                work = stray or self._queue.next(self._view.self_id)
                if isinstance(work, Wait):
                    with trio.move_on_after(min(work.seconds, again_s)):
                        await self._changed.wait()
                elif stray:
                    await self._pass_on(work)
                elif (source := self._transfers.source((work.bucket, work.partition), work.peers)) is not None:
                    await self._pull(source, work)
                else:
                    await self._exchange(work)
            except StorageError as error:
                log.error("anti-entropy cannot use the store", reason=str(error))
                await trio.sleep(STORE_FAILED_WAIT_S)

    async def _exchange(self, work: Work) -> None:
        """One range with every peer that is owed it."""
        bucket = self._view.buckets[work.bucket]
        claims = [self._debts.claim(peer, work.bucket, work.partition) for peer in work.peers]
        try:
            await self._exchange_claimed(work, bucket, claims)
        except StorageError as error:
            for claim in claims:
                self._tasks.failed(claim, str(error))
                self._queue.failed(claim.peer, str(error))
        finally:
            for claim in claims:
                self._debts.release(claim)
            self.wake()

    async def _exchange_claimed(self, work: Work, bucket: BucketView, claims: list[Claim]) -> None:
        for claim in claims:
            if not claim.spoilt and self._debts.owes(claim) and self._connected(claim.peer):
                tree = await self._trees.tree(bucket, work.partition)
                end = await self._exchanges.initiate(claim, bucket, tree)
                if isinstance(end, Done):
                    self._queue.succeeded(claim.peer)
                else:
                    self._queue.failed(claim.peer, end.reason)
            self._debts.release(claim)

    async def _pull(self, source: NodeId, work: Work) -> None:
        """The records of one range from one of the peers that are owed it. Settles nothing."""
        claim = self._debts.claim(source, work.bucket, work.partition)
        try:
            await self._transfers.pull(source, (work.bucket, work.partition))
            self._queue.succeeded(source)
        except (ExchangeFault, StorageError) as error:
            self._tasks.failed(claim, str(error))
            self._transfers.failed(claim, str(error))
            self._queue.failed(source, str(error))
            log.debug("pull broken off", member=self._view.name_of(source), reason=str(error))
        finally:
            self._debts.release(claim)
            self.wake()

    async def _pass_on(self, work: Work) -> None:
        """Give a debt in a range that is not ours to those who hold it and can be reached: any of them may be the one
        that has what the target lacks."""
        ring, bucket = self._view.ring, self._view.buckets.get(work.bucket)
        (target,) = work.peers
        claim = self._debts.claim(target, work.bucket, work.partition)
        try:
            if ring is None or bucket is None:
                raise ExchangeFault("nothing is known of the bucket yet")
            holders = holders_by_right(ring, work.partition, bucket.properties.n)
            owners = [node for node in holders if node != target and self._connected(node)]
            for owner in owners or [target]:
                await self._mover.pass_on(owner, Mark(work.bucket, work.partition, target))
            if self._debts.settle(claim):
                self._tasks.settled(claim)
        except ExchangeFault as error:
            self._tasks.failed(claim, str(error))
            self._queue.failed(target, str(error))
        finally:
            self._debts.release(claim)
