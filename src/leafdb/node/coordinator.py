"""Requests in, operations out: where a put or a get meets the ring, the bucket and the bounds.

Handlers here are plain synchronous functions on the request path: no task, no scope, no await. An operation that must
wait is an object in one bounded table keyed by its number, with a slot in the timing wheel; replies of replicas find it
by that number. What a put and a get then do is in put_driver and get_driver, and what is decided in quorum/.

Only a node that holds the key coordinates; another forwards the request once. When no holder can be reached a sloppy
put is coordinated here, as a fallback, under this node's own actor.

**In a plan** a range may have two sets of owners (decision 0007), and its `Place` is `joint`. Holders are the nodes of
both. Gets are coordinated by an owner of the set that reads ask, puts by any holder but those whose copy is being made:
a put is minted over the record there is, and they may not have it yet. They do so only when nobody else is there, as a
fallback would. Those in both sets come first: they need the fewest others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from leafdb.errors import (
    DeadlineExceeded,
    LeafdbError,
    NotApplied,
    NotEnoughReplicas,
    OutcomeUnknown,
    Overloaded,
    ProtocolError,
    Reason,
)
from leafdb.limits import OPERATIONS_MAX, REQUEST_TIMEOUT_S_MAX, SIBLINGS_MAX
from leafdb.model.context import ContextSealer
from leafdb.model.key import partition_part
from leafdb.node.catch_up import CatchUp
from leafdb.node.completeness import Completeness
from leafdb.node.hint_keeper import HintKeeper
from leafdb.node.latency import PeerLatency
from leafdb.node.logs import Log
from leafdb.node.memory import MemoryLedger
from leafdb.node.metrics import Metrics
from leafdb.node.replica import Replica
from leafdb.node.request_times import RequestTimes
from leafdb.node.timers import TimingWheel
from leafdb.node.view import BucketView, ClusterView
from leafdb.quorum.messages import MalformedMessage, ReplicaStatus, decode_reply
from leafdb.ring.ring import Ring
from leafdb.ring.token import token_of
from leafdb.types import NodeId, PartitionId
from leafdb.wire.errors import encode_error
from leafdb.wire.frame import encode_frame
from leafdb.wire.registry import MessageType
from leafdb.wire.requests import with_deadline
from leafdb.wire.traced import TraceContext

SIBLINGS_WARNED_EVERY_S: Final = 60.0

log: Log = Log("coordinator")


class Requester(Protocol):
    """Who asked: a client session, a peer that forwarded, or a caller in this process."""

    def send(self, frame: bytes) -> bool:
        """Queue one frame; False when the requester is gone or too slow."""


class Operation(Protocol):
    """Something in the operation table: a coordinated put or get, or a forwarded request."""

    slot: int

    def expired(self) -> None:
        """The deadline passed."""

    def put_reply(self, node: NodeId, status: ReplicaStatus) -> None:
        """A replica answered a copy."""

    def get_reply(self, node: NodeId, status: ReplicaStatus, record: bytes) -> None:
        """A replica answered a read."""

    def relay(self, message_type: int, body: bytes) -> None:
        """The node a request was forwarded to answered it."""

    def peer_lost(self, node: NodeId) -> None:
        """The session to `node` broke: what it had not answered it will not answer."""


class Joint(NamedTuple):
    """The two sets of owners that a range in a plan has."""

    old: tuple[NodeId, ...]
    new: tuple[NodeId, ...]
    copying: tuple[NodeId, ...]
    """New owners that may lack records, because their copy is being made."""

    def other(self, asked: tuple[NodeId, ...]) -> tuple[NodeId, ...]:
        """The set that reads do not ask, given the one they do."""
        return self.old if asked == self.new else self.new

    def inner_first(self, nodes: Iterable[NodeId]) -> list[NodeId]:
        """The nodes, those in both sets before the others."""
        old, new = self.old, self.new
        return sorted(nodes, key=lambda node: node not in old or node not in new)


class Place:
    """Where a key lives, as one request sees it."""

    __slots__ = ("bucket", "holders", "joint", "key", "partition", "primaries", "range_epoch", "storage_key")

    def __init__(self, bucket: BucketView, key: bytes, ring: Ring) -> None:
        part = partition_part(key)
        token = token_of(bucket.id, part)
        self.bucket: BucketView = bucket
        self.key: bytes = key
        self.storage_key: bytes = token.to_bytes(8, "big") + key
        self.partition: PartitionId = ring.partition_of(token)
        self.primaries: tuple[NodeId, ...] = ring.primaries(self.partition, bucket.properties.n)
        """Whom reads ask."""
        self.holders: tuple[NodeId, ...] = self.primaries
        """Who takes writes."""
        self.joint: Joint | None = None
        self.range_epoch: int = int(ring.range_epoch(self.partition))
        if ring.in_plan:
            self._look_at_both(ring)

    def _look_at_both(self, ring: Ring) -> None:
        n = self.bucket.properties.n
        sets = ring.write_sets(self.partition, n)
        if len(sets) > 1:
            old, new = sets
            self.holders = ring.holders(self.partition, n)
            self.joint = Joint(old, new, ring.copying(self.partition, n))

    def coordinators(self, message_type: MessageType) -> Sequence[NodeId]:
        """Who may coordinate a forwarded request, the best first."""
        joint = self.joint
        if joint is None:
            return self.primaries
        if message_type is MessageType.FORWARD_GET:
            return joint.inner_first(self.primaries)
        return joint.inner_first(node for node in self.holders if node not in joint.copying)


class Coordinator:
    """The table of operations under way and everything they need."""

    def __init__(
        self,
        *,
        view: ClusterView,
        replica: Replica,
        hints: HintKeeper,
        lanes: Mapping[NodeId, Requester],
        sealer: ContextSealer,
        wheel: TimingWheel,
        catch_up: CatchUp,
        completeness: Completeness,
        memory: MemoryLedger,
        metrics: Metrics,
        now: Callable[[], float],
        now_ms: Callable[[], int],
    ) -> None:
        self.view = view
        self.replica = replica
        self.hints = hints
        self.lanes = lanes
        self.sealer = sealer
        self.wheel = wheel
        self.catch_up = catch_up
        self.completeness = completeness
        self.latency: PeerLatency = PeerLatency()
        self.times: RequestTimes = RequestTimes(metrics, sealer, now)
        self.metrics = metrics
        self.now = now
        self.now_ms = now_ms
        self.follow_trace: Callable[[Requester, TraceContext, int, bytes], Requester] | None = None
        """Asked, where traces are followed, who is to be answered in place of the session of a traced request."""
        self.operations: dict[int, Operation] = {}
        self.draining = False
        self.memory: MemoryLedger = memory
        self._last_id = 0
        self._siblings_warned_at = -SIBLINGS_WARNED_EVERY_S

    # -- the table

    def register(self, operation: Operation, deadline: float) -> int:
        """Give `operation` a number and a deadline (seconds on the node's clock)."""
        self._last_id = number = self._last_id + 1
        self.operations[number] = operation
        self.wheel.add(operation, deadline)
        return number

    def forget(self, number: int, operation: Operation) -> None:
        """The operation is over."""
        self.operations.pop(number, None)
        self.wheel.remove(operation)

    def turn(self, choices: int) -> int:
        """Which of several equal replicas to ask first this time."""
        return self._last_id % choices

    # -- admission, shared by put and get

    def deadline(self, deadline_ms: int) -> float:
        """When a request with so much time left must be answered, on this node's clock."""
        return self.now() + min(deadline_ms / 1000, REQUEST_TIMEOUT_S_MAX)

    def locate(self, bucket_id: int, generation: int, key: bytes, retry: Callable[[], None]) -> Place | None:
        """The key's place; None when the request waits for newer metadata (`retry` runs it again or refuses it).

        Raises NotApplied when the request cannot be taken at all.
        """
        ring = self.view.ring
        if ring is None or self.draining:
            raise self.refusal(Reason.NOT_READY if ring is None else Reason.DRAINING)
        if len(self.operations) >= OPERATIONS_MAX or self.memory.full:
            raise Overloaded("this node has as much under way as it may hold", retry_after=0.1)
        bucket = self.view.buckets.get(bucket_id)
        if bucket is None or bucket.generation < generation:
            if self.catch_up.wait(retry):
                return None
            raise NotApplied(f"no bucket has the number {bucket_id}", reason=Reason.NO_SUCH_BUCKET)
        if bucket.generation > generation:
            raise NotApplied("the bucket's properties have changed", reason=Reason.STALE_EPOCH)
        try:
            return Place(bucket, key, ring)
        except ValueError as error:
            raise NotApplied(f"malformed key: {error}", reason=Reason.BAD_REQUEST) from None

    def refusal(self, reason: Reason) -> NotApplied:
        """A plain refusal of this node."""
        texts = {
            Reason.NOT_READY: "this node is not part of a cluster yet",
            Reason.DRAINING: "this node is draining: ask another",
        }
        return NotApplied(texts.get(reason, str(reason)), reason=reason)

    def warn_of_siblings(self, bucket: BucketView, count: int) -> None:
        """Somebody should resolve a key with so many siblings before its writes are refused. At most once a minute."""
        if self.now() - self._siblings_warned_at >= SIBLINGS_WARNED_EVERY_S:
            self._siblings_warned_at = self.now()
            log.warning(
                "a key has many siblings: read it and write with its context, or blind writes will be refused",
                bucket=bucket.properties.name, siblings=count, refused_from=SIBLINGS_MAX,
            )  # fmt: skip

    def refuse(self, session: Requester, request_id: int, error: LeafdbError, op: str = "") -> None:
        """Answer a request with a typed error; `op` says of a put or a get that it was one."""
        if error.node is None:
            error.node = self.view.name_of(self.view.self_id)
        self.metrics.refused(error, op)
        session.send(encode_frame(MessageType.ERROR, request_id, encode_error(error)))

    # -- answers of replicas

    def on_replica_put_reply(self, node: NodeId, number: int, body: bytes) -> None:
        """A replica answered a copy or a write-back."""
        operation = self.operations.get(number)
        if operation is None:
            return
        try:
            status = decode_reply(body)[0]
        except MalformedMessage as error:
            raise ProtocolError(str(error)) from None
        operation.put_reply(node, status)

    def on_replica_get_reply(self, node: NodeId, number: int, body: bytes) -> None:
        """A replica answered a read."""
        operation = self.operations.get(number)
        if operation is None:
            return
        try:
            status, record = decode_reply(body)
        except MalformedMessage as error:
            raise ProtocolError(str(error)) from None
        operation.get_reply(node, status, record)

    def on_forwarded_reply(self, message_type: int, number: int, body: bytes) -> None:
        """The node we forwarded to answered."""
        operation = self.operations.get(number)
        if operation is not None:
            operation.relay(message_type, body)

    def on_peer_lost(self, node: NodeId) -> None:
        """Everything in flight to `node` is lost at once, not at its deadline."""
        for operation in list(self.operations.values()):
            operation.peer_lost(node)

    # -- forwarding

    def forward(
        self,
        session: Requester,
        request_id: int,
        message_type: MessageType,
        body: bytes,
        place: Place,
        deadline: float,
        op_id: bytes = b"",
        sent: Callable[[NodeId], None] | None = None,
    ) -> bool:
        """Send the request on to a node that may coordinate it; False when none can be reached. Raises Overloaded when
        some can and none has room: that is no reason to stand in for them. `sent` is told where it went."""
        usable = self.view.usable
        reachable = False
        nodes: Iterable[NodeId] = place.coordinators(message_type)
        if self.view.draining:
            nodes = sorted(nodes, key=self.view.draining.__contains__)
        for node in nodes:
            if node not in usable:
                continue
            reachable = True
            operation = Forwarded(self, session, request_id, message_type, node, op_id, place)
            operation.id = self.register(operation, deadline)
            left_ms = max(1, int((deadline - self.now()) * 1000))
            lane = self.lanes.get(node)
            if lane is not None and lane.send(encode_frame(message_type, operation.id, with_deadline(body, left_ms))):
                self.metrics.forwards_total += 1
                if sent is not None:
                    sent(node)
                return True
            self.forget(operation.id, operation)
        if reachable:
            raise Overloaded("too much is queued for the nodes that hold this key", retry_after=0.1)
        return False

    def check(self) -> None:
        """The table is within its bound and agrees with the wheel."""
        assert len(self.operations) <= OPERATIONS_MAX + 1
        self.replica.check()


class Forwarded:
    """A request on its way to a node that may coordinate it. It is never sent a second time."""

    __slots__ = (
        "_coordinator", "_message_type", "_node", "_op_id", "_place", "_request_id", "_session", "_started", "id",
        "slot",
    )  # fmt: skip

    def __init__(
        self,
        coordinator: Coordinator,
        session: Requester,
        request_id: int,
        message_type: MessageType,
        node: NodeId,
        op_id: bytes,
        place: Place,
    ) -> None:
        self._coordinator = coordinator
        self._session = session
        self._request_id = request_id
        self._message_type = message_type
        self._node = node
        self._op_id = op_id
        self._place = place
        self._started = coordinator.now()
        self.id: int = 0
        self.slot: int = 0

    def relay(self, message_type: int, body: bytes) -> None:
        """Pass the answer on as it came."""
        coordinator = self._coordinator
        coordinator.forget(self.id, self)
        self._session.send(encode_frame(message_type, self._request_id, body))
        if message_type != MessageType.ERROR:
            taken, bucket = coordinator.metrics.forward_duration, self._place.bucket.properties.name
            coordinator.times.answered(taken, self._started, "forward", bucket, self._place.key, self._request_id)

    def expired(self) -> None:
        """No answer in time."""
        self._fail("no answer in time from")

    def peer_lost(self, node: NodeId) -> None:
        """The node we forwarded to is gone."""
        if node == self._node:
            self._fail("the connection broke to")

    def put_reply(self, node: NodeId, status: ReplicaStatus) -> None:
        """Nobody answers a forwarded request with a replica's reply."""
        raise ProtocolError("a replica's answer to a forwarded request")

    def get_reply(self, node: NodeId, status: ReplicaStatus, record: bytes) -> None:
        """Nobody answers a forwarded request with a replica's reply."""
        raise ProtocolError("a replica's answer to a forwarded request")

    def _fail(self, what: str) -> None:
        coordinator = self._coordinator
        coordinator.forget(self.id, self)
        name = coordinator.view.name_of(self._node)
        text = f"{what} {name}, to which the request was forwarded"
        if self._message_type is MessageType.FORWARD_PUT:
            error: LeafdbError = OutcomeUnknown(text, acks=0, required=1, replicas=(name,), op_id=self._op_id)
            op = "put"
        else:
            error = DeadlineExceeded(text, stage="forward", got=0, required=1)
            op = "get"
        coordinator.refuse(self._session, self._request_id, error, op)


def not_enough(alive: int, required: int, what: str) -> NotEnoughReplicas:
    """The refusal of a request whose quorum cannot be met by who is there."""
    return NotEnoughReplicas(f"{alive} {what} can be reached, {required} are needed", alive=alive, required=required)
