"""Transport test kit: a node that echoes, clients that speak frames, on memory or on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from random import Random

import trio

from leafdb.errors import LeafdbError
from leafdb.testing.network import MemoryNetwork
from leafdb.transport.dialler import Address
from leafdb.transport.listener import Acceptor, Places
from leafdb.transport.peers import Peers
from leafdb.transport.pump import Pump
from leafdb.transport.session import OnFrame, Session
from leafdb.transport.stream import ByteStream, Network, SocketNetwork
from leafdb.types import Epoch, NodeId
from leafdb.wire.connection import Connection
from leafdb.wire.errors import decode_error
from leafdb.wire.frame import Frame, encode_frame
from leafdb.wire.handshake import ClientHello, Handshake, ServerHello
from leafdb.wire.hello import PeerFacts, ServerFacts
from leafdb.wire.registry import Lane, MessageType

FACTS = ServerFacts(NodeId(1), "n1", "home", b"c" * 16, Epoch(1))
SECRET = b"a secret of the whole cluster..."


def echo(session: Session, message_type: int, request_id: int, body: bytes) -> None:
    """A node whose every answer is the question."""
    session.send(encode_frame(message_type + 1, request_id, body))


class Client:
    """A client that has greeted: sends frames, waits for frames."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self.connection = Connection(ClientHello("test"))
        self.frames: list[Frame] = []

    async def greet(self) -> Client:
        await self.stream.send_all(self.connection.start())
        return await self.greet_further()

    async def greet_further(self) -> Client:
        """Its hello has been sent."""
        while self.connection.facts is None:
            self.frames += self.connection.receive(await self.stream.receive_some(4096))
        return self

    async def receive(self) -> Frame | None:
        """The next frame, or None at the end of the stream."""
        while not self.frames:
            try:
                data = await self.stream.receive_some(1 << 16)
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            self.frames += self.connection.receive(data)
        return self.frames.pop(0)

    async def ask(self, request_id: int, body: bytes) -> bytes:
        await self.stream.send_all(encode_frame(MessageType.GET, request_id, body))
        answer = await self.receive()
        assert answer is not None
        assert (answer.type, answer.request_id) == (MessageType.GET_REPLY, request_id)
        return answer.body

    async def last_words(self) -> LeafdbError | None:
        """What the node said before it closed the connection; what came before that is dropped."""
        said = None
        try:
            while (frame := await self.receive()) is not None:
                said = decode_error(frame.body) if frame.type == MessageType.ERROR and not frame.request_id else None
        except LeafdbError as error:
            return error if self.connection.farewell(error) == b"" else None
        return said


@dataclass
class Node:
    """A serving pump and acceptor."""

    network: Network
    pump: Pump
    acceptor: Acceptor
    closed: list[LeafdbError | None] = field(default_factory=list)

    async def client(self, network: Network | None = None) -> Client:
        return await Client(await self.dial(network)).greet()

    async def dial(self, network: Network | None = None) -> ByteStream:
        return await (network or self.network).dial(*self.acceptor.address)

    def check(self) -> None:
        self.pump.check()
        self.acceptor.check()


def network_of(kind: str) -> Network:
    """The network called "memory" or "socket"."""
    return MemoryNetwork().at("127.0.0.1") if kind == "memory" else SocketNetwork()


@asynccontextmanager
async def serving(
    network: Network,
    *,
    host: str = "127.0.0.1",
    on_frame: OnFrame = echo,
    handshake: Callable[[], Handshake] | None = None,
    places: Places | None = None,
    pump: Pump | None = None,
    clock: Callable[[], float] = lambda: 0.0,
) -> AsyncIterator[Node]:
    """A client port in this loop. `check()` runs at the end."""
    pump = pump or Pump(clock=clock)
    closed: list[LeafdbError | None] = []
    acceptor = Acceptor(
        await network.listen(host, 0),
        pump,
        handshake=lambda _: (handshake or partial(ServerHello, FACTS))(),
        on_frame=on_frame,
        on_closed=lambda _, error: closed.append(error),
        places=places,
    )
    node = Node(network, pump, acceptor, closed)
    async with trio.open_nursery() as nursery:
        await nursery.start(pump.run)
        await nursery.start(acceptor.run)
        yield node
        node.check()
        nursery.cancel_scope.cancel()


@dataclass
class Member:
    """One node of a small cluster: a peer port and its peers."""

    number: int
    pump: Pump
    peers: Peers
    acceptor: Acceptor
    got: list[tuple[int, Frame]] = field(default_factory=list)
    events: list[tuple[str, int, Lane]] = field(default_factory=list)
    refuse: dict[int, str] = field(default_factory=dict)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    @property
    def address(self) -> Address:
        return self.acceptor.address

    def up(self) -> set[tuple[int, Lane]]:
        return {(node, lane) for lane in Lane for node in self.peers.connected(lane)}

    def check(self) -> None:
        self.pump.check()
        self.peers.check()
        self.acceptor.check()


async def start_member(
    nursery: trio.Nursery,
    network: Network,
    number: int,
    *,
    host: str,
    port: int = 0,
    boot: int = 1,
    secret: bytes = SECRET,
    cluster_id: bytes = b"c" * 16,
) -> Member:
    """A member that answers METADATA_FETCH with its own body, and PEER_ADMIN with an error."""
    pump = Pump(clock=lambda: 0.0)
    rng = Random(number)
    facts = PeerFacts(cluster_id, NodeId(number), 1, boot, rng.randbytes(16), Epoch(1), Lane.CONTROL)
    member: Member

    def on_frame(session: Session, message_type: int, request_id: int, body: bytes) -> None:
        assert isinstance(session.facts, PeerFacts)
        member.got.append((session.facts.node, Frame(message_type, request_id, body)))
        if message_type == MessageType.METADATA_FETCH:
            session.send(encode_frame(MessageType.METADATA_REPLY, request_id, body))
        elif message_type == MessageType.PEER_ADMIN and session.facts.node == 0:
            session.send(encode_frame(MessageType.PEER_ADMIN_REPLY, request_id, body))

    peers = Peers(
        network,
        pump,
        own=lambda: facts,
        secret=secret,
        admit=lambda other: member.refuse.get(other.node),
        nonce=lambda: rng.randbytes(16),
        rng=rng,
        on_frame=on_frame,
        on_session_up=lambda node, lane: member.events.append(("up", node, lane)),
        on_session_down=lambda node, lane: member.events.append(("down", node, lane)),
    )
    acceptor = Acceptor(
        await network.listen(host, port),
        pump,
        handshake=lambda _: peers.accepting(),
        on_frame=peers.on_frame,
        on_session=peers.adopt,
        on_closed=peers.on_closed,
    )
    member = Member(number, pump, peers, acceptor)

    async def run() -> None:
        with member.scope:
            async with trio.open_nursery() as inner:
                await inner.start(pump.run)
                await inner.start(acceptor.run)
                await inner.start(peers.run)
                running.set()
        await acceptor.stop()

    running = trio.Event()
    nursery.start_soon(run)
    await running.wait()
    return member


def introduce(*members: Member) -> None:
    """Give every member the addresses of all."""
    book = {NodeId(member.number): member.address for member in members}
    for member in members:
        member.peers.set_members(book)


async def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait for a condition, looking at it often; TooSlowError when it does not come."""
    with trio.fail_after(timeout_s):
        while not condition():  # noqa: ASYNC110  # a test looks from outside
            await trio.sleep(0.01)
