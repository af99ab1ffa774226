"""All exchanges under way at this node: those it began and those it answers; which message belongs to which.

A message of EXCHANGE or EXCHANGE_REPLY is the map of its machine's message; the two that open an exchange also carry
`complete`: whether the sender's store lacks nothing of the range. `compare` carries `range_epoch` as well, the last
change of the range's owners that the initiator knows: whoever knows another refuses, says which, and the one behind
fetches the metadata.

Bounds: an initiator runs in a worker of `anti_entropy`, so there are as many as workers. ANSWERED_MAX exchanges are
answered at once, ANSWERS_MAX are kept waiting with them, and to more than that the answer is: busy.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Final

import trio

from leafdb.codec import cbor
from leafdb.codec.fields import as_map, int_field
from leafdb.errors import ProtocolError, StorageError
from leafdb.limits import EXCHANGE_KEYS_MAX
from leafdb.merkle.compare import Entry
from leafdb.merkle.effects import Counts, Done, ExchangeConfig, Failed
from leafdb.merkle.exchange import Initiator
from leafdb.merkle.messages import (
    AnyMessage,
    Branches,
    Cancel,
    Compare,
    Equal,
    Finish,
    Leaves,
    Refusal,
    Refuse,
    Reply,
    Request,
    Want,
    from_wire,
)
from leafdb.merkle.responder import Responder
from leafdb.merkle.tree import Tree
from leafdb.node.debts import Claim, Debts
from leafdb.node.exchange_driver import ExchangeDriver, Inbox, Moves
from leafdb.node.pace import Pace
from leafdb.node.range_scanner import Range, RangeScanner
from leafdb.node.record_mover import PeerCalls, RecordMover
from leafdb.node.shared_ranges import holders_by_right
from leafdb.node.transfers import Transfers
from leafdb.node.tree_doubts import listing
from leafdb.node.tree_rebuild import TreeRebuild
from leafdb.node.view import BucketView, ClusterView
from leafdb.ring.token import partition_range
from leafdb.types import BucketId, NodeId, PartitionId
from leafdb.wire.frame import encode_frame
from leafdb.wire.registry import Lane, MessageType

ANSWERED_MAX: Final = 2
ANSWERS_MAX: Final = 8
KEYS_AT_ONCE: Final = EXCHANGE_KEYS_MAX // 2
"""In one message: to read and compare so many takes about a millisecond of the loop."""
REPLY_TIMEOUT_S: Final = 60.0
IDLE_TIMEOUT_S: Final = 180.0

Ended = Callable[[Claim, Done | Failed, bool], None]
"""(claim, how it ended, whether the peer is complete for the range)."""


class Exchanges:
    """See the top of this file. `complete`: whether this store lacks nothing of a range. `admit` says whether an
    exchange with a peer is welcome now; `behind` is told of peers that know newer metadata."""

    def __init__(
        self,
        *,
        view: ClusterView,
        debts: Debts,
        transfers: Transfers,
        scanner: RangeScanner,
        trees: TreeRebuild,
        mover: RecordMover,
        pace: Pace,
        peers: PeerCalls,
        now: Callable[[], float],
        complete: Callable[[BucketId, PartitionId], bool],
        admit: Callable[[NodeId], bool],
        behind: Callable[[NodeId], None],
        ended: Ended,
    ) -> None:
        self._complete = complete
        self.config = ExchangeConfig(
            keys_max=KEYS_AT_ONCE, reply_timeout_s=REPLY_TIMEOUT_S, idle_timeout_s=IDLE_TIMEOUT_S
        )
        self.nursery: trio.Nursery | None = None
        """Where answers run; none are given while it is None."""
        self._view = view
        self._debts = debts
        self._transfers = transfers
        self._scanner = scanner
        self._trees = trees
        self._mover = mover
        self._pace = pace
        self._peers = peers
        self._now = now
        self._admit = admit
        self._behind = behind
        self._ended = ended
        self.on_proved: Callable[[Claim], None] = lambda _: None
        """Told of each exchange that this node began, and so before either side was read, when it came to its end."""
        self._number = 0
        self._initiated: dict[tuple[NodeId, int], Inbox] = {}
        self._answered: dict[tuple[NodeId, int], Inbox] = {}
        self._answering = trio.Semaphore(ANSWERED_MAX)

    def span(self, partition: PartitionId) -> Range:
        """The storage keys of a partition."""
        assert self._view.ring is not None
        return partition_range(partition, self._view.ring.partitions)

    def lose(self, peer: NodeId) -> None:
        """The session with a peer is gone."""
        for inboxes in (self._initiated, self._answered):
            for (node, _), inbox in inboxes.items():
                if node == peer:
                    inbox.lose("the session was lost")

    # -- ours

    async def initiate(self, claim: Claim, bucket: BucketView, tree: Tree) -> Done | Failed:
        """Compare a range of ours, of which `tree` was built since it was claimed, with the peer's."""
        end, peer_complete = await self._begin(claim, bucket, tree, self._mover)
        self._ended(claim, end, peer_complete)
        if isinstance(end, Done) and not claim.spoilt:
            self.on_proved(claim)
        return end

    async def look(self, claim: Claim, bucket: BucketView, tree: Tree, looking: Moves) -> Done | Failed:
        """The same with somebody who moves no records. It proves nothing to either side, and nobody is told."""
        end, _ = await self._begin(claim, bucket, tree, looking)
        return end

    async def _begin(self, claim: Claim, bucket: BucketView, tree: Tree, mover: Moves) -> tuple[Done | Failed, bool]:
        self._number += 1
        slot = (claim.peer, self._number)
        inbox = self._initiated[slot] = Inbox(claim.peer, claim.partition)
        machine = Initiator(
            self.config,
            peer=claim.peer,
            exchange=self._number,
            bucket=claim.bucket,
            partition=claim.partition,
            tree=tree,
        )
        try:
            driver = self._driver(machine, inbox, bucket, claim, mover)
            return await driver.run(machine.start(self._now())), inbox.peer_complete
        finally:
            del self._initiated[slot]

    # -- theirs

    def on_message(self, node: NodeId, body: bytes) -> None:
        """An EXCHANGE or EXCHANGE_REPLY frame. ProtocolError when it is malformed."""
        try:
            fields = as_map(cbor.loads(body), "message")
            message = from_wire(fields)
            epoch = int_field(fields, "range_epoch") if "range_epoch" in fields else 0
        except ValueError as error:
            raise ProtocolError(f"a malformed exchange message: {error}") from None
        slot = (node, message.exchange)
        inbox = self._initiated.get(slot) if isinstance(message, Reply) else self._answered.get(slot)
        if isinstance(message, Compare):
            if inbox is None:
                self._compare(node, message, epoch, complete=fields.get("complete") is True)
        elif inbox is not None:
            if isinstance(message, Refuse) and epoch > self._range_epoch(inbox.partition):
                self._behind(node)
            if isinstance(message, Equal | Branches):
                inbox.peer_complete = fields.get("complete") is True
            inbox.put(message)
        elif isinstance(message, Leaves | Want):
            self._refuse(node, message.exchange, Refusal.BUSY)

    def _compare(self, node: NodeId, message: Compare, epoch: int, *, complete: bool) -> None:
        refusal = self._refusal(node, message, epoch)
        if refusal is not None:
            self._refuse(node, message.exchange, refusal, self._range_epoch(message.partition))
            if refusal is Refusal.OTHER_OWNERS and epoch > self._range_epoch(message.partition):
                self._behind(node)
            return
        assert self.nursery is not None
        inbox = self._answered[node, message.exchange] = Inbox(node, message.partition)
        inbox.peer_complete = complete
        claim = self._debts.claim(node, message.bucket, message.partition)
        self.nursery.start_soon(self._answer, inbox, claim, message, name="answered exchange")

    def _refusal(self, node: NodeId, message: Compare, epoch: int) -> Refusal | None:
        view = self._view
        ring = view.ring
        bucket = view.buckets.get(message.bucket)
        if ring is None or bucket is None:
            return Refusal.NO_BUCKET
        if message.partition >= ring.partitions:
            return Refusal.NOT_OWNER
        if epoch != ring.range_epoch(message.partition):
            return Refusal.OTHER_OWNERS
        if not {node, view.self_id} <= set(holders_by_right(ring, message.partition, bucket.properties.n)):
            return Refusal.NOT_OWNER
        if not self._transfers.may_answer(bucket.id, message.partition):
            return Refusal.BUSY
        if self.nursery is None or len(self._answered) >= ANSWERS_MAX or not self._admit(node):
            return Refusal.BUSY
        return None

    async def _answer(self, inbox: Inbox, claim: Claim, compare: Compare) -> None:
        try:
            async with self._answering:
                bucket = self._view.buckets.get(compare.bucket)
                if bucket is None:
                    self._refuse(inbox.peer, compare.exchange, Refusal.NO_BUCKET)
                elif not inbox.lost:
                    end = await self._answer_with(inbox, claim, compare, bucket)
                    if isinstance(end, Failed):
                        # Its machine says nothing when it gives up, and the initiator would wait for a minute.
                        self._refuse(inbox.peer, compare.exchange, Refusal.BUSY)
                    self._ended(claim, end, inbox.peer_complete)
        finally:
            self._debts.release(claim)
            del self._answered[inbox.peer, compare.exchange]

    async def _answer_with(self, inbox: Inbox, claim: Claim, compare: Compare, bucket: BucketView) -> Done | Failed:
        try:
            tree = await self._trees.tree(bucket, compare.partition)
        except StorageError as error:
            return Failed(str(error), Counts())
        machine = Responder(self.config, peer=inbox.peer, exchange=compare.exchange, tree=tree, now=self._now())
        effects = machine.on_message(inbox.peer, compare, self._now())
        return await self._driver(machine, inbox, bucket, claim, self._mover).run(effects)

    def _refuse(self, node: NodeId, exchange: int, refusal: Refusal, epoch: int = 0) -> None:
        fields = Refuse(exchange, refusal).to_wire()
        if refusal is Refusal.OTHER_OWNERS:
            fields["range_epoch"] = epoch
        self._send(node, MessageType.EXCHANGE_REPLY, fields)

    # -- both

    def _driver(
        self, machine: Initiator | Responder, inbox: Inbox, bucket: BucketView, claim: Claim, mover: Moves
    ) -> ExchangeDriver:
        return ExchangeDriver(
            machine,
            inbox=inbox,
            lists=partial(self._lists, bucket, claim.partition),
            mover=mover,
            pace=self._pace,
            post=partial(self._post, claim.bucket, claim.partition, mover is self._mover),
            moved=partial(self._transfers.moved, claim),
            now=self._now,
        )

    async def _lists(
        self, bucket: BucketView, partition: PartitionId, leaves: Collection[int]
    ) -> Mapping[int, list[Entry]]:
        """Keys and digests of these leaves of a range. Raises StorageError."""
        with listing(self._trees.trees, bucket.tree, partition) as listed:
            lists = await self._scanner.leaves(bucket, self.span(partition), leaves)
            listed.judge(lists)
        return lists

    def _post(
        self,
        bucket: BucketId,
        partition: PartitionId,
        moves: bool,  # bound with the others
        to: NodeId,
        message: AnyMessage,
    ) -> bool:
        if isinstance(message, Finish) and not moves:
            message = Cancel(message.exchange)  # nothing was mended: the peer must not take it for proved
        fields = message.to_wire()
        if isinstance(message, Compare | Equal | Branches):
            fields["complete"] = self._complete(bucket, partition)
        if isinstance(message, Compare):
            fields["range_epoch"] = self._range_epoch(partition)
        number = MessageType.EXCHANGE if isinstance(message, Request) else MessageType.EXCHANGE_REPLY
        return self._send(to, number, fields)

    def _send(self, to: NodeId, number: MessageType, fields: dict[str, Any]) -> bool:
        return self._peers.send(to, Lane.BULK, encode_frame(number, 0, cbor.dumps(fields)))

    def _range_epoch(self, partition: PartitionId) -> int:
        ring = self._view.ring
        return 0 if ring is None or partition >= ring.partitions else int(ring.range_epoch(partition))

    def check(self) -> None:
        """The bounds hold."""
        assert len(self._answered) <= ANSWERS_MAX
