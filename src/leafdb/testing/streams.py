"""Byte streams in memory: what is sent, what is on its way, and what has arrived.

A connection is two pipes, one per direction. Each leads over a `Route`, the way from one host to another, which says
how long bytes take (`Link`) and whether they are held up. What is sent passes in order, in three kinds of segments:
bytes, the end (the other side closed), and a reset. Bytes on their way and bytes that nobody has read yet count against
the same bound, so a reader that stops makes its writer wait, as TCP does.

Over a plain route (no link, nothing held up) a segment arrives in the moment it is sent. Otherwise it gets a time of
arrival, never before that of the one ahead of it: within a connection nothing overtakes, between connections everything
may.

A side that is gone (closed, killed) answers bytes that still reach it with a reset, as a kernel does.

A single pipe may be stalled while its route is free: one flow whose packets get lost and are sent again much later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final, Protocol

import trio
from trio.lowlevel import ParkingLot

from leafdb.transport.stream import Data

BUFFER_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Link:
    """What one direction between two hosts is like."""

    latency_s: tuple[float, float] = (0.0, 0.0)
    """Each segment takes a time drawn from this range."""
    bytes_per_s: float | None = None
    """Bandwidth of each connection; None: no bound."""
    trickle_bytes: int | None = None
    """Bytes arrive in pieces of at most so many; None: as they were sent."""


class Carrier(Protocol):
    """What pipes need of a network: somebody who looks at them when something is due."""

    rng: Random
    observer: Callable[[str, str, bytes], None] | None

    def later(self, pipe: Pipe, due_s: float) -> None:
        """Call `pipe.arrive()` then."""


class Route:
    """The way from one host to another. `holds` says why nothing arrives at present; `plain`: nothing is special."""

    __slots__ = ("carrier", "holds", "link", "plain", "source", "target")

    def __init__(self, source: str, target: str, carrier: Carrier | None = None, link: Link | None = None) -> None:
        self.source: str = source
        self.target: str = target
        self.carrier: Carrier | None = carrier
        self.link: Link | None = link
        self.holds: dict[str, None] = {}
        self.plain: bool = link is None

    def changed(self) -> None:
        """After a change of `link` or `holds`."""
        self.plain = self.link is None and not self.holds

    def latency_s(self) -> float:
        """How long the next segment takes."""
        if self.link is None or self.carrier is None:
            return 0.0
        return self.carrier.rng.uniform(*self.link.latency_s)


class Segment:
    """Bytes, or how the stream ends: the other side closed, or a reset."""

    __slots__ = ("data", "due_s", "kind")

    def __init__(self, due_s: float, kind: int, data: bytes) -> None:
        self.due_s: float = due_s
        self.kind: int = kind
        self.data: bytes = data


_BYTES: Final = 0
_END: Final = 1
_RESET: Final = 2


class Pipe:
    """One direction of a connection: segments on their way to `reader`, and what has arrived there."""

    __slots__ = (
        "buffer", "bytes_max", "ended", "flying", "flying_bytes", "free_at_s", "reader", "readers", "route",
        "scheduled", "stalled", "writer", "writers",
    )  # fmt: skip

    reader: MemoryByteStream
    writer: MemoryByteStream

    def __init__(self, route: Route, bytes_max: int) -> None:
        self.route: Route = route
        self.bytes_max: int = bytes_max
        self.buffer: bytearray = bytearray()
        self.flying: deque[Segment] = deque()
        self.flying_bytes: int = 0
        self.free_at_s: float = 0.0
        self.scheduled: bool = False
        self.stalled: bool = False
        """Nothing arrives here at present, whatever else passes over the route."""
        self.ended: bool = False
        self.readers: ParkingLot = ParkingLot()
        self.writers: ParkingLot = ParkingLot()

    @property
    def room(self) -> int:
        """How many bytes may be sent now."""
        return self.bytes_max - len(self.buffer) - self.flying_bytes

    def send(self, kind: int, data: bytes = b"") -> None:
        """Send a segment."""
        if self.route.plain and not self.flying and not self.stalled:
            self._arrived(kind, data)
            return
        link = self.route.link
        size = len(data) if link is None or link.trickle_bytes is None else link.trickle_bytes
        for start in range(0, len(data), size) if data else (0,):
            piece = data[start : start + size] if data else b""
            self.flying.append(Segment(self._due_s(len(piece)), kind, piece))
            self.flying_bytes += len(piece)
        self._look_again()

    def _due_s(self, size: int) -> float:
        now = trio.current_time()
        link = self.route.link
        if link is not None and link.bytes_per_s is not None:
            self.free_at_s = now = max(now, self.free_at_s) + size / link.bytes_per_s
        due = now + self.route.latency_s()
        return max(due, self.flying[-1].due_s) if self.flying else due

    @property
    def held(self) -> bool:
        """Whether what is under way has to wait for somebody to let it pass."""
        return self.stalled or bool(self.route.holds)

    def _look_again(self) -> None:
        route = self.route
        if self.flying and not self.scheduled and not self.held and route.carrier is not None:
            self.scheduled = True
            route.carrier.later(self, self.flying[0].due_s)

    def arrive(self) -> None:
        """Called by the carrier: whatever is due arrives."""
        self.scheduled = False
        self.release()

    def release(self) -> None:
        """Nothing holds the route up any more, or something is due."""
        now = trio.current_time()
        flying = self.flying
        while flying and flying[0].due_s <= now and not self.held:
            self._land()
        self._look_again()

    def _land(self) -> None:
        segment = self.flying.popleft()
        self.flying_bytes -= len(segment.data)
        self._arrived(segment.kind, segment.data)

    def stall(self) -> None:
        """Let nothing arrive until `resume`, and lose nothing; what was sent stays in order."""
        self.stalled = True

    def resume(self) -> None:
        """What was stalled arrives as soon as it is due."""
        self.stalled = False
        self.release()

    def let_pass(self, size: int) -> None:
        """So many bytes of what is stalled were sent again and got through, if they are due and nothing else holds
        them: of one segment at most."""
        if not self.stalled or not self.flying or self.route.holds or self.flying[0].due_s > trio.current_time():
            return
        first = self.flying[0]
        if len(first.data) <= size:
            self._land()
            return
        data, first.data = first.data[:size], first.data[size:]
        self.flying_bytes -= size
        self._arrived(first.kind, data)

    def hurry(self) -> None:
        """The link is another one now: what is under way is due."""
        self.free_at_s = now = trio.current_time()
        for segment in self.flying:
            segment.due_s = min(segment.due_s, now)
        self.release()

    def _arrived(self, kind: int, data: bytes) -> None:
        reader = self.reader
        if kind == _RESET:
            reader.broken = True
            reader.wake()
        elif kind == _END:
            self.ended = True
            reader.wake()
        elif reader.gone:
            reader.outgoing.send(_RESET)
        else:
            carrier = self.route.carrier
            if carrier is not None and carrier.observer is not None:
                carrier.observer(self.route.source, self.route.target, data)
            self.buffer += data
            self.readers.unpark_all()

    def drop(self) -> None:
        """What is on its way is lost, and what has arrived and was not read, unless nothing can tell the reader now."""
        self.flying.clear()
        self.flying_bytes = 0
        if not self.held:
            self.buffer.clear()


class MemoryByteStream:
    """One end of a connection in memory."""

    __slots__ = ("_closed", "broken", "gone", "incoming", "outgoing", "remote")

    def __init__(self, incoming: Pipe, outgoing: Pipe, remote: str) -> None:
        self.incoming: Pipe = incoming
        self.outgoing: Pipe = outgoing
        incoming.reader = outgoing.writer = self
        self._closed = False
        self.gone: bool = False
        """Nobody is here to read: bytes are answered with a reset."""
        self.broken: bool = False
        """A reset has arrived."""
        self.remote: str = remote

    async def receive_some(self, bytes_max: int) -> bytes:
        """Wait for bytes."""
        await trio.lowlevel.checkpoint()
        pipe = self.incoming
        while True:
            if self._closed:
                raise trio.ClosedResourceError("this stream was closed")
            if pipe.buffer:
                data = bytes(pipe.buffer[:bytes_max])
                del pipe.buffer[:bytes_max]
                pipe.writers.unpark_all()
                return data
            if pipe.ended:
                return b""
            if self.broken:
                raise trio.BrokenResourceError(f"{self.remote}: connection reset")
            await pipe.readers.park()

    def send_now(self, data: Data) -> int:
        """Send what there is room for."""
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed")
        if self.broken or self.incoming.ended:
            raise trio.BrokenResourceError(f"{self.remote}: broken pipe")
        taken = bytes(data[: max(0, self.outgoing.room)])
        if taken:
            self.outgoing.send(_BYTES, taken)
        return len(taken)

    async def send_all(self, data: bytes) -> None:
        """Wait for room until everything is sent."""
        await trio.lowlevel.checkpoint()
        while True:
            data = data[self.send_now(data) :]
            if not data:
                return
            await self.outgoing.writers.park()

    async def wait_sendable(self) -> None:
        """Wait for room, or for the end."""
        await trio.lowlevel.checkpoint()
        while self.outgoing.room <= 0 and not (self.is_over or self._closed):
            await self.outgoing.writers.park()

    def close(self) -> None:
        """The other side reads what was sent, then the end; its own sends break."""
        if self._closed:
            return
        self._closed = True
        if not self.gone:
            self.gone = True
            self.outgoing.send(_END)
        self.wake()

    async def aclose(self) -> None:
        """Close, then a checkpoint."""
        self.close()
        await trio.lowlevel.checkpoint()

    def wake(self) -> None:
        """Whoever waits here looks again."""
        self.incoming.readers.unpark_all()
        self.outgoing.writers.unpark_all()

    def break_now(self) -> None:
        """Reset both ends: what was under way is lost."""
        for pipe in (self.incoming, self.outgoing):
            pipe.drop()
            pipe.buffer.clear()
            pipe.reader.broken = True
        for pipe in (self.incoming, self.outgoing):
            pipe.reader.wake()

    def vanish(self) -> None:
        """Whoever had this end is gone without a word: nothing more is sent or read here."""
        self.gone = self.broken = True
        self.wake()

    def die(self, *, politely: bool) -> None:
        """Whoever had this end was killed, and the kernel resets what it left; politely: after what was sent."""
        if self.gone:
            return
        if not politely:
            self.outgoing.drop()
        self.outgoing.send(_RESET)
        self.vanish()

    @property
    def is_over(self) -> bool:
        """The other side has closed, or it is broken."""
        return self.incoming.ended or self.broken


def joined(
    there: Route, back: Route, buffer_bytes: int, remotes: tuple[str, str]
) -> tuple[MemoryByteStream, MemoryByteStream]:
    """The two ends of a connection over two routes; each names the other by the second or first of `remotes`."""
    outgoing, incoming = Pipe(there, buffer_bytes), Pipe(back, buffer_bytes)
    return MemoryByteStream(incoming, outgoing, remotes[1]), MemoryByteStream(outgoing, incoming, remotes[0])


def memory_pair(
    buffer_bytes: int = BUFFER_BYTES, remotes: tuple[str, str] = ("memory:1", "memory:2")
) -> tuple[MemoryByteStream, MemoryByteStream]:
    """The two ends of a connection without a network."""
    return joined(Route("1", "2"), Route("2", "1"), buffer_bytes, remotes)
