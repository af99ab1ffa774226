"""Accepting connections: each greets in a task of its own, under a deadline, and becomes a session or is gone.

One bad connection never disturbs another: whatever happens while it greets is counted and ends with it. Places are
bounded in all, per address, and for those still greeting; past a bound a connection is told "overloaded" and closed. A
node that is stopping takes no more, and waits for its sessions to end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
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
    """One listening address. `handshake()` makes the near side of each connection's handshake; `on_session` is called
    with each new session before its first frame; then `on_frame` and, once, `on_closed`."""

    def __init__(
        self,
        listener: Listener,
        pump: Pump,
        *,
        handshake: Callable[[], Handshake],
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
        self._greeting = 0
        self._by_address: Counter[str] = Counter()

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
                self._greeting += 1
                self._by_address[host_of(stream.remote)] += 1
                nursery.start_soon(self._greet, stream, name=f"greeting {stream.remote}")
            else:
                self._pump.counters.sessions_refused_total += 1
                refuse(stream, Overloaded("too many connections", retry_after=1.0), self._handshake())

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
        places = self._places
        return (
            len(self.sessions) + self._greeting < places.sessions_max
            and self._greeting < places.greetings_max
            and self._by_address[host_of(stream.remote)] < places.per_address_max
        )

    async def _greet(self, stream: ByteStream) -> None:
        session: Session | None = None
        try:
            with trio.move_on_after(self._handshake_timeout_s):
                connection, frames = await greet(stream, self._handshake())
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
            self._greeting -= 1
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
        assert self._by_address.total() == len(self.sessions) + self._greeting
        assert all(count > 0 for count in self._by_address.values())


def host_of(remote: str) -> str:
    """The host of a "host:port"."""
    return remote.rpartition(":")[0]
