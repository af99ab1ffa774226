"""Using a client where it cannot work raises ClientMisuse and says what to do: another loop, a fork, after its end."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable

import anyio
import pytest

import leafdb
from leafdb import BLIND
from unit.client.fake_node import FakeCluster

LOOPS = ["trio", "asyncio"]
FORKS = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


def refusal_in_a_thread(work: Callable[[], Awaitable[object]], backend: str) -> leafdb.ClientMisuse:
    """What `work` is refused with in the event loop of another thread."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            anyio.run(work, backend=backend)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    (failure,) = failures
    assert isinstance(failure, leafdb.ClientMisuse), failure
    return failure


@pytest.mark.parametrize("opened", LOOPS)
@pytest.mark.parametrize("used", LOOPS)
def test_every_call_in_another_threads_loop_is_refused_and_costs_nothing(opened: str, used: str) -> None:
    async def main() -> None:
        with FakeCluster() as cluster:
            cluster.create("b")
            async with leafdb.connect_async(cluster.url) as db:
                raw = db.bucket("b")
                await raw.put("k", b"v", after=BLIND)

                async def scanned() -> None:
                    async for _ in raw.scan():
                        pass

                calls: list[Callable[[], Awaitable[object]]] = [
                    db.ping, db.status, lambda: raw.get("k"), lambda: raw.get_many(["k"]), scanned,
                    lambda: raw.put("k", b"w", after=BLIND), lambda: raw.put_many([leafdb.Put("k", b"w", BLIND)]),
                ]  # fmt: skip
                for call in calls:
                    refusal = await anyio.to_thread.run_sync(refusal_in_a_thread, call, used)
                    assert "another event loop" in str(refusal)
                    assert "connect again in this one" in str(refusal), "what to do"
                found = await raw.get("k")
                assert isinstance(found, leafdb.Found)
                assert found.value == b"v"
                assert len(cluster.node.sessions) == 1

    anyio.run(main, backend=opened)


@pytest.mark.parametrize("backend", LOOPS)
def test_a_client_does_not_outlive_its_loop(backend: str) -> None:
    with FakeCluster() as cluster:
        kept: list[leafdb.AsyncClient] = []

        async def first() -> None:
            async with leafdb.connect_async(cluster.url) as db:
                await db.ping()
                kept.append(db)

        async def second() -> None:
            with pytest.raises(leafdb.ClientMisuse, match="closed"):
                await kept[0].ping()
            with pytest.raises(leafdb.ClientMisuse, match="connect again"):
                async with kept[0]:
                    pass

        anyio.run(first, backend=backend)
        anyio.run(second, backend=backend)


def in_a_child(work: Callable[[], None]) -> None:
    """Run `work` in a forked child; fails when it fails there."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@FORKS
def test_after_a_fork_every_call_of_the_old_client_is_refused_and_a_new_one_works() -> None:
    with FakeCluster() as cluster, leafdb.connect(cluster.url) as db:
        cluster.create("b")
        raw = db.bucket("b")
        written = raw.put("k", b"v", after=BLIND)

        def child() -> None:
            calls: list[Callable[[], object]] = [
                db.ping, db.buckets, lambda: raw.get("k"), lambda: raw.get_many(["k"]), lambda: next(raw.scan()),
                lambda: raw.put("k", b"w", after=BLIND), lambda: db.outcome(written.op_id),
            ]  # fmt: skip
            for call in calls:
                with pytest.raises(leafdb.ClientMisuse, match="connect again in the child"):
                    call()
            db.close()
            with leafdb.connect(cluster.url) as fresh:
                answer = fresh.bucket("b").get("k")
                assert isinstance(answer, leafdb.Found)
                assert answer.value == b"v"

        in_a_child(child)
        answer = raw.get("k")
        assert isinstance(answer, leafdb.Found), "the parent's connection is unharmed"
        assert answer.value == b"v"


@FORKS
def test_after_a_fork_an_embedded_store_is_the_parents() -> None:
    with leafdb.open(":memory:") as db:
        db.create_bucket("b")

        def child() -> None:
            with pytest.raises(leafdb.ClientMisuse, match="fork"):
                db.bucket("b").get("k")
            db.close()

        in_a_child(child)
        db.bucket("b").put("k", b"v", after=BLIND)
        assert isinstance(db.bucket("b").get("k"), leafdb.Found)


def test_after_its_end_a_client_says_so() -> None:
    with FakeCluster() as cluster:
        cluster.create("b")
        with leafdb.connect(cluster.url) as db:
            raw = db.bucket("b")
            raw.get("k")
        for call in (db.ping, lambda: raw.get("k"), lambda: raw.put("k", b"v", after=BLIND)):
            with pytest.raises(leafdb.ClientMisuse, match="closed"):
                call()
        with pytest.raises(leafdb.ClientMisuse, match="closed"), db:
            pass
