"""Server CPU per round trip over loopback: a client in a second process, many connections, one request in flight each.

    python bench/micro/transport.py [--form pump|tasks|parked] [--connections 48] [--seconds 2] [--depth 1]

Forms of moving bytes, the first of which leafdb uses:

    pump    one task polls every socket; answers leave at the end of the batch
    tasks   a reader task per session; one flusher task sends for all sessions in the scheduler's next pass
    parked  a reader task and a parked writer task per session

Every request is a 100-byte GET body that is echoed as a GET_REPLY. What is printed is the CPU time of the serving
process (user and system), handshake excluded, over the number of round trips.
"""

from __future__ import annotations

import argparse
import select
import socket
import subprocess
import sys
import time

import trio

from leafdb.errors import LeafdbError
from leafdb.transport.listener import Acceptor
from leafdb.transport.pump import Pump
from leafdb.transport.session import Session
from leafdb.transport.stream import SocketByteStream, SocketListener, SocketNetwork
from leafdb.types import Epoch, NodeId
from leafdb.wire.connection import Connection
from leafdb.wire.frame import encode_frame
from leafdb.wire.handshake import ClientHello, ServerHello
from leafdb.wire.hello import ServerFacts
from leafdb.wire.registry import MessageType

BODY = b"x" * 100
WARM_UP = 0.2


class PlainStream:
    """A socket that hides that it can be polled, so that the pump gives it tasks of its own."""

    def __init__(self, stream: SocketByteStream) -> None:
        self.remote = stream.remote
        self.receive_some = stream.receive_some
        self.send_now = stream.send_now
        self.send_all = stream.send_all
        self.wait_sendable = stream.wait_sendable
        self.close = stream.close
        self.aclose = stream.aclose


class PlainListener:
    """Accepts plain streams."""

    def __init__(self, listener: SocketListener) -> None:
        self.address = listener.address
        self._listener = listener

    async def accept(self) -> PlainStream:
        return PlainStream(await self._listener.accept())

    async def aclose(self) -> None:
        await self._listener.aclose()


class ParkedPump(Pump):
    """A writer task per session, parked until its session has something to send."""

    def __init__(self) -> None:
        super().__init__(clock=time.perf_counter)
        self._parked: dict[Session, trio.lowlevel.Task] = {}
        self.dirty = self._wake

    def _wake(self, session: Session) -> None:
        task = self._parked.pop(session, None)
        if task is not None:
            trio.lowlevel.reschedule(task)

    def attach(self, session: Session) -> None:
        super().attach(session)
        assert self._nursery is not None
        self._nursery.start_soon(self._write, session)

    async def _write(self, session: Session) -> None:
        while not session.closed:
            if not session.outbox_bytes:
                self._parked[session] = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.SUCCEEDED)
            session.flush()


class Meter:
    """Starts when the last connection has greeted and warmed up, ends when the first leaves."""

    def __init__(self) -> None:
        self.count = 0
        self.cpu = self.wall = 0.0
        self.started = self.done = False

    def frame(self, session: Session, _: int, request_id: int, body: bytes) -> None:
        self.count += 1
        session.send(encode_frame(MessageType.GET_REPLY, request_id, body))

    def start(self) -> None:
        self.count, self.cpu, self.wall, self.started = 0, time.process_time(), time.perf_counter(), True

    def stop(self, _: Session, __: LeafdbError | None) -> None:
        if self.started and not self.done:
            self.cpu = time.process_time() - self.cpu
            self.wall = time.perf_counter() - self.wall
            self.done = True


async def serve(form: str, connections: int, seconds: float, depth: int) -> None:
    meter = Meter()
    pump = ParkedPump() if form == "parked" else Pump(clock=time.perf_counter)
    facts = ServerFacts(NodeId(1), "bench", "bench", b"", Epoch(1))
    listener = await SocketNetwork().listen("127.0.0.1", 0)
    acceptor = Acceptor(
        listener if form == "pump" else PlainListener(listener),
        pump,
        handshake=lambda _: ServerHello(facts),
        on_frame=meter.frame,
        on_closed=meter.stop,
    )
    command = [sys.executable, __file__, "--client", str(listener.address[1])]
    command += ["--connections", str(connections), "--seconds", str(seconds), "--depth", str(depth)]
    async with trio.open_nursery() as nursery:
        await nursery.start(pump.run)
        await nursery.start(acceptor.run)
        client = subprocess.Popen(command)  # noqa: ASYNC220  # starts once, before anything is measured
        while len(acceptor.sessions) < connections:  # noqa: ASYNC110
            await trio.sleep(0.01)
        await trio.sleep(WARM_UP)
        meter.start()
        while not meter.done:  # noqa: ASYNC110
            await trio.sleep(0.01)
        client.wait()
        nursery.cancel_scope.cancel()
    sends = pump.counters.sends_total / max(1, pump.counters.received_frames_total)
    print(
        f"{form:7} {connections:3} connections x {depth}: {meter.cpu / meter.count * 1e6:6.2f} us CPU per round trip,"
        f" {meter.count / meter.wall:8.0f} round trips/s, {sends:.2f} sends per frame"
    )


def load(port: int, connections: int, seconds: float, depth: int) -> None:
    """The client process: every connection always has `depth` requests in flight."""
    poll = select.epoll()
    sockets: dict[int, socket.socket] = {}
    request = encode_frame(MessageType.GET, 1, BODY)
    for _ in range(connections):
        connected = socket.create_connection(("127.0.0.1", port))
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(ClientHello("bench"))
        connected.sendall(connection.start())
        while connection.facts is None:
            connection.receive(connected.recv(4096))
        poll.register(connected.fileno(), select.EPOLLIN)
        sockets[connected.fileno()] = connected
    for connected in sockets.values():
        connected.sendall(request * depth)
    end = time.monotonic() + seconds + WARM_UP
    missing = dict.fromkeys(sockets, 0)
    while time.monotonic() < end:
        for descriptor, _ in poll.poll(1):
            got = missing[descriptor] + len(sockets[descriptor].recv(1 << 16))
            answers, missing[descriptor] = divmod(got, len(request))
            if answers:
                sockets[descriptor].sendall(request * answers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--form", choices=("pump", "tasks", "parked"))
    parser.add_argument("--connections", type=int)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--depth", type=int, default=1)
    parser.add_argument("--client", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.client:
        load(args.client, args.connections, args.seconds, args.depth)
        return
    for connections in (args.connections,) if args.connections else (16, 48):
        for form in (args.form,) if args.form else ("pump", "tasks", "parked"):
            trio.run(serve, form, connections, args.seconds, args.depth)


if __name__ == "__main__":
    main()
