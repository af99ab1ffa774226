"""A network of one node inside a process: connections are socket pairs, and one end is handed to the node.

Nothing listens at an address, so nobody else on the machine can connect; the streams are those of TCP, so the node's
pump serves them as it serves any socket.
"""

from __future__ import annotations

import contextlib
import errno
import math
import socket
from typing import Any, Final

import trio

from leafdb.transport.stream import SocketByteStream

HOST: Final = "embedded"
CLIENT_PORT: Final = 1


class PairNetwork:
    """Where the node listens in vain, except at CLIENT_PORT: what is offered comes there."""

    def __init__(self) -> None:
        self._listener: PairListener | None = None

    async def listen(self, host: str, port: int) -> PairListener:
        """Take connections at this port."""
        await trio.lowlevel.checkpoint()
        listener = PairListener((host, port))
        if port == CLIENT_PORT:
            self._listener = listener
        return listener

    async def dial(self, host: str, port: int) -> SocketByteStream:
        """There is nobody else."""
        await trio.lowlevel.checkpoint()
        raise OSError(errno.ECONNREFUSED, f"{host}:{port}: an embedded node has no peers")

    def offer(self, far: socket.socket) -> None:
        """A client's end of a pair; on the loop's thread. Closed when nobody listens."""
        if self._listener is None:
            far.close()
        else:
            self._listener.offer(far)


class PairListener:
    """Takes what is offered, in order."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self._send, self._receive = trio.open_memory_channel[socket.socket](math.inf)

    async def accept(self) -> SocketByteStream:
        """The next connection."""
        try:
            return SocketByteStream(await self._receive.receive())
        except trio.EndOfChannel:
            raise trio.ClosedResourceError("this listener was closed") from None

    def offer(self, far: socket.socket) -> None:
        """Put a connection in the queue, dressed as the kind of socket streams expect."""
        dressed = _PairSocket(far.family, far.type, far.proto, far.detach())
        try:
            self._send.send_nowait(dressed)
        except trio.ClosedResourceError:
            dressed.close()

    async def aclose(self) -> None:
        """Take no more; what waits is closed."""
        self._send.close()
        with contextlib.suppress(trio.EndOfChannel, trio.ClosedResourceError):
            while True:
                self._receive.receive_nowait().close()
        await trio.lowlevel.checkpoint()


class _PairSocket(socket.socket):
    """A socket pair's end that passes for a TCP connection: it has a peer name, and no options of TCP to set."""

    def setsockopt(self, level: int, option: int, *value: Any) -> None:
        """As a socket's, where it means something."""
        if level != socket.IPPROTO_TCP:
            super().setsockopt(level, option, *value)

    def getpeername(self) -> tuple[str, int]:
        """The client in this process."""
        return HOST, 0
