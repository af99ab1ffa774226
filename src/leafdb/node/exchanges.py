"""All exchanges under way at this node: those it began and those it answers; which message belongs to which.

A message of EXCHANGE or EXCHANGE_REPLY is the map of its machine's message; the two that open an exchange also carry
`complete`: whether the sender's store lacks nothing of the range. `compare` carries `range_epoch` as well, the last
change of the range's owners that the initiator knows: whoever knows another refuses, says which, and the one behind
fetches the metadata. The same with `horizon`, the purge horizon; and where there is one, the opening messages say
whether the sender `vouches` for what lies below it, which who is complete does. By that both know how records are
taken (`accords`). Neither side begins before it has forgotten all that the horizon lets it.

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
from leafdb.model.hlc import STAMP_MAX
from leafdb.node.accords import Accord, Accords
from leafdb.node.debts import Claim, Debts
from leafdb.node.exchange_driver import ExchangeDriver, Inbox, Moves
from leafdb.node.exchange_terms import Terms
from leafdb.node.horizons import Horizons
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

UNSWEPT: Final = "what died below the purge horizon is still being forgotten here"

Ended = Callable[[Claim, Done | Failed, bool, Terms | None], None]
"""(claim, how it ended, whether the peer is complete for the range, by which terms)."""


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
        horizons: Horizons,
        accords: Accords,
        complete: Callable[[BucketId, PartitionId], bool],
        admit: Callable[[NodeId], bool],
        behind: Callable[[NodeId], None],
        ended: Ended,
    ) -> None:
        self._complete = complete
        self._horizons = horizons
        self._accords = accords
        self.config: ExchangeConfig = ExchangeConfig(
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

    def accord(self, node: NodeId, number: int) -> Accord | None:
        """That of an exchange which `node` began and this one answers."""
        inbox = self._answered.get((node, number))
        return None if inbox is None else inbox.accord

    # -- ours

    async def initiate(self, claim: Claim, bucket: BucketView, tree: Tree) -> Done | Failed:
        """Compare a range of ours, of which `tree` was built since it was claimed, with the peer's."""
        end, peer_complete, terms = await self._begin(claim, bucket, tree, self._mover)
        self._ended(claim, end, peer_complete, terms)
        if isinstance(end, Done) and not claim.spoilt:
            self.on_proved(claim)
        return end

    async def look(self, claim: Claim, bucket: BucketView, tree: Tree, looking: Moves) -> Done | Failed:
        """The same with somebody who moves no records. It proves nothing to either side, and nobody is told."""
        return (await self._begin(claim, bucket, tree, looking))[0]

    async def _begin(
        self, claim: Claim, bucket: BucketView, tree: Tree, mover: Moves
    ) -> tuple[Done | Failed, bool, Terms | None]:
        if not self._swept(claim.partition):
            return Failed(UNSWEPT, Counts()), False, None
        self._number += 1
        slot = (claim.peer, self._number)
        accord = self._accords.begin(claim.peer, self._number, claim.bucket, claim.partition)
        inbox = self._initiated[slot] = Inbox(accord)
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
            end = await driver.run(machine.start(self._now()))
            return _unspoilt(accord, end), inbox.peer_complete, accord.terms
        finally:
            del self._initiated[slot]
            self._accords.end(accord)

    # -- theirs

    def on_message(self, node: NodeId, body: bytes) -> None:
        """An EXCHANGE or EXCHANGE_REPLY frame. ProtocolError when it is malformed."""
        try:
            fields = as_map(cbor.loads(body), "message")
            message = from_wire(fields)
            epoch = int_field(fields, "range_epoch") if "range_epoch" in fields else 0
            horizon = int_field(fields, "horizon", high=STAMP_MAX) if "horizon" in fields else 0
        except ValueError as error:
            raise ProtocolError(f"a malformed exchange message: {error}") from None
        slot = (node, message.exchange)
        inbox = self._initiated.get(slot) if isinstance(message, Reply) else self._answered.get(slot)
        if isinstance(message, Compare):
            if inbox is None:
                self._compare(node, message, epoch, horizon, fields)
        elif inbox is not None:
            if isinstance(message, Refuse) and self._is_newer(inbox.partition, epoch, horizon):
                self._behind(node)
            if isinstance(message, Equal | Branches):
                self._agree(inbox, fields)
            inbox.put(message)
        elif isinstance(message, Leaves | Want):
            self._refuse(node, message.exchange, Refusal.BUSY)

    def _agree(self, inbox: Inbox, fields: Mapping[str, Any]) -> None:
        """The peer says where its store stands. Once: what it says later is for its machine to refuse."""
        if inbox.accord.terms is None:
            inbox.peer_complete = fields.get("complete") is True
            vouches = not inbox.accord.ours.horizon or inbox.peer_complete or fields.get("vouches") is True
            self._accords.agree(inbox.accord, vouches=vouches)

    def _compare(self, node: NodeId, message: Compare, epoch: int, horizon: int, fields: Mapping[str, Any]) -> None:
        refusal = self._refusal(node, message, epoch, horizon)
        if refusal is not None:
            known = {}
            if refusal is Refusal.OTHER_OWNERS:
                known["range_epoch"] = self._range_epoch(message.partition)
            if refusal is Refusal.OTHER_HORIZON:
                known["horizon"] = self._horizon(message.partition)
            self._refuse(node, message.exchange, refusal, **known)
            if known and self._is_newer(message.partition, epoch, horizon):
                self._behind(node)
            return
        assert self.nursery is not None
        accord = self._accords.begin(node, message.exchange, message.bucket, message.partition)
        inbox = self._answered[node, message.exchange] = Inbox(accord)
        self._agree(inbox, fields)
        claim = self._debts.claim(node, message.bucket, message.partition)
        self.nursery.start_soon(self._answer, inbox, claim, message, name="answered exchange")

    def _is_newer(self, partition: PartitionId, epoch: int, horizon: int) -> bool:
        """Whether these can only be of newer metadata."""
        return epoch > self._range_epoch(partition) or horizon > self._horizon(partition)

    def _refusal(self, node: NodeId, message: Compare, epoch: int, horizon: int) -> Refusal | None:
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
        if horizon != self._horizons.of(message.partition):
            return Refusal.OTHER_HORIZON
        if not self._swept(message.partition):
            return Refusal.BUSY
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
                    self._ended(claim, end, inbox.peer_complete, inbox.accord.terms)
                else:
                    self._refuse(inbox.peer, compare.exchange, Refusal.BUSY)
        finally:
            self._debts.release(claim)
            del self._answered[inbox.peer, compare.exchange]
            self._accords.end(inbox.accord)

    async def _answer_with(self, inbox: Inbox, claim: Claim, compare: Compare, bucket: BucketView) -> Done | Failed:
        try:
            tree = await self._trees.tree(bucket, compare.partition)
        except StorageError as error:
            return Failed(str(error), Counts())
        machine = Responder(self.config, peer=inbox.peer, exchange=compare.exchange, tree=tree, now=self._now())
        effects = machine.on_message(inbox.peer, compare, self._now())
        return _unspoilt(inbox.accord, await self._driver(machine, inbox, bucket, claim, self._mover).run(effects))

    def _refuse(self, node: NodeId, exchange: int, refusal: Refusal, **known: int) -> None:
        fields = Refuse(exchange, refusal).to_wire() | known
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
            post=partial(self._post, inbox.accord, mover is self._mover),
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
        accord: Accord,
        moves: bool,  # bound with the others
        to: NodeId,
        message: AnyMessage,
    ) -> bool:
        if isinstance(message, Finish) and (accord.spoilt or not moves):
            message = Cancel(message.exchange)  # nothing was mended: the peer must not take it for proved
        if isinstance(message, Reply) and accord.spoilt:
            return False
        fields = message.to_wire()
        if isinstance(message, Compare | Equal | Branches):
            complete = fields["complete"] = self._complete(accord.bucket, accord.partition)
            if accord.ours.horizon and accord.ours.vouches and not complete:
                fields["vouches"] = True
        if isinstance(message, Compare):
            fields["range_epoch"] = self._range_epoch(accord.partition)
            if accord.ours.horizon:
                fields["horizon"] = accord.ours.horizon
        number = MessageType.EXCHANGE if isinstance(message, Request) else MessageType.EXCHANGE_REPLY
        return self._send(to, number, fields)

    def _send(self, to: NodeId, number: MessageType, fields: dict[str, Any]) -> bool:
        return self._peers.send(to, Lane.BULK, encode_frame(number, 0, cbor.dumps(fields)))

    def _range_epoch(self, partition: PartitionId) -> int:
        ring = self._view.ring
        return 0 if ring is None or partition >= ring.partitions else int(ring.range_epoch(partition))

    def _horizon(self, partition: PartitionId) -> int:
        ring = self._view.ring
        return 0 if ring is None or partition >= ring.partitions else self._horizons.of(partition)

    def _swept(self, partition: PartitionId) -> bool:
        """Whether all that this store may forget is forgotten: what one side names the other must not have let go."""
        return self._horizons.swept(partition) >= self._horizons.of(partition)

    def check(self) -> None:
        """The bounds hold."""
        assert len(self._answered) <= ANSWERS_MAX


def _unspoilt(accord: Accord, end: Done | Failed) -> Done | Failed:
    """What came to its end under other terms than it began with came to nothing."""
    return Failed(accord.spoilt, end.counts) if accord.spoilt and isinstance(end, Done) else end
