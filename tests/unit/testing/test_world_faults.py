"""Every fault shows, and is gone when it is taken back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from leafdb.errors import LeafdbError, NotApplied
from leafdb.model.bucket import BucketProperties
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.faults import CLIENTS, Faults
from leafdb.testing.raw_client import Severed
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId

N1, N2, N3 = NodeId(1), NodeId(2), NodeId(3)
Fails = Callable[..., Awaitable[bool]]


@asynccontextmanager
async def troubled() -> AsyncIterator[tuple[MemoryCluster, Faults, BucketProperties, Fails]]:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        faults = Faults(cluster)

        async def fails(node: NodeId, w: int) -> bool:
            """Whether a write through a node does not find so many replicas within a second."""
            try:
                with trio.fail_after(5):
                    client = await cluster.client(node)
                    await client.put(bucket, "k", b"v", w=w, pw=w, timeout_s=1.0)
            except (LeafdbError, Severed, trio.TooSlowError):
                return True
            return False

        yield cluster, faults, bucket, fails
        faults.heal()
        await faults.start(*[node for node in cluster.disks if node not in cluster.nodes])
        await cluster.settle()
        assert not await fails(N1, 3)
        await cluster.assert_replicas_equal(bucket)


@pytest.mark.parametrize("silently", [True, False])
def test_a_partition_leaves_each_group_to_itself(silently: bool) -> None:
    @virtual
    async def test() -> None:
        async with troubled() as (_, faults, _bucket, fails):
            faults.partition([N1], [N2, N3], silently=silently)
            assert await fails(N1, 2)
            assert not await fails(N2, 2)

    test()


@virtual
async def test_a_node_that_is_heard_by_nobody_hears_everybody() -> None:
    async with troubled() as (_, faults, _bucket, fails):
        faults.cut_one_way(N1, N2, N3)
        assert await fails(N1, 2)


@virtual
async def test_clients_can_be_cut_off_from_one_node() -> None:
    async with troubled() as (_, faults, _bucket, fails):
        faults.cut(CLIENTS, N2)
        assert await fails(N2, 1)
        assert not await fails(N1, 3)


@virtual
async def test_delays_and_bandwidth_hold_for_one_way() -> None:
    async with troubled() as (cluster, faults, bucket, _):
        client = await cluster.client(N1)

        async def takes_s() -> float:
            began = trio.current_time()
            await client.put(bucket, "k", bytes(10_000), w=1, timeout_s=60)
            return trio.current_time() - began

        assert await takes_s() < 0.1
        faults.delay(CLIENTS, N1, 0.5)
        assert 0.5 <= await takes_s() < 0.7
        faults.delay(CLIENTS, N1, 0)
        faults.throttle(CLIENTS, N1, 5_000)
        assert await takes_s() >= 2.0
        faults.throttle(CLIENTS, N1, None)
        assert await takes_s() < 0.1


@virtual
async def test_dropped_connections_break_once() -> None:
    async with troubled() as (cluster, faults, bucket, fails):
        client = await cluster.client(N1)
        faults.drop(CLIENTS, N1)
        with pytest.raises(Severed):
            await client.get(bucket, "k")
        assert not await fails(N1, 3)


@virtual
async def test_a_paused_node_is_missed_and_comes_back() -> None:
    async with troubled() as (_, faults, _bucket, fails):
        with faults.paused(N3):
            assert await fails(N1, 3)
            assert not await fails(N1, 2)
        await trio.sleep(10)
        assert not await fails(N1, 3)


@pytest.mark.parametrize("how", ["kill", "vanish", "power_cut", "stop"])
def test_a_node_that_is_down_is_missed_and_starts_again(how: str) -> None:
    @virtual
    async def test() -> None:
        async with troubled() as (_, faults, _bucket, fails):
            match how:
                case "kill":
                    await faults.kill(N3)
                case "vanish":
                    await faults.kill(N3, vanish=True)
                case "power_cut":
                    await faults.power_cut(N3)
                case "stop":
                    await faults.stop(N3)
            assert await fails(N1, 3)
            with pytest.raises(ValueError, match="does not run"):
                await faults.kill(N3)
            await faults.start(N3)
            await trio.sleep(10)
            assert not await fails(N1, 3)

    test()


@virtual
async def test_a_full_disk_refuses_and_a_slow_one_takes_long() -> None:
    async with troubled() as (cluster, faults, bucket, fails):
        client = await cluster.client(N1)
        for node in cluster.disks:
            faults.fill_disk(node)
        await trio.sleep(2)
        with pytest.raises(NotApplied, match="bytes are free"):
            await client.put(bucket, "k", b"v", w=1)
        for node in cluster.disks:
            faults.free_disk(node)
        await trio.sleep(2)
        faults.slow_disk(N2, 3.0)
        assert await fails(N1, 3)


@virtual
async def test_a_clock_is_set_and_set_right() -> None:
    async with troubled() as (cluster, faults, _bucket, _fails):
        faults.skew(N2, -30)
        assert cluster.nodes[N2].world.now_ms() == cluster.now_ms() - 30_000
        faults.heal()
        assert cluster.nodes[N2].world.now_ms() == cluster.now_ms()


@virtual
async def test_what_makes_no_sense_is_refused() -> None:
    async with troubled() as (_, faults, _bucket, _fails):
        with pytest.raises(ValueError, match="no node 7"):
            faults.pause(7)
        with pytest.raises(ValueError, match="runs already"):
            await faults.start(N1)
        with pytest.raises(ValueError, match="negative"):
            faults.delay(N1, N2, -1)
        with pytest.raises(ValueError, match="bandwidth"):
            faults.throttle(N1, N2, 0)
