"""One connection, sans-I/O: bytes in; bytes to send and messages out.

    handshake --(facts)--> established --(close or any ProtocolError)--> failed

Until the handshake is over frames are at most FRAME_BYTES_MAX_UNAUTHENTICATED long, only handshake types are read, and
one at a time: bytes behind the last of them belong to the next state and are judged by its rules. Afterwards `receive`
is `FrameReader.feed` with the types that this kind of session allows, so that a client can never reach a peer's verb.

Whoever moves the bytes does: send `start()`; then for all bytes that come, `receive(data)`, send `take_output()`,
handle the frames. On ProtocolError: send `farewell(error)`, close.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from leafdb.errors import LeafdbError, ProtocolError
from leafdb.limits import FRAME_BYTES_MAX, FRAME_BYTES_MAX_UNAUTHENTICATED
from leafdb.wire.errors import encode_error
from leafdb.wire.frame import HEADER_BYTES, Frame, FrameReader, encode_frame
from leafdb.wire.handshake import Facts, Handshake
from leafdb.wire.registry import HANDSHAKE_TYPES, MessageType

UNAUTHENTICATED_BODY_BYTES_MAX: Final = FRAME_BYTES_MAX_UNAUTHENTICATED - HEADER_BYTES


class ConnectionState(Enum):
    """Where a connection is in its life."""

    HANDSHAKE = "handshake"
    ESTABLISHED = "established"
    FAILED = "failed"


class Connection:
    """The state of one connection; `facts` are what the handshake established."""

    __slots__ = ("_handshake", "_output", "_refused_by_other", "facts", "reader", "state")

    def __init__(self, handshake: Handshake) -> None:
        self.reader: FrameReader = FrameReader(UNAUTHENTICATED_BODY_BYTES_MAX, HANDSHAKE_TYPES)
        self.state: ConnectionState = ConnectionState.HANDSHAKE
        self.facts: Facts | None = None
        self._handshake = handshake
        self._output = b""
        self._refused_by_other = False

    def start(self) -> bytes:
        """The bytes to send before any have come."""
        return self._handshake.start()

    def receive(self, data: bytes) -> list[Frame]:
        """Take received bytes; the frames for whoever uses the connection, none before it is established.

        Raises what ends the connection: ProtocolError, or the error by which the other side refused us.
        """
        if self.state is ConnectionState.ESTABLISHED:
            return self.reader.feed(data)
        if self.state is ConnectionState.FAILED:
            raise ProtocolError("the connection has failed already")
        try:
            return self._receive_handshake(data)
        except LeafdbError:
            self.state = ConnectionState.FAILED
            raise

    def _receive_handshake(self, data: bytes) -> list[Frame]:
        frame = self.reader.feed_one(data)
        while frame is not None:
            self._refused_by_other = frame.type == MessageType.ERROR
            step = self._handshake.on_frame(frame)
            self._output += step.send
            if step.facts is not None:
                self.facts = step.facts
                self.state = ConnectionState.ESTABLISHED
                self.reader.body_bytes_max = FRAME_BYTES_MAX
                self.reader.allowed_types = self._handshake.allowed_types
                return self.reader.feed(b"")
            frame = self.reader.feed_one(b"")
        return []

    def take_output(self) -> bytes:
        """The bytes the handshake wants sent since the last call."""
        output, self._output = self._output, b""
        return output

    def farewell(self, error: BaseException) -> bytes:
        """The ERROR frame that tells the other side why the connection ends; nothing when it has told us."""
        if self._refused_by_other:
            return b""
        return encode_frame(MessageType.ERROR, 0, encode_error(error))

    def check(self) -> None:
        """Facts exactly when established; wide bounds only then."""
        self.reader.check()
        assert (self.facts is not None) == (self.state is ConnectionState.ESTABLISHED)
        if self.facts is None:
            assert self.reader.body_bytes_max == UNAUTHENTICATED_BODY_BYTES_MAX
            assert self.reader.allowed_types is HANDSHAKE_TYPES
