"""The pump serves everybody: whatever one connection does, the others are answered, in bounded memory."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from leafdb.errors import ProtocolError
from leafdb.limits import FRAMES_PER_TURN, OUTBOX_BYTES_PAUSE
from leafdb.transport.pump import MEASURED_AT_ONCE
from leafdb.transport.session import Session
from leafdb.transport.stream import SocketNetwork
from leafdb.wire.frame import encode_frame
from leafdb.wire.registry import MessageType
from support.transports import Client, Node, echo, network_of, serving, until

KINDS = ["memory", "socket"]


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
def test_requests_right_behind_the_hello_are_answered_in_order_in_turns(kind: str) -> None:
    turns: list[int] = []

    async def main() -> None:
        async with serving(network_of(kind), on_frame=noted) as node:
            client = Client(await node.dial())
            count = 10 * FRAMES_PER_TURN + 5
            requests = b"".join(encode_frame(MessageType.GET, number, b"") for number in range(count))
            await client.stream.send_all(client.connection.start() + requests)
            await client.greet_further()
            for number in range(count):
                frame = await client.receive()
                assert frame is not None
                assert frame.request_id == number

    def noted(session: Session, message_type: int, request_id: int, body: bytes) -> None:
        turns.append(len(session.backlog))
        echo(session, message_type, request_id, body)

    trio.run(main)
    assert len(set(turns)) >= 8, "nobody else had a turn meanwhile"


def test_what_many_sessions_hold_is_known_from_the_last_sweep() -> None:
    async def main() -> None:
        async with serving(network_of("memory")) as node:
            clients = [await node.client() for _ in range(MEASURED_AT_ONCE)]
            begun = encode_frame(MessageType.GET, 1, bytes(1_000))[:500]
            await clients[0].stream.send_all(begun)
            await until(lambda: node.pump.memory_bytes() == len(begun))
            clients += [await node.client() for _ in range(8)]
            await until(lambda: node.pump.memory_bytes() == len(begun))
            await clients[-1].stream.send_all(begun)
            assert node.pump.memory_bytes() == len(begun)
            await until(lambda: node.pump.memory_bytes() == 2 * len(begun))

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
            async with trio.open_nursery() as nursery:

                async def pour() -> None:
                    while True:
                        await greedy.stream.send_all(request)  # never given up in the middle of a frame

                nursery.start_soon(pour)
                await until(lambda: session.blocked and session.outbox_bytes > OUTBOX_BYTES_PAUSE)
                await trio.sleep(0.05)
                reads = session.reads
                await trio.sleep(0.1)
                assert session.reads <= reads + 1
                assert session.outbox_bytes < 2 * OUTBOX_BYTES_PAUSE
                assert node.pump.memory_bytes() < 2 * OUTBOX_BYTES_PAUSE
                nursery.cancel_scope.cancel()
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
