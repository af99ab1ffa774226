"""A put, from the client's frame to its answer: drives quorum/put_operation.

The local replica goes first, in the same call: it mints the dot and merges. The merged record is encoded once; one
frame goes to every other primary. Local commit and remote acknowledgements step the machine; at W the client is
answered with a context that covers exactly its `after` and its own dot. The rest still arrives, and what never does
becomes a hint. A range in a plan has two sets of owners and another machine, chosen where the put begins; all that
follows is the same.
"""

from __future__ import annotations

from functools import partial

from leafdb.errors import DiskFull, LeafdbError, NotApplied, OutcomeUnknown, ProtocolError, Reason, StorageError
from leafdb.limits import TTL_S_MAX, VALUE_BYTES_MAX
from leafdb.model.clock import EMPTY, CausalClock, Dot
from leafdb.model.context import ContextError
from leafdb.model.key import decode_key
from leafdb.node.coordinator import Coordinator, Place, Requester, not_enough
from leafdb.node.key_queue import ReplicaOverloaded
from leafdb.node.outcomes import refusal_of
from leafdb.node.put_targets import enough_without, one_set, two_sets
from leafdb.quorum.joint_put_operation import JointPutOperation
from leafdb.quorum.messages import FLAG_DURABLE, NOT_APPLIED_STATUSES, ReplicaStatus, encode_replica_put
from leafdb.quorum.put_operation import PutOperation, Step
from leafdb.types import Conflict, Durability, NodeId
from leafdb.wire.frame import encode_frame
from leafdb.wire.registry import MessageType
from leafdb.wire.requests import FLAG_BLIND, FLAG_DELETE, FLAG_LWW, PutRequest, decode_put, encode_put_reply


class CoordinatedPut:
    """One put under way on its coordinator. Implements replica.Minting and coordinator.Operation."""

    __slots__ = (
        "_coordinator",
        "_deadline",
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
        "sloppy",
        "slot",
        "storage_key",
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
        machine: PutOperation,
        durability: Durability,
    ) -> None:
        self._coordinator = coordinator
        self._session = session
        self._request_id = request_id
        self._deadline = deadline
        self.place = place
        self.bucket = place.bucket
        self.storage_key = place.storage_key
        self.context = context
        self.durability = durability
        self.machine = machine
        self.op_id = request.op_id
        self.value = None if request.flags & FLAG_DELETE else request.value
        ttl_ms = request.ttl_ms or place.bucket.ttl_ms
        self.expires_ms = coordinator.now_ms() + ttl_ms if ttl_ms and self.value is not None else 0
        self.record: bytes | None = None
        self.dot: Dot | None = None
        self.sloppy = False
        """Fallbacks may be taken, and have not been looked for yet."""
        self.id = 0
        self.slot = 0

    # -- replica.Minting

    @property
    def abandoned(self) -> bool:
        """Answered already (deadline) before its turn came."""
        return self.machine.ended

    def minted(self, data: bytes, dot: Dot) -> None:
        """The record exists here: send it to everybody else at once."""
        self.record = data
        self.dot = dot
        coordinator = self._coordinator
        own = coordinator.view.self_id
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
        self._step(self.machine.acked(own) if error is None else self.machine.lost(own))

    # -- coordinator.Operation

    def put_reply(self, node: NodeId, status: ReplicaStatus) -> None:
        """Another replica has it, or says why not."""
        machine = self.machine
        if status is ReplicaStatus.APPLIED:
            self._step(machine.acked(node))
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
        assert self.dot is not None
        clock = EMPTY if self.context is None else self.context
        sealed = coordinator.sealer.seal(clock.add(self.dot), self.bucket.id, self.place.key)
        machine = self.machine
        body = encode_put_reply(coordinator.view.epoch, machine.acks, machine.primary_acks, sealed)
        self._session.send(encode_frame(MessageType.PUT_REPLY, self._request_id, body))
        coordinator.metrics.puts_total += 1

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
        self._coordinator.refuse(self._session, self._request_id, error)


def put(
    coordinator: Coordinator,
    session: Requester,
    message_type: int,
    request_id: int,
    body: bytes,
    deadline: float | None = None,
) -> None:
    """Handle a PUT of a client or a FORWARD_PUT of a peer. One that has waited for metadata keeps its `deadline`."""
    request = decode_put(body)
    if deadline is None:
        deadline = coordinator.deadline(request.deadline_ms)
    try:
        retry = partial(put, coordinator, session, message_type, request_id, body, deadline)
        place = coordinator.locate(request.bucket_id, request.generation, request.key, retry)
        if place is not None:
            _begin(coordinator, session, message_type, request_id, body, request, place, deadline)
    except LeafdbError as error:
        if isinstance(error, ProtocolError):
            raise
        coordinator.refuse(session, request_id, error)


def _begin(
    coordinator: Coordinator,
    session: Requester,
    message_type: int,
    request_id: int,
    body: bytes,
    request: PutRequest,
    place: Place,
    deadline: float,
) -> None:
    bucket = place.bucket
    context = _validated(coordinator, request, place, deadline)
    joint = place.joint
    if joint is None:
        both = None
        policy = bucket.write_policy(request.w, request.pw, request.dw, request.flags)
    else:
        sizes = (len(joint.old), len(joint.new))
        both = bucket.joint_write_policy(request.w, request.pw, request.dw, request.flags, *sizes)
        policy = both.old  # the sets agree in all but the counts, which are not asked for here
    own = coordinator.view.self_id
    usable = coordinator.view.usable
    targets: dict[NodeId, NodeId] = {}
    absent: list[NodeId] = []
    for node in place.holders:
        if node == own or node in usable:
            targets[node] = node
        else:
            absent.append(node)
    if own not in targets or (joint is not None and own in joint.copying):
        if message_type == MessageType.FORWARD_PUT:
            raise NotApplied("the nodes disagree about who holds the key", reason=Reason.STALE_EPOCH)
        if coordinator.forward(session, request_id, MessageType.FORWARD_PUT, body, place, deadline, request.op_id):
            return
        if not policy.sloppy:
            raise not_enough(0, policy.w, "primaries")
        if joint is None:
            absent.remove(place.primaries[0])
            targets[own] = place.primaries[0]
    if joint is None or both is None:
        machine = one_set(coordinator, place, policy, targets, absent)
    else:
        machine = two_sets(coordinator, place, joint, both, targets, absent)
    try:
        coordinator.replica.admit()
    except DiskFull as error:
        # Any node takes any request: the others may do without the copy of one that has no room.
        forward = partial(coordinator.forward, session, request_id, MessageType.FORWARD_PUT, body, place, deadline)
        if message_type == MessageType.PUT and enough_without(own, machine) and forward(request.op_id):
            return
        raise refusal_of(error) from None
    except (ReplicaOverloaded, StorageError) as error:
        raise refusal_of(error) from None
    durability = Durability.ALWAYS if policy.durable else bucket.durability
    operation = CoordinatedPut(coordinator, session, request_id, request, place, deadline, context, machine, durability)
    operation.sloppy = policy.sloppy and not absent
    operation.id = coordinator.register(operation, deadline)
    if context is None:
        coordinator.metrics.blind_writes_total += 1
    if targets[own] == own:
        coordinator.replica.coordinate(operation)
    else:
        coordinator.metrics.fallback_writes_total += 1
        coordinator.hints.coordinate(targets[own], operation)


def _validated(coordinator: Coordinator, request: PutRequest, place: Place, deadline: float) -> CausalClock | None:
    """The opened context (None when blind); raises NotApplied for whatever the client got wrong."""
    bucket = place.bucket
    if bool(request.flags & FLAG_LWW) != (bucket.conflict is Conflict.LWW):
        raise NotApplied(
            f"bucket {bucket.properties.name!r} keeps {bucket.conflict.name.lower()}: use the other kind of handle",
            reason=Reason.WRONG_BUCKET_KIND,
        )
    if len(request.value) > VALUE_BYTES_MAX:
        raise NotApplied(f"a value of {len(request.value)} bytes is over {VALUE_BYTES_MAX}", reason=Reason.TOO_LARGE)
    if len(request.op_id) != 16 or request.ttl_ms > TTL_S_MAX * 1000:
        raise NotApplied("a bad operation id or ttl", reason=Reason.BAD_REQUEST)
    if coordinator.now() >= deadline:
        raise NotApplied("the deadline had passed before the write could begin", reason=Reason.EXPIRED)
    try:
        decode_key(place.key)
    except ValueError as error:
        raise NotApplied(f"malformed key: {error}", reason=Reason.BAD_REQUEST) from None
    if request.flags & FLAG_BLIND or not request.context:
        return None
    try:
        return coordinator.sealer.open(request.context, bucket.id, place.key)
    except ContextError as error:
        raise NotApplied(str(error), reason=Reason.CONTEXT_MISMATCH) from None
