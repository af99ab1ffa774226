"""The pump serves everybody: whatever one connection does, the others are answered, in bounded memory."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, trio_test

from leafdb.errors import LeafdbError, NotApplied, Overloaded, ProtocolError, Reason
from leafdb.limits import FRAME_BYTES_MAX_UNAUTHENTICATED, HANDSHAKE_TIMEOUT_S, LARGE_FRAME_BYTES, OUTBOX_BYTES_PAUSE
from leafdb.transport.listener import Places
from leafdb.transport.memory import MemoryNetwork
from leafdb.transport.pump import Pump
from leafdb.transport.session import Session
from leafdb.transport.stream import Network, SocketNetwork
from leafdb.wire.frame import encode_frame
from leafdb.wire.handshake import ServerHello
from leafdb.wire.registry import MessageType
from support.transports import FACTS, Client, Node, echo, serving, until

KINDS = ["memory", "socket"]


def network_of(kind: str) -> Network:
    return MemoryNetwork().at("127.0.0.1") if kind == "memory" else SocketNetwork()


@asynccontextmanager
async def bystander(node: Node) -> AsyncIterator[None]:
    """Somebody else, who is served before, during and after whatever happens."""
    client = await node.client()
    assert await client.ask(1, b"before") == b"before"
    asked = 0
    async with trio.open_nursery() as nursery:

        async def go_on() -> None:
            nonlocal asked
            while True:
                asked += 1
                assert await client.ask(asked, b"during") == b"during"
                await trio.sleep(0.001)

        nursery.start_soon(go_on)
        yield
        before = asked
        await until(lambda: asked > before)
        nursery.cancel_scope.cancel()
    client.stream.close()


@pytest.mark.parametrize("kind", KINDS)
def test_many_clients_are_answered_at_once(kind: str) -> None:
    async def main() -> None:
        async with serving(network_of(kind)) as node:

            async def work(number: int) -> None:
                client = await node.client()
                for request_id in range(20):
                    body = b"%d.%d" % (number, request_id)
                    assert await client.ask(request_id, body) == body
                client.stream.close()

            async with trio.open_nursery() as nursery:
                for number in range(30):
                    nursery.start_soon(work, number)
            await until(lambda: not node.pump.sessions)
            assert node.closed == [None] * 30
            assert node.pump.counters.sessions_opened_total == 30
            assert node.pump.counters.received_frames_total == 600

    trio.run(main)


@pytest.mark.parametrize("kind", KINDS)
def test_pipelined_requests_are_answered_in_order_even_far_beyond_one_turn(kind: str) -> None:
    async def main() -> None:
        async with serving(network_of(kind)) as node:
            client = await node.client()
            count = 3_000
            requests = b"".join(encode_frame(MessageType.GET, number, b"x" * 50) for number in range(count))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.stream.send_all, requests)
                for number in range(count):
                    frame = await client.receive()
                    assert frame is not None
                    assert frame.request_id == number
            assert node.pump.counters.sends_total < count // 4, "answers leave in batches"

    trio.run(main)


@pytest.mark.parametrize("kind", KINDS)
def test_large_frames_go_through_whole(kind: str) -> None:
    async def main() -> None:
        async with serving(network_of(kind)) as node:
            client = await node.client()
            body = random.Random(3).randbytes(3_000_000)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.stream.send_all, encode_frame(MessageType.GET, 1, body))
                answer = await client.receive()
            assert answer is not None
            assert answer.body == body
            assert node.pump.budget.used_bytes == 0

    trio.run(main)


@pytest.mark.parametrize("kind", KINDS)
def test_a_flood_from_one_client_lets_others_through(kind: str) -> None:
    """With a clock that says every slice is used up, everybody gets a turn after each session."""

    async def main() -> None:
        ticks = iter(range(1 << 40))
        async with serving(network_of(kind), clock=lambda: float(next(ticks))) as node, bystander(node):
            flood = await node.client()
            batch = b"".join(encode_frame(MessageType.GET, number, b"") for number in range(2_000))
            with trio.move_on_after(0.3):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_send_for_ever, flood, batch)
                    while True:
                        await flood.receive()
            flood.stream.close()

    trio.run(main)


async def _send_for_ever(client: Client, batch: bytes) -> None:
    while True:
        await client.stream.send_all(batch)


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_never_reads_stops_being_read(kind: str) -> None:
    async def main() -> None:
        async with serving(network_of(kind)) as node, bystander(node):
            greedy = await node.client()
            session = list(node.pump.sessions)[-1]
            request = encode_frame(MessageType.GET, 1, bytes(50_000))
            with trio.move_on_after(30) as scope:
                while not (session.blocked and session.outbox_bytes > OUTBOX_BYTES_PAUSE):
                    with trio.move_on_after(0.01):
                        await greedy.stream.send_all(request * 4)
            assert not scope.cancelled_caught
            await trio.sleep(0.05)
            reads = session.reads
            with trio.move_on_after(0.1):
                await greedy.stream.send_all(request * 1000)
            assert session.reads <= reads + 1
            assert session.outbox_bytes < 2 * OUTBOX_BYTES_PAUSE
            assert node.pump.memory_bytes() < 2 * OUTBOX_BYTES_PAUSE
            greedy.stream.close()
            await until(lambda: session.closed)

    trio.run(main)


@pytest.mark.parametrize("kind", KINDS)
def test_a_paused_client_that_reads_again_gets_everything(kind: str) -> None:
    async def main() -> None:
        async with serving(network_of(kind)) as node:
            client = await node.client()
            session = next(iter(node.pump.sessions))
            count, body = 400, bytes(20_000)
            async with trio.open_nursery() as nursery:

                async def send() -> None:
                    for number in range(count):
                        await client.stream.send_all(encode_frame(MessageType.GET, number, body))

                nursery.start_soon(send)
                await until(lambda: session.blocked)
                await trio.sleep(0.05)
                for number in range(count):
                    frame = await client.receive()
                    assert frame is not None
                    assert frame.request_id == number
            await until(lambda: session.outbox_bytes == 0)
            assert not session.blocked

    trio.run(main)


@pytest.mark.parametrize("kind", KINDS)
def test_garbage_is_told_so_and_hurts_nobody_else(kind: str) -> None:
    async def main() -> None:
        rng = random.Random(5)
        async with serving(network_of(kind)) as node, bystander(node):
            for size in (1, 17, 18, 500, 5_000):
                stream = await node.dial()
                await stream.send_all(b"\xff" + rng.randbytes(size))
                client = Client(stream)
                if size > 17:
                    assert isinstance(await client.last_words(), ProtocolError)
                stream.close()
            established = await node.client()
            await established.stream.send_all(rng.randbytes(5_000))
            assert isinstance(await established.last_words(), ProtocolError)
            established.stream.close()
            await until(lambda: node.pump.counters.handshakes_failed_total == 5)
            assert node.pump.counters.protocol_errors_total == 1

    trio.run(main)


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_streams_end_typed_and_bounded(kind: str) -> None:
    async def main() -> None:
        rng = random.Random(6)
        good = b"".join(encode_frame(MessageType.GET, number, rng.randbytes(40)) for number in range(20))
        async with serving(network_of(kind)) as node, bystander(node):
            refused = 0
            for _ in range(60):
                client = await node.client()
                damaged = bytearray(good)
                for _ in range(rng.randrange(1, 5)):
                    damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
                await client.stream.send_all(bytes(damaged))
                with trio.move_on_after(0.02):
                    error = await client.last_words()
                    assert error is None or isinstance(error, ProtocolError)
                    refused += error is not None
                assert node.pump.memory_bytes() < 1 << 20
                client.stream.close()
            assert refused > 20
            assert node.pump.counters.handler_errors_total == 0

    trio.run(main)


@pytest.mark.parametrize("kind", KINDS)
def test_a_failed_assertion_in_a_handler_stops_the_node(kind: str) -> None:
    def on_frame(session: Session, message_type: int, request_id: int, body: bytes) -> None:
        assert body != b"poison", "an invariant broke"
        echo(session, message_type, request_id, body)

    async def main() -> None:
        async with serving(network_of(kind), on_frame=on_frame) as node:
            client = await node.client()
            await client.ask(1, b"fine")
            with pytest.raises(AssertionError):
                await client.ask(2, b"poison")
            await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        trio.run(main)
    assert caught.group_contains(AssertionError, match="an invariant broke")


def test_answers_sent_outside_a_batch_leave_in_the_next_pass() -> None:
    """A commit that finished, a timer: many answers, one send each session."""
    parked: list[tuple[Session, int]] = []

    async def main() -> None:
        async with serving(
            SocketNetwork(), on_frame=lambda session, _, request_id, __: parked.append((session, request_id))
        ) as node:
            client = await node.client()
            for number in range(10):
                await client.stream.send_all(encode_frame(MessageType.GET, number, b""))
            await until(lambda: len(parked) == 10)
            sends = node.pump.counters.sends_total
            for session, request_id in parked:
                session.send(encode_frame(MessageType.GET_REPLY, request_id, b""))
            for number in range(10):
                frame = await client.receive()
                assert frame is not None
                assert frame.request_id == number
            assert node.pump.counters.sends_total == sends + 1

    trio.run(main)


# -- who is let in


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
async def test_draining_ends_at_its_timeout() -> None:
    async with serving(SocketNetwork()) as node:
        await node.client()
        next(iter(node.acceptor.sessions)).requests_in_flight = 1
        with trio.fail_after(5):
            await node.acceptor.drain(0.05)
        assert not node.acceptor.sessions


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
