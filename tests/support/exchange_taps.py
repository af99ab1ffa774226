"""What anti-entropy says on the bulk lanes, written down for tests."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from leafdb.codec import cbor
from leafdb.node.node import Node
from leafdb.transport.session import Session
from leafdb.types import NodeId
from leafdb.wire.frame import Frame
from leafdb.wire.registry import Lane, MessageType

Call = Callable[[NodeId, Lane, int, bytes, float], Coroutine[Any, Any, Frame]]


def tap(nodes: Iterable[Node]) -> list[tuple[str, int]]:
    """Whatever anti-entropy puts on bulk lanes from now on: (kind, size of the body)."""
    seen: list[tuple[str, int]] = []
    for node in nodes:
        others = node._peer_dispatch._others
        for number in (MessageType.EXCHANGE, MessageType.EXCHANGE_REPLY, MessageType.RECORDS):
            others[int(number)] = _tapped(others[int(number)], number, seen)
        node.peers.call = _tapped_call(node.peers.call, seen)  # type: ignore[assignment, method-assign]  # a tap, for one test
    return seen


def _tapped(
    handler: Callable[[Session, NodeId, int, bytes], None], number: MessageType, seen: list[tuple[str, int]]
) -> Callable[[Session, NodeId, int, bytes], None]:
    def tapped(session: Session, node: NodeId, request_id: int, body: bytes) -> None:
        kind = "records" if number == MessageType.RECORDS else cbor.loads(body)["kind"]
        seen.append((kind, len(body)))
        handler(session, node, request_id, body)

    return tapped


def _tapped_call(call: Call, seen: list[tuple[str, int]]) -> Call:
    async def tapped(node: NodeId, lane: Lane, message_type: int, body: bytes, timeout_s: float) -> Frame:
        frame = await call(node, lane, message_type, body, timeout_s)
        if message_type == MessageType.RECORDS:
            seen.append(("answer", len(frame.body)))
        return frame

    return tapped
