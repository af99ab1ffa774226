"""Connecting over TCP under any event loop, with the socket left in our hands.

anyio's own stream reads ahead by a protocol of its own and waits by several objects for each call; the client's
connections watch their sockets directly, so they need one that nobody else watches. As a `Transport` such a socket
serves for the handshake.
"""

from __future__ import annotations

import errno
import os
import socket

import anyio
from anyio.lowlevel import checkpoint

from leafdb.client.url import Address


class SocketTransport:
    """A connected socket that never blocks. The task that uses it as a `Transport` is the only one to do so."""

    __slots__ = ("socket",)

    def __init__(self, connected: socket.socket) -> None:
        self.socket: socket.socket = connected

    async def send(self, item: bytes, /) -> None:
        """Send all of it."""
        rest = memoryview(item)
        while rest:
            try:
                rest = rest[self.socket.send(rest) :]
            except BlockingIOError:
                await anyio.wait_writable(self.socket)

    async def receive(self, max_bytes: int = 65_536, /) -> bytes:
        """Some bytes; b"" at the end."""
        while True:
            await anyio.wait_readable(self.socket)
            try:
                return self.socket.recv(max_bytes)
            except BlockingIOError:
                continue

    async def aclose(self) -> None:
        """Close it, at once."""
        self.socket.close()
        await checkpoint()


async def dial_socket(address: Address) -> SocketTransport:
    """Connect to the first address of a host that answers. Raises OSError."""
    failure = OSError(f"{address.host} has no address")
    for family, kind, protocol, _, target in await _resolve(address):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            code = sock.connect_ex(target)
            if code == errno.EINPROGRESS:
                await anyio.wait_writable(sock)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return SocketTransport(sock)
        except OSError as error:
            failure = error
            sock.close()
        except BaseException:
            sock.close()
            raise
    raise failure


async def _resolve(address: Address) -> list[tuple[int, int, int, str, tuple[str, int]]]:
    """As `getaddrinfo`; in a thread only where there is a name to look up."""
    host, port = address.host, address.port
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)  # type: ignore[assignment]
    return found  # type: ignore[return-value]  # typeshed adds the shapes of families that name no host
