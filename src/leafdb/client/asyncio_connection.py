"""A connection over a TCP socket under asyncio: the loop calls back when there is something to read.

The callback reads, hands the answers out, and goes on with each task that waited for one at once: by a future of
asyncio's own a task is only scheduled, and the loop would have to pass once more for it. So a slot is a future-like
object, as asyncio knows them (`_asyncio_future_blocking`), that calls its task back itself. It does so from the reading
callback alone, where no task runs; whoever else ends a wait (a deadline, `close`) schedules the task as a future would.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context
from typing import Any

from leafdb.client.anyio_connection import Transport
from leafdb.client.anyio_slot import Late, Slot
from leafdb.client.effects import ExchangeFailed, Severed, Unsent
from leafdb.client.socket_connection import SocketConnection
from leafdb.wire.frame import Frame, FrameReader
from leafdb.wire.hello import ServerFacts


class TaskSlot(Slot):
    """What a task of asyncio can wait for, and no other meanwhile."""

    __slots__ = ("_asyncio_future_blocking", "_cancelled", "_context", "_loop", "_step")

    def __init__(self, request_id: int, deadline: float, loop: asyncio.AbstractEventLoop) -> None:
        self.request_id: int = request_id
        self.deadline: float = deadline
        self.frame: Frame | None = None
        self.error: ExchangeFailed | None = None
        self._loop = loop
        self._asyncio_future_blocking = False
        self._cancelled: asyncio.CancelledError | None = None
        self._step: Callable[[TaskSlot], object] | None = None
        """Goes on with the task that waits."""
        self._context: Context | None = None

    def __await__(self) -> Generator[TaskSlot, None, None]:
        """Until there is a frame or an error."""
        if self.frame is None and self.error is None:
            self._asyncio_future_blocking = True
            yield self

    def wake(self) -> None:
        """Schedule the task: the slot has its frame or its error."""
        step, self._step = self._step, None
        if step is not None:
            self._loop.call_soon(step, self, context=self._context)

    def answered(self) -> None:
        """Go on with the task now. No task of this loop may be running."""
        step, self._step = self._step, None
        if step is not None:
            assert self._context is not None
            self._context.run(step, self)

    # -- what asyncio's tasks ask of whatever they wait for

    def add_done_callback(self, step: Callable[[TaskSlot], object], *, context: Context) -> None:
        """The task says how to go on with it."""
        self._step, self._context = step, context
        if self.frame is not None or self.error is not None:
            self.wake()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop it belongs to."""
        return self._loop

    def cancel(self, msg: Any = None) -> bool:
        """The task is cancelled: it is woken to learn of it. False when it is being woken already."""
        if self._step is None:
            return False
        self._cancelled = asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg)
        self.wake()
        return True

    def result(self) -> None:
        """Raises CancelledError when that is why the task was woken."""
        if self._cancelled is not None:
            raise self._cancelled


class AsyncioConnection(SocketConnection):
    """See the top of this file."""

    __slots__ = ("_loop",)

    def __init__(self, stream: Transport, reader: FrameReader, facts: ServerFacts) -> None:
        self._loop = asyncio.get_running_loop()
        super().__init__(stream, reader, facts, clock=self._loop.time)

    async def serve(self) -> None:
        """Be called back until the connection ends; everybody waiting is told then."""
        if self.dead is None:
            self._loop.add_reader(self._socket.fileno(), self._receive)
        await super().serve()

    def _slot(self, request_id: int, deadline: float) -> Slot:
        return TaskSlot(request_id, deadline, self._loop)

    async def wait(self, slot: Slot, deadline: float, until: float = 0.0) -> Frame:
        """The answer to a submitted request. Raises Severed, Unsent or Expired; the slot is given up then. With `until`
        before the deadline, raises Late at that time, and the slot keeps its place."""
        assert isinstance(slot, TaskSlot)
        until = until or deadline
        if slot.deadline != until:
            slot.deadline = until
            if until < self._look_at:
                self._look_sooner(until)
        try:
            await slot
            return self._answer(slot, early=until < deadline)
        except Late:
            raise
        except BaseException:
            self.abandon(slot)
            raise

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
