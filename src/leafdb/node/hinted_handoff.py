"""Drives hints/: takes what is kept here home when its owner is back, and takes in what others kept for us.

Two machines: `Schedule` for what this node holds, `CreditGrantor` for what it is given. Neither waits: pages are read
by the engine's pool, merges end in callbacks, deadlines are entries of the timing wheel. Records go through
`replica.merge` like every other write and are synced before they are confirmed, whatever their bucket promises: the
holder removes its copy on our word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple, assert_never

from leafdb.codec import cbor
from leafdb.errors import ProtocolError, StorageError
from leafdb.hints.credits import CreditGrantor
from leafdb.hints.effects import Apply, Drained, Effect, GrantorEffect, MarkRange, ReadPage, Remove, Send
from leafdb.hints.hint import target_range, version_of
from leafdb.hints.messages import AnyMessage, HintBatch, HintsWaiting, from_wire
from leafdb.hints.schedule import Schedule
from leafdb.node.hint_keeper import HINTS_TREE
from leafdb.node.key_queue import ReplicaOverloaded
from leafdb.node.left_out import LeftOut
from leafdb.node.logs import Log
from leafdb.node.metrics import Metrics
from leafdb.node.replica import Replica
from leafdb.node.timers import TimingWheel
from leafdb.node.view import BucketView, ClusterView
from leafdb.ring.token import split_storage_key
from leafdb.storage.engine import Engine
from leafdb.storage.lsm_tree import Page
from leafdb.types import BucketId, Durability, NodeId
from leafdb.wire.frame import encode_frame
from leafdb.wire.registry import MessageType

log: Log = Log("hinted_handoff")

EXPIRE_INTERVAL_S = 60.0


class Removal(NamedTuple):
    """Remove one hint, unless it has changed since the version that was acknowledged."""

    handoff: HintedHandoff
    key: bytes
    version: int
    expired: bool = False
    """It is given up for its age; otherwise its target has it."""

    def run(self, value: bytes | None, sequence: int) -> None:
        remove = self.handoff.given_up if self.expired else self.handoff.remove
        remove(self.key, value if value is not None and version_of(value) == self.version else None)

    def refuse(self, error: Exception) -> None:
        self.handoff.remove(self.key, None)


class HintedHandoff:
    """Both ends of handoff. `send` puts a frame on a peer's bulk lane; `mark` makes a range owe an exchange; `taken` is
    told of each hint that was merged here, and says when its holder may be."""

    def __init__(
        self,
        *,
        engine: Engine,
        view: ClusterView,
        replica: Replica,
        schedule: Schedule,
        grantor: CreditGrantor,
        wheel: TimingWheel,
        metrics: Metrics,
        now: Callable[[], float],
        now_ms: Callable[[], int],
        send: Callable[[NodeId, bytes], bool],
        mark: Callable[[MarkRange], None],
        taken: Callable[[BucketId, bytes, Callable[[Exception | None], None]], None],
    ) -> None:
        self._engine = engine
        self._view = view
        self._replica = replica
        self._schedule = schedule
        self._grantor = grantor
        self._wheel = wheel
        self._metrics = metrics
        self._now = now
        self._now_ms = now_ms
        self._send = send
        self._mark = mark
        self.taken = taken
        self._next_expiry = now() + EXPIRE_INTERVAL_S
        self.slot = 0

    # -- inputs

    def on_session_up(self, node: NodeId) -> None:
        """The bulk lane to a peer is up: what is kept for it starts home."""
        self._perform(self._schedule.on_session_established(node, self._now()))

    def on_session_down(self, node: NodeId) -> None:
        """The bulk lane to a peer broke."""
        now = self._now()
        self._perform(self._schedule.on_session_lost(node, now))
        self._perform_grants(self._grantor.on_session_lost(node, now))

    def on_pauses(self) -> None:
        """Delivery to some target was paused, or goes on."""
        self._perform(self._schedule.on_pauses(self._now()))

    def kept(self, node: NodeId) -> None:
        """A hint for `node` was written."""
        self._perform(self._schedule.on_added(node, self._now()))

    def on_message(self, node: NodeId, body: bytes) -> None:
        """A HINTS or HINTS_REPLY frame of a peer."""
        try:
            message = from_wire(cbor.loads(body))
        except ValueError as error:
            raise ProtocolError(f"a malformed hints message: {error}") from None
        now = self._now()
        self._perform(self._schedule.on_message(node, message, now))
        self._perform_grants(self._grantor.on_message(node, message, now))

    def expired(self) -> None:
        """A deadline of either machine, or the minute for giving up old hints."""
        now = self._now()
        if now >= self._next_expiry:
            self._next_expiry = now + EXPIRE_INTERVAL_S
            self._perform(self._schedule.expire(self._now_ms()))
        self._perform(self._schedule.on_time(now))
        self._perform_grants(self._grantor.on_time(now))

    # -- effects of the holder's machine

    def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(to=to, message=message):
                    self._post(to, message)
                case ReadPage():
                    self._read(effect)
                case Remove(key=key, version=version, expired=expired):
                    self._replica.queue.do(HINTS_TREE, key, Removal(self, key, version, expired))
                case MarkRange():
                    self._mark(effect)
                case Drained(target=target):
                    log.info("all hints delivered", target=self._view.name_of(target))
                case _:
                    assert_never(effect)
        self._rearm()

    def _post(self, to: NodeId, message: AnyMessage) -> None:
        number = MessageType.HINTS if isinstance(message, HintBatch | HintsWaiting) else MessageType.HINTS_REPLY
        self._send(to, encode_frame(number, 0, cbor.dumps(message.to_wire())))

    def _read(self, effect: ReadPage) -> None:
        start, _ = target_range(effect.target)
        self._read_from(effect, start if effect.after is None else effect.after + b"\0")

    def _read_from(self, effect: ReadPage, start: bytes) -> None:
        _, stop = target_range(effect.target)
        self._engine.scan_soon(
            HINTS_TREE,
            start,
            stop,
            limit=effect.records_max,
            bytes_max=effect.bytes_max,
            reverse=False,
            done=partial(self._page_read, effect),
        )

    def _page_read(self, effect: ReadPage, page: Page | StorageError) -> None:
        ticket = effect.ticket
        if isinstance(page, StorageError):
            log.error("hints cannot be read", reason=str(page))
            self._perform(self._schedule.on_page_failed(ticket, self._now()))
            return
        if not page.items and page.next_key is not None:
            # A page may show nothing and not be the end: it went over hints that are removed already.
            self._read_from(effect, page.next_key)
            return
        shown = partial(self._give_page, ticket, page.items, page.next_key is None)
        self._engine.when_safe(page.sequence, Durability.ALWAYS, shown)

    def _give_page(
        self, ticket: int, items: Iterable[tuple[bytes, bytes]], end: bool, error: StorageError | None
    ) -> None:
        if error is not None:
            self._perform(self._schedule.on_page_failed(ticket, self._now()))
        else:
            self._perform(self._schedule.on_page(ticket, tuple(items), end=end, now=self._now()))

    def remove(self, key: bytes, value: bytes | None) -> None:
        """Remove the hint `value` under `key`; None: it has changed, and stays."""
        if value is not None:
            self._delete(key)
            self._metrics.hints_delivered_total += 1
        self._perform(self._schedule.on_removed(key, value, self._now()))

    def given_up(self, key: bytes, value: bytes | None) -> None:
        """As `remove`, of a hint that has grown too old and whose range is marked."""
        if value is not None:
            self._delete(key)
            self._metrics.hints_expired_total += 1
        self._perform(self._schedule.on_removed(key, value, self._now()))

    def handed_on(self, key: bytes, value: bytes) -> None:
        """Remove the hint `value` under `key`: others than its target have what it says."""
        self._delete(key)
        self._metrics.hints_handed_on_total += 1
        self._perform(self._schedule.on_removed(key, value, self._now()))

    def purged(self, key: bytes, value: bytes) -> None:
        """Remove the hint `value` under `key`: somebody has given it up, and its range is marked."""
        self._delete(key)
        self._metrics.hints_purged_total += 1
        self._perform(self._schedule.on_removed(key, value, self._now()))

    def _delete(self, key: bytes) -> None:
        # Not synced: a crash that undoes the removal only delivers the hint once more.
        self._engine.write(((HINTS_TREE, key, None),), Durability.PERIODIC, None)

    # -- effects of the target's machine

    def _perform_grants(self, effects: Iterable[GrantorEffect]) -> None:
        for effect in effects:
            match effect:
                case Send(to=to, message=message):
                    self._post(to, message)
                case Apply(sender=sender, batch=batch):
                    _Application(self, self._view, self._replica, sender, batch).begin()
                case _:
                    assert_never(effect)
        self._rearm()

    def applied(self, sender: NodeId, batch: int, refused: tuple[int, ...]) -> None:
        """Every record of a batch is merged and durable, or refused."""
        self._perform_grants(self._grantor.on_applied(sender, batch, refused, self._now()))

    def _rearm(self) -> None:
        self._wheel.remove(self)
        deadline = min(self._schedule.deadline(), self._grantor.deadline(), self._next_expiry)
        self._wheel.add(self, deadline)


class _Application:
    """One batch of hints on its way into the replica."""

    __slots__ = ("_batch", "_handoff", "_left", "_refused", "_replica", "_sender", "_view")

    def __init__(
        self, handoff: HintedHandoff, view: ClusterView, replica: Replica, sender: NodeId, batch: HintBatch
    ) -> None:
        self._handoff = handoff
        self._view = view
        self._replica = replica
        self._sender = sender
        self._batch = batch
        self._left = len(batch.hints)
        self._refused: list[int] = []

    def begin(self) -> None:
        try:
            self._replica.admit()
        except (ReplicaOverloaded, StorageError):
            # No room, or no time: the holder keeps them and comes again.
            everything = tuple(range(len(self._batch.hints)))
            self._handoff.applied(self._sender, self._batch.batch, everything)
            return
        for place, hint in enumerate(self._batch.hints):
            bucket = self._view.buckets.get(hint.bucket)
            if bucket is not None and not self._is_ours(bucket, hint.storage_key):
                self._merged(place, LookupError("this node does not hold the key"))
                continue
            if bucket is not None:
                done = partial(self._taken, place)
                self._replica.merge(
                    bucket.tree, hint.storage_key, hint.record, bucket.conflict, Durability.ALWAYS, done
                )
                continue
            metadata = self._view.metadata
            dropped = metadata is not None and hint.bucket < metadata.next_bucket_id
            self._merged(place, None if dropped else LookupError("the bucket is not known here yet"))

    def _is_ours(self, bucket: BucketView, storage_key: bytes) -> bool:
        """Whether this node holds the key. If not, the hint stays with its holder, who finds out who does
        (orphan_hints): merged here it would only be a leftover."""
        ring = self._view.ring
        assert ring is not None, "buckets come with a ring"
        partition = ring.partition_of(split_storage_key(storage_key)[0])
        return ring.is_primary(self._view.self_id, partition, bucket.properties.n)

    def _taken(self, place: int, error: Exception | None) -> None:
        if error is not None and not isinstance(error, LeftOut):
            self._merged(place, error)
            return
        hint = self._batch.hints[place]
        self._handoff.taken(BucketId(hint.bucket), hint.storage_key, partial(self._merged, place))

    def _merged(self, place: int, error: Exception | None) -> None:
        if error is not None:
            self._refused.append(place)
        self._left -= 1
        if not self._left:
            self._handoff.applied(self._sender, self._batch.batch, tuple(sorted(self._refused)))
