"""Hints for nodes that do not hold the key any more: they reach those who do, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from leafdb.hints.hint import Kind
from leafdb.hints.hint import decode as decode_hint
from leafdb.model.key import encode_key as encode
from leafdb.ring.staging import ForceRemove, Leave
from leafdb.ring.token import storage_key
from leafdb.testing.cluster import memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId
from support.drop_guard import (
    Guard,
    assert_whole,
    ended_while_away,
    fill,
    holders_of,
    keep,
    targets,
)
from support.plans import Steps, by_hand
from support.repairs import record_of
from support.transports import until

N1, N2, N3, N4, N5 = map(NodeId, range(1, 6))


@pytest.fixture(autouse=True)
def _by_hand() -> Iterator[None]:
    with by_hand():
        yield


@virtual
async def test_hints_for_a_removed_member_reach_those_who_hold_the_range_now() -> None:
    async with memory_cluster(5) as cluster:
        bucket = await cluster.create_bucket()
        Guard(cluster, bucket)
        values = await fill(cluster, bucket)
        await cluster.settle()
        await cluster.kill(N4)
        rng = Random(1)
        keys = [f"h{number}" for number in range(60) if N4 in cluster.primaries(bucket, f"h{number}")]
        assert len(keys) > 20
        for number, key in enumerate(keys):
            kind = rng.choice((Kind.FALLBACK, Kind.COORDINATOR))
            await keep(cluster, rng.choice((N1, N2, N3, N5)), N4, key, record_of(number), kind)
        steps = Steps(cluster)
        await steps.begin(ForceRemove(N4))
        await steps.end()
        await assert_whole(cluster, bucket, values)
        for number, key in enumerate(keys):
            for node in cluster.primaries(bucket, key):
                assert await cluster.record(node, bucket, key) == record_of(number)
        nodes = cluster.nodes.values()
        assert sum(node.metrics.hints_handed_on_total for node in nodes) == len(keys)
        assert not any(node.hints.ledger.targets() for node in nodes)


@virtual
async def test_hints_for_a_replaced_member_wait_under_the_name_of_a_holder_that_is_away() -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket()
        Guard(cluster, bucket)
        key = cluster.key_of(bucket, N1, N2, N4)
        await cluster.kill(N4)
        await keep(cluster, N3, N4, key, record_of(1), Kind.FALLBACK)
        steps = Steps(cluster)
        await steps.begin_replace(N4)
        await ended_while_away(steps, N5)
        await until(lambda: cluster.nodes[N3].estate.quiet, 100)
        assert await targets(cluster, N3) == {N5}
        (hint,) = (await cluster.hints(N3)).values()
        assert decode_hint(hint).kind is Kind.FALLBACK
        for node in (N1, N2):
            assert await cluster.record(node, bucket, key) == record_of(1)
        await cluster.start(N5)
        await cluster.settle()
        assert await cluster.record(N5, bucket, key) == record_of(1)
        assert not await cluster.hints(N3)
        await cluster.assert_replicas_equal(bucket)


@virtual
async def test_without_room_for_another_hint_the_one_for_the_gone_stays_and_is_shown_as_such() -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket()
        key = cluster.key_of(bucket, N1, N2, N4)
        await cluster.kill(N4)
        await keep(cluster, N3, N4, key, record_of(1), Kind.FALLBACK)
        ledger = cluster.nodes[N3].hints.ledger
        ledger.bytes_max = ledger.bytes
        steps = Steps(cluster)
        await steps.begin_replace(N4)
        await ended_while_away(steps, N5)
        await cluster.pass_time(1_000)
        assert await targets(cluster, N3) == {N4}
        client = await cluster.client(N1)
        (line,) = (await client.admin("hints.list"))["hints"]
        assert (line["holder"], line["target"], line["records"]) == ("n3", "node-4 (gone)", 1)
        (problem,) = cluster.nodes[N3].estate.problems()
        assert "n5 (cannot be reached)" in problem
        assert cluster.nodes[N3].metrics.hints_overflowed_total == 0
        await cluster.start(N5)
        await cluster.settle()
        assert await cluster.record(N5, bucket, key) == record_of(1)
        assert not await cluster.hints(N3)


@virtual
async def test_a_hint_for_a_member_that_gave_the_range_away_is_refused_by_it_and_goes_to_the_owners() -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket()
        guard = Guard(cluster, bucket)
        key = cluster.key_of(bucket, N1, N2, N3)
        await keep(cluster, N1, N4, key, record_of(1), Kind.FALLBACK)
        await cluster.pass_time(1_300)
        assert not guard.stores.get(N4), "it took what is not its own"
        for node in (N1, N2, N3):
            assert await cluster.record(node, bucket, key) == record_of(1)
        assert not await cluster.hints(N1)


@virtual
async def test_a_hint_is_not_removed_when_the_holders_change_while_it_is_handed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with memory_cluster(5) as cluster:
        bucket = await cluster.create_bucket()
        Guard(cluster, bucket)
        key = cluster.key_of(bucket, N1, N2)
        third = cluster.primaries(bucket, key)[2]
        holder, target = (node for node in (N3, N4, N5) if node != third)
        await keep(cluster, holder, target, key, record_of(1), Kind.FALLBACK)
        mover = cluster.nodes[holder].anti_entropy.mover
        entrust = mover.entrust
        under_way = False

        async def entrust_late(*args: object) -> None:
            nonlocal under_way
            await entrust(*args)  # type: ignore[arg-type]
            if args[0] == third and not under_way:
                under_way = True
                await Steps(cluster, N1).begin(Leave(N2))

        monkeypatch.setattr(mover, "entrust", entrust_late)
        await cluster.pass_time(1_300)
        assert under_way
        holders = holders_of(cluster, bucket, storage_key(bucket.id, encode(key)))
        assert len(holders) == 4
        for node in holders:
            assert await cluster.record(node, bucket, key) == record_of(1)
        assert not await cluster.hints(holder)


@virtual
async def test_hints_handed_on_survive_power_that_goes_anywhere() -> None:
    for seed in range(4):
        async with memory_cluster(5, seed=seed, disk_latency_s=lambda: 0.003) as cluster:
            bucket = await cluster.create_bucket()
            Guard(cluster, bucket)
            await cluster.kill(N4)
            keys = [f"h{number}" for number in range(120) if N4 in cluster.primaries(bucket, f"h{number}")]
            for number, key in enumerate(keys):
                await keep(cluster, N3, N4, key, record_of(number), Kind.FALLBACK)
            steps = Steps(cluster)
            await steps.begin(ForceRemove(N4))
            await steps.end()
            await until(lambda: cluster.nodes[N3].metrics.hints_handed_on_total > 5 * seed, 100)  # noqa: B023
            everybody = tuple(cluster.nodes)
            await cluster.power_cut(*everybody, keep=0.0)
            await cluster.restart(*everybody)
            await cluster.settle()
            for number, key in enumerate(keys):
                for node in cluster.primaries(bucket, key):
                    assert await cluster.record(node, bucket, key) == record_of(number)
            assert not await cluster.hints(N3)
