"""A network in memory, for tests and for whole clusters in one loop under virtual time.

`MemoryNetwork.at(host)` is the network as one host sees it. Between two hosts lie two routes (see `streams`), one per
direction, and to each can be done what happens to real ones:

- `set_link`: latency, bandwidth, bytes that come in drops;
- `clog(source, target)`: nothing arrives in that direction, nothing is lost, until `unclog`: dropped packets, as seen
  from above, one way;
- `cut(a, b, silently=True)` is that in both directions, until `heal`; `cut(a, b)` resets what connects them and refuses
  new connections;
- `reset(a, b)`: all connections between them end, new ones may be made at once;
- `vanish(host)`: the host is gone and nobody is told. Its old connections stay half open: what is sent on them is
  answered with a reset only once the host is back (`appear`).

Who dials over a route that is held up waits until it is free. Without links everything arrives at once.
"""

from __future__ import annotations

import errno
import heapq
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

import trio
from trio.lowlevel import ParkingLot

from leafdb.testing.streams import BUFFER_BYTES, Link, MemoryByteStream, Pipe, Route, joined, memory_pair

__all__ = ["BUFFER_BYTES", "Link", "MemoryByteStream", "MemoryHost", "MemoryListener", "MemoryNetwork", "memory_pair"]

FIRST_FREE_PORT: Final = 40_000
_CUT: Final = "cut"
_CLOG: Final = "clog"
_VANISHED: Final = "vanished"


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection from one host to another."""

    source: str
    target: str
    near: MemoryByteStream
    far: MemoryByteStream

    def joins(self, a: str, b: str) -> bool:
        """Whether it lies between the two."""
        return (self.source, self.target) in ((a, b), (b, a))

    def ends_at(self, host: str) -> Iterator[MemoryByteStream]:
        """Its ends there."""
        if self.source == host:
            yield self.near
        if self.target == host:
            yield self.far

    @property
    def is_over(self) -> bool:
        """Nothing is under way and nothing will be."""
        return self.near.gone and self.far.gone


class MemoryListener:
    """Takes what is dialled at its address, one connection after the other."""

    __slots__ = ("_closed", "_lot", "_network", "_waiting", "address")

    def __init__(self, network: MemoryNetwork, address: tuple[str, int]) -> None:
        self.address: tuple[str, int] = address
        self._network = network
        self._waiting: deque[MemoryByteStream] = deque()
        self._lot = ParkingLot()
        self._closed = False

    async def accept(self) -> MemoryByteStream:
        """The next connection."""
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            if self._closed:
                raise trio.ClosedResourceError("this listener was closed")
            await self._lot.park()
        return self._waiting.popleft()

    def offer(self, stream: MemoryByteStream) -> None:
        """A dialler's connection."""
        self._waiting.append(stream)
        self._lot.unpark()

    async def aclose(self) -> None:
        """Take no more; who waits to be accepted is reset."""
        self.abandon()
        await trio.lowlevel.checkpoint()

    def abandon(self) -> None:
        """As `aclose`, at once: also what happens when its process is killed."""
        self._closed = True
        self._network.forget(self)
        for stream in self._waiting:
            stream.die(politely=False)
        self._waiting.clear()
        self._lot.unpark_all()


class MemoryNetwork:
    """All hosts and what connects them. `rng` draws latencies."""

    def __init__(self, rng: Random | None = None, *, buffer_bytes: int = BUFFER_BYTES) -> None:
        self.rng: Random = rng or Random(0)
        self.observer: Callable[[str, str, bytes], None] | None = None
        """Sees all bytes that arrive: (source, target, bytes)."""
        self.default_link: Link | None = None
        """Of routes that are not made yet."""
        self._buffer_bytes = buffer_bytes
        self._listeners: dict[tuple[str, int], MemoryListener] = {}
        self._connections: list[Connection] = []
        self._routes: dict[tuple[str, str], Route] = {}
        self._refused: dict[frozenset[str], None] = {}
        self._vanished: dict[str, None] = {}
        self._freed = ParkingLot()
        self._next_port = FIRST_FREE_PORT
        self._due: list[tuple[float, int, Pipe]] = []
        self._scheduled = 0
        self._alarm: trio.CancelScope | None = None

    def at(self, host: str) -> MemoryHost:
        """The network as `host` sees it."""
        return MemoryHost(self, host)

    # -- what can be done to it

    def set_link(self, source: str, target: str, link: Link | None) -> None:
        """What the direction from `source` to `target` is like from now on; None: everything arrives at once. What was
        under way over the old link has arrived."""
        route = self._route(source, target)
        route.link = link
        route.changed()
        for pipe in self._pipes(route):
            pipe.hurry()

    def clog(self, source: str, target: str) -> None:
        """Let nothing from `source` arrive at `target`, and lose nothing."""
        self._hold(source, target, _CLOG)

    def unclog(self, source: str, target: str) -> None:
        """What was clogged arrives."""
        self._free(source, target, _CLOG)

    def cut(self, a: str, b: str, *, silently: bool = False) -> None:
        """Separate two hosts; see the top of this file."""
        if silently:
            self._refused.pop(frozenset((a, b)), None)
            self._hold(a, b, _CUT)
            self._hold(b, a, _CUT)
        else:
            self._refused[frozenset((a, b))] = None
            self.reset(a, b)
            self._free(a, b, _CUT)
            self._free(b, a, _CUT)

    def heal(self, a: str, b: str) -> None:
        """Join them again: what was held up arrives, who waits to connect goes on."""
        self._refused.pop(frozenset((a, b)), None)
        self._free(a, b, _CUT)
        self._free(b, a, _CUT)

    def reset(self, a: str, b: str) -> None:
        """End every connection between the two; what was under way is lost."""
        for connection in self._connections:
            if connection.joins(a, b):
                connection.near.break_now()

    def host_died(self, host: str) -> None:
        """The process of a host was killed: its kernel resets its connections, and nothing listens there any more.

        Of what it had sent, all or nothing still arrives."""
        for connection in self._connections:
            for end in connection.ends_at(host):
                end.die(politely=self.rng.random() < 0.5)
        self._abandon_listeners(host)

    def vanish(self, host: str) -> None:
        """The host is gone, and nobody is told."""
        self._vanished[host] = None
        for route in self._routes.values():
            if host in (route.source, route.target):
                self._hold(route.source, route.target, _VANISHED)
        for connection in self._connections:
            for end in connection.ends_at(host):
                end.vanish()
        self._abandon_listeners(host)

    def appear(self, host: str) -> None:
        """A host of that name is back, and knows nothing of its old connections."""
        if host in self._vanished:
            del self._vanished[host]
            for route in self._routes.values():
                if host in (route.source, route.target) and not self._is_vanished(route):
                    self._free(route.source, route.target, _VANISHED)

    def _abandon_listeners(self, host: str) -> None:
        for listener in [it for it in self._listeners.values() if it.address[0] == host]:
            listener.abandon()

    # -- routes

    def _is_vanished(self, route: Route) -> bool:
        return route.source in self._vanished or route.target in self._vanished

    def _route(self, source: str, target: str) -> Route:
        route = self._routes.get((source, target))
        if route is None:
            route = self._routes[source, target] = Route(source, target, self, self.default_link)
            if self._is_vanished(route):
                self._hold(source, target, _VANISHED)
        return route

    def _hold(self, source: str, target: str, why: str) -> None:
        route = self._route(source, target)
        route.holds[why] = None
        route.changed()

    def _free(self, source: str, target: str, why: str) -> None:
        route = self._route(source, target)
        route.holds.pop(why, None)
        route.changed()
        if not route.holds:
            for pipe in self._pipes(route):
                pipe.release()
            self._freed.unpark_all()

    def _pipes(self, route: Route) -> Iterator[Pipe]:
        for connection in self._connections:
            for end in (connection.near, connection.far):
                if end.outgoing.route is route:
                    yield end.outgoing

    # -- what arrives later

    def later(self, pipe: Pipe, due_s: float) -> None:
        """As `streams.Carrier`."""
        self._scheduled += 1
        heapq.heappush(self._due, (due_s, self._scheduled, pipe))
        if self._alarm is None:
            self._alarm = trio.CancelScope(deadline=due_s)
            trio.lowlevel.spawn_system_task(self._deliver, name="memory network")
        elif due_s < self._alarm.deadline:
            self._alarm.deadline = due_s

    async def _deliver(self) -> None:
        """The one task that lets things arrive; its alarm rings at the next of them."""
        while True:
            assert self._alarm is not None
            with self._alarm:
                await trio.sleep_forever()
            self._alarm = trio.CancelScope()
            now = trio.current_time()
            while self._due and self._due[0][0] <= now:
                heapq.heappop(self._due)[2].arrive()
            self._alarm.deadline = self._due[0][0] if self._due else float("inf")

    # -- called through a `MemoryHost`

    async def listen(self, host: str, port: int) -> MemoryListener:
        """Start taking connections; port 0 picks a free one."""
        await trio.lowlevel.checkpoint()
        if port == 0:
            port, self._next_port = self._next_port, self._next_port + 1
        address = (host, port)
        if address in self._listeners:
            raise OSError(errno.EADDRINUSE, f"{host}:{port}: {os.strerror(errno.EADDRINUSE)}")
        self._listeners[address] = MemoryListener(self, address)
        return self._listeners[address]

    async def dial(self, source: str, host: str, port: int) -> MemoryByteStream:
        """Open a connection: takes a round trip, and waits while the way there or back is held up."""
        await trio.lowlevel.checkpoint()
        there, back = self._route(source, host), self._route(host, source)
        if there.link is not None or back.link is not None:
            await trio.sleep(there.latency_s() + back.latency_s())
        while there.holds or back.holds:
            await self._freed.park()
        listener = self._listeners.get((host, port))
        if listener is None or frozenset((source, host)) in self._refused:
            raise OSError(errno.ECONNREFUSED, f"{host}:{port}: {os.strerror(errno.ECONNREFUSED)}")
        own_port, self._next_port = self._next_port, self._next_port + 1
        near, far = joined(there, back, self._buffer_bytes, (f"{source}:{own_port}", f"{host}:{port}"))
        self._connections = [connection for connection in self._connections if not connection.is_over]
        self._connections.append(Connection(source, host, near, far))
        listener.offer(far)
        return near

    def forget(self, listener: MemoryListener) -> None:
        """A listener was closed."""
        if self._listeners.get(listener.address) is listener:
            del self._listeners[listener.address]

    def check(self) -> None:
        """Everything is filed under its own name, buffers are bounded, and whatever is due will be looked at."""
        for address, listener in self._listeners.items():
            assert listener.address == address
        for (source, target), route in self._routes.items():
            assert (route.source, route.target) == (source, target)
            assert route.plain == (route.link is None and not route.holds)
        for connection in self._connections:
            for end in (connection.near, connection.far):
                pipe = end.outgoing
                assert 0 <= pipe.flying_bytes == sum(len(segment.data) for segment in pipe.flying)
                assert pipe.room >= 0
                assert pipe.scheduled or not pipe.flying or pipe.held
        assert self._alarm is None or not self._due or self._alarm.deadline <= self._due[0][0]


class MemoryHost:
    """The network of one host."""

    def __init__(self, network: MemoryNetwork, host: str) -> None:
        self._network = network
        self.host = host

    async def listen(self, host: str, port: int) -> MemoryListener:
        """Start taking connections."""
        return await self._network.listen(host, port)

    async def dial(self, host: str, port: int) -> MemoryByteStream:
        """Open a connection."""
        return await self._network.dial(self.host, host, port)
