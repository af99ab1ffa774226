"""A connection over a TCP socket under trio: whoever waits and finds nobody reading becomes the reader (the leader).

As among the threads of `blocking_connection`: the leader reads for all, and when its own answer has come it passes the
office to another who waits. So a task that is alone waits for the socket itself, and is not woken by a second task
that did: that would cost a pass of the scheduler. While nobody waits nobody reads; what came meanwhile, the end of the
connection perhaps, is looked at before the next request is sent, which is then provably unsent.

A leader sits in `wait_readable`, where only the socket can wake it; when its time is up, or the connection is closed by
another task, `notify_closing` does (the socket stays open, the leader looks what has become of its slot).
"""

from __future__ import annotations

import anyio
import trio

from leafdb.client.anyio_connection import Transport
from leafdb.client.anyio_slot import Late, Slot
from leafdb.client.effects import ExchangeFailed
from leafdb.client.socket_connection import SocketConnection
from leafdb.wire.frame import Frame, FrameReader
from leafdb.wire.hello import ServerFacts


class TaskSlot(Slot):
    """Waits as a parked task, or as the leader of its connection."""

    __slots__ = ("leads", "socket", "task")

    def __init__(self, request_id: int, deadline: float, socket: int) -> None:
        self.request_id: int = request_id
        self.deadline: float = deadline
        self.frame: Frame | None = None
        self.error: ExchangeFailed | None = None
        self.task: trio.lowlevel.Task | None = None
        self.leads: bool = False
        """It sits in `wait_readable`."""
        self.socket: int = socket

    def wake(self) -> None:
        """The slot has its frame or its error, or is to lead."""
        if self.leads:
            self.leads = False
            trio.lowlevel.notify_closing(self.socket)
        elif self.task is not None:
            task, self.task = self.task, None
            trio.lowlevel.reschedule(task)

    async def park(self) -> None:
        """Until `wake`."""
        self.task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self.task = None
        return trio.lowlevel.Abort.SUCCEEDED


class TrioConnection(SocketConnection):
    """See the top of this file."""

    __slots__ = ("_descriptor", "_flusher", "_led")

    def __init__(self, stream: Transport, reader: FrameReader, facts: ServerFacts) -> None:
        super().__init__(stream, reader, facts, clock=trio.lowlevel.current_clock().current_time)
        self._descriptor = self._socket.fileno()
        self._led = False
        self._flusher: trio.lowlevel.Task | None = None

    def _slot(self, request_id: int, deadline: float) -> Slot:
        return TaskSlot(request_id, deadline, self._descriptor)

    def _look_up(self) -> None:
        """Nobody reads while nobody waits."""
        self._receive()

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
            while slot.frame is None and slot.error is None:
                if self._led:
                    await slot.park()
                    continue
                self._led = slot.leads = True
                try:
                    await trio.lowlevel.wait_readable(self._descriptor)
                except trio.ClosedResourceError:
                    continue
                finally:
                    self._led = slot.leads = False
                self._receive()
            return self._answer(slot, early=until < deadline)
        except Late:
            raise
        except BaseException:
            self.abandon(slot)
            raise
        finally:
            if not self._led and self.waiting:
                self._promote()

    def _promote(self) -> None:
        """Have one of those who wait become the leader."""
        for slot in self.waiting.values():
            assert isinstance(slot, TaskSlot)
            if slot.task is not None:
                slot.wake()
                return

    # -- sending

    async def serve(self) -> None:
        """Look out for deadlines, and send what gathers, until the connection ends."""
        try:
            with self._scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._flush_for_others)
                    await self._look_out()
        finally:
            self.close("the client was closed")

    async def _flush_for_others(self) -> None:
        while True:
            if not self._flushing:
                self._flusher = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._abort_flusher)
            elif self._rest:
                await trio.lowlevel.wait_writable(self._descriptor)
            self._flush()

    def _flush_soon(self) -> None:
        if self._flusher is not None:
            task, self._flusher = self._flusher, None
            trio.lowlevel.reschedule(task)

    def _flush_with_room(self) -> None:
        self._flush_soon()

    def _abort_flusher(self, _: object) -> trio.lowlevel.Abort:
        self._flusher = None
        return trio.lowlevel.Abort.SUCCEEDED
