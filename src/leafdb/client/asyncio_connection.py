"""A connection over a TCP socket under asyncio: the loop calls back when there is something to read.

The callback reads, hands the answers to their futures, and is done; the tasks that wait for them run in the loop's next
pass. Nothing of it is a task, a stream or a protocol.
"""

from __future__ import annotations

import asyncio

from leafdb.client.anyio_connection import Slot, Transport
from leafdb.client.effects import Severed, Unsent
from leafdb.client.socket_connection import SocketConnection
from leafdb.wire.frame import Frame, FrameReader
from leafdb.wire.hello import ServerFacts


class FutureSlot(Slot):
    """Waits on a future."""

    __slots__ = ("future",)

    def __init__(self, request_id: int, deadline: float, future: asyncio.Future[None]) -> None:
        super().__init__(request_id, deadline)
        self.future = future

    def wake(self) -> None:
        """The slot has its frame or its error."""
        if not self.future.done():
            self.future.set_result(None)


class AsyncioConnection(SocketConnection):
    """See the top of this file."""

    __slots__ = ("_loop", "_new_future")

    def __init__(self, stream: Transport, reader: FrameReader, facts: ServerFacts) -> None:
        self._loop = asyncio.get_running_loop()
        super().__init__(stream, reader, facts, clock=self._loop.time)
        self._new_future = self._loop.create_future

    async def serve(self) -> None:
        """Be called back until the connection ends; everybody waiting is told then."""
        if self.dead is None:
            self._loop.add_reader(self._socket.fileno(), self._receive)
        await super().serve()

    def _slot(self, request_id: int, deadline: float) -> Slot:
        return FutureSlot(request_id, deadline, self._new_future())

    async def wait(self, slot: Slot, deadline: float) -> Frame:
        """The answer to a submitted request. Raises Severed, Unsent or Expired; the slot is given up then."""
        assert isinstance(slot, FutureSlot)
        if slot.deadline != deadline:
            slot.deadline = deadline
            if deadline < self._look_at:
                self._look_sooner(deadline)
        try:
            await slot.future
            if slot.frame is not None:
                return slot.frame
            assert slot.error is not None
            raise slot.error
        finally:
            if slot.frame is None:
                self.abandon(slot)

    def close(self, reason: str, waiting: type[Severed | Unsent] = Severed) -> None:
        """End the connection; whoever waits is told `reason`."""
        if self.dead is None:
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
        super().close(reason, waiting)

    def _flush_soon(self) -> None:
        self._loop.call_soon(self._flush)

    def _flush_with_room(self) -> None:
        self._loop.add_writer(self._socket.fileno(), self._flush_again)

    def _flush_again(self) -> None:
        self._loop.remove_writer(self._socket.fileno())
        self._flush()
