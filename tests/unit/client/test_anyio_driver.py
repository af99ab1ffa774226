"""What only the asynchronous client promises: cancellation, one event loop, any transport, virtual time."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
import trio
import trio.testing

import leafdb
from leafdb import BLIND, Found, Missing
from leafdb.client.anyio_connection import Transport
from leafdb.client.connect import async_client_over
from leafdb.client.url import Address
from leafdb.errors import DeadlineExceeded
from leafdb.wire.connection import Connection
from leafdb.wire.frame import encode_frame
from leafdb.wire.handshake import ServerHello
from leafdb.wire.registry import MessageType
from unit.client.fake_node import FakeCluster, silence, when

BACKENDS = pytest.mark.parametrize("backend", ["trio", "asyncio"])


def run(backend: str, function: Callable[[], Awaitable[None]]) -> None:
    anyio.run(function, backend=backend)


@BACKENDS
def test_a_cancelled_call_s_answer_reaches_nobody_else(backend: str) -> None:
    async def main() -> None:
        with FakeCluster() as cluster:
            cluster.create("b")
            async with leafdb.connect_async(cluster.url) as db:
                raw = db.bucket("b")
                await raw.put("slow", b"slow", after=BLIND)
                await raw.put("fast", b"fast", after=BLIND)
                release = threading.Event()
                cluster.node.script(MessageType.GET, *[when(release)] * 10)
                async with anyio.create_task_group() as tasks:
                    for _ in range(10):
                        tasks.start_soon(raw.get, "slow")
                    while len(cluster.asked(MessageType.GET)) < 10:  # noqa: ASYNC110  another thread's log
                        await anyio.sleep(0.001)
                    tasks.cancel_scope.cancel()
                release.set()
                for _ in range(30):
                    answer = await raw.get("fast")
                    assert isinstance(answer, Found)
                    assert answer.value == b"fast"
                assert len(cluster.node.sessions) == 1

    run(backend, main)


@BACKENDS
def test_a_call_cancelled_before_it_was_sent_never_is(backend: str) -> None:
    async def main() -> None:
        with FakeCluster() as cluster:
            cluster.create("b")
            async with leafdb.connect_async(cluster.url) as db:
                raw = db.bucket("b")
                await raw.get("k")
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await raw.put("k", b"1", after=BLIND)
                assert isinstance(await raw.get("k"), Missing)
                assert not cluster.asked(MessageType.PUT)

    run(backend, main)


@BACKENDS
def test_a_cancelled_caller_does_not_take_the_connection_from_others(backend: str) -> None:
    async def main() -> None:
        with FakeCluster() as cluster:
            cluster.create("b")
            async with leafdb.connect_async(cluster.url, routing="listed") as db:
                async with anyio.create_task_group() as tasks:
                    with anyio.CancelScope() as scope:
                        tasks.start_soon(db.bucket("b").get, "k")
                        scope.cancel()
                        await db.ping()
                assert isinstance(await db.bucket("b").get("k"), Missing)
                assert len(cluster.node.sessions) == 1

    run(backend, main)


@BACKENDS
def test_many_tasks_share_one_connection(backend: str) -> None:
    async def main() -> None:
        with FakeCluster() as cluster:
            cluster.create("b")
            async with leafdb.connect_async(cluster.url) as db:
                raw = db.bucket("b")

                async def work(task: int) -> None:
                    for turn in range(20):
                        key, value = f"{task}/{turn}", b"%d/%d" % (task, turn)
                        await raw.put(key, value, after=BLIND)
                        answer = await raw.get(key)
                        assert isinstance(answer, Found)
                        assert answer.value == value

                async with anyio.create_task_group() as tasks:
                    for task in range(20):
                        tasks.start_soon(work, task)
                assert len(cluster.node.sessions) == 1

    run(backend, main)


@BACKENDS
def test_a_client_belongs_to_the_loop_that_opened_it(backend: str) -> None:
    with FakeCluster() as cluster:
        kept: list[leafdb.AsyncClient] = []

        async def open_it() -> None:
            kept.append(await leafdb.connect_async(cluster.url).__aenter__())
            failures: list[BaseException] = []

            def elsewhere() -> None:
                try:
                    anyio.run(kept[0].ping, backend="asyncio")
                except leafdb.ClientMisuse as error:
                    failures.append(error)

            await anyio.to_thread.run_sync(elsewhere)
            assert "another event loop" in str(failures[0])
            await kept[0].__aexit__(None, None, None)

        run(backend, open_it)


@BACKENDS
def test_outside_its_block_a_client_says_how_to_use_it(backend: str) -> None:
    async def main() -> None:
        db = leafdb.connect_async("leafdb://127.0.0.1:1")
        with pytest.raises(leafdb.ClientMisuse, match="async with"):
            await db.ping()
        async with db:
            pass
        with pytest.raises(leafdb.ClientMisuse):
            await db.__aenter__()

    run(backend, main)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_the_child_of_a_fork_is_refused() -> None:
    async def main() -> None:
        with FakeCluster() as cluster:
            async with leafdb.connect_async(cluster.url) as db:
                await db.ping()
                pid = os.fork()
                if pid == 0:
                    try:
                        await db.ping()
                    except leafdb.ClientMisuse:
                        os._exit(0)
                    finally:
                        os._exit(1)
                _, status = os.waitpid(pid, 0)  # noqa: ASYNC222  the child only raises and exits
                assert os.waitstatus_to_exitcode(status) == 0
                await db.ping()

    run("asyncio", main)


@BACKENDS
def test_a_cancelled_block_ends_without_a_word(backend: str) -> None:
    async def main() -> None:
        with FakeCluster() as cluster:
            cluster.create("b")
            with anyio.move_on_after(0.1) as scope:
                async with leafdb.connect_async(cluster.url) as db:
                    await db.bucket("b").get("k")
                    cluster.node.script(MessageType.GET, silence)
                    await db.bucket("b").get("k")
            assert scope.cancelled_caught

    run(backend, main)


@BACKENDS
def test_a_ping_of_the_node_is_answered(backend: str) -> None:
    async def main() -> None:
        with FakeCluster() as cluster:
            async with leafdb.connect_async(cluster.url) as db:
                await db.ping()
                cluster.node.sessions[0].send(MessageType.PING, 99, b"")
                while not cluster.node.asked(MessageType.PONG):
                    await db.ping()
                assert cluster.node.asked(MessageType.PONG)[0].request_id == 99

    run(backend, main)


class MemoryTransport:
    """One end of trio's in-memory streams, as the client's seam wants it."""

    def __init__(self, stream: trio.StapledStream[Any, Any]) -> None:
        self._stream = stream

    async def send(self, item: bytes, /) -> None:
        await self._stream.send_all(item)

    async def receive(self, max_bytes: int = 65_536, /) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    async def aclose(self) -> None:
        await self._stream.aclose()


def test_in_memory_under_virtual_time() -> None:
    """Any transport will do, and a minute's deadline takes no time where the clock is virtual."""
    with FakeCluster() as cluster:
        cluster.create("b")

        async def main() -> None:
            async with trio.open_nursery() as nursery:

                async def serve(stream: trio.StapledStream[Any, Any]) -> None:
                    wire = Connection(ServerHello(cluster.node.facts()))
                    silent = False
                    while data := bytes(await stream.receive_some(65_536)):
                        frames = wire.receive(data)
                        await stream.send_all(wire.take_output() or b"")
                        for frame in frames:
                            if not silent:
                                reply_type, body = cluster.reply_to(frame)
                                await stream.send_all(encode_frame(reply_type, frame.request_id, body))
                            silent = silent or frame.type == MessageType.GET

                async def dial(address: Address) -> Transport:
                    ours, theirs = trio.testing.memory_stream_pair()
                    nursery.start_soon(serve, theirs)
                    return MemoryTransport(ours)

                async with async_client_over([Address("sim", 1)], dial=dial, timeout=60.0, routing="listed") as db:
                    assert isinstance(await db.bucket("b").get("k"), Missing)
                    began = trio.current_time()
                    with pytest.raises(DeadlineExceeded):
                        await db.bucket("b").get("k")
                    assert 59.0 < trio.current_time() - began < 61.0
                nursery.cancel_scope.cancel()

        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.01))
