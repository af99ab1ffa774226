"""What TLS costs a session: CPU of both sides together, beside the same session in the clear, rounds interleaved.

    python bench/micro/tls.py

One pump that echoes and clients in the same process, over loopback: every figure is CPU time of this process divided by
frames, so that a loud machine disturbs it little. Then a handshake, by itself and in memory, and what a connection
that is half way through one holds.
"""

from __future__ import annotations

import statistics
import sys
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from leafdb.transport.listener import Acceptor
from leafdb.transport.pump import Pump
from leafdb.transport.session import Session
from leafdb.transport.stream import ByteStream, Network, SocketNetwork
from leafdb.transport.tls import TlsNetwork
from leafdb.transport.tls_contexts import Contexts, TlsFiles, load, rehearse
from leafdb.types import Epoch, NodeId
from leafdb.wire.connection import Connection
from leafdb.wire.frame import encode_frame
from leafdb.wire.handshake import ClientHello, ServerHello
from leafdb.wire.hello import ServerFacts
from leafdb.wire.registry import MessageType
from leafdb.wire.sealed import Sealed
from leafdb_cli import authority

HOST = "127.0.0.1"
FACTS = ServerFacts(NodeId(1), "n1", "home", b"c" * 16, Epoch(1))
ROUNDS = 5
FRAMES = 3_000
SHAPES = ((100, 1), (100, 16), (4_096, 1), (4_096, 16))
"""(bytes of a body, frames in flight)."""


class Doors:
    """Contexts for clients."""

    def __init__(self, contexts: Contexts) -> None:
        self.accepting = contexts.from_clients
        self.dialling = contexts.to_peers


def echo(session: Session, message_type: int, request_id: int, body: bytes) -> None:
    """The answer is the question."""
    session.send(encode_frame(message_type + 1, request_id, body))


async def greeted(network: Network, address: tuple[str, int]) -> ByteStream:
    """A client's stream behind the handshakes."""
    stream = await network.dial(*address)
    connection = Connection(ClientHello("bench"))
    await stream.send_all(connection.start())
    while connection.facts is None:
        connection.receive(await stream.receive_some(4_096))
    return stream


async def exchange(stream: ByteStream, body_bytes: int, in_flight: int) -> float:
    """CPU microseconds of a frame there and back."""
    batch = b"".join(encode_frame(MessageType.GET, number + 1, bytes(body_bytes)) for number in range(in_flight))
    turns = FRAMES // in_flight
    started = time.process_time()
    for _ in range(turns):
        await stream.send_all(batch)
        missing = len(batch)
        while missing > 0:
            missing -= len(await stream.receive_some(1 << 16))
    return (time.process_time() - started) / (turns * in_flight) * 1e6


async def sessions(contexts: Contexts) -> None:
    """Both kinds, one round after the other."""
    plain = SocketNetwork()
    secure = TlsNetwork(
        plain, Doors(contexts), peers=False, optional=False, turn=trio.Lock(), on_refused=lambda *_: None
    )
    pump = Pump(clock=time.perf_counter)
    async with trio.open_nursery() as nursery:
        await nursery.start(pump.run)
        streams = []
        for network in (plain, secure):
            acceptor = Acceptor(
                await network.listen(HOST, 0), pump, handshake=partial(ServerHello, FACTS), on_frame=echo
            )
            await nursery.start(acceptor.run)
            streams.append(await greeted(network, acceptor.address))
        for size, in_flight in SHAPES:
            rounds = [[await exchange(stream, size, in_flight) for stream in streams] for _ in range(ROUNDS)]
            clear, sealed = (statistics.median(column) for column in zip(*rounds, strict=True))
            ratio = statistics.median(there / here for here, there in rounds)
            say(f"{size} bytes, {in_flight} in flight: {clear:.1f} us in the clear, {sealed:.1f} us, {ratio:.2f} times")
        nursery.cancel_scope.cancel()


def handshakes(contexts: Contexts, count: int = 200) -> None:
    """CPU of both sides of one handshake, mutual; and memory of one side that waits."""
    started = time.process_time()
    for _ in range(count):
        rehearse(contexts.to_peers, contexts.from_peers, HOST)
    say(f"a mutual handshake, both sides: {(time.process_time() - started) / count * 1e3:.2f} ms")
    hello = Sealed(contexts.to_peers, server_side=False, name=HOST)
    hello.shake(b"")
    words = hello.take()
    spent = 0.0
    before = resident_bytes()
    waiting = []
    for _ in range(count):
        waiting.append(Sealed(contexts.from_clients, server_side=True))
        started = time.process_time()
        waiting[-1].hear(words)
        waiting[-1].take()
        spent += time.process_time() - started
    say(f"a node's answer to a hello: {spent / count * 1e3:.2f} ms")
    say(f"a node's side of one that waits: {(resident_bytes() - before) / count / 1024:.0f} KiB")


def resident_bytes() -> int:
    """Of this process; OpenSSL's memory is none of Python's."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4_096


def say(line: str) -> None:
    """One line, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """All of it."""
    with TemporaryDirectory() as directory:
        root = Path(directory)
        authority.found(root, "bench")
        signer = authority.Authority.load(root)
        signer.equip(authority.Subject("n1", (HOST,)), root / "n1")
        contexts = load(TlsFiles(str(root / "ca.crt"), str(root / "n1.crt"), str(root / "n1.key")), HOST)
    handshakes(contexts)
    trio.run(sessions, contexts)


if __name__ == "__main__":
    main()
