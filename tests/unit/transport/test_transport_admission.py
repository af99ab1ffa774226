"""Who is let in, how long it may take, and how a node stops: bounds hold, and whoever meets one is told."""

from __future__ import annotations

import errno
import socket

import pytest
import trio
from trio.testing import MockClock, trio_test

from leafdb.errors import LeafdbError, NotApplied, Overloaded, Reason
from leafdb.limits import FRAME_BYTES_MAX_UNAUTHENTICATED, HANDSHAKE_TIMEOUT_S, LARGE_FRAME_BYTES
from leafdb.testing.network import MemoryNetwork
from leafdb.transport.listener import Places
from leafdb.transport.pump import Pump
from leafdb.transport.stream import ByteStream, Listener, SocketNetwork
from leafdb.wire.frame import encode_frame
from leafdb.wire.handshake import ServerHello
from leafdb.wire.registry import MessageType
from support.transports import FACTS, Client, Node, network_of, serving, until

KINDS = ["memory", "socket"]


@pytest.mark.parametrize("kind", KINDS)
def test_past_its_places_a_node_says_overloaded_and_serves_the_rest(kind: str) -> None:
    async def main() -> None:
        async with serving(network_of(kind), places=Places(sessions_max=3)) as node:
            clients = [await node.client() for _ in range(3)]
            refused = Client(await node.dial())
            error = await refused.last_words()
            assert isinstance(error, Overloaded)
            assert error.retry_after > 0
            assert [await client.ask(1, b"x") for client in clients] == [b"x"] * 3
            clients[0].stream.close()
            await until(lambda: len(node.acceptor.sessions) == 2)
            assert await (await node.client()).ask(1, b"again") == b"again"
            assert node.pump.counters.sessions_refused_total == 1

    trio.run(main)


@trio_test
async def test_one_address_does_not_take_all_places() -> None:
    network = MemoryNetwork()
    async with serving(network.at("n"), host="n", places=Places(sessions_max=10, per_address_max=2)) as node:
        for _ in range(2):
            await node.client(network.at("greedy"))
        assert isinstance(await Client(await node.dial(network.at("greedy"))).last_words(), Overloaded)
        assert await (await node.client(network.at("modest"))).ask(1, b"x") == b"x"


def test_who_greets_too_slowly_is_gone_at_the_deadline() -> None:
    """A slow-loris: one byte at a time, for ever. It holds a place for HANDSHAKE_TIMEOUT_S and a few bytes."""

    async def main() -> None:
        network = MemoryNetwork()
        async with serving(network.at("n"), host="n") as node:
            client = Client(await node.dial(network.at("loris")))
            hello = client.connection.start()
            started = trio.current_time()
            with pytest.raises(trio.BrokenResourceError):
                for at in range(len(hello)):
                    await client.stream.send_all(hello[at : at + 1])
                    await trio.sleep(1)
            assert HANDSHAKE_TIMEOUT_S <= trio.current_time() - started <= HANDSHAKE_TIMEOUT_S + 1
            assert node.pump.counters.handshakes_failed_total == 1
            assert not node.pump.sessions

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_an_endless_greeting_is_refused_at_its_header() -> None:
    async def main() -> None:
        network = MemoryNetwork()
        async with serving(network.at("n"), host="n") as node:
            client = Client(await node.dial(network.at("n")))
            await client.stream.send_all(encode_frame(MessageType.HELLO, 0, bytes(FRAME_BYTES_MAX_UNAUTHENTICATED)))
            assert "over the bound" in str(await client.last_words())

    trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("size", [1_000, 8 * LARGE_FRAME_BYTES])
def test_a_frame_that_never_ends_closes_its_session(size: int) -> None:
    async def main() -> None:
        network = MemoryNetwork()
        async with serving(network.at("n"), host="n") as node:
            client = await node.client(network.at("loris"))
            frame = encode_frame(MessageType.GET, 1, bytes(size))
            with pytest.raises(trio.BrokenResourceError):
                for at in range(len(frame) - 1):
                    await client.stream.send_all(frame[at : at + 1])
                    await trio.sleep(0.5)
            assert "takes too long" in str(node.closed[0])
            assert node.pump.budget.used_bytes == 0
            idle = await node.client(network.at("patient"))
            await trio.sleep(1000)
            assert await idle.ask(1, b"still here") == b"still here"

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_a_client_that_takes_nothing_for_half_a_minute_is_let_go() -> None:
    async def main() -> None:
        network = MemoryNetwork()
        async with serving(network.at("n"), host="n") as node:
            client = await node.client(network.at("deaf"))
            slow = await node.client(network.at("slow"))
            for stuck in (client, slow):
                await stuck.stream.send_all(encode_frame(MessageType.GET, 1, bytes(500_000)))
            await until(lambda: all(session.blocked for session in node.pump.sessions))
            for _ in range(60):
                await trio.sleep(1)
                await slow.stream.receive_some(10)
            assert [str(error) for error in node.closed] == ["answers are not being read"]
            assert len(node.pump.sessions) == 1

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_a_handshake_that_fails_by_our_own_bug_ends_that_connection_alone() -> None:
    async def main() -> None:
        failing = True

        def handshake() -> ServerHello:
            if failing:
                raise KeyError("hunter2")
            return ServerHello(FACTS)

        async with serving(SocketNetwork(), handshake=handshake) as node:
            stream = await node.dial()
            assert await stream.receive_some(10) == b""
            stream.close()
            failing = False
            assert await (await node.client()).ask(1, b"x") == b"x"
            assert node.pump.counters.handler_errors_total == 1

    trio.run(main)


@trio_test
async def test_draining_waits_for_what_is_in_flight_and_then_says_so() -> None:
    async def drain(node: Node) -> None:
        await node.acceptor.drain(5.0)

    async with serving(SocketNetwork()) as node:
        client = await node.client()
        await client.ask(1, b"x")
        session = next(iter(node.acceptor.sessions))
        session.requests_in_flight = 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain, node)
            await trio.sleep(0.1)
            assert not session.closed
            with pytest.raises(OSError):
                await node.dial()
            session.send(encode_frame(MessageType.GET_REPLY, 2, b"the last answer"))
            session.requests_in_flight = 0
        answer = await client.receive()
        assert answer is not None
        assert answer.body == b"the last answer"
        error = await client.last_words()
        assert isinstance(error, NotApplied)
        assert error.reason is Reason.DRAINING


@trio_test
async def test_draining_ends_at_its_timeout_without_the_word_that_nothing_was_done() -> None:
    async with serving(SocketNetwork()) as node:
        client = await node.client()
        next(iter(node.acceptor.sessions)).requests_in_flight = 1
        with trio.fail_after(5):
            await node.acceptor.drain(0.05)
        assert not node.acceptor.sessions
        assert await client.receive() is None


@trio_test
async def test_a_session_with_nothing_to_wait_for_is_let_go_though_another_is_busy() -> None:
    async with serving(SocketNetwork()) as node:
        busy = await node.client()
        session = next(iter(node.acceptor.sessions))
        session.requests_in_flight = 1
        idle = await node.client()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.acceptor.drain, 5.0)
            assert isinstance(await idle.last_words(), NotApplied)
            assert not session.closed
            session.requests_in_flight = 0
        assert isinstance(await busy.last_words(), NotApplied)


def test_a_pump_that_ends_closes_its_sessions() -> None:
    closed: list[LeafdbError | None] = []

    async def main() -> None:
        pump = Pump(clock=lambda: 0.0)
        async with serving(SocketNetwork(), pump=pump) as node:
            client = await node.client()
            closed.extend(node.closed)
        assert not pump.sessions
        assert await client.receive() is None
        client.stream.close()

    trio.run(main)
    assert closed == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_oldest_of_those_who_greet_gives_way(kind: str) -> None:
    async def main() -> None:
        async with serving(network_of(kind), places=Places(sessions_max=8, greetings_max=2)) as node:
            served = await node.client()
            silent = []
            for count in range(1, 6):
                silent.append(Client(await node.dial()))
                await until(lambda: node.acceptor.greeting == min(count, 2))  # noqa: B023  looked at before it changes
            for given_up in silent[:3]:
                assert isinstance(await given_up.last_words(), Overloaded)
            assert await (await node.client()).ask(1, b"a newcomer") == b"a newcomer"
            assert isinstance(await silent[3].last_words(), Overloaded)
            assert await served.ask(1, b"x") == b"x"
            await silent[4].greet()
            assert await silent[4].ask(1, b"the youngest stayed") == b"the youngest stayed"

    trio.run(main)


@pytest.mark.parametrize("kind", KINDS)
def test_who_greets_takes_no_place_from_a_session(kind: str) -> None:
    async def main() -> None:
        async with serving(network_of(kind), places=Places(sessions_max=2, greetings_max=8)) as node:
            silent = [Client(await node.dial()) for _ in range(8)]
            await until(lambda: node.acceptor.greeting == 8)
            served = [await node.client() for _ in range(2)]
            # All places for sessions are taken: those who still greet are told so when they have.
            hello = silent[-1].connection.start()
            await silent[-1].stream.send_all(hello)
            assert isinstance(await silent[-1].last_words(), Overloaded)
            assert isinstance(await Client(await node.dial()).last_words(), Overloaded)
            assert [await client.ask(1, b"x") for client in served] == [b"x"] * 2

    trio.run(main)


class Crowded:
    """A listener in a system that runs out of descriptors after so many connections, until one is closed."""

    def __init__(self, listener: Listener, descriptors: int) -> None:
        self.address = listener.address
        self._listener = listener
        self._open: list[ByteStream] = []
        self._descriptors = descriptors

    async def accept(self) -> ByteStream:
        await trio.lowlevel.checkpoint()
        self._open = [stream for stream in self._open if getattr(stream, "fileno", lambda: -1)() >= 0]
        if len(self._open) >= self._descriptors:
            raise OSError(errno.EMFILE, "too many open files")
        stream = await self._listener.accept()
        self._open.append(stream)
        return stream

    async def aclose(self) -> None:
        await self._listener.aclose()


def test_without_descriptors_the_oldest_of_those_who_greet_gives_way() -> None:
    class Network(SocketNetwork):
        async def listen(self, host: str, port: int) -> Listener:  # type: ignore[override]
            return Crowded(await super().listen(host, port), 2)

    async def main() -> None:
        async with serving(Network()) as node:
            silent = [Client(await node.dial()) for _ in range(3)]
            served = await node.client()
            assert await served.ask(1, b"x") == b"x"
            for client in silent[:2]:
                assert isinstance(await client.last_words(), Overloaded)

    trio.run(main)


def test_descriptors_above_a_bound_are_not_for_connections() -> None:
    async def main() -> None:
        with socket.socket() as probe:
            lowest = probe.fileno()
        async with serving(SocketNetwork(lowest + 6)) as node:
            silent = [Client(await node.dial()) for _ in range(4)]
            await until(lambda: node.pump.counters.sessions_refused_total > 0)
            assert node.acceptor.greeting < len(silent)
            for client in silent:
                client.stream.close()
            await until(lambda: not node.acceptor.greeting)
            assert await (await node.client()).ask(1, b"x") == b"x"

    trio.run(main)
