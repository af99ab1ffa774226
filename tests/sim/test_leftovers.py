"""Copies of ranges that are somebody else's since the ring changed: given away, then dropped, never lost (I21)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from leafdb.model.key import encode_key as encode
from leafdb.model.record import merge
from leafdb.ring.staging import Leave
from leafdb.ring.token import storage_key
from leafdb.testing.cluster import memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import Conflict, Durability, NodeId
from support.drop_guard import (
    Guard,
    assert_whole,
    ended_while_away,
    fill,
    holders_of,
    only_on,
)
from support.plans import Steps, by_hand
from support.repairs import plant, record_of

N1, N2, N3, N4, N5 = map(NodeId, range(1, 6))


@pytest.fixture(autouse=True)
def _by_hand() -> Iterator[None]:
    with by_hand():
        yield


@virtual
async def test_old_copies_go_when_the_new_owners_have_them_and_not_before() -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket()
        guard = Guard(cluster, bucket)
        values = await fill(cluster, bucket)
        await cluster.settle()
        steps = Steps(cluster)
        await steps.begin_join()
        await steps.end()
        await assert_whole(cluster, bucket, values)
        assert guard.drops
        assert sum(node.metrics.leftover_records_dropped_total for node in cluster.nodes.values()) == len(guard.drops)
        # What is given away once is looked for again now and then, and not found.
        drops = len(guard.drops)
        await cluster.pass_time(2_000)
        assert len(guard.drops) == drops


@virtual
async def test_a_node_that_was_away_for_the_whole_plan_brings_what_only_it_has() -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket()
        guard = Guard(cluster, bucket)
        values = await fill(cluster, bucket)
        await only_on(cluster, bucket, N4)
        held = {key for key in guard.stores[N4] if b"only" in key}
        await cluster.kill(N4)
        steps = Steps(cluster)
        await steps.begin_join()
        await steps.end()
        mine = {key for key in held if N4 in holders_of(cluster, bucket, key)}
        assert mine < held, "the plan takes something from it"
        await cluster.start(N4)
        await assert_whole(cluster, bucket, values)
        dropped = {key for node, key in guard.drops if node == N4}
        assert held - mine <= dropped
        for key in held - mine:
            assert all(key in guard.stores[holder] for holder in holders_of(cluster, bucket, key))


@virtual
async def test_a_copy_waits_for_a_holder_that_is_away_and_says_so() -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket(n=2)
        guard = Guard(cluster, bucket)
        values = await fill(cluster, bucket)
        await cluster.settle()
        steps = Steps(cluster)
        await steps.begin_join()
        await ended_while_away(steps, N5)
        await cluster.pass_time(3_600)
        waiting = [node for node in cluster.nodes.values() if node.estate.leftovers.ranges]
        assert waiting
        for node in waiting:
            (problem,) = node.estate.problems()
            assert "n5 (cannot be reached)" in problem
        assert not any(N5 in holders_of(cluster, bucket, key) for _, key in guard.drops)
        await cluster.start(N5)
        await assert_whole(cluster, bucket, values)
        assert any(N5 in holders_of(cluster, bucket, key) for _, key in guard.drops)


@virtual
@pytest.mark.parametrize("after", [1, 7, 20])
@pytest.mark.parametrize("everybody", [False, True])
async def test_power_that_goes_in_the_middle_loses_nothing(after: int, everybody: bool) -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket(durability=Durability.PERIODIC)
        guard = Guard(cluster, bucket)
        values = await fill(cluster, bucket)
        only = await only_on(cluster, bucket, N4)
        await trio.sleep(10)  # all of it is synced
        guard.stop_at = after
        steps = Steps(cluster)
        await steps.begin_join()
        await steps.end()
        with trio.fail_after(100):
            await guard.stopped.wait()
        # Nothing stays that was not synced: what a holder said it has it must still have.
        cut = tuple(node for node in cluster.nodes if everybody or node != guard.drops[-1][0])
        await cluster.power_cut(*cut, keep=0.0)
        await cluster.restart(*cut)
        await assert_whole(cluster, bucket, values)
        for number, key in enumerate(only):
            for node in cluster.primaries(bucket, key):
                assert await cluster.record(node, bucket, key) == record_of(number)


@virtual
async def test_a_record_that_comes_late_to_a_node_that_holds_nothing_of_its_range_is_found() -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket()
        Guard(cluster, bucket)
        key = cluster.key_of(bucket, N1, N2, N3)
        await plant(cluster.nodes[N4], "b", key, record_of(1))
        await cluster.pass_time(700)
        assert await cluster.record(N4, bucket, key) is None
        for node in (N1, N2, N3):
            assert await cluster.record(node, bucket, key) == record_of(1)


@virtual
async def test_a_record_that_changes_while_it_is_given_away_stays_until_the_change_is_given_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket()
        guard = Guard(cluster, bucket)
        key = cluster.key_of(bucket, N1, N2, N3)
        node = cluster.nodes[N4]
        await plant(node, "b", key, record_of(1))
        mover, entrusted = node.anti_entropy.mover, 0
        entrust = mover.entrust

        async def entrust_and_change(*args: object) -> None:
            nonlocal entrusted
            await entrust(*args)  # type: ignore[arg-type]
            entrusted += 1
            if entrusted == 3:
                await plant(node, "b", key, record_of(2))

        monkeypatch.setattr(mover, "entrust", entrust_and_change)
        await cluster.pass_time(700)
        assert entrusted == 6
        assert len(guard.drops) == 1
        merged = merge(record_of(1), record_of(2), Conflict.SIBLINGS)
        for holder in (N1, N2, N3):
            assert await cluster.record(holder, bucket, key) == merged


@virtual
async def test_a_range_that_comes_back_while_it_is_given_away_is_not_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket()
        guard = Guard(cluster, bucket)
        leaver = N1
        key = next(
            key
            for key in (f"x{number}" for number in range(1_000))
            if cluster.primaries(bucket, key)[:2] == (leaver, N2) and N4 not in cluster.primaries(bucket, key)
        )
        node = cluster.nodes[N4]
        await plant(node, "b", key, record_of(1))
        mover = node.anti_entropy.mover
        entrust = mover.entrust
        entrusted = 0

        async def entrust_and_wait(*args: object) -> None:
            nonlocal entrusted
            await entrust(*args)  # type: ignore[arg-type]
            entrusted += 1
            if entrusted == 3:  # the last holder has it, and the next step would be to drop it
                await Steps(cluster, N2).begin(Leave(leaver))

        monkeypatch.setattr(mover, "entrust", entrust_and_wait)
        await cluster.pass_time(700)
        assert entrusted == 3
        assert N4 in holders_of(cluster, bucket, storage_key(bucket.id, encode(key)))
        assert not guard.drops
        assert await cluster.record(N4, bucket, key) == record_of(1)
