"""Handshakes over sockets without a task for each: what connects and says nothing costs a place in an epoll.

A crowd of connections that each send a byte now and then would wake as many tasks in one pass of the scheduler, and
every session would wait for that pass. So the connections of one port that have not greeted are watched by an epoll of
their own, and those that have something are read one by one, aside from what sessions do (see `aside`). The handshakes
are sans-I/O, so nothing of it waits. All have the same time, so who came first runs out of it first.

Streams that the kernel cannot watch greet in a task each (see `listener`).
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Final, NamedTuple

import trio

from leafdb.errors import LeafdbError
from leafdb.limits import FRAME_BYTES_MAX_UNAUTHENTICATED
from leafdb.transport.aside import Aside
from leafdb.transport.crowd import Crowd
from leafdb.transport.greet import say_now
from leafdb.transport.stream import PollableStream
from leafdb.wire.connection import Connection, ConnectionState
from leafdb.wire.frame import Frame

EXPIRY_S: Final = 0.02
"""How often it is looked who has run out of time."""


class Greeting(NamedTuple):
    """A connection that has not greeted yet. `number` is the acceptor's."""

    number: int
    stream: PollableStream
    connection: Connection
    deadline: float


OnGreeted = Callable[[Greeting, list[Frame]], None]
"""The handshake is over; the frames came right behind it."""
OnFailed = Callable[[Greeting, Exception | None], None]
"""It is over in vain: the stream is still open; None when the time was up."""


class Greeter:
    """Those of one acceptor. What `on_greeted` and `on_failed` raise ends the port, and the node with it."""

    def __init__(self, aside: Aside, *, on_greeted: OnGreeted, on_failed: OnFailed) -> None:
        self._aside = aside
        self._on_greeted = on_greeted
        self._on_failed = on_failed
        self._crowd = Crowd(aside, self._serve)
        self._greetings: dict[int, Greeting] = {}
        """By descriptor, the oldest first."""

    async def run(self) -> None:
        """Read what comes until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._expire)
                await self._crowd.run()
        finally:
            for greeting in list(self._greetings.values()):
                self.forget(greeting.stream)
                self._on_failed(greeting, None)
            self._crowd.close()

    def add(self, greeting: Greeting) -> None:
        """Watch one more."""
        descriptor = greeting.stream.fileno()
        self._greetings[descriptor] = greeting
        self._crowd.epoll.register(descriptor, select.EPOLLIN)

    def forget(self, stream: PollableStream) -> None:
        """It is given up; its stream is still open."""
        descriptor = stream.fileno()
        if self._greetings.pop(descriptor, None) is not None:
            self._crowd.epoll.unregister(descriptor)

    def _serve(self, descriptor: int, _: int) -> None:
        greeting = self._greetings.get(descriptor)
        if greeting is not None:
            self._read(greeting)

    def _read(self, greeting: Greeting) -> None:
        """Take what one connection has sent."""
        _, stream, connection, _ = greeting
        try:
            data = stream.receive_now(FRAME_BYTES_MAX_UNAUTHENTICATED)
            if data is None:
                return
            if not data:
                raise trio.BrokenResourceError("the connection ended during the handshake")
            frames = connection.receive(data)
            answer = connection.take_output()
            if stream.send_now(answer) < len(answer):
                raise trio.BrokenResourceError("an answer to a hello fits into any socket")
        except AssertionError:
            raise
        except Exception as error:
            if isinstance(error, LeafdbError):
                say_now(stream, connection.take_output() + connection.farewell(error))
            self.forget(stream)
            self._on_failed(greeting, error)
            return
        if connection.state is ConnectionState.ESTABLISHED:
            self.forget(stream)
            self._on_greeted(greeting, frames)

    async def _expire(self) -> None:
        while True:
            await trio.sleep(EXPIRY_S)
            if self._overdue() is not None:
                await self._aside.all_of(self._expire_next)

    def _overdue(self) -> Greeting | None:
        oldest = next(iter(self._greetings.values()), None)
        return oldest if oldest is not None and oldest.deadline <= trio.current_time() else None

    def _expire_next(self) -> bool:
        """End one whose time is up; False when there is none."""
        greeting = self._overdue()
        if greeting is None:
            return False
        self.forget(greeting.stream)
        self._on_failed(greeting, None)
        return True

    def check(self) -> None:
        """Everybody is known by the descriptor that is watched, and none is greeted already."""
        for descriptor, greeting in self._greetings.items():
            assert greeting.stream.fileno() == descriptor
            assert greeting.connection.state is ConnectionState.HANDSHAKE
