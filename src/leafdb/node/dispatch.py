"""Message number to handler: one table each for client sessions and peer sessions. No logic lives here.

The connection has already refused types that a kind of session may not send, so a missing entry is a bug of ours.
Clients are asked at one door, here, whether they may (`guard`); peers are trusted.
Handlers on the request path are plain functions; those that need time start a task in their driver's nursery and answer
later through the session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from leafdb.node import get_driver, put_driver
from leafdb.node.coordinator import Coordinator, Requester
from leafdb.node.guard import Guard
from leafdb.node.replica_service import ReplicaService
from leafdb.transport.session import Session
from leafdb.types import NodeId
from leafdb.wire.hello import PeerFacts
from leafdb.wire.registry import MessageType
from leafdb.wire.traced import decode_traced

Handler = Callable[[Session, int, bytes], None]
"""(session, request id, body)."""
PeerHandler = Callable[[Session, NodeId, int, bytes], None]
"""(session, the peer, request id, body)."""


class ClientDispatch:
    """Frames of client sessions."""

    def bind(self, coordinator: Coordinator, guard: Guard, others: Mapping[MessageType, Handler]) -> None:
        """Say who handles what. Sessions are given the dispatch before the parts behind it exist."""
        self._coordinator = coordinator
        self._guard = guard
        self._unguarded = guard.idle
        self._others = {int(message_type): handler for message_type, handler in others.items()}
        self._others[int(MessageType.TRACED)] = self._traced

    def _traced(self, session: Session, request_id: int, body: bytes) -> None:
        """A put or get that belongs to a trace: whoever follows it stands between it and its answer. Asked about is
        what is inside."""
        trace, message_type, inside = decode_traced(body)
        if not self._unguarded and not self._guard.admits(session, message_type, request_id, inside, self):
            return
        follow = self._coordinator.follow_trace
        asker: Requester = session if follow is None else follow(session, trace, message_type, inside)
        driver = get_driver.get if message_type == MessageType.GET else put_driver.put
        driver(self._coordinator, asker, message_type, request_id, inside)

    def __call__(self, session: Session, message_type: int, request_id: int, body: bytes) -> None:
        """Handle one frame."""
        if not self._unguarded and not self._guard.admits(session, message_type, request_id, body, self):
            return
        if message_type == MessageType.GET:
            get_driver.get(self._coordinator, session, message_type, request_id, body)
        elif message_type == MessageType.PUT:
            put_driver.put(self._coordinator, session, message_type, request_id, body)
        else:
            self._others[message_type](session, request_id, body)


class PeerDispatch:
    """Frames of peer sessions."""

    def bind(
        self, coordinator: Coordinator, service: ReplicaService, others: Mapping[MessageType, PeerHandler]
    ) -> None:
        """Say who handles what. Peers are given the dispatch before the parts behind it exist."""
        self._coordinator = coordinator
        self._service = service
        self._others = {int(message_type): handler for message_type, handler in others.items()}

    def __call__(self, session: Session, message_type: int, request_id: int, body: bytes) -> None:
        """Handle one frame."""
        if message_type == MessageType.REPLICA_PUT:
            self._service.put(session, request_id, body)
        elif message_type == MessageType.REPLICA_GET:
            self._service.get(session, request_id, body)
        else:
            facts = session.facts
            assert isinstance(facts, PeerFacts)
            node = NodeId(facts.node)
            coordinator = self._coordinator
            if message_type == MessageType.REPLICA_PUT_REPLY:
                coordinator.on_replica_put_reply(node, request_id, body)
            elif message_type == MessageType.REPLICA_GET_REPLY:
                coordinator.on_replica_get_reply(node, request_id, body)
            elif message_type == MessageType.FORWARD_PUT:
                put_driver.put(coordinator, session, message_type, request_id, body)
            elif message_type == MessageType.FORWARD_GET:
                get_driver.get(coordinator, session, message_type, request_id, body)
            else:
                self._others[message_type](session, node, request_id, body)
