"""A put under way on its coordinator: the record to everybody who is to have it, their answers, hints, the answer.

It carries out what quorum/put_operation decides. The merged record is encoded once; one frame goes to every other
target. Local commit and remote acknowledgements step the machine; at W the client is answered with a context that
covers exactly its `after` and its own dot, or dots: of a write that was sent twice there may be two. The rest still
arrives, and what never does becomes a hint.

**A ring that changes meanwhile.** Replicas that know of the change refuse copies of before it, and the record exists
here already. So the put goes on: when this node has caught up it asks everybody anew under the ring there is, and all
is counted from the start, its own copy at once. Only records travel, so no more is done twice than with a repair.
Answers to what was sent before bear another number and count no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from leafdb.errors import LeafdbError, NotApplied, OutcomeUnknown, ProtocolError, Reason, StorageError
from leafdb.model.clock import EMPTY, CausalClock, Dot
from leafdb.model.record import header, newest_stamp
from leafdb.node.coordinator import Coordinator, Place, Requester, not_enough
from leafdb.node.outcomes import refusal_of
from leafdb.node.put_targets import anew
from leafdb.node.view import BucketView
from leafdb.quorum.joint_put_operation import JointPutOperation
from leafdb.quorum.messages import FLAG_DURABLE, NOT_APPLIED_STATUSES, ReplicaStatus, encode_replica_put
from leafdb.quorum.put_operation import PutOperation, Step
from leafdb.types import Durability, NodeId
from leafdb.wire.frame import encode_frame
from leafdb.wire.registry import MessageType
from leafdb.wire.requests import FLAG_DELETE, PutRequest, encode_put_reply


class CoordinatedPut:
    """One put under way on its coordinator. Implements replica.Minting and coordinator.Operation."""

    __slots__ = (
        "_coordinator",
        "_deadline",
        "_kept",
        "_request",
        "_request_id",
        "_session",
        "bucket",
        "context",
        "dot",
        "durability",
        "expires_ms",
        "id",
        "machine",
        "op_id",
        "place",
        "record",
        "seen",
        "sloppy",
        "slot",
        "started",
        "storage_key",
        "twins",
        "value",
    )

    def __init__(
        self,
        coordinator: Coordinator,
        session: Requester,
        request_id: int,
        request: PutRequest,
        place: Place,
        deadline: float,
        context: CausalClock | None,
        seen: int,
        machine: PutOperation,
        durability: Durability,
    ) -> None:
        self._coordinator = coordinator
        self._session = session
        self._request = request
        self._request_id = request_id
        self._deadline = deadline
        self.started: float = coordinator.now()
        self.place: Place = place
        self.bucket: BucketView = place.bucket
        self.storage_key: bytes = place.storage_key
        self.context: CausalClock | None = context
        self.seen: int = seen
        self.durability: Durability = durability
        self.machine: PutOperation = machine
        self.op_id: bytes = request.op_id
        self.value: bytes | None = None if request.flags & FLAG_DELETE else request.value
        ttl_ms = request.ttl_ms or place.bucket.ttl_ms
        self.expires_ms: int = coordinator.now_ms() + ttl_ms if ttl_ms and self.value is not None else 0
        self._kept = False
        """This node's own copy is as durable as asked."""
        self.record: bytes | None = None
        self.dot: Dot | None = None
        self.twins: Sequence[Dot] = ()
        """All dots of a write that was here already."""
        self.sloppy: bool = False
        """Fallbacks may be taken, and have not been looked for yet."""
        self.id: int = 0
        self.slot: int = 0

    # -- replica.Minting

    @property
    def abandoned(self) -> bool:
        """Answered already (deadline) before its turn came."""
        return self.machine.ended

    def known(self, dots: Sequence[Dot]) -> None:
        """The write was here already: it goes by these dots."""
        self.twins = dots
        self._coordinator.metrics.writes_recognised_total += 1

    def minted(self, data: bytes, dot: Dot) -> None:
        """The record exists here: send it to everybody else at once."""
        self.record = data
        self.dot = dot
        own = self._coordinator.view.self_id
        machine = self.machine
        machine.asks.clear()  # whoever was asked while the disk was read is among those waited for
        frame = self._copy(0)
        for node, stands_for in tuple(machine.waiting.items()):
            if node != own:
                self._send(node, frame if stands_for == node else self._copy(stands_for))
        if machine.owed or machine.asks:
            self._step(Step.NOTHING)

    def unminted(self, error: Exception) -> None:
        """The local replica refused: nothing exists anywhere."""
        if self.machine.ended:
            return
        self.machine.ended = True
        self._coordinator.forget(self.id, self)
        self._refuse(refusal_of(error))

    def committed(self, error: StorageError | None) -> None:
        """The local copy is safe, or this node's store has failed."""
        own = self._coordinator.view.self_id
        self._kept = error is None
        self._step(self.machine.acked(own) if error is None else self.machine.lost(own))

    # -- coordinator.Operation

    def put_reply(self, node: NodeId, status: ReplicaStatus) -> None:
        """Another replica has it, or says why not."""
        machine = self.machine
        coordinator = self._coordinator
        coordinator.metrics.replica_put_duration.observe(coordinator.now() - self.started)
        if status is ReplicaStatus.APPLIED:
            self._step(machine.acked(node))
            return
        if status is ReplicaStatus.REFUSED_STALE_EPOCH and not machine.ended and self._catches_up(node):
            return
        self._look_for_spares()
        if status in NOT_APPLIED_STATUSES:
            self._step(machine.refused(node))
        else:
            self._step(machine.lost(node))

    def peer_lost(self, node: NodeId) -> None:
        """Losing a peer's session turns its copies into hints at once, or a fallback's while the answer is open."""
        if node in self.machine.waiting:
            self._look_for_spares()
            self._step(self.machine.lost(node))

    def expired(self) -> None:
        """The deadline: answer if nothing was answered, and keep hints for whoever is silent."""
        self._step(self.machine.expired())

    def get_reply(self, node: NodeId, status: ReplicaStatus, record: bytes) -> None:
        """Nobody answers a put with a read."""
        raise ProtocolError("a read's answer to a put")

    def relay(self, message_type: int, body: bytes) -> None:
        """Nobody answers a coordinated put as if it had been forwarded."""
        raise ProtocolError("a client's answer to a replica's put")

    # -- a newer ring

    def _catches_up(self, node: NodeId) -> bool:
        """`node` refused because its ring is another one: whether that is dealt with, now or when ours is newer too."""
        return self._begins_anew() or self._coordinator.catch_up.wait(partial(self._caught_up, node, self.id))

    def _caught_up(self, node: NodeId, number: int) -> None:
        machine = self.machine
        if number == self.id and (machine.ended or not self._begins_anew()):
            self._look_for_spares()
            self._step(machine.refused(node))

    def _begins_anew(self) -> bool:
        """Ask everybody under the ring in force now; False when the range has not changed, or it cannot be done."""
        coordinator = self._coordinator
        view = coordinator.view
        bucket = view.buckets.get(int(self.bucket.id))
        own = view.self_id
        assert self.record is not None
        assert self.dot is not None
        if bucket is None or bucket.generation != self.bucket.generation or view.ring is None:
            return False
        place = Place(bucket, self.place.key, view.ring)
        if place.range_epoch == self.place.range_epoch or own not in self.place.holders:
            return False  # the latter: its copy is a hint, kept for somebody under the ring that is gone
        try:
            machine = anew(coordinator, place, self._request)
        except LeafdbError:
            return False
        coordinator.forget(self.id, self)
        self.bucket, self.place, self.machine = bucket, place, machine
        if machine.owed or any(node != stands_for for node, stands_for in machine.waiting.items()):
            self.sloppy = False  # they have been looked for
        self.id = coordinator.register(self, self._deadline)
        self.minted(self.record, self.dot)
        if self._kept:
            self._step(machine.acked(own))
        return True

    # -- effects of the machine

    def _step(self, step: Step) -> None:
        machine = self.machine
        if self.record is not None:
            while machine.asks:
                node, stands_for = machine.asks.pop()
                self._send(node, self._copy(stands_for))
            if machine.owed:
                self._owe(self.record)
        if step is Step.DECIDED:
            self._answer()
        elif step is Step.FAILED:
            self._fail()
        if not machine.waiting:
            self._coordinator.forget(self.id, self)

    def _send(self, node: NodeId, frame: bytes) -> None:
        """A copy to `node`; a lane that is down or full counts as a refusal: nothing of it left this node."""
        lane = self._coordinator.lanes.get(node)
        if lane is None or not lane.send(frame):
            self._look_for_spares()
            step = self.machine.refused(node)
            if step is Step.FAILED:
                self._fail()

    def _copy(self, hint_target: int) -> bytes:
        assert self.record is not None
        place = self.place
        left_ms = max(1, int((self._deadline - self._coordinator.now()) * 1000))
        flags = FLAG_DURABLE if self.durability is not self.bucket.durability else 0
        body = encode_replica_put(
            self.bucket.id,
            self.bucket.generation,
            place.range_epoch,
            left_ms,
            flags,
            hint_target,
            place.key,
            self.record,
        )
        return encode_frame(MessageType.REPLICA_PUT, self.id, body)

    def _look_for_spares(self) -> None:
        """All primaries were there when the put began, and now one is missing: who may stand in for it?"""
        machine = self.machine
        if self.sloppy and not machine.ended:
            self.sloppy = False
            # The ring may have changed since: who held the key when the put began stands in for nobody.
            taken = (*machine.waiting, *self.place.holders)
            machine.spares = self._coordinator.hints.fallbacks(self.place.partition, self.bucket, taken)

    def _owe(self, record: bytes) -> None:
        hints = self._coordinator.hints
        own = self._coordinator.view.self_id
        for primary in self.machine.owed:
            # Our own copy stands in the log already, however slow that is: the store keeps it or fails.
            if primary != own:
                hints.owe(primary, self.bucket, self.place.storage_key, record)
        self.machine.owed.clear()

    def _answer(self) -> None:
        coordinator = self._coordinator
        assert self.record is not None
        assert self.dot is not None
        clock = (EMPTY if self.context is None else self.context).add(self.dot)
        for twin in self.twins:
            clock = clock.add(twin)
        stamp = max(self.seen, self._own_stamp(self.record))
        sealed = coordinator.sealer.seal(clock, stamp, self.bucket.id, self.place.key)
        machine = self.machine
        body = encode_put_reply(coordinator.view.epoch, machine.acks, machine.primary_acks, sealed)
        self._session.send(encode_frame(MessageType.PUT_REPLY, self._request_id, body))
        metrics = coordinator.metrics
        metrics.puts_total += 1
        if self.value is not None:
            metrics.value_bytes.observe(len(self.value))
        bucket = self.bucket.properties.name
        coordinator.times.answered(metrics.put_duration, self.started, "put", bucket, self.place.key, self._request_id)

    def _own_stamp(self, record: bytes) -> int:
        """The stamp of this write, the newest in what it has just made; of one that was here already, or what has
        replaced it, no less than its own."""
        if self.twins:
            heads = header(record).heads
            stamps = [heads[dot].stamp for dot in self.twins if dot in heads]
            if len(stamps) == len(self.twins):
                return max(stamps)
        return newest_stamp(record)

    def _fail(self) -> None:
        machine = self.machine
        if self.record is None:
            if machine.waiting:
                short = machine.short() if isinstance(machine, JointPutOperation) else None
                self._refuse(not_enough(*short or (machine.acks + len(machine.waiting), machine.w, "replicas")))
            else:
                self._refuse(NotApplied("the deadline passed before the write began", reason=Reason.EXPIRED))
            return
        names = tuple(self._coordinator.view.name_of(node) for node in self.place.holders)
        got, needed = machine.progress
        self._refuse(
            OutcomeUnknown(
                f"{got} of {needed} replicas have confirmed the write; it may live on and surface later",
                acks=got,
                required=needed,
                replicas=names,
                op_id=self.op_id,
            )
        )

    def _refuse(self, error: LeafdbError) -> None:
        self._coordinator.refuse(self._session, self._request_id, error, "put")
