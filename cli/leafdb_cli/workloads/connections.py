"""Raw connections of the load generator: non-blocking sockets with lanes, a lane being one request in flight.

Requests go out as bytes somebody else made, answers come back as (lane, message type, body). The request id on the wire
is the lane's place on its connection, from 1: with one lane per connection it is always 1, so a frame can be made once
for a key and sent by anybody.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from leafdb.client import bare
from leafdb.client.auth import Auth, login_at
from leafdb.client.blocking_tls import TlsSocket, secure
from leafdb.client.tls import ClientTls
from leafdb.client.url import Address
from leafdb.errors import ConnectFailed, ProtocolError

RECEIVE_BYTES: Final = 65_536
CONNECT_S: Final = 5.0
AGENT: Final = "leafdb-bench"
Sock = socket.socket | TlsSocket
IDLE: Final = -1
"""The key of a lane that has nothing in flight."""


class Manner(NamedTuple):
    """How to connect: under TLS or not, and as whom."""

    tls: ClientTls | None = None
    auth: Auth | None = None


class Lane:
    """One request in flight at most. The generator keeps what it needs to know about it here."""

    __slots__ = ("connection", "context", "key", "kind", "number", "started")

    def __init__(self, connection: Connection, number: int) -> None:
        self.connection = connection
        self.number = number
        self.kind = ""
        self.key = IDLE
        self.started = 0.0
        self.context = b""


class Connection:
    """One socket to one node, after the handshake."""

    __slots__ = ("lanes", "node", "received", "sock", "unsent")

    def __init__(self, sock: Sock, node: int, lanes: int) -> None:
        self.sock = sock
        self.node = node
        self.lanes = [Lane(self, number) for number in range(1, lanes + 1)]
        self.received = b""
        self.unsent = b""


class Connections:
    """All of them, and the poll that wakes when one has an answer."""

    def __init__(
        self, addresses: Sequence[tuple[str, int]], count: int, lanes: int, manner: Manner | None = None
    ) -> None:
        self._poll = select.epoll()
        self.by_descriptor: dict[int, Connection] = {}
        self.lost = 0
        try:
            for index in range(count):
                node = index % len(addresses)
                sock = connect(addresses[node], manner or Manner())
                self.by_descriptor[sock.fileno()] = Connection(sock, node, lanes)
                self._poll.register(sock.fileno(), select.EPOLLIN)
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Connection]:
        return iter(self.by_descriptor.values())

    def close(self) -> None:
        """Close them all."""
        for connection in self.by_descriptor.values():
            connection.sock.close()
        self.by_descriptor.clear()
        self._poll.close()

    def send(self, connection: Connection, data: bytes) -> None:
        """Send now what the socket takes, the rest when it takes more."""
        if connection.unsent:
            connection.unsent += data
            return
        try:
            sent = connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            connection.unsent = data[sent:]
            self._poll.modify(connection.sock.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def turn(
        self,
        timeout_s: float,
        on_answer: Callable[[Lane, int, bytes, float], bytes],
        on_lost: Callable[[Connection], None],
    ) -> None:
        """Wait for answers, give each to `on_answer` with the time it was seen, and send what that returns."""
        for descriptor, events in self._poll.poll(timeout_s):
            connection = self.by_descriptor[descriptor]
            try:
                if events & select.EPOLLOUT:
                    self._flush(connection)
                if events & ~select.EPOLLOUT:
                    self._receive(connection, on_answer)
            except BlockingIOError:
                continue
            except OSError:
                self._drop(descriptor)
                on_lost(connection)

    def _receive(self, connection: Connection, on_answer: Callable[[Lane, int, bytes, float], bytes]) -> None:
        data = connection.sock.recv(RECEIVE_BYTES)
        now = time.perf_counter()
        if not data:
            raise ConnectionResetError
        if connection.received:
            data = connection.received + data
        end = len(data)
        position = 0
        lanes = connection.lanes
        answer = b""
        while end - position >= bare.HEADER_BYTES:
            length, _, kind, _, request_id = _unpack_header(data, position)
            stop = position + bare.HEADER_BYTES + length
            if stop > end:
                break
            answer += on_answer(lanes[request_id - 1], kind, data[position + bare.HEADER_BYTES : stop], now)
            position = stop
        connection.received = data[position:] if position < end else b""
        if answer:
            self.send(connection, answer)

    def _flush(self, connection: Connection) -> None:
        data, connection.unsent = connection.unsent, b""
        self._poll.modify(connection.sock.fileno(), select.EPOLLIN)
        self.send(connection, data)

    def _drop(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)
        self.by_descriptor.pop(descriptor).sock.close()
        self.lost += 1


_unpack_header: Final = bare.HEADER.unpack_from


def connect(address: tuple[str, int], manner: Manner) -> Sock:
    """A connected socket past the handshake, not blocking any more. ConnectFailed when there is none to be had, and
    what the node refuses a login with."""
    where = f"{address[0]}:{address[1]}"
    deadline = time.monotonic() + CONNECT_S
    tls = manner.tls
    greeting = bare.greeting(AGENT, login_at(manner.auth, Address(*address), encrypted=tls is not None))
    try:
        plain = socket.create_connection(address, CONNECT_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock: Sock = plain if tls is None else secure(plain, tls, Address(*address), deadline)
    except OSError as error:
        raise ConnectFailed(f"{where}: {error}", attempts={where: str(error)}) from None
    try:
        sock.sendall(greeting.start())
        while greeting.facts is None:
            sock.settimeout(max(0.01, deadline - time.monotonic()))
            data = sock.recv(4096)
            if not data:
                raise ConnectFailed(f"{where} closed the connection", attempts={where: "closed in the handshake"})
            greeting.receive(data)
            if answer := greeting.take_output():
                sock.sendall(answer)
        sock.setblocking(False)
    except (OSError, ProtocolError) as error:
        sock.close()
        raise ConnectFailed(f"{where}: {error}", attempts={where: str(error)}) from None
    except BaseException:
        sock.close()
        raise
    return sock
