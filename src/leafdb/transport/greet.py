"""The handshake of one connection, as an ordinary task: it happens once, so it may cost a scope and some waiting.

Whoever calls sets the deadline. On any failure the stream is closed, after the other side was told why where that is
possible.
"""

from __future__ import annotations

import contextlib

import trio

from leafdb.errors import LeafdbError, ProtocolError
from leafdb.limits import FRAME_BYTES_MAX_UNAUTHENTICATED
from leafdb.transport.stream import ByteStream
from leafdb.wire.connection import Connection, ConnectionState
from leafdb.wire.errors import encode_error
from leafdb.wire.frame import Frame, encode_frame
from leafdb.wire.handshake import Handshake
from leafdb.wire.registry import MessageType


async def greet(stream: ByteStream, handshake: Handshake) -> tuple[Connection, list[Frame]]:
    """Carry a handshake to its end: the established connection, and the frames that came right behind it.

    Raises ProtocolError (its subclass HandshakeRefused when either side would not have the other) or trio's
    BrokenResourceError.
    """
    connection = Connection(handshake)
    try:
        frames: list[Frame] = []
        hello = connection.start()
        if hello:
            await stream.send_all(hello)
        while connection.state is ConnectionState.HANDSHAKE:
            data = await stream.receive_some(FRAME_BYTES_MAX_UNAUTHENTICATED)
            if not data:
                raise ProtocolError("the connection ended during the handshake")
            try:
                frames = connection.receive(data)
            except LeafdbError as error:
                say_now(stream, connection.take_output() + connection.farewell(error))
                raise
            answer = connection.take_output()
            if answer:
                await stream.send_all(answer)
    except BaseException:
        stream.close()
        raise
    return connection, frames


def refuse(stream: ByteStream, error: LeafdbError) -> None:
    """Tell a connection that there is no place for it, and close it, without waiting."""
    say_now(stream, encode_frame(MessageType.ERROR, 0, encode_error(error)))
    stream.close()


def say_now(stream: ByteStream, data: bytes) -> None:
    """Last words: sent if that is possible at once, and no matter if not."""
    if data:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            stream.send_now(data)
