"""Nodes that talk nonsense: the session suffers, the call ends with a LeafdbError, and the next call is served."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from random import Random

import anyio
import pytest

import leafdb
from leafdb import BLIND, Conflict, Found
from leafdb.client.results import stamp_time
from leafdb.errors import ConnectFailed, LeafdbError, ServerBug
from leafdb.wire.control import ScanReply
from leafdb.wire.frame import Frame, encode_frame
from leafdb.wire.registry import MessageType
from leafdb.wire.requests import encode_get_reply
from support.frame_fuzz import Said, Side, honest, spoil
from unit.client.fake_node import Action, FakeCluster, Session

SEED = 20_261_122
ROUNDS = 24
TIMEOUT_S = 0.2
BACKENDS = pytest.mark.parametrize("backend", ["trio", "asyncio"])


class Garbler:
    """While `on`, answers are spoilt, and often the connection ends behind them."""

    def __init__(self) -> None:
        self.on = False
        self._rng = Random(SEED)

    def act(self, session: Session, frame: Frame) -> None:
        if not self.on:
            session.node.answer(session, frame)
            return
        reply_type, body = session.node.cluster.reply_to(frame)
        said = [Said(reply_type, frame.request_id, body)]
        if self._rng.random() < 0.3:
            said += honest(Side.NODE, self._rng)
        session.send_raw(spoil(said, self._rng))
        if self._rng.random() < 0.8:
            session.hang_up()


@contextlib.contextmanager
def garbling() -> Iterator[tuple[FakeCluster, Garbler]]:
    """A node with one key, whose every answer passes through a Garbler."""
    garbler = Garbler()
    action: Action = garbler.act
    with FakeCluster() as cluster:
        cluster.create("b")
        for message_type in (MessageType.GET, MessageType.PUT, MessageType.SCAN, MessageType.ADMIN):
            cluster.node.script(message_type, *[action] * 2_000)
        yield cluster, garbler


def test_spoilt_answers_to_the_blocking_client() -> None:
    with garbling() as (cluster, garbler), leafdb.connect(cluster.url, timeout=TIMEOUT_S) as db:
        raw = db.bucket("b")
        raw.put("k", b"sound", after=BLIND)
        for number in range(ROUNDS):
            garbler.on = True
            with contextlib.suppress(LeafdbError):
                _ask(number, raw)
            garbler.on = False
            assert _served(raw)


def _served(raw: leafdb.SiblingBucket[bytes]) -> bool:
    """Whether a sound node is heard again. Half a frame may lie on the connection still, and retries may be used up."""
    for _ in range(3):
        with contextlib.suppress(LeafdbError):
            return isinstance(raw.get("k", timeout=10.0), Found | Conflict)
    return False


def _ask(number: int, raw: leafdb.SiblingBucket[bytes]) -> None:
    match number % 4:
        case 0:
            raw.get("k")
        case 1:
            raw.put("k", b"1", after=BLIND)
        case 2:
            list(raw.scan())
        case _:
            raw.get_many(["k", "l"])


@BACKENDS
def test_spoilt_answers_to_the_asynchronous_client(backend: str) -> None:
    async def main() -> None:
        with garbling() as (cluster, garbler):
            async with leafdb.connect_async(cluster.url, timeout=TIMEOUT_S) as db:
                raw = db.bucket("b")
                await raw.put("k", b"sound", after=BLIND)
                for number in range(ROUNDS):
                    garbler.on = True
                    with contextlib.suppress(LeafdbError):
                        await _ask_async(number, raw)
                    garbler.on = False
                    assert await _served_async(raw)

    anyio.run(main, backend=backend)


async def _served_async(raw: leafdb.AsyncSiblingBucket[bytes]) -> bool:
    for _ in range(3):
        with contextlib.suppress(LeafdbError):
            return isinstance(await raw.get("k", timeout=10.0), Found | Conflict)
    return False


async def _ask_async(number: int, raw: leafdb.AsyncSiblingBucket[bytes]) -> None:
    match number % 4:
        case 0:
            await raw.get("k")
        case 1:
            await raw.put("k", b"1", after=BLIND)
        case 2:
            _ = [item async for item in raw.scan()]
        case _:
            await raw.get_many(["k", "l"])


@contextlib.contextmanager
def nonsense() -> Iterator[str]:
    """The URL of something that spoils its side of the handshake, without waiting for the other's."""
    rng = Random(SEED)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    accepted, _ = listener.accept()
                    with accepted:
                        accepted.sendall(spoil(honest(Side.NODE, rng), rng) or b"?")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"leafdb://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10.0)


def test_a_spoilt_handshake_is_no_connection() -> None:
    with nonsense() as url:
        for _ in range(ROUNDS):
            with leafdb.connect(url, timeout=TIMEOUT_S) as db, pytest.raises(LeafdbError):
                db.ping()


@BACKENDS
def test_a_spoilt_handshake_is_no_asynchronous_connection(backend: str) -> None:
    async def main() -> None:
        with nonsense() as url:
            for _ in range(ROUNDS):
                async with leafdb.connect_async(url, timeout=TIMEOUT_S) as db:
                    with pytest.raises(LeafdbError):
                        await db.ping()

    anyio.run(main, backend=backend)


def test_stamps_of_the_far_future_are_times_still() -> None:
    """A node with a broken clock must not make a read of siblings fail."""
    assert stamp_time((1 << 64) - 1).year == 9999
    siblings = [(b"actor-of-14-by", dot, (1 << 64) - dot, b"v") for dot in (1, 2)]

    def far_future(session: Session, frame: Frame) -> None:
        session.send(MessageType.GET_REPLY, frame.request_id, encode_get_reply(1, b"", siblings))

    with FakeCluster() as cluster, leafdb.connect(cluster.url) as db:
        cluster.create("b")
        cluster.node.script(MessageType.GET, far_future)
        answer = db.bucket("b").get("k")
        assert isinstance(answer, Conflict)
        assert [sibling.written_at.year for sibling in answer.siblings] == [9999] * 2


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_that_does_not_advance_ends(reverse: bool) -> None:
    def stuck(session: Session, frame: Frame) -> None:
        where = b"\xff" * 9 if reverse else b"\x00" * 9
        session.send(MessageType.SCAN_REPLY, frame.request_id, ScanReply((), where, 1).encode())

    with FakeCluster() as cluster, leafdb.connect(cluster.url) as db:
        cluster.create("b")
        cluster.node.script(MessageType.SCAN, *[stuck] * 50)
        raw = db.bucket("b")
        with pytest.raises(ServerBug, match="do not advance"):
            list(raw.range("p", reverse=True) if reverse else raw.scan())
        assert len(cluster.asked(MessageType.SCAN)) <= 8


def test_nothing_that_listens_but_is_no_node_hangs_a_call() -> None:
    """A port that answers with something else entirely."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    accepted, _ = listener.accept()
                    with accepted:
                        accepted.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

        threading.Thread(target=serve, daemon=True).start()
        url = f"leafdb://127.0.0.1:{listener.getsockname()[1]}"
        with leafdb.connect(url, timeout=1.0) as db, pytest.raises(ConnectFailed, match="handshake failed"):
            db.ping()
        listener.shutdown(socket.SHUT_RDWR)


def test_pings_and_answers_to_nobody_are_borne() -> None:
    """Late answers and questions are no fault; an answer to a question never asked ends the connection."""

    def chatty(session: Session, frame: Frame) -> None:
        session.send_raw(encode_frame(MessageType.PING, 5, b"") * 3)
        session.send_raw(encode_frame(MessageType.GET_REPLY, max(0, frame.request_id - 1), b""))
        session.node.answer(session, frame)

    with FakeCluster() as cluster, leafdb.connect(cluster.url) as db:
        cluster.create("b")
        cluster.node.script(MessageType.GET, *[chatty] * 5)
        for _ in range(5):
            db.bucket("b").get("k")
        assert len(cluster.node.sessions) == 1
