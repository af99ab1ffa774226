"""One connection under trio or asyncio, over any stream: a reader task hands answers out, a writer sends in batches.

A TCP socket is watched directly, which costs half as much: see `socket_connection`. This form serves what is no plain
socket: encryption, an embedded node, memory.

Callers never touch the stream. A caller puts its frame into the outbox and waits for its slot; being cancelled, or
running out of time, only takes the slot away, so it can neither cut a frame in half nor leave an answer to be handed to
somebody else. A frame still in the outbox when its caller leaves is taken out again: it was never sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self

import anyio

from leafdb.client.anyio_slot import EventSlot, Late, Slot
from leafdb.client.effects import Ended, Expired, Severed, Unsent
from leafdb.client.farewell import AGENT, farewell_of, no_handshake
from leafdb.client.pulse import Pulse
from leafdb.errors import LeafdbError, ProtocolError
from leafdb.limits import RECEIVE_BYTES
from leafdb.wire.connection import Connection
from leafdb.wire.frame import Frame, FrameReader, encode_frame
from leafdb.wire.handshake import ClientHello
from leafdb.wire.hello import ServerFacts
from leafdb.wire.login import Login
from leafdb.wire.registry import MessageType


class Transport(Protocol):
    """A byte stream, as anyio's own are: what a dialer gives the asynchronous client."""

    async def send(self, item: bytes, /) -> None:
        """Send all of it."""

    async def receive(self, max_bytes: int = 65_536, /) -> bytes:
        """Some bytes; b"" or anyio.EndOfStream at the end."""

    async def aclose(self) -> None:
        """Close it, at once when cancelled."""


STREAM_ERRORS = (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)


class AnyioConnection:
    """An established connection; `serve` runs it, in a task of the driver."""

    __slots__ = (
        "_next_id", "_outbox", "_pulse", "_reader", "_scope", "_stream", "_wake", "dead", "facts", "usable", "waiting"
    )  # fmt: skip

    def __init__(self, stream: Transport, reader: FrameReader, facts: ServerFacts) -> None:
        self._stream = stream
        self._reader = reader
        self.facts: ServerFacts = facts
        self.waiting: dict[int, Slot] = {}
        self.dead: str | None = None
        self.usable: bool = True
        """Whether to ask anything more here: it lives, and has not fallen silent."""
        self._next_id = 1
        self._outbox: dict[int, bytes] = {}
        self._wake = anyio.Event()
        self._scope = anyio.CancelScope()
        self._pulse = Pulse()

    @classmethod
    async def establish(cls, stream: Transport, login: Login | None = None) -> Self:
        """Shake hands over a connected stream. Raises Unsent; the stream is the caller's to close."""
        wire = Connection(ClientHello(AGENT, login))
        try:
            await stream.send(wire.start())
            while wire.facts is None:
                data = await stream.receive(RECEIVE_BYTES)
                if not data:
                    raise anyio.EndOfStream
                if login is None:
                    wire.receive(data)
                else:  # a password is turned into a key here: the loop must not stand still for so long
                    await anyio.to_thread.run_sync(wire.receive, data)
                if answer := wire.take_output():
                    await stream.send(answer)
        except anyio.EndOfStream:
            raise Unsent("the node closed the connection during the handshake") from None
        except (LeafdbError, *STREAM_ERRORS) as error:
            raise no_handshake(error) from None
        assert isinstance(wire.facts, ServerFacts)
        return cls(stream, wire.reader, wire.facts)

    async def serve(self) -> None:
        """Read and write until the connection ends; everybody waiting is told then."""
        try:
            with self._scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._write)
                    await self._read()
                    tasks.cancel_scope.cancel()
        finally:
            self.close("the client was closed")

    async def exchange(self, message_type: int, body: bytes, deadline: float, until: float = 0.0) -> Frame:
        """Send a request and wait for its answer. Raises Unsent, and as `wait`."""
        (slot,) = self.submit(((message_type, body),))
        return await self.wait(slot, deadline, until)

    def submit(self, requests: Sequence[tuple[int, bytes]]) -> list[Slot]:
        """Queue requests (type, body) to be sent. Raises Ended when the connection is dead."""
        if self.dead is not None:
            raise Ended(self.dead)
        self._pulse.asked(anyio.current_time())
        slots: list[Slot] = []
        for message_type, body in requests:
            request_id = self._next_id
            self._next_id += 1
            slot = self.waiting[request_id] = EventSlot(request_id)
            self._outbox[request_id] = encode_frame(message_type, request_id, body)
            slots.append(slot)
        self._wake.set()
        return slots

    async def wait(self, slot: Slot, deadline: float, until: float = 0.0) -> Frame:
        """The answer to a submitted request. Raises Severed, Unsent or Expired; the slot is given up then. With `until`
        before the deadline, raises Late at that time, and the slot keeps its place."""
        assert isinstance(slot, EventSlot)
        until = until or deadline
        try:
            with anyio.CancelScope(deadline=until):
                await slot.event.wait()
            if slot.frame is not None:
                return slot.frame
            if slot.error is not None:
                raise slot.error
            if until < deadline:
                raise Late(slot)
            sent = slot.request_id not in self._outbox
            self._unanswered(anyio.current_time())
            raise Expired("wait" if sent else "send", sent=sent)
        except Late:
            raise
        except BaseException:
            self.abandon(slot)
            raise

    def abandon(self, slot: Slot, *, outrun: bool = False) -> None:
        """Nobody waits for this answer any more; a request not sent yet never will be. `outrun`: another came first."""
        self.waiting.pop(slot.request_id, None)
        self._outbox.pop(slot.request_id, None)
        if outrun:
            self._unanswered(anyio.current_time())
        self._leave_silence()

    def _unanswered(self, now: float) -> None:
        """A request ran out of time."""
        self._pulse.expired(now)
        if self._pulse.silent:
            self.usable = False

    def _leave_silence(self) -> None:
        """End a silent connection when nobody waits for it any more."""
        if self._pulse.silent and not self.waiting:
            self.close("the node fell silent")

    def close(self, reason: str, waiting: type[Severed | Unsent] = Severed) -> None:
        """End the connection; whoever waits is told `reason`."""
        if self.dead is not None:
            return
        self.dead = reason
        self.usable = False
        for slot in self.waiting.values():
            unsent = slot.request_id in self._outbox
            slot.error = Unsent(reason) if unsent else waiting(reason)
            slot.wake()
        self.waiting.clear()
        self._outbox.clear()
        self._scope.cancel()

    def check(self) -> None:
        """The dead wait for nothing; what is queued is waited for."""
        assert self.dead is None or not self.waiting
        assert self.usable == (self.dead is None and not self._pulse.silent)
        assert all(request_id <= 0 or request_id in self.waiting for request_id in self._outbox)
        assert all(request_id == slot.request_id < self._next_id for request_id, slot in self.waiting.items())

    async def _read(self) -> None:
        while self.dead is None:
            try:
                data = await self._stream.receive(RECEIVE_BYTES)
            except anyio.EndOfStream:
                data = b""
            except STREAM_ERRORS as error:
                self.close(str(error) or type(error).__name__)
                return
            if not data:
                self.close("the node closed the connection")
                return
            self._pulse.heard_at = anyio.current_time()
            try:
                frames = self._reader.feed(data)
            except ProtocolError as error:
                self.close(str(error))
                return
            self._deliver(frames)

    def _deliver(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            if frame.type == MessageType.PING:
                self._outbox[-frame.request_id] = encode_frame(MessageType.PONG, frame.request_id, b"")
                self._wake.set()
                continue
            slot = self.waiting.pop(frame.request_id, None)
            if slot is not None:
                slot.frame = frame
                slot.wake()
            elif frame.type == MessageType.ERROR and frame.request_id == 0:
                self.close(*farewell_of(frame))
            elif frame.request_id >= self._next_id:
                self.close("the node answered a request that was never made")
        self._leave_silence()

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            while self._outbox:
                frames = self._outbox.values()
                data = b"".join(frames)
                self._outbox.clear()
                try:
                    await self._stream.send(data)
                except STREAM_ERRORS as error:
                    self.close(str(error) or type(error).__name__)
                    return
