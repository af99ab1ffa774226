"""Calls to peers off the request path: which answers are awaited, until when, over which session.

    open --answer--> done      --deadline--> DeadlineExceeded      --session lost--> PeerLost

Every call ends exactly once. Ids start at CALL_ID_BASE, so they never meet the ids that the request path chooses for
itself on the same session. The table is bounded; past the bound a call is refused at once. An answer to a call that has
been given up is dropped, never handed to another caller: ids are not used again.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final, NamedTuple

from leafdb.errors import DeadlineExceeded, LeafdbError, Outcome
from leafdb.limits import PEER_CALLS_MAX
from leafdb.transport.counters import TransportCounters
from leafdb.transport.session import Session
from leafdb.wire.errors import decode_error
from leafdb.wire.frame import Frame
from leafdb.wire.registry import MessageType

CALL_ID_BASE: Final = 1 << 63

Reply = Frame | LeafdbError
OnReply = Callable[[Reply], None]


class PeerLost(LeafdbError):
    """The session to a peer is gone; whether it acted on what was sent is not known."""

    retryable = True
    outcome: Outcome = "unknown"


class _Call(NamedTuple):
    session: Session
    deadline: float
    on_reply: OnReply


class CallTable:
    """Open calls by id, and their deadlines in a heap whose entries may outlive their calls."""

    def __init__(self, counters: TransportCounters, calls_max: int = PEER_CALLS_MAX) -> None:
        self._counters = counters
        self._calls_max = calls_max
        self._calls: dict[int, _Call] = {}
        self._deadlines: list[tuple[float, int]] = []
        self._next_id = CALL_ID_BASE

    def __len__(self) -> int:
        return len(self._calls)

    def open(self, session: Session, on_reply: OnReply, deadline: float) -> int | None:
        """The id of a new call; None when the table is full."""
        if len(self._calls) >= self._calls_max:
            return None
        call_id = self._next_id
        self._next_id += 1
        self._calls[call_id] = _Call(session, deadline, on_reply)
        if len(self._deadlines) > 2 * self._calls_max:
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self._calls]
            heapq.heapify(self._deadlines)
        heapq.heappush(self._deadlines, (deadline, call_id))
        return call_id

    def forget(self, call_id: int) -> None:
        """The caller no longer wants the answer; nothing is called."""
        self._calls.pop(call_id, None)

    def answer(self, session: Session, message_type: int, call_id: int, body: bytes) -> None:
        """A reply or ERROR came. One that comes over another session than its call went is nobody's."""
        call = self._calls.get(call_id)
        if call is None or call.session is not session:
            self._counters.late_replies_total += 1
            return
        reply: Reply = Frame(message_type, call_id, body)
        if message_type == MessageType.ERROR:
            # When it cannot be read the session is closed for it, and the call, still open, ends with the session.
            reply = decode_error(body, request_id=call_id)
        del self._calls[call_id]
        call.on_reply(reply)

    def lost(self, session: Session, node: str) -> None:
        """A session is gone: its calls fail now."""
        for call_id in [call_id for call_id, call in self._calls.items() if call.session is session]:
            call = self._calls.pop(call_id, None)
            if call is not None:
                call.on_reply(PeerLost("the session to this peer is gone", node=node, request_id=call_id))

    def next_deadline(self) -> float:
        """When `expire` is due; infinity when nothing is open."""
        while self._deadlines and self._deadlines[0][1] not in self._calls:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else float("inf")

    def expire(self, now: float) -> None:
        """End the calls whose deadline has passed."""
        while self.next_deadline() <= now:
            _, call_id = heapq.heappop(self._deadlines)
            call = self._calls.pop(call_id)
            self._counters.calls_expired_total += 1
            call.on_reply(DeadlineExceeded("no answer in time", stage="peer call", request_id=call_id))

    def check(self) -> None:
        """Every open call has its deadline in the heap; the table is within its bound."""
        assert len(self._calls) <= self._calls_max
        filed = {(call_id, deadline) for deadline, call_id in self._deadlines}
        for call_id, call in self._calls.items():
            assert CALL_ID_BASE <= call_id < self._next_id
            assert (call_id, call.deadline) in filed
            assert not call.session.closed
