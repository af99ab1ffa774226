"""The pump moves the bytes of every session of a node: one task for all sockets, instead of tasks for each.

trio watches one descriptor, an epoll of our own that holds every session's socket level-triggered. When it is readable
the pump reads each ready socket once (at most RECEIVE_BYTES), handles the frames, and after the last of them, or after
SLICE_S of work, flushes all sessions that have answers and gives the other tasks their turn. So a batch is all that has
arrived at the node, not at one connection, and its cost is one scheduler pass: measured per round trip, half of what a
task per connection costs (bench/micro/transport.py), and what it sends to a peer is one `send` per batch.

Sessions that send a few bytes of a frame at a time are watched apart and served aside (see `aside`), until a frame of
theirs is whole: they may be thousands, and what each sends is nothing yet.

Streams the kernel cannot watch (memory) get two small tasks instead, and behave the same.

Every second a sweep looks for sessions that have stopped (see `sweeper`).
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Final

import trio

from leafdb.errors import LeafdbError
from leafdb.limits import DECODE_BYTES_MAX, LARGE_FRAME_BYTES, RECEIVE_BYTES, SESSION_REQUESTS_MAX
from leafdb.transport.aside import Aside
from leafdb.transport.budget import DecodeBudget
from leafdb.transport.counters import TransportCounters
from leafdb.transport.crowd import Crowd
from leafdb.transport.flusher import Flushable, Flusher
from leafdb.transport.session import Session
from leafdb.transport.sweeper import Sweeper

SLICE_S: Final = 0.001
POLL_EVENTS_MAX: Final = 256
DRIBBLE_BYTES: Final = 64
"""So few of a frame that does not end with them are no way to send one: a segment of the network's holds 1,400."""
DRIBBLES: Final = 2
"""In a row: a header sent before its body is none yet."""
SWEEP_SLICE_S: Final = 0.000_1
SWEEP_REST_S: Final = 0.001
"""Between slices, so that a pass of the loop seldom has one."""
MEASURED_AT_ONCE: Final = 256
"""Sessions; what more of them hold is known from the last sweep: a pass over thousands takes milliseconds."""

_IN: Final = select.EPOLLIN
_OUT: Final = select.EPOLLOUT


class Pump:
    """One per node. `clock` is a monotonic clock for slices of work; `budget` bounds large frames."""

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        counters: TransportCounters | None = None,
        decode_bytes_max: int = DECODE_BYTES_MAX,
    ) -> None:
        assert decode_bytes_max >= LARGE_FRAME_BYTES
        self.counters: TransportCounters = counters or TransportCounters()
        self.budget: DecodeBudget = DecodeBudget(decode_bytes_max)
        self.sessions: dict[Session, None] = {}
        """Every open session, oldest first."""
        self._clock = clock
        self._flusher = Flusher()
        self.dirty: Callable[[Session], None] = self._flusher.add
        self.at_batch_end: Callable[[Flushable], None] = self._flusher.add
        """Calls an object's `flush` at the end of the present batch, as a session's: for what is cheaper once."""
        self.aside: Aside = Aside(clock, self._is_urgent)
        """For what strangers want."""
        self._sweeper = Sweeper(self.counters)
        self._epoll: select.epoll | None = None
        self._slow: Crowd | None = None
        self._polled: dict[int, Session] = {}
        self._waiting: dict[Session, trio.lowlevel.ParkingLot] = {}
        self._backlogged: list[Session] = []
        self._nursery: trio.Nursery | None = None
        self._ended = False
        self._held_bytes = 0
        """As of the last sweep."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Move bytes until cancelled; then every session is closed."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._flusher.run, name="flusher")
                nursery.start_soon(self._sweep, name="session sweeper")
                nursery.start_soon(self.aside.run, name="aside")
                task_status.started()
                try:
                    await trio.sleep_forever()
                finally:
                    self._nursery = None  # before the nursery closes: a handshake may end in this very moment
                    self._ended = True
        finally:
            self.close_all(None)
            if self._epoll is not None:
                assert self._slow is not None
                self._epoll.close()
                self._slow.close()
                self._epoll = self._slow = None

    def attach(self, session: Session) -> None:
        """Begin to move the bytes of a new session. One that comes when the pump has ended is over at once."""
        if self._ended:
            session.lost(None)
            return
        assert self._nursery is not None, "the pump does not run"
        self.sessions[session] = None
        self.counters.sessions_opened_total += 1
        if session.pollable is not None:
            if self._epoll is None:
                # Made with the first socket: a cluster in memory has none.
                self._epoll = select.epoll()
                self._slow = Crowd(self.aside, self._move_slow)
                self._nursery.start_soon(self._poll, self._epoll, name="session pump")
                self._nursery.start_soon(self._slow.run, name="slow sessions")
            descriptor = session.pollable.fileno()
            session.interest = _IN
            session.lane = self._epoll
            self._polled[descriptor] = session
            self._epoll.register(descriptor, _IN)
        else:
            lot = self._waiting[session] = trio.lowlevel.ParkingLot()
            self._nursery.start_soon(self._read_loop, session, lot, name=f"reader of {session.remote}")
            self._nursery.start_soon(self._write_loop, session, lot, name=f"writer to {session.remote}")

    def detach(self, session: Session) -> None:
        """The session closes; its stream is still open."""
        if session not in self.sessions:
            return
        del self.sessions[session]
        if session.pollable is not None:
            assert session.lane is not None
            descriptor = session.pollable.fileno()
            del self._polled[descriptor]
            session.lane.unregister(descriptor)
            session.lane = None
        else:
            self._waiting.pop(session).unpark_all()

    def changed(self, session: Session) -> None:
        """Watch what the session waits for now."""
        if session not in self.sessions:
            return
        if session.pollable is not None:
            # A backlog does not change what is watched: it is gone within a few turns.
            slow = session.blocked and session.crowded
            reading = not (session.starved or slow or session.requests_in_flight >= SESSION_REQUESTS_MAX)
            interest = (_IN if reading else 0) | (_OUT if session.blocked else 0)
            if interest != session.interest:
                assert session.lane is not None
                session.interest = interest
                session.lane.modify(session.pollable.fileno(), interest)
        else:
            self._waiting[session].unpark_all()

    def owed(self, session: Session) -> None:
        """The first frames of a session are more than one turn: work the others off, turn by turn."""
        if session.pollable is not None:
            assert self._nursery is not None
            self._nursery.start_soon(self._catch_up, session, name=f"backlog of {session.remote}")

    async def _catch_up(self, session: Session) -> None:
        while session.backlog and not session.closed:
            await trio.lowlevel.checkpoint()
            if not session.closed:
                session.deliver_backlog()

    def close_all(self, error: LeafdbError | None) -> None:
        """Close every session, telling the other sides `error`."""
        for session in list(self.sessions):
            session.close(error)

    def _is_urgent(self) -> bool:
        """Whether a session that sends as it should has something for us."""
        return self._epoll is not None and bool(self._epoll.poll(0, 1))

    @property
    def slow_sessions(self) -> list[Session]:
        """Those who dribble their bytes at the moment."""
        return [session for session in self._polled.values() if session.lane is not self._epoll]

    def memory_bytes(self) -> int:
        """What sessions hold: bytes not sent yet, and incomplete frames. For the memory ledger."""
        return sum(map(_held_bytes, self.sessions)) if len(self.sessions) <= MEASURED_AT_ONCE else self._held_bytes

    async def _poll(self, epoll: select.epoll) -> None:
        clock = self._clock
        flusher = self._flusher
        polled = self._polled
        while True:
            if self._backlogged:
                await trio.lowlevel.checkpoint()
            else:
                await trio.lowlevel.wait_readable(epoll.fileno())
            flusher.hold()
            stop = clock() + SLICE_S
            for descriptor, events in epoll.poll(0, POLL_EVENTS_MAX):
                session = polled.get(descriptor)
                if session is None:
                    continue
                if self._move(session, events):
                    self._backlogged.append(session)
                if clock() >= stop:
                    stop = await self._breathe()
            backlogged, self._backlogged = self._backlogged, []
            for session in backlogged:
                self._work_off(session)
                if clock() >= stop:
                    stop = await self._breathe()
            flusher.flush()

    async def _breathe(self) -> float:
        """A slice of work is over: send what it queued, let others run, begin the next. Events still in hand may be
        stale afterwards, which is harmless: nothing is read or written without asking the kernel."""
        self._flusher.flush()
        await trio.lowlevel.checkpoint()
        self._flusher.hold()
        return self._clock() + SLICE_S

    def _move(self, session: Session, events: int) -> bool:
        """Serve one ready socket; whether it brought more frames than one turn's."""
        if events & _OUT and session.blocked:
            session.sendable()
        if not events & ~_OUT or session.closed:
            return False
        if not session.reading:
            if not session.backlog:
                self._pause(session, events)
            return False
        assert session.pollable is not None
        try:
            data = session.pollable.receive_now(RECEIVE_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            session.lost(None)
            return False
        if data:
            frames = session.frames
            session.receive(data)
            if len(data) > DRIBBLE_BYTES or session.frames != frames:
                session.dribbles = 0
            else:
                self._dribbled(session)
        elif data is not None:
            session.lost(None)
        return bool(session.backlog)

    def _dribbled(self, session: Session) -> None:
        """Next to nothing came of a frame. Once more, and the session is served aside until it sends as others do."""
        session.dribbles += 1
        if session.dribbles == DRIBBLES and not session.closed:
            assert self._slow is not None
            self._watch_in(session, self._slow.epoll)

    def _move_slow(self, descriptor: int, events: int) -> None:
        """Serve one of those who dribble."""
        session = self._polled.get(descriptor)
        if session is None:
            return
        if self._move(session, events):
            self.owed(session)
        if not session.dribbles and not session.closed:
            assert self._epoll is not None
            self._watch_in(session, self._epoll)

    def _watch_in(self, session: Session, lane: select.epoll) -> None:
        assert session.pollable is not None
        assert session.lane is not None
        descriptor = session.pollable.fileno()
        session.lane.unregister(descriptor)
        session.lane = lane
        lane.register(descriptor, session.interest)

    def _pause(self, session: Session, events: int) -> None:
        """A session that is not to be read: stop watching it, unless it is gone altogether."""
        if events & (select.EPOLLHUP | select.EPOLLERR):
            session.lost(None)
        else:
            self.changed(session)

    def _work_off(self, session: Session) -> None:
        if not session.closed:
            session.deliver_backlog()
        if session.backlog:
            self._backlogged.append(session)

    async def _read_loop(self, session: Session, lot: trio.lowlevel.ParkingLot) -> None:
        """Read a stream that cannot be polled."""
        while not session.closed:
            if session.backlog:
                await trio.lowlevel.checkpoint()
                session.deliver_backlog()
            elif not session.reading:
                await lot.park()
            else:
                try:
                    data = await session.stream.receive_some(RECEIVE_BYTES)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    data = b""
                if not data:
                    session.lost(None)
                elif not session.closed:
                    session.receive(data)

    async def _write_loop(self, session: Session, lot: trio.lowlevel.ParkingLot) -> None:
        """Wait, whenever a stream that cannot be polled is full, until it takes the rest."""
        while not session.closed:
            if not session.blocked:
                await lot.park()
                continue
            try:
                await session.stream.wait_sendable()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                session.lost(None)
            if not session.closed:
                session.sendable()

    async def _sweep(self) -> None:
        while True:
            await trio.sleep(1.0)
            held_bytes = 0
            stop = self._clock() + SWEEP_SLICE_S
            for session in list(self.sessions):
                error = None if session.closed else self._sweeper.judge(session)
                if error is not None:
                    session.close(error)
                held_bytes += _held_bytes(session)
                if self._clock() >= stop:  # thousands of sessions must not make everybody wait
                    await trio.sleep(SWEEP_REST_S)
                    stop = self._clock() + SWEEP_SLICE_S
            self._held_bytes = held_bytes
            self._sweeper.forget_closed()

    def check(self) -> None:
        """Every open session is watched in exactly one way."""
        self.budget.check()
        self._flusher.check()
        self.aside.check()
        assert set(self.sessions) == set(self._polled.values()) | set(self._waiting)
        assert not set(self._polled.values()) & set(self._waiting)
        for session in self.sessions:
            session.check()
        for session in self._polled.values():
            assert session.lane is not None
        assert all(session.dribbles >= DRIBBLES for session in self.slow_sessions)


def _held_bytes(session: Session) -> int:
    return session.outbox_bytes + session.connection.reader.buffered_bytes
