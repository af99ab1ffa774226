"""Sessions that send their frames a few bytes at a time are served aside, and only as long as they do."""

from __future__ import annotations

import trio

from leafdb.transport.pump import DRIBBLE_BYTES, DRIBBLES, Pump
from leafdb.transport.session import Session
from leafdb.transport.stream import SocketNetwork
from leafdb.wire.frame import encode_frame
from leafdb.wire.registry import MessageType
from support.transports import Client, Node, serving, until


def get(request_id: int, size: int = 10) -> bytes:
    return encode_frame(MessageType.GET, request_id, bytes(size))


async def session_of(node: Node) -> tuple[Session, Client]:
    client = await node.client()
    (session,) = node.acceptor.sessions
    return session, client


async def send(session: Session, client: Client, data: bytes) -> None:
    """Send, and wait until it was read."""
    reads = session.reads
    await client.stream.send_all(data)
    await until(lambda: session.reads > reads)


def is_aside(pump: Pump, session: Session) -> bool:
    pump.check()
    return session in pump.slow_sessions


def test_who_dribbles_is_served_aside_until_a_frame_is_whole() -> None:
    async def main() -> None:
        async with serving(SocketNetwork()) as node:
            session, client = await session_of(node)
            frame = get(1)
            for at in range(len(frame) - 1):
                assert is_aside(node.pump, session) == (at >= DRIBBLES)
                await send(session, client, frame[at : at + 1])
            await send(session, client, frame[-1:])
            answer = await client.receive()
            assert answer is not None
            assert answer.request_id == 1
            assert not is_aside(node.pump, session)
            assert await client.ask(2, b"as others do") == b"as others do"

    trio.run(main)


def test_a_header_before_its_body_is_no_dribble() -> None:
    async def main() -> None:
        async with serving(SocketNetwork()) as node:
            session, client = await session_of(node)
            for number in range(1, 2 + DRIBBLES):
                frame = get(number)
                await send(session, client, frame[:18])
                assert not is_aside(node.pump, session)
                await send(session, client, frame[18:])
                assert (await client.receive()) is not None

    trio.run(main)


def test_a_frame_in_pieces_of_some_size_is_no_dribble() -> None:
    async def main() -> None:
        async with serving(SocketNetwork()) as node:
            session, client = await session_of(node)
            frame = get(1, 20 * DRIBBLE_BYTES)
            for at in range(0, len(frame), 2 * DRIBBLE_BYTES):
                assert not is_aside(node.pump, session)
                await send(session, client, frame[at : at + 2 * DRIBBLE_BYTES])
            assert (await client.receive()) is not None

    trio.run(main)


def test_who_ends_while_it_dribbles_is_gone() -> None:
    async def main() -> None:
        async with serving(SocketNetwork()) as node:
            session, client = await session_of(node)
            for _ in range(DRIBBLES):
                await send(session, client, b"\0")
            assert is_aside(node.pump, session)
            client.stream.close()
            await until(lambda: not node.acceptor.sessions)
            assert session.closed
            assert not node.pump.slow_sessions

    trio.run(main)


def test_garbage_a_byte_at_a_time_ends_its_session() -> None:
    async def main() -> None:
        async with serving(SocketNetwork()) as node:
            session, client = await session_of(node)
            with trio.move_on_after(5):
                for _ in range(18):
                    await send(session, client, b"\xff")
                    if session.closed:
                        break
            assert "over the bound" in str(node.closed[0])

    trio.run(main)


def test_many_frames_that_end_a_dribble_are_answered_in_order() -> None:
    """More of them than one turn's: the rest is worked off though the session's socket has nothing more to say."""

    async def main() -> None:
        async with serving(SocketNetwork()) as node:
            session, client = await session_of(node)
            frames = b"".join(map(get, range(1, 101)))
            for at in range(DRIBBLES):
                await send(session, client, frames[at : at + 1])
            assert is_aside(node.pump, session)
            await client.stream.send_all(frames[DRIBBLES:])
            for number in range(1, 101):
                answer = await client.receive()
                assert answer is not None
                assert answer.request_id == number
            assert not is_aside(node.pump, session)

    trio.run(main)
