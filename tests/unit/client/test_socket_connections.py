"""What watching the socket oneself must not lose: leaders that leave, sockets that are full, waits that end early."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import anyio
import pytest

import leafdb
from leafdb import BLIND, Found, Missing
from leafdb.errors import DeadlineExceeded, LeafdbError
from leafdb.wire.registry import MessageType
from unit.client.fake_node import FakeCluster, hang_up, silence, when

BACKENDS = pytest.mark.parametrize("backend", ["trio", "asyncio"])


def run(backend: str, function: Callable[[], Awaitable[None]]) -> None:
    anyio.run(function, backend=backend)


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not condition():  # noqa: ASYNC110  another thread's log
            await anyio.sleep(0.001)


@BACKENDS
def test_when_the_one_who_reads_is_cancelled_another_reads(backend: str) -> None:
    async def main() -> None:
        with FakeCluster() as cluster:
            cluster.create("b")
            async with leafdb.connect_async(cluster.url) as db:
                raw = db.bucket("b")
                await raw.put("k", b"v", after=BLIND)
                release = threading.Event()
                cluster.node.script(MessageType.GET, silence, when(release), when(release))
                answers = []

                async def ask() -> None:
                    answers.append(await raw.get("k"))

                first = anyio.CancelScope()

                async def ask_and_leave() -> None:
                    with first:
                        await raw.get("k")

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(ask_and_leave)
                    await until(lambda: len(cluster.asked(MessageType.GET)) == 1)
                    tasks.start_soon(ask)
                    tasks.start_soon(ask)
                    await until(lambda: len(cluster.asked(MessageType.GET)) == 3)
                    first.cancel()
                    await anyio.sleep(0.01)
                    release.set()
                assert len(answers) == 2
                assert all(isinstance(answer, Found) for answer in answers)
                assert len(cluster.node.sessions) == 1

    run(backend, main)


@BACKENDS
def test_a_full_socket_holds_requests_back_and_loses_none(backend: str) -> None:
    async def main() -> None:
        with FakeCluster() as cluster:
            cluster.create("b")
            async with leafdb.connect_async(cluster.url, timeout=30.0) as db:
                raw = db.bucket("b")
                await raw.get("k")
                cluster.node.frozen.set()
                done = []

                async def write(number: int) -> None:
                    await raw.put(f"k{number}", bytes([number]) * 900_000, after=BLIND)
                    done.append(number)

                async with anyio.create_task_group() as tasks:
                    for number in range(20):
                        tasks.start_soon(write, number)
                    await anyio.sleep(0.05)
                    with anyio.move_on_after(0.05):
                        await raw.put("never sent", b"x", after=BLIND)
                    cluster.node.frozen.clear()
                assert sorted(done) == list(range(20))
                assert isinstance(await raw.get("never sent"), Missing)
                answer = await raw.get("k7")
                assert isinstance(answer, Found)
                assert answer.value == b"\x07" * 900_000

    run(backend, main)


@BACKENDS
def test_each_call_ends_at_its_own_deadline(backend: str) -> None:
    """One look-out serves all: a nearer deadline that comes later must be seen in time, a farther one not cut short."""

    async def main() -> None:
        with FakeCluster() as cluster:
            cluster.create("b")
            async with leafdb.connect_async(cluster.url) as db:
                raw = db.bucket("b")
                await raw.get("k")
                release = threading.Event()
                cluster.node.script(MessageType.GET, when(release), *[silence] * 3)
                answers: list[object] = []
                late: list[float] = []

                async def patient() -> None:
                    answers.append(await raw.get("k", timeout=10.0))

                async def hurried(timeout: float) -> None:
                    with pytest.raises(DeadlineExceeded):
                        await raw.get("k", timeout=timeout)
                    late.append(timeout)

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(patient)
                    await until(lambda: len(cluster.asked(MessageType.GET)) == 2)
                    for timeout in (0.09, 0.06, 0.03):
                        tasks.start_soon(hurried, timeout)
                    await until(lambda: len(late) == 3)
                    release.set()
                assert late == [0.03, 0.06, 0.09]
                assert isinstance(answers[0], Missing)
                assert len(cluster.node.sessions) == 1

    run(backend, main)


@BACKENDS
def test_closing_the_client_ends_everybody_s_wait(backend: str) -> None:
    async def main() -> None:
        with FakeCluster() as cluster:
            cluster.create("b")
            async with leafdb.connect_async(cluster.url) as db:
                raw = db.bucket("b")
                await raw.get("k")
                cluster.node.script(MessageType.GET, *[silence] * 4)
                ended = []

                async def ask() -> None:
                    with pytest.raises(LeafdbError):
                        await raw.get("k")
                    ended.append(True)

                async with anyio.create_task_group() as tasks:
                    for _ in range(4):
                        tasks.start_soon(ask)
                    await until(lambda: len(cluster.asked(MessageType.GET)) == 5)
                    await db.close()
                assert len(ended) == 4

    run(backend, main)


@BACKENDS
def test_a_connection_that_ended_while_nobody_waited_is_replaced(backend: str) -> None:
    async def main() -> None:
        with FakeCluster() as cluster:
            cluster.create("b")
            async with leafdb.connect_async(cluster.url) as db:
                raw = db.bucket("b")
                for count in range(1, 4):
                    await raw.put(f"k{count}", b"v", after=BLIND)
                    assert len(cluster.node.sessions) == count
                    cluster.node.sessions[-1].hang_up()
                    await anyio.sleep(0.02)

    run(backend, main)


@BACKENDS
def test_one_connection_s_end_is_told_to_all_who_wait(backend: str) -> None:
    async def main() -> None:
        with FakeCluster() as cluster:
            cluster.create("b")
            async with leafdb.connect_async(cluster.url) as db:
                raw = db.bucket("b")
                await raw.get("k")
                cluster.node.script(MessageType.GET, *[silence] * 5, hang_up)
                async with anyio.create_task_group() as tasks:
                    for _ in range(6):  # reads: each goes on over a new connection
                        tasks.start_soon(raw.get, "k")
                assert len(cluster.node.sessions) == 2

    run(backend, main)


def test_asyncio_s_own_cancellation_and_timeouts() -> None:
    async def main() -> None:
        with FakeCluster() as cluster:
            cluster.create("b")
            async with leafdb.connect_async(cluster.url) as db:
                raw = db.bucket("b")
                await raw.put("k", b"v", after=BLIND)
                cluster.node.script(MessageType.GET, silence, silence)
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(raw.get("k"), 0.05)
                task = asyncio.create_task(raw.get("k"))
                await until(lambda: len(cluster.asked(MessageType.GET)) == 2)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                answers = await asyncio.gather(*(raw.get("k") for _ in range(10)))
                assert all(isinstance(answer, Found) for answer in answers)

    asyncio.run(main())


def test_a_task_that_closes_the_client_on_its_answer_leaves_the_others_whole() -> None:
    """Under asyncio it runs in the middle of handing out."""

    async def main() -> None:
        with FakeCluster() as cluster:
            cluster.create("b")
            async with leafdb.connect_async(cluster.url) as db:
                raw = db.bucket("b")
                await raw.get("k")
                release = threading.Event()
                cluster.node.script(MessageType.GET, *[when(release)] * 8)
                ends = []

                async def ask() -> None:
                    try:
                        await raw.get("k")
                    except LeafdbError as error:
                        ends.append(str(error))
                    else:
                        ends.append("")
                        await db.close()

                async with asyncio.TaskGroup() as tasks:
                    for _ in range(8):
                        tasks.create_task(ask())
                    await until(lambda: len(cluster.asked(MessageType.GET)) == 9)
                    release.set()
                assert len(ends) == 8
                assert "" in ends

    asyncio.run(main())
