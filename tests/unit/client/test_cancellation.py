"""A caller that is cancelled, or runs out of time, at any moment: nobody else is ever given its answer.

Every key holds a value that names the key, so an answer that went astray shows. The storms run against a node of
script, whose answers come late and in any order, and against a real one; under trio, under asyncio, and with threads,
which have deadlines where tasks have cancellation.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from random import Random

import anyio
import pytest

import leafdb
from leafdb import BLIND, Found, Missing
from leafdb.wire.frame import Frame
from leafdb.wire.registry import MessageType
from unit.client.fake_node import FakeCluster, Session

KEYS = 40
CALLERS = 24
TURNS = 30
PATIENCE_S = (0.0, 0.0002, 0.001, 0.003, 0.01, 30.0)
BACKENDS = pytest.mark.parametrize("backend", ["trio", "asyncio"])
SEEDS = pytest.mark.parametrize("seed", [1, 2])


def value_of(key: int) -> bytes:
    return b"value of %d" % key


def own(answer: leafdb.Failed | Found[bytes] | Missing | leafdb.Conflict[bytes], key: int) -> None:
    """An answer is that of the key that was asked for."""
    assert isinstance(answer, Found)
    assert answer.value == value_of(key)


def slow_nodes(cluster: FakeCluster, rng: Random) -> None:
    """Reads and writes are answered at once, or a little later from another thread, so in any order."""

    def act(session: Session, frame: Frame) -> None:
        pause_s = rng.choice((0.0, 0.0, 0.001, 0.004))
        if pause_s:
            timer = threading.Timer(pause_s, session.node.answer, (session, frame))
            timer.daemon = True
            timer.start()
        else:
            session.node.answer(session, frame)

    for message_type in (MessageType.GET, MessageType.PUT):
        cluster.node.script(message_type, *[act] * 20_000)


@asynccontextmanager
async def client(kind: str, seed: int) -> AsyncIterator[leafdb.AsyncClient]:
    """A client of a node of script, or of a real one."""
    if kind == "real":
        async with leafdb.open_async(":memory:") as db:
            await db.create_bucket("b")
            yield db
        return
    with FakeCluster() as cluster:
        cluster.create("b")
        slow_nodes(cluster, Random(seed))
        async with leafdb.connect_async(cluster.url) as db:
            yield db
        assert len(cluster.node.sessions) == 1, "a cancelled call does not cost the connection"


@BACKENDS
@SEEDS
@pytest.mark.parametrize("kind", ["script", "real"])
def test_cancelled_at_any_moment_a_call_s_answer_reaches_nobody_else(kind: str, backend: str, seed: int) -> None:
    told: Counter[str] = Counter()

    async def caller(raw: leafdb.AsyncSiblingBucket[bytes], number: int, written: dict[str, bool]) -> None:
        rng = Random(f"{seed}/{number}")
        for turn in range(TURNS):
            key = rng.randrange(KEYS)
            what = rng.choice(("get", "get", "get_many", "put"))
            mine = f"{number}/{turn}"
            with anyio.move_on_after(rng.choice(PATIENCE_S)) as patience:
                if what == "get":
                    own(await raw.get(str(key)), key)
                elif what == "get_many":
                    wanted = [rng.randrange(KEYS) for _ in range(5)]
                    for each, answer in zip(wanted, await raw.get_many(map(str, wanted)), strict=True):
                        own(answer, each)
                else:
                    written[mine] = False
                    await raw.put(mine, mine.encode(), after=BLIND)
                    written[mine] = True
            told["cancelled" if patience.cancelled_caught else "answered"] += 1

    async def main() -> None:
        async with client(kind, seed) as db:
            raw = db.bucket("b")
            puts = [leafdb.Put(str(key), value_of(key), BLIND) for key in range(KEYS)]
            assert not [each for each in await raw.put_many(puts) if isinstance(each, leafdb.Failed)]
            written: dict[str, bool] = {}
            async with anyio.create_task_group() as tasks:
                for number in range(CALLERS):
                    tasks.start_soon(caller, raw, number, written)
            for key, acknowledged in written.items():
                answer = await raw.get(key)
                if acknowledged:
                    assert isinstance(answer, Found)
                if isinstance(answer, Found):
                    assert answer.value == key.encode()

    anyio.run(main, backend=backend)
    assert told["answered"] > 50
    assert told["cancelled"] > 50


@contextmanager
def blocking_client(kind: str, seed: int) -> Iterator[leafdb.Client]:
    """The same on blocking sockets."""
    if kind == "real":
        with leafdb.open(":memory:") as db:
            db.create_bucket("b")
            yield db
        return
    with FakeCluster() as cluster:
        cluster.create("b")
        slow_nodes(cluster, Random(seed))
        with leafdb.connect(cluster.url) as db:
            yield db
        assert len(cluster.node.sessions) == 1


@SEEDS
@pytest.mark.parametrize("kind", ["script", "real"])
def test_out_of_time_at_any_moment_a_thread_s_answer_reaches_no_other_thread(kind: str, seed: int) -> None:
    def caller(number: int) -> Counter[str]:
        rng = Random(f"{seed}/{number}")
        told: Counter[str] = Counter()
        for _ in range(TURNS):
            key = rng.randrange(KEYS)
            try:
                own(raw.get(str(key), timeout=max(0.0001, rng.choice(PATIENCE_S))), key)
            except leafdb.DeadlineExceeded:
                told["expired"] += 1
            else:
                told["answered"] += 1
        return told

    with blocking_client(kind, seed) as db:
        raw = db.bucket("b")
        raw.put_many(leafdb.Put(str(key), value_of(key), BLIND) for key in range(KEYS))
        with ThreadPoolExecutor(8) as pool:
            told = sum(pool.map(caller, range(8)), Counter[str]())
    assert told["answered"] > 20
    assert told["expired"] > 5
