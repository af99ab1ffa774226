"""One established connection: frames to a handler, answers back through an outbox. The hot path of every message.

A session moves no bytes by itself. A mover (`pump`) calls `receive(data)` with what came; frames go one by one to
`on_frame(session, type, request_id, body)`, a plain function that never waits. Whatever it sends goes to the outbox,
and the session tells the flusher once; at the end of the batch the flusher calls `flush()`, which sends everything
queued with one `send`. No task, scope or event belongs to a request.

Invariants:

- frames are handled in the order they came and leave in the order they were sent;
- `outbox_bytes` is exactly what `send` took and the stream has not;
- a session that is closed stays closed, and `on_closed(session, error)` has been called once, never from inside `send`;
- one session's fault ends that session: what its peer did wrong closes it with a typed ERROR, what a handler of ours
  did wrong closes it as a ServerBug. Only AssertionError goes further: it stops the node, which may not go on.

Why the reading side stops: at most FRAMES_PER_TURN frames are handled before other sessions have their turn (the rest
wait in `backlog`); while the outbox is over OUTBOX_BYTES_PAUSE a client does not take its answers, so it is not read; a
large frame waits for its share of the decode budget. A peer is read whatever it takes: two nodes that both waited for
the other to read would wait for ever. What its outbox does not hold is refused to whoever sends it.
"""

from __future__ import annotations

from collections.abc import Callable
from select import epoll
from typing import Final, Protocol

import trio

from leafdb.errors import LeafdbError, ProtocolError, ServerBug
from leafdb.limits import (
    FRAMES_PER_TURN,
    LARGE_FRAME_BYTES,
    OUTBOX_BYTES_MAX,
    OUTBOX_BYTES_PAUSE,
    RECEIVE_BYTES,
    SEND_BYTES,
    SESSION_REQUESTS_MAX,
)
from leafdb.transport.budget import DecodeBudget
from leafdb.transport.counters import TransportCounters
from leafdb.transport.stream import ByteStream, Data, PollableStream, is_pollable
from leafdb.wire.connection import Connection, ConnectionState
from leafdb.wire.errors import PEER_FAULTS, decode_error
from leafdb.wire.frame import Frame, encode_frame
from leafdb.wire.handshake import Facts
from leafdb.wire.hello import PeerFacts
from leafdb.wire.registry import MessageType

_ERROR: Final = int(MessageType.ERROR)
_PING: Final = int(MessageType.PING)
_PONG: Final = int(MessageType.PONG)

OnFrame = Callable[["Session", int, int, bytes], None]
OnClosed = Callable[["Session", LeafdbError | None], None]


class Mover(Protocol):
    """What a session needs of whoever moves its bytes."""

    counters: TransportCounters
    budget: DecodeBudget

    def dirty(self, session: Session) -> None:
        """The session has something to send, or wants to be closed: call its `flush` at the end of the batch."""

    def changed(self, session: Session) -> None:
        """What the session waits for (`reading`, `blocked`) has changed."""

    def owed(self, session: Session) -> None:
        """The session begins with a backlog: nothing was read, so nobody knows of it yet."""

    def detach(self, session: Session) -> None:
        """The session has closed."""


class Session:
    """See the top of this file. `kind` is "client" or "peer"; `facts` are the handshake's."""

    __slots__ = (
        "_feed", "_mover", "_on_closed", "_on_frame", "_outbox", "_queued", "backlog", "blocked", "closed",
        "connection", "doom", "dribbles", "facts", "frames", "interest", "kind", "lane", "outbox_bytes", "pollable",
        "progress", "reads", "requests_in_flight", "reserved_bytes", "starved", "stream",
    )  # fmt: skip

    def __init__(
        self, stream: ByteStream, connection: Connection, mover: Mover, *, on_frame: OnFrame, on_closed: OnClosed
    ) -> None:
        assert connection.state is ConnectionState.ESTABLISHED
        assert connection.facts is not None
        self.stream: ByteStream = stream
        self.pollable: PollableStream | None = stream if is_pollable(stream) else None
        self.connection: Connection = connection
        self.facts: Facts = connection.facts
        self.kind = "peer" if isinstance(self.facts, PeerFacts) else "client"
        self._mover = mover
        self._feed = connection.reader.feed
        self._on_frame = on_frame
        self._on_closed = on_closed
        self._outbox: list[Data] = []
        self._queued = False
        self.outbox_bytes: int = 0
        self.blocked: bool = False
        """The stream took less than it was given: whoever moves bytes calls `sendable` when it takes more."""
        self.backlog: list[Frame] = []
        self.closed: bool = False
        self.doom: LeafdbError | None = None
        self.starved: bool = False
        self.reserved_bytes: int = 0
        self.interest: int = 0
        """The mover's own note of what it watches, ..."""
        self.lane: epoll | None = None
        """... where, ..."""
        self.dribbles: int = 0
        """... and of how many reads in a row brought next to nothing."""
        self.reads: int = 0
        self.frames: int = 0
        self.progress: int = 0
        """How often a blocked stream has taken bytes again; like `reads` and `frames`, for the sweeper."""
        self.requests_in_flight: int = 0
        """Requests of a client that are not answered yet: every frame it sends asks, every frame it is sent answers.
        At SESSION_REQUESTS_MAX it is not read any more until some are. Peers are bounded by their own tables."""

    @property
    def remote(self) -> str:
        """The other side's address."""
        return self.stream.remote

    @property
    def reading(self) -> bool:
        """Whether bytes are wanted now."""
        return (
            not self.starved
            and not self.backlog
            and not self.crowded
            and self.requests_in_flight < SESSION_REQUESTS_MAX
        )

    @property
    def crowded(self) -> bool:
        """Whether so many answers wait to be taken that nothing more may be asked."""
        return self.outbox_bytes > OUTBOX_BYTES_PAUSE and self.kind == "client"

    # -- out

    def send(self, frame: bytes) -> bool:
        """Queue one encoded frame. False, and nothing is queued, when the session is closed or its outbox full.

        A client that lets its outbox fill is closed for it: it would wait for that answer for ever."""
        if self.closed:
            return False
        size = self.outbox_bytes + len(frame)
        if size > OUTBOX_BYTES_MAX:
            return self._overflow()
        self.outbox_bytes = size
        self._outbox.append(frame)
        if self.requests_in_flight:
            self.requests_in_flight -= 1
            if self.requests_in_flight == SESSION_REQUESTS_MAX - 1:
                self._mover.changed(self)
        if not self._queued:
            self._queued = True
            self._mover.dirty(self)
        return True

    def _overflow(self) -> bool:
        self._mover.counters.outbox_refusals_total += 1
        if self.kind == "client" and self.doom is None:
            self._mover.counters.slow_sessions_total += 1
            self.doom = ProtocolError("answers are not being read")
            self._mover.dirty(self)
        return False

    def flush(self) -> None:
        """Send what is queued, as far as the stream takes it without waiting."""
        self._queued = False
        if self.doom is not None:
            self.close(self.doom)
        if self.closed or self.blocked:
            return
        outbox = self._outbox
        counters = self._mover.counters
        data: Data
        try:
            while outbox and not self.blocked:
                if len(outbox) == 1:
                    data = outbox[0]
                    outbox.clear()
                elif self.outbox_bytes <= SEND_BYTES:
                    data = b"".join(outbox)
                    outbox.clear()
                else:
                    data = self._take_some()
                sent = self.stream.send_now(data)
                counters.sends_total += 1
                counters.sent_bytes_total += sent
                self.outbox_bytes -= sent
                if sent < len(data):
                    outbox.insert(0, memoryview(data)[sent:])
                    self.blocked = True
                    self._mover.changed(self)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.lost(None)

    def sendable(self) -> None:
        """A blocked stream takes bytes again. Reading goes on only once nothing is left to send."""
        self.blocked = False
        self.progress += 1
        self.flush()
        if not self.blocked and not self.closed:
            self._mover.changed(self)

    def _take_some(self) -> Data:
        """About SEND_BYTES from the front of the outbox, one frame at least."""
        size = count = 0
        for frame in self._outbox:
            size += len(frame)
            count += 1
            if size >= SEND_BYTES:
                break
        data = b"".join(self._outbox[:count]) if count > 1 else self._outbox[0]
        del self._outbox[:count]
        return data

    # -- in

    def receive(self, data: bytes) -> None:
        """Take bytes from the stream and handle the frames they complete."""
        try:
            frames = self._feed(data)
        except ProtocolError as error:
            self.fail(error)
            return
        counters = self._mover.counters
        counters.received_bytes_total += len(data)
        counters.received_frames_total += len(frames)
        self.reads += 1
        wanted = self.connection.reader.wanted_bytes
        if wanted > LARGE_FRAME_BYTES or self.reserved_bytes:
            self._reserve(wanted)
        if frames:
            self.frames += 1
            self.deliver(frames)

    def deliver(self, frames: list[Frame]) -> None:
        """Handle frames, one turn of them; the rest becomes the backlog."""
        if len(frames) > FRAMES_PER_TURN:
            self.backlog = frames[FRAMES_PER_TURN:]
            frames = frames[:FRAMES_PER_TURN]
        on_frame = self._on_frame
        if self.kind == "client":
            self.requests_in_flight += len(frames)
        try:
            for message_type, request_id, body in frames:
                if message_type <= _PONG:
                    self._on_session_frame(message_type, request_id, body)
                else:
                    on_frame(self, message_type, request_id, body)
                if self.closed:
                    return
        except PEER_FAULTS as error:
            self.fail(error)
        except AssertionError:
            raise
        except Exception as error:  # a bug in a handler is charged to its session and seen in the counters
            self._mover.counters.handler_errors_total += 1
            bug = ServerBug(f"a handler failed: {type(error).__name__}")
            bug.__cause__ = error
            self.close(bug)

    def begin(self, frames: list[Frame]) -> None:
        """The first frames, which came right behind the handshake."""
        if frames and not self.closed:
            self.deliver(frames)
            if self.backlog:
                self._mover.owed(self)

    def deliver_backlog(self) -> None:
        """One more turn."""
        frames, self.backlog = self.backlog, []
        self.deliver(frames)

    def _on_session_frame(self, message_type: int, request_id: int, body: bytes) -> None:
        if message_type == _PING:
            self.send(encode_frame(MessageType.PONG, request_id, b""))
        elif message_type == _ERROR and request_id == 0:
            self.lost(decode_error(body))
        elif message_type == _ERROR:
            if self.kind == "client":
                raise ProtocolError("a client answered a request that nobody made")
            self._on_frame(self, message_type, request_id, body)

    def _reserve(self, wanted: int) -> None:
        """Hold a share of the decode budget for the large frame that is arriving, and none otherwise."""
        size = wanted if wanted > LARGE_FRAME_BYTES else 0
        if size == self.reserved_bytes:
            return
        if self.reserved_bytes:
            self._mover.budget.give_back(self.reserved_bytes)
        self.reserved_bytes = size
        if size and not self._mover.budget.take(self, size):
            self.starved = True
            self._mover.changed(self)

    def budget_granted(self) -> None:
        """The decode budget has room for the frame that is arriving."""
        self.starved = False
        self._mover.changed(self)

    # -- the end

    def fail(self, error: Exception) -> None:
        """The other side broke the protocol."""
        self._mover.counters.protocol_errors_total += 1
        self.close(error if isinstance(error, LeafdbError) else ProtocolError(str(error)))

    def close(self, error: LeafdbError | None = None) -> None:
        """End the session: what is queued and an ERROR with `error` go out as far as the stream takes them at once."""
        if self.closed:
            return
        if not self.blocked:
            self._say_farewell(error)
        self.lost(error)

    def _say_farewell(self, error: LeafdbError | None) -> None:
        farewell = [self.connection.farewell(error)] if error is not None else []
        try:
            self.stream.send_now(b"".join([*self._outbox, *farewell]))
            if self.pollable is not None:
                # Unread bytes would make the kernel reset the connection, and the farewell could be lost with it.
                self.pollable.receive_now(RECEIVE_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    def lost(self, error: LeafdbError | None) -> None:
        """The stream is over, or is to be: no more bytes go either way."""
        if self.closed:
            return
        self.closed = True
        self._outbox.clear()
        self.outbox_bytes = 0
        self.backlog = []
        if self.starved:
            self.reserved_bytes = 0
            self._mover.budget.forget(self)
        elif self.reserved_bytes:
            self._mover.budget.give_back(self.reserved_bytes)
            self.reserved_bytes = 0
        self._mover.detach(self)
        self.stream.close()
        self._on_closed(self, error)

    def check(self) -> None:
        """The byte count is exact, and a closed session holds nothing."""
        assert self.outbox_bytes == sum(map(len, self._outbox))
        assert self.outbox_bytes <= OUTBOX_BYTES_MAX
        if self.closed:
            assert not self._outbox
            assert not self.backlog
            assert not self.reserved_bytes
        elif self._outbox:
            assert self._queued or self.blocked
        self.connection.reader.check()
