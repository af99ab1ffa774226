"""Accepting connections: each greets under a deadline, and becomes a session or is gone. Sockets greet together (see
`greeter`), any other stream in a task of its own: TLS too, which has a handshake before ours.

One bad connection never disturbs another: whatever happens while it greets is counted and ends with it. Places are
bounded: for sessions, per address, and for those still greeting, who have not said or not proved who they are. Whoever
greets takes no place from a session. Where all places to greet are taken, the oldest of those who greet gives way to
the newcomer: an honest handshake is over in a few milliseconds, so whoever is the oldest of a thousand is most likely
none, and no crowd of silent connections keeps anybody out. The same when the system has no descriptor left. Past the
other bounds a connection is told "overloaded" and closed. A node that is stopping takes no more, and waits for its
sessions to end.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import trio

from leafdb.errors import LeafdbError, NotApplied, Overloaded, Reason
from leafdb.limits import CLIENT_SESSIONS_MAX, GREETINGS_MAX, HANDSHAKE_TIMEOUT_S
from leafdb.transport.greet import greet, refuse, say_now
from leafdb.transport.greeter import Greeter, Greeting
from leafdb.transport.pump import Pump
from leafdb.transport.session import OnClosed, OnFrame, Session
from leafdb.transport.stream import ByteStream, Listener, PollableListener, PollableStream, is_pollable
from leafdb.wire.connection import Connection
from leafdb.wire.frame import Frame
from leafdb.wire.handshake import Handshake

ACCEPT_RETRY_S: Final = 0.1
"""How long to wait when the system has no descriptor or memory for another connection."""
DRAIN_LOOK_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Places:
    """How many connections there may be: established, from one host, and greeting."""

    sessions_max: int = CLIENT_SESSIONS_MAX
    per_address_max: int = CLIENT_SESSIONS_MAX
    greetings_max: int = GREETINGS_MAX


class Acceptor:
    """One listening address. `handshake(stream)` makes the near side of each connection's handshake; `on_session` is
    called with each new session before its first frame; then `on_frame` and, once, `on_closed`."""

    def __init__(
        self,
        listener: Listener,
        pump: Pump,
        *,
        handshake: Callable[[ByteStream], Handshake],
        on_frame: OnFrame,
        on_session: Callable[[Session], None] = lambda _: None,
        on_closed: OnClosed = lambda *_: None,
        places: Places | None = None,
        handshake_timeout_s: float = HANDSHAKE_TIMEOUT_S,
    ) -> None:
        self.address: tuple[str, int] = listener.address
        self.sessions: dict[Session, None] = {}
        self._listener = listener
        self._pump = pump
        self._handshake = handshake
        self._on_frame = on_frame
        self._on_session = on_session
        self._on_closed = on_closed
        self._places = places or Places()
        self._handshake_timeout_s = handshake_timeout_s
        self._greetings: OrderedDict[int, ByteStream] = OrderedDict()
        """Those who greet, oldest first, by a running number."""
        self._next_greeting = 0
        self._greeter: Greeter | None = None
        self._by_address: Counter[str] = Counter()

    def allow(self, sessions_max: int) -> None:
        """From now on take so many sessions at a time; those there are stay."""
        self._places = replace(self._places, sessions_max=sessions_max)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Accept until cancelled or stopped; then the address is free again."""
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                await self._accept(nursery)
                while self._greetings:  # noqa: ASYNC110  they have little time
                    await trio.sleep(DRAIN_LOOK_S)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await self._listener.aclose()

    async def _accept(self, nursery: trio.Nursery) -> None:
        listener = self._listener
        while True:
            try:
                if isinstance(listener, PollableListener):
                    await listener.wait()
                    await self._pump.aside.all_of(partial(self._accept_next, listener, nursery))
                else:
                    self._admit(await listener.accept(), nursery)
            except trio.ClosedResourceError:
                return
            except OSError:
                if not self._evict():
                    await trio.sleep(ACCEPT_RETRY_S)

    def _accept_next(self, listener: PollableListener, nursery: trio.Nursery) -> bool:
        """Take one of those who knock; False when there is none."""
        stream = listener.accept_now()
        if stream is None:
            return False
        self._admit(stream, nursery)
        return True

    def _admit(self, stream: ByteStream, nursery: trio.Nursery) -> None:
        """A connection has come: it greets, if there is a place."""
        if not self._make_place(stream):
            self._refuse(stream)
            return
        number = self._next_greeting
        self._next_greeting += 1
        self._greetings[number] = stream
        self._by_address[host_of(stream.remote)] += 1
        if is_pollable(stream) and not getattr(stream, "arriving", False):
            self._greet_polled(stream, number, nursery)
        else:
            nursery.start_soon(self._greet, stream, number, name=f"greeting {stream.remote}")

    @property
    def greeting(self) -> int:
        """How many connections are not sessions yet."""
        return len(self._greetings)

    async def stop(self) -> None:
        """Take no more connections; sessions go on."""
        await self._listener.aclose()

    async def drain(self, timeout_s: float) -> None:
        """Stop, and end each session with "draining" once it has nothing in flight and nothing to send.

        The word is a promise: nothing of a request that was not answered has been or will be done. So sessions that are
        still busy when the time is over end without it.
        """
        await self.stop()
        with trio.move_on_after(timeout_s):
            while self._end_idle():  # noqa: ASYNC110  # an event would cost the hot path a test per answer
                await trio.sleep(DRAIN_LOOK_S)
        for session in list(self.sessions):
            session.close()

    def _end_idle(self) -> bool:
        """Whether any session is left."""
        for session in list(self.sessions):
            if not session.outbox_bytes and not session.requests_in_flight:
                session.close(NotApplied("this node is stopping", reason=Reason.DRAINING))
        return bool(self.sessions)

    def _make_place(self, stream: ByteStream) -> bool:
        """Whether the connection may greet; the oldest of those who do gives way where it must."""
        places = self._places
        if len(self.sessions) >= places.sessions_max:
            return False
        if self._by_address[host_of(stream.remote)] >= places.per_address_max:
            return False
        return len(self._greetings) < places.greetings_max or self._evict()

    def _evict(self) -> bool:
        """End the oldest greeting; False when there is none."""
        if not self._greetings:
            return False
        _, stream = self._greetings.popitem(last=False)
        self._leave(stream.remote)
        if self._greeter is not None and is_pollable(stream):
            self._greeter.forget(stream)
            self._pump.counters.handshakes_failed_total += 1
        self._refuse(stream)
        return True

    def _refuse(self, stream: ByteStream) -> None:
        self._pump.counters.sessions_refused_total += 1
        refuse(stream, Overloaded("too many connections", retry_after=1.0))

    # -- one connection's handshake

    async def _greet(self, stream: ByteStream, number: int) -> None:
        """In a task."""
        connection: Connection | None = None
        frames: list[Frame] = []
        try:
            with trio.move_on_after(self._handshake_timeout_s):
                connection, frames = await greet(stream, self._handshake(stream))
        except (LeafdbError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        except AssertionError:
            raise
        except Exception:  # a bug in what the node answers about a peer is this connection's end and nobody else's
            self._pump.counters.handler_errors_total += 1
        finally:
            if connection is None or number not in self._greetings:
                self._gone(stream, number)
        if connection is not None and number in self._greetings:
            self._greeted(stream, number, connection, frames)

    def _greet_polled(self, stream: PollableStream, number: int, nursery: trio.Nursery) -> None:
        """With all others whose streams the kernel can watch."""
        if self._greeter is None:
            self._greeter = Greeter(self._pump.aside, on_greeted=self._on_greeted, on_failed=self._on_failed)
            nursery.start_soon(self._greeter.run, name="greeter")
        try:
            connection = Connection(self._handshake(stream))
        except AssertionError:
            raise
        except Exception:  # as above
            self._pump.counters.handler_errors_total += 1
            self._gone(stream, number)
            return
        self._greeter.add(Greeting(number, stream, connection, trio.current_time() + self._handshake_timeout_s))

    def _on_greeted(self, greeting: Greeting, frames: list[Frame]) -> None:
        self._greeted(greeting.stream, greeting.number, greeting.connection, frames)

    def _on_failed(self, greeting: Greeting, error: Exception | None) -> None:
        if not isinstance(error, LeafdbError | trio.BrokenResourceError | trio.ClosedResourceError | None):
            self._pump.counters.handler_errors_total += 1
        self._gone(greeting.stream, greeting.number)

    def _greeted(self, stream: ByteStream, number: int, connection: Connection, frames: list[Frame]) -> None:
        """The handshake is over: a session begins, if there is a place for one."""
        if len(self.sessions) >= self._places.sessions_max:
            say_now(stream, connection.farewell(Overloaded("too many connections", retry_after=1.0)))
            self._gone(stream, number)
            return
        del self._greetings[number]
        session = Session(stream, connection, self._pump, on_frame=self._on_frame, on_closed=self._session_closed)
        self.sessions[session] = None
        self._pump.attach(session)
        self._on_session(session)
        session.begin(frames)

    def _gone(self, stream: ByteStream, number: int) -> None:
        """The handshake is over in vain."""
        self._pump.counters.handshakes_failed_total += 1
        stream.close()
        if self._greetings.pop(number, None) is not None:
            self._leave(stream.remote)

    def _session_closed(self, session: Session, error: LeafdbError | None) -> None:
        del self.sessions[session]
        self._leave(session.remote)
        self._on_closed(session, error)

    def _leave(self, remote: str) -> None:
        host = host_of(remote)
        self._by_address[host] -= 1
        if not self._by_address[host]:
            del self._by_address[host]

    def check(self) -> None:
        """Places are counted once per connection."""
        if self._greeter is not None:
            self._greeter.check()
        assert self._by_address.total() == len(self.sessions) + len(self._greetings)
        assert len(self.sessions) <= self._places.sessions_max
        assert len(self._greetings) <= self._places.greetings_max
        assert all(count > 0 for count in self._by_address.values())


def host_of(remote: str) -> str:
    """The host of a "host:port"."""
    return remote.rpartition(":")[0]
