"""One connection over a TCP socket: the part that is the same under asyncio and trio.

A caller's request is sent by the caller itself when nobody else waits: a task of its own for writing would cost a
pass of the event loop. While others wait, requests gather, and all of a pass go out with one `send` at its end. How
answers are read is the business of the two kinds (`asyncio_connection`, `trio_connection`).

Deadlines need no scope and no timer for each request: one task sleeps until the nearest deadline it has heard of, and
then looks through all who wait. Since most requests are given the same time, that is once per timeout, not per request.

Invariants: a request in the outbox has not been sent, not by a byte; `_rest` is what the kernel has not taken of bytes
that must go out whole; whoever waits has a slot in `waiting`, and is woken when that gets a frame or an error.
"""

from __future__ import annotations

import math
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import anyio

from leafdb.client.anyio_connection import AnyioConnection, Transport
from leafdb.client.anyio_slot import Late, Slot
from leafdb.client.dial_socket import SocketTransport
from leafdb.client.effects import Ended, Expired, Severed, Unsent
from leafdb.client.farewell import farewell_of
from leafdb.errors import ProtocolError
from leafdb.limits import RECEIVE_BYTES, SEND_BYTES
from leafdb.wire.frame import Frame, FrameReader, encode_frame
from leafdb.wire.hello import ServerFacts
from leafdb.wire.registry import MessageType

_PING: Final = int(MessageType.PING)
_ERROR: Final = int(MessageType.ERROR)


class SocketConnection(AnyioConnection, ABC):
    """See the top of this file. `stream` is a `SocketTransport`; its socket is watched directly from now on."""

    __slots__ = ("_flushing", "_look_at", "_now", "_rest", "_socket", "_sooner")

    def __init__(
        self, stream: Transport, reader: FrameReader, facts: ServerFacts, *, clock: Callable[[], float]
    ) -> None:
        assert isinstance(stream, SocketTransport)
        super().__init__(stream, reader, facts)
        self._socket: socket.socket = stream.socket
        self._now = clock
        self._rest: bytes | memoryview = b""
        self._flushing = False
        """The outbox will be sent, at the end of this pass or once the kernel has room."""
        self._look_at = math.inf
        """When the look-out looks through the waiting at the latest."""
        self._sooner = anyio.Event()

    # -- what the two kinds do in their own ways

    @abstractmethod
    def _slot(self, request_id: int, deadline: float) -> Slot:
        """A place for an answer that can be waited for in this loop."""

    def _look_up(self) -> None:
        """Before the first to wait, when nothing has come of late: has something come meanwhile? For a loop that does
        not say so by itself."""

    @abstractmethod
    def _flush_soon(self) -> None:
        """Call `_flush` at the end of this pass."""

    @abstractmethod
    def _flush_with_room(self) -> None:
        """Call `_flush` once the socket takes bytes again."""

    # -- asking

    def exchange(
        self, message_type: int, body: bytes, deadline: float, until: float = 0.0
    ) -> Coroutine[Any, Any, Frame]:
        """Send a request, at once, and wait for its answer. Raises Unsent, and as `wait`."""
        return self.wait(self._ask(message_type, body, until or deadline), deadline, until)

    def submit(self, requests: Sequence[tuple[int, bytes]]) -> list[Slot]:
        """Queue requests (type, body) to be sent. Raises Ended when the connection is dead."""
        return [self._ask(message_type, body, math.inf) for message_type, body in requests]

    def _ask(self, message_type: int, body: bytes, deadline: float) -> Slot:
        waiting = self.waiting
        if not self._pulse.asked(self._now()) and not waiting and self.dead is None:
            self._look_up()
            self._pulse.asked(self._now())
        if self.dead is not None:
            raise Ended(self.dead)
        request_id = self._next_id
        self._next_id = request_id + 1
        slot = waiting[request_id] = self._slot(request_id, deadline)
        frame = encode_frame(message_type, request_id, body)
        if self._flushing:
            self._outbox[request_id] = frame
        elif len(waiting) == 1:
            self._send_alone(request_id, frame)
        else:
            self._outbox[request_id] = frame
            self._flushing = True
            self._flush_soon()
        if deadline < self._look_at:
            self._look_sooner(deadline)
        return slot

    # -- deadlines

    def _look_sooner(self, deadline: float) -> None:
        self._look_at = deadline
        self._sooner.set()

    async def serve(self) -> None:
        """Look out for deadlines until the connection ends; everybody waiting is told then."""
        try:
            with self._scope:
                await self._look_out()
        finally:
            self.close("the client was closed")

    async def _look_out(self) -> None:
        while True:
            with anyio.CancelScope(deadline=self._look_at):
                await self._sooner.wait()
            if self._sooner.is_set():
                self._sooner = anyio.Event()
            else:
                self._expire(self._now())

    def _expire(self, now: float) -> None:
        """Wake everybody whose time is up; whether that is the end of it they know themselves (`_answer`)."""
        look_at = math.inf
        for slot in self.waiting.values():
            if slot.error is not None:
                continue
            if slot.deadline <= now:
                sent = slot.request_id not in self._outbox
                slot.error = Expired("wait" if sent else "send", sent=sent)
                slot.wake()
            elif slot.deadline < look_at:
                look_at = slot.deadline
        self._look_at = look_at

    def _answer(self, slot: Slot, *, early: bool) -> Frame:
        """The frame, or the error raised that came instead of it. `early`: the time it was waited for was not yet the
        deadline, so that it may be waited for again."""
        if slot.frame is not None:
            return slot.frame
        error = slot.error
        assert error is not None
        if isinstance(error, Expired):
            if early:
                slot.error, slot.deadline = None, math.inf
                raise Late(slot)
            self._unanswered(self._now())
        raise error

    # -- sending

    def _send_alone(self, request_id: int, frame: bytes) -> None:
        """Send a request at once: nothing is queued before it."""
        sent = 0
        try:
            sent = self._socket.send(frame)
        except BlockingIOError:
            pass
        except OSError as error:
            self._outbox[request_id] = frame
            self.close(error.strerror or str(error))
            return
        if sent < len(frame):
            if sent:
                self._rest = memoryview(frame)[sent:]
            else:
                self._outbox[request_id] = frame
            self._flushing = True
            self._flush_with_room()

    def _flush(self) -> None:
        """Send what has gathered, as far as the kernel takes it. What it takes nothing of stays in the outbox."""
        self._flushing = False
        outbox = self._outbox
        try:
            while self._rest or outbox:
                taken: Sequence[int] = ()
                data = self._rest
                if not data:
                    taken, data = self._front()
                try:
                    sent = self._socket.send(data)
                except BlockingIOError:
                    sent = 0
                if sent:
                    for request_id in taken:
                        del outbox[request_id]
                    self._rest = memoryview(data)[sent:] if sent < len(data) else b""
                if sent < len(data):
                    self._flushing = True
                    self._flush_with_room()
                    return
        except OSError as error:
            self.close(error.strerror or str(error))

    def _front(self) -> tuple[Sequence[int], bytes]:
        """About SEND_BYTES from the front of the outbox, one frame at least, and the requests they are."""
        size = 0
        taken = []
        frames = []
        for request_id, frame in self._outbox.items():
            taken.append(request_id)
            frames.append(frame)
            size += len(frame)
            if size >= SEND_BYTES:
                break
        return taken, b"".join(frames)

    def close(self, reason: str, waiting: type[Severed | Unsent] = Severed) -> None:
        """End the connection; whoever waits is told `reason`."""
        super().close(reason, waiting)
        self._rest = b""

    # -- receiving

    def _receive(self) -> None:
        """Read what the socket has, once, and hand it out."""
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self.close(error.strerror or str(error))
            return
        if not data:
            self.close("the node closed the connection")
            return
        self._pulse.heard_at = self._now()
        try:
            self._hand_out(self._reader.feed(data))
        except ProtocolError as error:
            self.close(str(error))

    def _hand_out(self, frames: Sequence[Frame]) -> None:
        waiting = self.waiting
        for frame in frames:
            message_type, request_id, _ = frame
            if message_type == _PING:
                self._outbox[-request_id] = encode_frame(MessageType.PONG, request_id, b"")
                self._flush()
                continue
            slot = waiting.pop(request_id, None)
            if slot is not None:
                slot.frame = frame
                slot.answered()
            elif message_type == _ERROR and request_id == 0:
                self.close(*farewell_of(frame))
            elif request_id >= self._next_id:
                self.close("the node answered a request that was never made")
        if self._pulse.silent:
            self._leave_silence()
