"""Accepting connections: each greets in a task of its own, under a deadline, and becomes a session or is gone.

One bad connection never disturbs another: whatever happens while it greets is counted and ends with it. Places are
bounded in all, per address, and for those still greeting. Where there is none, who has been greeting longest gives up
its own: an honest handshake is over in two round trips, so what is oldest is what is slow on purpose, and a thousand of
those keep nobody out. Where nobody is greeting, and past the bound of an address, a connection is told "overloaded" and
closed. A node that is stopping takes no more, and waits for its sessions to end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import trio

from leafdb.errors import LeafdbError, NotApplied, Overloaded, Reason
from leafdb.limits import CLIENT_SESSIONS_MAX, GREETINGS_MAX, HANDSHAKE_TIMEOUT_S
from leafdb.transport.greet import greet, refuse
from leafdb.transport.pump import Pump
from leafdb.transport.session import OnClosed, OnFrame, Session
from leafdb.transport.stream import ByteStream, Listener
from leafdb.wire.handshake import Handshake

ACCEPT_RETRY_S: Final = 0.1
"""How long to wait when the system has no descriptor or memory for another connection."""
DRAIN_LOOK_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Places:
    """How many connections there may be. `per_address_max` counts by the other side's host."""

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
        self.address = listener.address
        self.sessions: dict[Session, None] = {}
        self._listener = listener
        self._pump = pump
        self._handshake = handshake
        self._on_frame = on_frame
        self._on_session = on_session
        self._on_closed = on_closed
        self._places = places or Places()
        self._handshake_timeout_s = handshake_timeout_s
        self._greetings: dict[trio.CancelScope, None] = {}
        """Those under way, the oldest first."""
        self._evicted = 0
        """Those that have lost their place and are about to end."""
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
        finally:
            with trio.CancelScope(shield=True):
                await self._listener.aclose()

    async def _accept(self, nursery: trio.Nursery) -> None:
        while True:
            try:
                stream = await self._listener.accept()
            except trio.ClosedResourceError:
                return
            except OSError:
                await trio.sleep(ACCEPT_RETRY_S)
                continue
            if self._has_place(stream):
                scope = trio.CancelScope(deadline=trio.current_time() + self._handshake_timeout_s)
                self._greetings[scope] = None
                self._by_address[host_of(stream.remote)] += 1
                nursery.start_soon(self._greet, stream, scope, name=f"greeting {stream.remote}")
            else:
                self._pump.counters.sessions_refused_total += 1
                refuse(stream, Overloaded("too many connections", retry_after=1.0), self._handshake(stream))

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

    def _has_place(self, stream: ByteStream) -> bool:
        """Whether there is a place, or one that can be taken from who has been greeting longest."""
        places = self._places
        if self._by_address[host_of(stream.remote)] >= places.per_address_max:
            return False
        greeting = len(self._greetings)
        if len(self.sessions) + greeting < places.sessions_max and greeting < places.greetings_max:
            return True
        if not greeting:
            return False
        oldest = next(iter(self._greetings))
        del self._greetings[oldest]
        self._evicted += 1
        oldest.cancel()
        return True

    async def _greet(self, stream: ByteStream, scope: trio.CancelScope) -> None:
        session: Session | None = None
        try:
            with scope:
                connection, frames = await greet(stream, self._handshake(stream))
                session = Session(
                    stream, connection, self._pump, on_frame=self._on_frame, on_closed=self._session_closed
                )
        except (LeafdbError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        except AssertionError:
            raise
        except Exception:  # a bug in what the node answers about a peer is this connection's end and nobody else's
            self._pump.counters.handler_errors_total += 1
        finally:
            if scope in self._greetings:
                del self._greetings[scope]
            else:
                self._evicted -= 1
            if session is None:
                self._pump.counters.handshakes_failed_total += 1
                self._leave(stream.remote)
                stream.close()
        if session is not None:
            self.sessions[session] = None
            self._pump.attach(session)
            self._on_session(session)
            session.begin(frames)

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
        assert self._by_address.total() == len(self.sessions) + len(self._greetings) + self._evicted
        assert len(self._greetings) <= self._places.greetings_max
        assert all(count > 0 for count in self._by_address.values())


def host_of(remote: str) -> str:
    """The host of a "host:port"."""
    return remote.rpartition(":")[0]
