"""Virtual time: the same seed gives the same order, and a frozen owner's tasks wait."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from leafdb.testing.cluster import memory_cluster
from leafdb.testing.process import Life, MemoryExecutor
from leafdb.testing.raw_client import Severed
from leafdb.testing.virtual_time import current_schedule, own_tasks, run_virtual, self_test, virtual
from leafdb.types import NodeId

N1, N2, N3 = NodeId(1), NodeId(2), NodeId(3)


def test_this_trio_does_what_virtual_time_relies_on() -> None:
    self_test()


def test_freezing_without_virtual_time_is_refused() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="virtual time"):
            current_schedule()

    trio.run(main)


@virtual
async def test_a_frozen_task_is_cancelled_once_it_is_thawed() -> None:
    story: list[str] = []

    async def frozen(scope: trio.CancelScope) -> None:
        own_tasks("frozen")
        with scope:
            try:
                await trio.sleep(5)
            finally:
                story.append("cancelled")

    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(frozen, scope)
        await trio.sleep(1)
        current_schedule().freeze("frozen")
        scope.cancel()
        await trio.sleep(1)
        assert not story
        current_schedule().thaw("frozen")
    assert story == ["cancelled"]


@virtual
async def test_what_a_frozen_process_wants_called_waits_and_keeps_its_order() -> None:
    called: list[int] = []
    async with trio.open_nursery() as nursery:
        life = Life(nursery, "process")
        life.soon(partial(called.append, 0))
        await trio.sleep(1)
        current_schedule().freeze("process")
        executor = MemoryExecutor(life)
        for number in (1, 2, 3):
            life.soon(partial(called.append, number))
            executor.submit(lambda: None, lambda _, number=number: called.append(10 * number))  # type: ignore[misc]
        await trio.sleep(1)
        assert called == [0]
        current_schedule().thaw("process")
        await trio.sleep(1)
        assert [it for it in called if it < 10] == [0, 1, 2, 3]
        assert [it for it in called if it >= 10] == [10, 20, 30]
        life.soon(partial(called.append, 99))
        life.end()
    assert 99 not in called


@virtual
async def test_a_paused_node_neither_answers_nor_resets_and_goes_on() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N3)
        await client.put(bucket, "k", b"1", w=3)
        cluster.pause(N3)
        assert cluster.is_paused(N3)
        with pytest.raises(Severed):
            await client.get(bucket, "k", timeout_s=0.5)
        assert await (await cluster.client(N1)).values(bucket, "k", r=2, timeout_s=3.0) == [b"1"]
        await trio.sleep(60)
        cluster.resume(N3)
        await cluster.settle()
        assert await (await cluster.client(N3)).values(bucket, "k", r=3) == [b"1"]
        await cluster.assert_replicas_equal(bucket)


@virtual
async def test_a_paused_node_can_be_killed_and_started_again() -> None:
    async with memory_cluster(3) as cluster:
        cluster.pause(N2)
        await trio.sleep(10)
        await cluster.kill(N2)
        await cluster.restart(N2)
        assert not cluster.is_paused(N2)
        await cluster.settle()


def test_the_same_seed_gives_the_same_run() -> None:
    def run() -> list[tuple[str, str, bytes, float]]:
        seen: list[tuple[str, str, bytes, float]] = []

        async def main() -> None:
            async with memory_cluster(3, seed=3) as cluster:
                cluster.network.observer = lambda a, b, data: seen.append((a, b, data, trio.current_time()))
                bucket = await cluster.create_bucket()
                client = await cluster.client(N1)
                for number in range(20):
                    await client.put(bucket, f"k{number}", b"v", w=2)
                cluster.pause(N2)
                await trio.sleep(5)
                cluster.resume(N2)
                await cluster.settle()

        run_virtual(main, 3)
        return seen

    first = run()
    assert len(first) > 100
    assert first == run()
