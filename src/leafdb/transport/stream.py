"""Byte streams and the networks that make them: all that transport asks of the world outside.

A `ByteStream` is one connection's two directions. The request path uses its synchronous half: `receive_now` and
`send_now` never wait, so that one task can move the bytes of every session (see `pump`). The asynchronous half serves
what is rare: handshakes, streams that only wait (memory).

Faults of the world come as trio's own two: BrokenResourceError (the connection broke) and ClosedResourceError (we
closed it). Dialling and listening raise OSError.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from typing import Final, Protocol, TypeGuard, runtime_checkable

import trio

Data = bytes | memoryview


class ByteStream(Protocol):
    """One connection. `remote` is the other side's "host:port", for limits and logs."""

    remote: str

    async def receive_some(self, bytes_max: int) -> bytes:
        """Wait for bytes and return at most `bytes_max` of them; b"" at the end of the stream."""

    def send_now(self, data: Data) -> int:
        """Hand over what is taken without waiting; how many bytes that was, perhaps 0."""

    async def send_all(self, data: bytes) -> None:
        """Wait until everything has been handed over."""

    async def wait_sendable(self) -> None:
        """Wait until `send_now` would take something, or fail."""

    def close(self) -> None:
        """Close both directions at once; wakes whoever waits. Closing twice is harmless."""

    async def aclose(self) -> None:
        """As `close`, then a checkpoint."""


@runtime_checkable
class PollableStream(ByteStream, Protocol):
    """A stream that the kernel can watch: no task has to wait for it."""

    def fileno(self) -> int:
        """The descriptor to watch."""

    def receive_now(self, bytes_max: int) -> bytes | None:
        """What is there, at most `bytes_max`; None when nothing is, b"" at the end of the stream."""


class Listener(Protocol):
    """Takes incoming connections at `address` (host, port)."""

    address: tuple[str, int]

    async def accept(self) -> ByteStream:
        """Wait for the next connection. OSError when the system has no room for one (try again later)."""

    async def aclose(self) -> None:
        """Take no more connections."""


def is_pollable(stream: ByteStream) -> TypeGuard[PollableStream]:
    """Whether the kernel can watch it. `isinstance` asks the same in 20 us, for every connection that comes."""
    return hasattr(stream, "receive_now")


@runtime_checkable
class PollableListener(Listener, Protocol):
    """Takes connections that the kernel can watch."""

    async def wait(self) -> None:
        """Wait until somebody knocks."""

    def accept_now(self) -> PollableStream | None:
        """The next connection; None when nobody waits. OSError when the system has no room for one."""


class Network(Protocol):
    """Where a node listens and dials: sockets, or memory."""

    async def listen(self, host: str, port: int) -> Listener:
        """Start taking connections; port 0 picks a free one."""

    async def dial(self, host: str, port: int) -> ByteStream:
        """Open a connection; OSError when nobody answers."""


_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
BACKLOG: Final = 1024


class SocketByteStream:
    """A TCP connection: system calls are tried directly, and trio waits only after one that would block."""

    __slots__ = ("_recv", "_send", "_socket", "_waited", "remote")

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._socket = connected
        self._waited = False
        """Somebody has ever waited for it in a task."""
        self._recv = connected.recv
        self._send = connected.send
        self.remote: str = _peer_name(connected)

    def fileno(self) -> int:
        """The descriptor; -1 once closed."""
        return self._socket.fileno()

    def receive_now(self, bytes_max: int) -> bytes | None:
        """What the socket has, or None."""
        try:
            return self._recv(bytes_max)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._fault(error) from error

    async def receive_some(self, bytes_max: int) -> bytes:
        """Wait for bytes."""
        while True:
            data = self.receive_now(bytes_max)
            if data is not None:
                await trio.lowlevel.checkpoint()
                return data
            self._waited = True
            await trio.lowlevel.wait_readable(self._socket)

    def send_now(self, data: Data) -> int:
        """Hand to the kernel what its buffer takes."""
        try:
            return self._send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._fault(error) from error

    async def send_all(self, data: bytes) -> None:
        """Hand everything to the kernel."""
        await trio.lowlevel.checkpoint()
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._send(rest) :]
            except BlockingIOError:
                self._waited = True
                await trio.lowlevel.wait_writable(self._socket)
            except OSError as error:
                raise self._fault(error) from error

    async def wait_sendable(self) -> None:
        """Wait for room in the kernel's buffer."""
        self._waited = True
        await trio.lowlevel.wait_writable(self._socket)

    def close(self) -> None:
        """Close the socket; tasks that wait for it get ClosedResourceError."""
        if self._socket.fileno() >= 0:
            if self._waited:
                trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    async def aclose(self) -> None:
        """Close, then a checkpoint."""
        self.close()
        await trio.lowlevel.checkpoint()

    def _fault(self, error: OSError) -> Exception:
        if error.errno == errno.EBADF:
            return trio.ClosedResourceError("this stream was closed")
        return trio.BrokenResourceError(f"{self.remote}: {error.strerror}")


class SocketListener:
    """A listening TCP socket. Connections get descriptors below `descriptor_max`: those above are for files."""

    __slots__ = ("_descriptor_max", "_socket", "address")

    def __init__(self, listening: socket.socket, descriptor_max: int) -> None:
        self._socket = listening
        self._descriptor_max = descriptor_max
        host, port = listening.getsockname()[:2]
        self.address: tuple[str, int] = (host, port)

    async def accept(self) -> SocketByteStream:
        """The next connection."""
        await trio.lowlevel.checkpoint()
        while (stream := self.accept_now()) is None:
            await self.wait()
        return stream

    async def wait(self) -> None:
        """Wait until somebody knocks."""
        if self._socket.fileno() < 0:
            raise trio.ClosedResourceError("this listener was closed")
        await trio.lowlevel.wait_readable(self._socket)

    def accept_now(self) -> SocketByteStream | None:
        """The next connection, or None. A connection that was reset while it waited is passed over."""
        while True:
            try:
                connected, _ = self._socket.accept()
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno == errno.EBADF:
                    raise trio.ClosedResourceError("this listener was closed") from None
                if error.errno in _NO_ROOM:
                    raise
                continue
            if connected.fileno() >= self._descriptor_max:
                connected.close()
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return SocketByteStream(connected)

    async def aclose(self) -> None:
        """Close the socket."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
        await trio.lowlevel.checkpoint()


class SocketNetwork:
    """TCP over the machine's own network. A system gives out the lowest descriptor that is free, so one that reaches
    `descriptor_max` says how many are taken; then no more connections are accepted."""

    def __init__(self, descriptor_max: int = sys.maxsize) -> None:
        self._descriptor_max = descriptor_max

    async def listen(self, host: str, port: int) -> SocketListener:
        """Bind and listen. A restarted node takes its old port at once (SO_REUSEADDR)."""
        family, kind, protocol, _, address = (await _resolve(host, port))[0]
        listening = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(BACKLOG)
        except OSError:
            listening.close()
            raise
        return SocketListener(listening, self._descriptor_max)

    async def dial(self, host: str, port: int) -> SocketByteStream:
        """Connect to the first address of `host` that answers."""
        failure = OSError(f"{host} has no address")
        for family, kind, protocol, _, address in await _resolve(host, port):
            connecting = trio.socket.socket(family, kind, protocol)
            try:
                await connecting.connect(address)
                return SocketByteStream(socket.socket(family, kind, protocol, connecting.detach()))
            except OSError as error:
                failure = error
                connecting.close()
            except BaseException:
                connecting.close()
                raise
        raise failure


Resolved = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]


async def _resolve(host: str, port: int) -> list[Resolved]:
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(int(family), int(kind), protocol, name, address) for family, kind, protocol, name, address in found]


def _peer_name(connected: socket.socket) -> str:
    try:
        host, port = connected.getpeername()[:2]
    except OSError:
        return "gone"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
