"""A network in memory, for tests and for whole clusters in one loop under virtual time.

Streams have bounded buffers, so a reader that stops makes its writer wait, as TCP does. `MemoryNetwork.at(host)` is the
network as one host sees it, which is what lets two hosts be cut from each other:

- `cut(a, b)` resets what connects them and refuses new connections;
- `cut(a, b, silently=True)` loses nothing and delivers nothing until `heal`: dropped packets, as seen from above.
"""

from __future__ import annotations

import errno
import math
import os
from collections import deque
from typing import Final

import trio
from trio.lowlevel import ParkingLot

from leafdb.transport.stream import Data

BUFFER_BYTES: Final = 256 * 1024
FIRST_FREE_PORT: Final = 40_000


class _Pipe:
    """One direction: bytes on their way, and how the way ends."""

    __slots__ = ("buffer", "bytes_max", "ended", "held", "readers", "reset", "writers")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.buffer = bytearray()
        self.ended = False
        self.reset = False
        self.held = False
        self.readers = ParkingLot()
        self.writers = ParkingLot()

    def wake(self) -> None:
        self.readers.unpark_all()
        self.writers.unpark_all()


class MemoryByteStream:
    """One end of a connection in memory."""

    __slots__ = ("_closed", "_in", "_out", "remote")

    def __init__(self, incoming: _Pipe, outgoing: _Pipe, remote: str) -> None:
        self._in = incoming
        self._out = outgoing
        self._closed = False
        self.remote = remote

    async def receive_some(self, bytes_max: int) -> bytes:
        """Wait for bytes."""
        await trio.lowlevel.checkpoint()
        pipe = self._in
        while True:
            if self._closed:
                raise trio.ClosedResourceError("this stream was closed")
            if pipe.reset:
                raise trio.BrokenResourceError(f"{self.remote}: connection reset")
            if pipe.buffer and not pipe.held:
                data = bytes(pipe.buffer[:bytes_max])
                del pipe.buffer[:bytes_max]
                pipe.writers.unpark_all()
                return data
            if pipe.ended and not pipe.held:
                return b""
            await pipe.readers.park()

    def send_now(self, data: Data) -> int:
        """Put into the buffer what it has room for."""
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed")
        pipe = self._out
        if (pipe.reset or pipe.ended) and not pipe.held:
            raise trio.BrokenResourceError(f"{self.remote}: broken pipe")
        room = pipe.bytes_max - len(pipe.buffer)
        taken = data[:room]
        pipe.buffer += taken
        if taken:
            pipe.readers.unpark_all()
        return len(taken)

    async def send_all(self, data: bytes) -> None:
        """Wait for room until everything is in the buffer."""
        await trio.lowlevel.checkpoint()
        while True:
            data = data[self.send_now(data) :]
            if not data:
                return
            await self._out.writers.park()

    async def wait_sendable(self) -> None:
        """Wait for room in the buffer, or for the end."""
        await trio.lowlevel.checkpoint()
        pipe = self._out
        while len(pipe.buffer) >= pipe.bytes_max and not (pipe.ended or pipe.reset or self._closed):
            await pipe.writers.park()

    def close(self) -> None:
        """The other side reads what was sent, then the end; its own sends break."""
        if self._closed:
            return
        self._closed = True
        self._out.ended = True
        self._in.ended = True
        self._in.wake()
        self._out.wake()

    async def aclose(self) -> None:
        """Close, then a checkpoint."""
        self.close()
        await trio.lowlevel.checkpoint()

    def break_now(self) -> None:
        """Reset both directions: what was under way is lost."""
        for pipe in (self._in, self._out):
            pipe.reset = True
            pipe.wake()

    def hold(self, held: bool) -> None:
        """Stop, or let on, the delivery of what was sent in either direction."""
        for pipe in (self._in, self._out):
            pipe.held = held
            pipe.wake()

    @property
    def is_over(self) -> bool:
        """Closed by either side, or broken."""
        return self._in.ended or self._in.reset


def memory_pair(
    buffer_bytes: int = BUFFER_BYTES, remotes: tuple[str, str] = ("memory:1", "memory:2")
) -> tuple[MemoryByteStream, MemoryByteStream]:
    """The two ends of one connection; each names the other by the second or first of `remotes`."""
    there, back = _Pipe(buffer_bytes), _Pipe(buffer_bytes)
    return MemoryByteStream(back, there, remotes[1]), MemoryByteStream(there, back, remotes[0])


class MemoryListener:
    """Takes what is dialled at its address, one connection after the other."""

    __slots__ = ("_closed", "_lot", "_network", "_waiting", "address")

    def __init__(self, network: MemoryNetwork, address: tuple[str, int]) -> None:
        self.address = address
        self._network = network
        self._waiting: deque[MemoryByteStream] = deque()
        self._lot = ParkingLot()
        self._closed = False

    async def accept(self) -> MemoryByteStream:
        """The next connection."""
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            if self._closed:
                raise trio.ClosedResourceError("this listener was closed")
            await self._lot.park()
        return self._waiting.popleft()

    def offer(self, stream: MemoryByteStream) -> None:
        """A dialler's connection."""
        self._waiting.append(stream)
        self._lot.unpark()

    async def aclose(self) -> None:
        """Take no more; who waits to be accepted is reset."""
        self._closed = True
        self._network.forget(self)
        for stream in self._waiting:
            stream.break_now()
        self._waiting.clear()
        self._lot.unpark_all()
        await trio.lowlevel.checkpoint()


class MemoryNetwork:
    """All hosts and what connects them."""

    def __init__(self, buffer_bytes: int = BUFFER_BYTES) -> None:
        self._buffer_bytes = buffer_bytes
        self._listeners: dict[tuple[str, int], MemoryListener] = {}
        self._links: list[tuple[frozenset[str], MemoryByteStream]] = []
        self._cuts: dict[frozenset[str], bool] = {}
        self._healed = ParkingLot()
        self._next_port = FIRST_FREE_PORT

    def at(self, host: str) -> MemoryHost:
        """The network as `host` sees it."""
        return MemoryHost(self, host)

    def cut(self, a: str, b: str, *, silently: bool = False) -> None:
        """Separate two hosts; see the top of this file."""
        ends = frozenset((a, b))
        self._cuts[ends] = silently
        for pair, stream in self._links:
            if pair == ends:
                if silently:
                    stream.hold(True)
                else:
                    stream.break_now()

    def heal(self, a: str, b: str) -> None:
        """Join them again: what was held is delivered, who waits to connect goes on."""
        ends = frozenset((a, b))
        self._cuts.pop(ends, None)
        for pair, stream in self._links:
            if pair == ends:
                stream.hold(False)
        self._healed.unpark_all()

    async def listen(self, host: str, port: int) -> MemoryListener:
        """Called through a `MemoryHost`."""
        await trio.lowlevel.checkpoint()
        if port == 0:
            port, self._next_port = self._next_port, self._next_port + 1
        address = (host, port)
        if address in self._listeners:
            raise OSError(errno.EADDRINUSE, f"{host}:{port}: {os.strerror(errno.EADDRINUSE)}")
        self._listeners[address] = MemoryListener(self, address)
        return self._listeners[address]

    async def dial(self, source: str, host: str, port: int) -> MemoryByteStream:
        """Called through a `MemoryHost`."""
        await trio.lowlevel.checkpoint()
        ends = frozenset((source, host))
        while self._cuts.get(ends, False):
            await self._healed.park()
        listener = self._listeners.get((host, port))
        if listener is None or ends in self._cuts:
            raise OSError(errno.ECONNREFUSED, f"{host}:{port}: {os.strerror(errno.ECONNREFUSED)}")
        own_port, self._next_port = self._next_port, self._next_port + 1
        near, far = memory_pair(self._buffer_bytes, (f"{source}:{own_port}", f"{host}:{port}"))
        self._links = [link for link in self._links if not link[1].is_over]
        self._links.append((ends, near))
        listener.offer(far)
        return near

    def forget(self, listener: MemoryListener) -> None:
        """A listener was closed."""
        if self._listeners.get(listener.address) is listener:
            del self._listeners[listener.address]

    def check(self) -> None:
        """Listeners are filed under their own address; cuts are between hosts; buffers are bounded."""
        for address, listener in self._listeners.items():
            assert listener.address == address
        assert all(len(ends) in (1, 2) for ends in self._cuts)
        assert self._buffer_bytes > 0
        assert self._buffer_bytes < math.inf


class MemoryHost:
    """The network of one host."""

    def __init__(self, network: MemoryNetwork, host: str) -> None:
        self._network = network
        self.host = host

    async def listen(self, host: str, port: int) -> MemoryListener:
        """Start taking connections."""
        return await self._network.listen(host, port)

    async def dial(self, host: str, port: int) -> MemoryByteStream:
        """Open a connection."""
        return await self._network.dial(self.host, host, port)
