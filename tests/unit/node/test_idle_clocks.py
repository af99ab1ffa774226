"""Timers and the engine's clock cost nothing while nothing is due, and are as prompt as ever when something is."""

from __future__ import annotations

from random import Random

import pytest
import trio

from leafdb.node.timers import TICK_S, TimingWheel
from leafdb.testing.cluster import memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import Durability, NodeId


class Entry:
    def __init__(self, deadline: float) -> None:
        self.slot = 0
        self.deadline = deadline
        self.at: float | None = None

    def expired(self) -> None:
        self.at = trio.current_time()


class Turns(TimingWheel):
    turns = 0

    def turn(self) -> None:
        self.turns += 1
        super().turn()


@virtual
async def test_a_wheel_that_runs_fires_within_a_tick_whenever_entries_come_and_sleeps_in_between() -> None:
    rng = Random(1)
    wheel = Turns(trio.current_time)
    entries = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wheel.run)
        for _ in range(500):
            await trio.sleep(rng.choice((0.0, 0.001, 1.0, 60.0)))
            entry = Entry(trio.current_time() + rng.choice((0.0, 0.02, 0.5, 20.0, 300.0)) * rng.random())
            entries.append(entry)
            wheel.add(entry, entry.deadline)
            wheel.check()
        await trio.sleep(301)
        nursery.cancel_scope.cancel()
    for entry in entries:
        assert entry.at is not None
        assert -1e-9 <= entry.at - entry.deadline <= 2 * TICK_S
    assert wheel.turns <= 2 * len(entries) + 2


@virtual
async def test_a_periodic_write_after_an_idle_time_is_synced_within_the_interval() -> None:
    async with memory_cluster(1) as cluster:
        bucket = await cluster.create_bucket(n=1, durability=Durability.PERIODIC)
        client = await cluster.client(NodeId(1))
        engine = cluster.nodes[NodeId(1)].engine
        for number in range(20):
            await trio.sleep(3.21)
            await client.put(bucket, f"k{number}", b"v", w=1)
            written = engine.safe_sequence(Durability.PERIODIC)
            await trio.sleep(0.1)
            assert engine.safe_sequence(Durability.ALWAYS) >= written


@virtual
async def test_a_disk_that_fills_while_nothing_is_written_is_noticed_by_the_first_writes() -> None:
    async with memory_cluster(1) as cluster:
        bucket = await cluster.create_bucket(n=1)
        client = await cluster.client(NodeId(1))
        await trio.sleep(10)
        cluster.fill_disk(NodeId(1))
        await trio.sleep(1.1)
        with pytest.raises(Exception, match="free"):
            await client.put(bucket, "k", b"v", w=1)
