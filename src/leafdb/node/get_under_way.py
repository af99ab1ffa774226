"""A get under way on its coordinator: whom to ask, what their answers do, the repair of those behind, the answer.

It carries out what quorum/get_operation decides; with two sets of owners, in a plan, quorum/joint_get_operation. R
replicas are asked for their whole record; what they answer is merged. If they differ, the merge is written back until R
of them hold it, and only then is the client answered. A slow replica is hedged within a budget: one more is asked when
the answer takes longer than the slow one's own p95.

The read goes by the newest horizon of its partition that this node knows of, and names it to whom it asks. Somebody
knows of a newer one? Then it begins anew by that: under another number, so that what was answered by the old one goes
nowhere, and within its deadline. This node's own store is asked like any other.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from leafdb.errors import DeadlineExceeded, LeafdbError, NotEnoughReplicas, ProtocolError
from leafdb.limits import SIBLINGS_WARN
from leafdb.model.clock import EMPTY
from leafdb.model.record import RecordError, decode, live, merge
from leafdb.node.coordinator import Coordinator, Place, Requester, not_enough
from leafdb.node.outcomes import refusal_of
from leafdb.quorum.get_operation import GetOperation, GetStep
from leafdb.quorum.joint_get_operation import JointGetOperation
from leafdb.quorum.messages import (
    FLAG_HORIZON,
    FLAG_REPAIR,
    MalformedMessage,
    ReplicaStatus,
    decode_newer_horizon,
    encode_replica_get,
    encode_replica_put,
)
from leafdb.types import Conflict, NodeId
from leafdb.wire.frame import encode_frame
from leafdb.wire.registry import MessageType
from leafdb.wire.requests import encode_get_reply

REPAIR_TIMEOUT_MS = 5_000


def _merge_siblings(one: bytes, other: bytes) -> bytes:
    return merge(one, other, Conflict.SIBLINGS)


def _merge_lww(one: bytes, other: bytes) -> bytes:
    return merge(one, other, Conflict.LWW)


MERGES: Final = {Conflict.SIBLINGS: _merge_siblings, Conflict.LWW: _merge_lww}
"""What joins two records of a bucket, by its conflict policy."""


def get_reply_body(coordinator: Coordinator, place: Place, record: bytes | None) -> bytes:
    """The GET_REPLY body that shows `record`: live siblings in dot order and the context that covers it."""
    bucket = place.bucket
    if record is None:
        sealed = coordinator.sealer.seal(EMPTY, 0, bucket.id, place.key)
        return encode_get_reply(coordinator.view.epoch, sealed, [])
    decoded = decode(record)
    shown = [
        (dot[0], dot[1], sibling.stamp, sibling.value or b"")
        for dot, sibling in live(decoded, coordinator.now_ms(), bucket.conflict)
    ]
    if shown:
        coordinator.metrics.siblings.observe(len(shown))
    if len(shown) >= SIBLINGS_WARN:
        coordinator.warn_of_siblings(bucket, len(shown))
    newest = 0
    for sibling in decoded.siblings.values():
        if sibling.stamp > newest:
            newest = sibling.stamp
    sealed = coordinator.sealer.seal(decoded.clock, newest, bucket.id, place.key)
    return encode_get_reply(coordinator.view.epoch, sealed, shown)


class CoordinatedGet:
    """One get under way on its coordinator. Implements coordinator.Operation."""

    __slots__ = (
        "_asked_later",
        "_coordinator",
        "_deadline",
        "_definitive",
        "_hedged",
        "_horizon",
        "_request_id",
        "_session",
        "id",
        "machine",
        "place",
        "slot",
        "started",
    )

    _definitive: bool
    """Whether what this node's own replica says counts; set when it is asked."""

    def __init__(
        self,
        coordinator: Coordinator,
        session: Requester,
        request_id: int,
        place: Place,
        deadline: float,
        machine: GetOperation,
    ) -> None:
        self._coordinator = coordinator
        self._session = session
        self._request_id = request_id
        self._deadline = deadline
        self._hedged = False
        self._asked_later: tuple[NodeId, ...] = ()
        self._horizon = coordinator.replica.horizon_at(place.storage_key)
        self.place: Place = place
        self.machine: GetOperation = machine
        self.started: float = coordinator.now()
        self.id: int = 0
        self.slot: int = 0

    def begin(self) -> None:
        """Ask everybody who is to be asked at once."""
        coordinator = self._coordinator
        own = coordinator.view.self_id
        waiting = self.machine.waiting
        asks_self = own in waiting  # before others are asked: one that cannot be may bring us in as its spare
        others = [node for node in waiting if node != own]
        if others:
            frame = self._ask_frame()
            for node in others:
                self._send(node, frame)
        if asks_self:
            self._ask_self()

    # -- coordinator.Operation

    def get_reply(self, node: NodeId, status: ReplicaStatus, record: bytes) -> None:
        """A replica's record, its definitive absence, or neither."""
        coordinator = self._coordinator
        if node not in self._asked_later:
            seconds = coordinator.now() - self.started
            coordinator.latency.observed(node, seconds)
            coordinator.metrics.replica_get_duration.observe(seconds)
        if status is ReplicaStatus.FOUND:
            self._answered(node, record, vouches=True)
        elif status is ReplicaStatus.ABSENT:
            self._answered(node, None, vouches=True)
        elif status is ReplicaStatus.NEWER_HORIZON:
            try:
                newest = decode_newer_horizon(record)
            except MalformedMessage as error:
                raise ProtocolError(str(error)) from None
            self._newer_horizon(node, newest)
        else:
            self._uncounted(node, record if status is ReplicaStatus.UNKNOWN and record else None)

    def put_reply(self, node: NodeId, status: ReplicaStatus) -> None:
        """A write-back is confirmed, or not."""
        if status is ReplicaStatus.APPLIED:
            self._step(self.machine.written_back(node))
        else:
            self._step(self.machine.lost(node))

    def peer_lost(self, node: NodeId) -> None:
        """The session to `node` broke."""
        self._step(self.machine.lost(node))

    def expired(self) -> None:
        """First the hedge, then the deadline."""
        coordinator = self._coordinator
        if not self._hedged and coordinator.now() < self._deadline:
            self._hedged = True
            coordinator.wheel.add(self, self._deadline)
            machine = self.machine
            if machine.spares and not machine.ended and coordinator.latency.may_hedge() and machine.hedge():
                coordinator.metrics.hedges_total += 1
                self._step(GetStep.NOTHING)
            return
        self._step(self.machine.expired())

    def relay(self, message_type: int, body: bytes) -> None:
        """Nobody answers a coordinated get as if it had been forwarded."""
        raise ProtocolError("a client's answer to a replica's get")

    # -- effects of the machine

    def _newer_horizon(self, node: NodeId, newest: int) -> None:
        """`node` has heard of a newer horizon than the one by which everybody was asked."""
        machine = self.machine
        if node not in machine.waiting or machine.ended or machine.writing_back is not None or newest <= self._horizon:
            self._uncounted(node, None)  # R have answered without it
        else:
            self._coordinator.catch_up.fetch()
            self._anew(newest)

    def _anew(self, horizon: int) -> None:
        """Ask all again, by this horizon. Nobody is hedged any more."""
        coordinator = self._coordinator
        coordinator.metrics.reads_anew_total += 1
        coordinator.forget(self.id, self)
        self.id = coordinator.register(self, self._deadline)
        self._hedged = True
        self._horizon = horizon
        self.machine.anew(horizon)
        self._step(GetStep.NOTHING)

    def _answered(self, node: NodeId, record: bytes | None, *, vouches: bool) -> None:
        try:
            step = self.machine.answered(node, record, vouches=vouches)
        except RecordError as error:
            self._malformed(error)
        else:
            self._step(step)

    def _uncounted(self, node: NodeId, record: bytes | None) -> None:
        try:
            step = self.machine.unknown(node, record)
        except RecordError as error:
            self._malformed(error)
        else:
            self._step(step)

    def _malformed(self, error: RecordError) -> None:
        """Whose record it is cannot be told here; the read fails, and touches nothing else."""
        self.machine.expired()
        self._coordinator.forget(self.id, self)
        self._coordinator.refuse(self._session, self._request_id, refusal_of(error), "get")

    def _step(self, step: GetStep) -> None:
        machine = self.machine
        while machine.asks:
            node = machine.asks.pop()
            if node not in self._asked_later:
                self._asked_later += (node,)
            if node == self._coordinator.view.self_id:
                self._ask_self()
            else:
                self._send(node, self._ask_frame())
        if machine.repairs:
            self._repair()
        if step is GetStep.DECIDED:
            self._answer()
        elif step is GetStep.FAILED:
            self._fail()
        if machine.finished:
            self._coordinator.forget(self.id, self)

    def _ask_self(self) -> None:
        coordinator = self._coordinator
        place = self.place
        bucket, horizon = place.bucket, self._horizon
        done = partial(self._read_by, horizon)
        if coordinator.view.self_id in place.holders:
            # Asked before the read: what becomes complete meanwhile may have been read before it was.
            self._definitive = coordinator.completeness.definitive(bucket, place.partition, horizon)
            coordinator.replica.show(bucket.tree, place.storage_key, bucket.durability, horizon, done)
        else:
            coordinator.hints.read_fallback(bucket, place.partition, place.storage_key, horizon, done)

    def _read_by(self, horizon: int, value: bytes | None, error: Exception | None) -> None:
        """What is here, for a read by that horizon."""
        if horizon == self._horizon:  # else it was asked for anew since
            newest = self._coordinator.replica.horizon_at(self.place.storage_key)
            if newest <= horizon:
                self._read_here(value, error)
            else:
                self._newer_horizon(self._coordinator.view.self_id, newest)

    def _read_here(self, value: bytes | None, error: Exception | None) -> None:
        own = self._coordinator.view.self_id
        if error is not None:
            self._step(self.machine.unknown(own))
        elif self._definitive if own in self.place.holders else value is not None:
            self._answered(own, value, vouches=True)
        else:
            self._uncounted(own, value)

    def _ask_frame(self) -> bytes:
        place = self.place
        left_ms = max(1, int((self._deadline - self._coordinator.now()) * 1000))
        horizon = self._horizon
        head = place.bucket.id, place.bucket.generation, place.range_epoch, left_ms
        body = encode_replica_get(*head, FLAG_HORIZON if horizon else 0, place.key, horizon=horizon)
        return encode_frame(MessageType.REPLICA_GET, self.id, body)

    def _send(self, node: NodeId, frame: bytes) -> None:
        lane = self._coordinator.lanes.get(node)
        if lane is None or not lane.send(frame):
            self._step(self.machine.lost(node))

    def _repair(self) -> None:
        """Send the merge to those behind: write-backs before the decision, plain repairs after it."""
        machine = self.machine
        nodes, machine.repairs = machine.repairs, []
        best = machine.best
        assert best is not None
        coordinator = self._coordinator
        place = self.place
        bucket = place.bucket
        coordinator.metrics.read_repairs_total += len(nodes)
        if machine.writing_back:
            coordinator.metrics.write_backs_total += 1
        for node in nodes:
            stands_for = 0 if node in place.holders else int(self._kept_for(node))
            if node == coordinator.view.self_id:
                self._repair_here(best, NodeId(stands_for))
                continue
            body = encode_replica_put(
                bucket.id,
                bucket.generation,
                place.range_epoch,
                REPAIR_TIMEOUT_MS,
                FLAG_REPAIR,
                stands_for,
                place.key,
                best,
            )
            lane = coordinator.lanes.get(node)
            if lane is None or not lane.send(encode_frame(MessageType.REPLICA_PUT, self.id, body)):
                self._step(machine.lost(node))

    def _repair_here(self, best: bytes, stands_for: NodeId) -> None:
        coordinator = self._coordinator
        place = self.place
        bucket = place.bucket
        if stands_for:
            coordinator.hints.keep(stands_for, bucket, place.storage_key, best, self._repaired_here)
        else:
            coordinator.replica.merge(
                bucket.tree, place.storage_key, best, bucket.conflict, bucket.durability, self._repaired_here
            )

    def _kept_for(self, fallback: NodeId) -> NodeId:
        """For whom a fallback's copy is kept: whom it stands for in the other set of owners, if it does, or else a
        primary that cannot be reached, the first if all can by now."""
        view = self._coordinator.view
        machine = self.machine
        if isinstance(machine, JointGetOperation) and fallback in machine.others:
            return machine.others[fallback]
        primaries = self.place.primaries
        return next((node for node in primaries if node not in view.usable and node != view.self_id), primaries[0])

    def _repaired_here(self, error: Exception | None) -> None:
        own = self._coordinator.view.self_id
        self._step(self.machine.written_back(own) if error is None else self.machine.lost(own))

    def _answer(self) -> None:
        coordinator = self._coordinator
        try:
            body = get_reply_body(coordinator, self.place, self.machine.merged)
        except RecordError as error:
            coordinator.refuse(self._session, self._request_id, refusal_of(error), "get")
            return
        self._session.send(encode_frame(MessageType.GET_REPLY, self._request_id, body))
        metrics, place = coordinator.metrics, self.place
        metrics.gets_total += 1
        bucket = place.bucket.properties.name
        coordinator.times.answered(metrics.get_duration, self.started, "get", bucket, place.key, self._request_id)

    def _fail(self) -> None:
        machine = self.machine
        coordinator = self._coordinator
        error: LeafdbError
        late = coordinator.now() >= self._deadline
        if machine.writing_back is not None:
            got, required = machine.progress
            told = f"only {got} of {required} replicas could be brought to hold what was read"
            if late:
                error = DeadlineExceeded(f"{told} in time", stage="write_back", got=got, required=required)
            else:
                error = NotEnoughReplicas(told, alive=got, required=required)
        elif late:
            error = DeadlineExceeded(
                f"{machine.definitive} of {machine.r} replicas answered in time",
                stage="replicas",
                got=machine.definitive,
                required=machine.r,
            )
        else:
            error = not_enough(machine.definitive, machine.r, "replicas that can answer")
        coordinator.refuse(self._session, self._request_id, error, "get")
