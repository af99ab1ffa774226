"""A put that may have been applied before: the coordinator asks the others before it mints.

A client that does not know what became of a write sends it again, under the same operation id and marked as a retry.
The node that takes it may be another one than before. So it asks every other holder of the key that it can reach, both
sets of owners in a plan, and as many nodes that stand in for holders: have you this operation, or do you remember it?
Whoever has it shows the record, which is merged here; after that the put begins like any other and finds itself. The
first who knows the operation is enough. When all have said no, or half of the time that is left has passed, the put
begins as if it had never been sent: those who could not be asked may hold a second copy of it, under another dot, which
readers fold into one (decision 0003) and which is covered when it comes after both were replaced (op_memory.py).

It is an operation in the coordinator's table like all that wait, and belongs to no task.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from leafdb.errors import ProtocolError
from leafdb.model.actor import Actor
from leafdb.model.clock import Dot
from leafdb.model.record import RecordError, dots_of
from leafdb.node.coordinator import Coordinator, Place
from leafdb.node.left_out import LeftOut
from leafdb.quorum.messages import (
    FLAG_OPERATION,
    MalformedMessage,
    ReplicaStatus,
    decode_replaced,
    encode_replica_get,
)
from leafdb.types import NodeId
from leafdb.wire.frame import encode_frame
from leafdb.wire.registry import MessageType

ASKING_SHARE: Final = 0.5
"""Of the time that is left: what may be spent on asking."""


class RetriedPut:
    """The question of one retried put. Implements coordinator.Operation."""

    __slots__ = ("_coordinator", "_deadline", "_op_id", "_place", "_stands_for", "_then", "_waiting", "id", "slot")

    def __init__(
        self,
        coordinator: Coordinator,
        place: Place,
        stands_for: NodeId,
        op_id: bytes,
        deadline: float,
        then: Callable[[], None],
    ) -> None:
        """`then` begins the put, once; this node coordinates it for itself or `stands_for` another."""
        self._coordinator = coordinator
        self._place = place
        self._stands_for = stands_for
        self._op_id = op_id
        now = coordinator.now()
        self._deadline = now + (deadline - now) * ASKING_SHARE
        self._then: Callable[[], None] | None = then
        self._waiting: set[NodeId] = set()
        self.id: int = 0
        self.slot: int = 0

    def ask(self) -> None:
        """Ask everybody."""
        coordinator, place = self._coordinator, self._place
        view = coordinator.view
        own = view.self_id
        others = [node for node in place.holders if node != own and node in view.usable]
        stand_ins = coordinator.hints.fallbacks(place.partition, place.bucket, (own, *place.holders))
        self._waiting.update(others, stand_ins[: len(place.holders)])
        self.id = coordinator.register(self, self._deadline)
        left_ms = max(1, int((self._deadline - coordinator.now()) * 1000))
        bucket = place.bucket
        frame = encode_frame(
            MessageType.REPLICA_GET,
            self.id,
            encode_replica_get(
                bucket.id, bucket.generation, place.range_epoch, left_ms, FLAG_OPERATION, place.key, self._op_id
            ),
        )
        for node in sorted(self._waiting):
            lane = coordinator.lanes.get(node)
            if lane is None or not lane.send(frame):
                self._waiting.discard(node)
        self._go_on()

    # -- coordinator.Operation

    def get_reply(self, node: NodeId, status: ReplicaStatus, record: bytes) -> None:
        """What a node knows of the operation."""
        if node not in self._waiting:
            return
        self._waiting.discard(node)
        dot: Dot | None = None
        if status is ReplicaStatus.REPLACED:
            try:
                actor, counter, record = decode_replaced(record)
            except MalformedMessage as error:
                raise ProtocolError(str(error)) from None
            dot = Actor(actor), counter
        elif status not in (ReplicaStatus.FOUND, ReplicaStatus.UNKNOWN) or not record:
            self._go_on()
            return
        try:
            known = dot is not None or bool(dots_of(record, self._op_id))
        except RecordError:
            known = False  # a peer with a damaged record knows nothing
        if known:
            self._waiting.clear()
            self._take(record, dot)
        else:
            self._go_on()

    def peer_lost(self, node: NodeId) -> None:
        """It will not answer."""
        self._waiting.discard(node)
        self._go_on()

    def expired(self) -> None:
        """Long enough."""
        self._waiting.clear()
        self._go_on()

    def put_reply(self, node: NodeId, status: ReplicaStatus) -> None:
        """Nobody answers a question with the reply to a copy."""
        raise ProtocolError("a put's answer to a read")

    def relay(self, message_type: int, body: bytes) -> None:
        """Nobody answers a question as if it had been forwarded."""
        raise ProtocolError("a client's answer to a replica's read")

    # -- what comes of it

    def _take(self, record: bytes, dot: Dot | None) -> None:
        """Somebody knows it: have what they have, and remember what they remember, before the put begins."""
        coordinator, place = self._coordinator, self._place
        coordinator.forget(self.id, self)
        if not record:
            self._merged(dot, None)
            return
        bucket, key, done = place.bucket, place.storage_key, partial(self._merged, dot)
        if self._stands_for == coordinator.view.self_id:
            coordinator.replica.merge(bucket.tree, key, record, bucket.conflict, bucket.durability, done)
        else:
            coordinator.hints.keep(self._stands_for, bucket, key, record, done)

    def _merged(self, dot: Dot | None, error: Exception | None) -> None:
        if dot is not None and (error is None or isinstance(error, LeftOut)):
            place = self._place
            self._coordinator.replica.operations.note(place.bucket.tree, place.storage_key, ((self._op_id, dot),))
        self._go_on()

    def _go_on(self) -> None:
        """Begin the put when there is nobody left to wait for."""
        then = self._then
        if then is not None and not self._waiting:
            self._then = None
            self._coordinator.forget(self.id, self)
            then()
