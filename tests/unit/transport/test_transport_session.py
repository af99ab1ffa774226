"""A session keeps order and bounds, and one session's fault ends that session alone."""

from __future__ import annotations

import pytest
import trio

from leafdb.errors import LeafdbError, ProtocolError, ServerBug
from leafdb.limits import (
    FRAMES_PER_TURN,
    LARGE_FRAME_BYTES,
    OUTBOX_BYTES_MAX,
    OUTBOX_BYTES_PAUSE,
    SEND_BYTES,
)
from leafdb.quorum.messages import MalformedMessage
from leafdb.transport.budget import DecodeBudget
from leafdb.transport.counters import TransportCounters
from leafdb.transport.session import OnFrame, Session
from leafdb.wire.connection import Connection
from leafdb.wire.errors import decode_error
from leafdb.wire.frame import HEADER_BYTES, Frame, FrameReader, encode_frame
from leafdb.wire.handshake import ClientHello, ServerHello
from leafdb.wire.registry import CLIENT_REQUEST_TYPES, MessageType
from support.transports import FACTS, echo


class Sink:
    """A stream that takes `room` bytes at a time, then blocks until given more room."""

    remote = "test:1"

    def __init__(self, room: int = 1 << 40) -> None:
        self.room = room
        self.taken = b""
        self.sends = 0
        self.broken = self.closed = False

    def send_now(self, data: bytes | memoryview) -> int:
        if self.broken:
            raise trio.BrokenResourceError
        self.sends += 1
        part = data[: self.room]
        self.room -= len(part)
        self.taken += bytes(part)
        return len(part)

    def close(self) -> None:
        self.closed = True

    async def receive_some(self, bytes_max: int) -> bytes:
        raise AssertionError

    async def send_all(self, data: bytes) -> None:
        raise AssertionError

    async def wait_sendable(self) -> None:
        raise AssertionError

    async def aclose(self) -> None:
        raise AssertionError

    def frames(self) -> list[Frame]:
        return FrameReader(1 << 30).feed(self.taken)


class Desk:
    """A mover that only notes what it is told."""

    def __init__(self, decode_bytes_max: int = 1 << 30) -> None:
        self.counters = TransportCounters()
        self.budget = DecodeBudget(decode_bytes_max)
        self.dirtied: list[Session] = []
        self.changes: list[Session] = []
        self.detached: list[Session] = []
        self.owing: list[Session] = []
        self.closed: list[tuple[Session, LeafdbError | None]] = []

    def dirty(self, session: Session) -> None:
        self.dirtied.append(session)

    def changed(self, session: Session) -> None:
        self.changes.append(session)

    def owed(self, session: Session) -> None:
        self.owing.append(session)

    def detach(self, session: Session) -> None:
        self.detached.append(session)

    def open(self, sink: Sink | None = None, on_frame: OnFrame = echo) -> Session:
        connection = Connection(ServerHello(FACTS))
        connection.receive(ClientHello("test").start())
        return Session(
            sink or Sink(), connection, self, on_frame=on_frame, on_closed=lambda *end: self.closed.append(end)
        )


def get(request_id: int, body: bytes = b"") -> bytes:
    return encode_frame(MessageType.GET, request_id, body)


def is_read(session: Session) -> bool:
    return session.reading


def last_error(sink: Sink) -> LeafdbError:
    frame = sink.frames()[-1]
    assert (frame.type, frame.request_id) == (MessageType.ERROR, 0)
    return decode_error(frame.body)


def test_a_batch_of_requests_is_answered_in_order_with_one_send() -> None:
    desk, sink = Desk(), Sink()
    session = desk.open(sink)
    session.receive(b"".join(get(number, b"body") for number in range(20)))
    session.check()
    assert desk.dirtied == [session], "told once, however many answers"
    assert sink.sends == 0
    session.flush()
    session.check()
    assert sink.sends == 1
    assert [frame.request_id for frame in sink.frames()] == list(range(20))
    assert session.outbox_bytes == 0


def test_first_frames_beyond_one_turn_are_owed() -> None:
    desk = Desk()
    handled: list[int] = []
    session = desk.open(on_frame=lambda session, message_type, request_id, body: handled.append(request_id))
    session.begin([Frame(MessageType.GET, number, b"") for number in range(FRAMES_PER_TURN)])
    assert (len(handled), desk.owing) == (FRAMES_PER_TURN, [])
    session.begin([Frame(MessageType.GET, number, b"") for number in range(FRAMES_PER_TURN + 3)])
    assert (len(handled), desk.owing) == (2 * FRAMES_PER_TURN, [session])
    assert not session.reading
    session.deliver_backlog()
    assert handled == [*range(FRAMES_PER_TURN), *range(FRAMES_PER_TURN + 3)]


def test_a_long_batch_is_handled_in_turns_and_not_read_on_meanwhile() -> None:
    seen: list[int] = []
    desk = Desk()
    session = desk.open(on_frame=lambda _session, _type, request_id, _body: seen.append(request_id))
    count = 3 * FRAMES_PER_TURN + 1
    session.receive(b"".join(get(number) for number in range(count)))
    turns = 1
    while session.backlog:
        assert not session.reading
        assert len(seen) == turns * FRAMES_PER_TURN
        session.deliver_backlog()
        turns += 1
    assert turns == 4
    assert seen == list(range(count))
    assert session.reading


def test_what_a_stream_does_not_take_waits_in_order() -> None:
    desk, sink = Desk(), Sink(room=50)
    session = desk.open(sink)
    frames = [get(number, b"b" * 30) for number in range(10)]
    assert all(session.send(frame) for frame in frames[:5])
    session.flush()
    assert session.blocked
    assert desk.changes == [session]
    assert session.outbox_bytes == 5 * len(frames[0]) - 50
    for frame in frames[5:]:
        session.send(frame)
    sends = sink.sends
    session.flush()
    assert sink.sends == sends, "a blocked stream is not asked again"
    session.check()
    while session.outbox_bytes:
        sink.room = 33
        session.sendable()
        session.check()
    assert sink.taken == b"".join(frames)


def test_a_large_outbox_leaves_in_pieces_of_bounded_size() -> None:
    desk, sink = Desk(), Sink()
    session = desk.open(sink)
    frame = get(1, bytes(10_000))
    for _ in range(100):
        session.send(frame)
    session.flush()
    assert sink.taken == frame * 100
    assert sink.sends >= len(sink.taken) // (SEND_BYTES + len(frame))
    assert session.outbox_bytes == 0


def test_a_client_that_does_not_read_is_not_read_and_at_last_closed() -> None:
    desk, sink = Desk(), Sink(room=0)
    session = desk.open(sink)
    frame = get(1, bytes(OUTBOX_BYTES_PAUSE))
    session.send(frame)
    session.flush()
    assert session.blocked
    assert not is_read(session)
    while session.send(frame):
        session.check()
    assert OUTBOX_BYTES_MAX - len(frame) < session.outbox_bytes <= OUTBOX_BYTES_MAX
    assert not desk.closed, "never from inside send"
    assert desk.counters.outbox_refusals_total == 1
    session.flush()
    assert [str(error) for _, error in desk.closed] == ["answers are not being read"]
    assert not session.send(frame)
    session.check()


@pytest.mark.parametrize("error", [ProtocolError("a get that is too short"), MalformedMessage("no record")])
def test_a_fault_of_the_peers_making_closes_its_session_with_a_typed_error(error: Exception) -> None:
    def on_frame(session: Session, message_type: int, request_id: int, body: bytes) -> None:
        if request_id == 2:
            raise error
        echo(session, message_type, request_id, body)

    desk, sink = Desk(), Sink()
    session = desk.open(sink, on_frame)
    session.receive(get(1) + get(2) + get(3))
    assert [frame.request_id for frame in sink.frames()] == [1, 0], "answers before the fault still leave"
    assert isinstance(last_error(sink), ProtocolError)
    assert str(last_error(sink)) == str(error)
    assert sink.closed
    assert desk.detached == [session]
    assert len(desk.closed) == 1
    assert desk.counters.protocol_errors_total == 1


def test_a_bug_in_a_handler_is_charged_to_its_session_without_its_text() -> None:
    def on_frame(*_: object) -> None:
        raise KeyError("hunter2")

    desk, sink = Desk(), Sink()
    desk.open(sink, on_frame).receive(get(1))
    assert isinstance(last_error(sink), ServerBug)
    assert "hunter2" not in str(last_error(sink))
    assert desk.counters.handler_errors_total == 1
    ((_, error),) = desk.closed
    assert error is not None
    assert isinstance(error.__cause__, KeyError), "for the log"


def test_a_failed_assertion_is_not_a_sessions_fault() -> None:
    def on_frame(*_: object) -> None:
        raise AssertionError("an invariant broke")

    desk = Desk()
    with pytest.raises(AssertionError):
        desk.open(on_frame=on_frame).receive(get(1))


def test_garbage_closes_with_a_protocol_error() -> None:
    desk, sink = Desk(), Sink()
    session = desk.open(sink)
    session.receive(b"\xff" * 100)
    assert isinstance(last_error(sink), ProtocolError)
    session.check()


def test_a_peer_verb_on_a_client_session_closes_it() -> None:
    desk, sink = Desk(), Sink()
    desk.open(sink).receive(encode_frame(MessageType.REPLICA_PUT, 1, b""))
    assert "REPLICA_PUT is not allowed" in str(last_error(sink))
    assert MessageType.REPLICA_PUT not in CLIENT_REQUEST_TYPES


def test_ping_is_answered_and_an_error_ends_without_an_answer() -> None:
    desk, sink = Desk(), Sink()
    session = desk.open(sink)
    session.receive(encode_frame(MessageType.PING, 5, b""))
    session.flush()
    assert sink.frames() == [Frame(MessageType.PONG, 5, b"")]
    farewell = session.connection.farewell(ProtocolError("I am leaving"))
    session.receive(farewell)
    assert [str(error) for _, error in desk.closed] == ["I am leaving"]
    assert len(sink.frames()) == 1


def test_a_client_answers_nothing() -> None:
    desk, sink = Desk(), Sink()
    session = desk.open(sink)
    body = session.connection.farewell(ProtocolError("x"))[HEADER_BYTES:]
    session.receive(encode_frame(MessageType.ERROR, 9, body))
    assert "nobody made" in str(last_error(sink))


def test_a_broken_stream_closes_once_and_drops_what_was_queued() -> None:
    desk, sink = Desk(), Sink()
    session = desk.open(sink)
    session.send(get(1))
    sink.broken = True
    session.flush()
    session.close(ProtocolError("again"))
    session.lost(None)
    assert desk.closed == [(session, None)]
    assert session.outbox_bytes == 0
    session.check()


def test_large_frames_share_the_decode_budget_in_order() -> None:
    desk = Desk(decode_bytes_max=300_000)
    first, second, third = (desk.open() for _ in range(3))
    large = get(1, bytes(200_000))
    for session in (first, second, third):
        session.receive(large[:1000])
        session.check()
        desk.budget.check()
    assert [session.reading for session in (first, second, third)] == [True, False, False]
    first.receive(large[1000:])
    assert [session.reading for session in (first, second, third)] == [True, True, False]
    second.lost(None)
    assert third.reading
    third.receive(large[1000:] + get(2) + large[: HEADER_BYTES + 1])
    assert desk.budget.used_bytes == len(large), "the next large frame has its own share"
    third.lost(None)
    assert desk.budget.used_bytes == 0
    assert len(large) > LARGE_FRAME_BYTES
    desk.budget.check()


def test_a_waiting_session_that_closes_gives_its_place_up() -> None:
    desk = Desk(decode_bytes_max=300_000)
    first, second, third = (desk.open() for _ in range(3))
    first.receive(get(1, bytes(100_000))[:100])
    second.receive(get(1, bytes(250_000))[:100])
    third.receive(get(1, bytes(150_000))[:100])
    assert not second.reading
    assert not is_read(third)
    second.lost(None)
    assert is_read(third), "whoever waited behind goes on"
    desk.budget.check()
