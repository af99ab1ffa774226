"""Who goes takes nothing along: hints that a leaver keeps for others are with others before it is banned."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import trio

from leafdb.errors import NotApplied, Reason
from leafdb.hints.hint import decode_key
from leafdb.model.bucket import BucketProperties
from leafdb.model.key import encode_key
from leafdb.node.endings import Expelled
from leafdb.node.key_queue import ReplicaOverloaded
from leafdb.ring.staging import Leave
from leafdb.ring.token import storage_key
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId
from support.plans import Steps, by_hand
from support.repairs import record_of, view_of
from support.ring_operators import committed, metadata_of, operator, phases, until_phase
from support.transports import until

N1, N2, N3, N4, N5, N6 = map(NodeId, range(1, 7))
ALL = 255
KEYS = 60


async def targets(cluster: MemoryCluster, node: NodeId) -> set[NodeId]:
    """Whom a node keeps hints for."""
    return {decode_key(key).target for key in await cluster.hints(node)}


async def write(
    cluster: MemoryCluster, via: NodeId, bucket: BucketProperties, primaries: Iterable[NodeId] = (), *, w: int
) -> dict[str, bytes]:
    """Keys with these among their primaries; all of them acknowledged."""
    wanted = set(primaries)
    client = await cluster.client(via)
    values = {}
    for number in range(1_000):
        key = f"k{number}"
        if wanted <= set(cluster.primaries(bucket, key)):
            values[key] = b"v%d" % number
            await client.put(bucket, key, values[key], w=w)
        if len(values) == KEYS:
            return values
    raise AssertionError("there are not that many such keys")


async def assert_all_there(cluster: MemoryCluster, bucket: BucketProperties, values: dict[str, bytes]) -> None:
    """Nothing is lost, and everybody holds his own and nothing else."""
    await cluster.settle()
    await cluster.assert_replicas_equal(bucket)
    client = await cluster.client(min(cluster.nodes))
    for key, value in values.items():
        assert await client.values(bucket, key, r=ALL) == [value]


async def ended(cluster: MemoryCluster, node: NodeId) -> None:
    """The node leaves, and its process ends by itself."""
    with trio.fail_after(60):
        await cluster.processes[node].ended.wait()
    assert isinstance(cluster.processes[node].failure, Expelled)


@pytest.mark.parametrize("w", [1, 2])
@virtual
async def test_a_fallback_that_leaves_while_two_primaries_are_down_takes_no_acknowledged_write_along(w: int) -> None:
    async with memory_cluster(6, partitions=16) as cluster:
        bucket = await cluster.create_bucket(n=3, w=2)
        await cluster.kill(N5, N6)
        await trio.sleep(20)
        values = await write(cluster, N1, bucket, (N5, N6), w=w)
        leaver = max((N2, N3, N4), key=lambda node: cluster.nodes[node].hints.ledger.bytes)
        assert await targets(cluster, leaver) <= {N5, N6}
        assert await cluster.hints(leaver)
        await committed(cluster, N1, {"change": "leave", "node": int(leaver)}, force=True)
        await until(lambda: not cluster.nodes[leaver].hints.ledger.targets(), 60)
        assert not await cluster.hints(leaver), "others keep them for n5 and n6, who are still away"
        await cluster.restart(N5, N6)
        await ended(cluster, leaver)
        await until_phase(cluster, None)
        assert leaver not in metadata_of(cluster, N1).members
        await assert_all_there(cluster, bucket, values)


@virtual
async def test_hints_for_who_goes_as_dead_by_the_same_plan_reach_the_owners_that_are_left() -> None:
    async with memory_cluster(5, partitions=16) as cluster:
        bucket = await cluster.create_bucket(n=3, w=2)
        two = await cluster.create_bucket("two", n=2)
        await cluster.kill(N1, N2)
        await trio.sleep(20)
        values = await write(cluster, N3, bucket, (N1, N2), w=2)
        cluster.cut(N4, [N3, N5])
        await trio.sleep(1)
        client, alone = await cluster.client(N4), {}
        for number in range(200):
            if set(cluster.primaries(two, f"k{number}")) == {N1, N2}:
                alone[f"k{number}"] = b"v%d" % number
                await client.put(two, f"k{number}", b"v%d" % number, w=1)
        assert alone, "nobody else has these"
        cluster.heal()
        await cluster.meet()
        # The control set has lost its majority with them, unless it is told of it.
        await operator(cluster, N3, "cluster.recover", dry_run=False, cluster="test", lost=[1, 2])
        goes = [{"change": "leave", "node": 4}] + [{"change": "force-remove", "node": number} for number in (1, 2)]
        await committed(cluster, N3, *goes, force=True)
        await ended(cluster, N4)
        await until_phase(cluster, None)
        assert set(cluster.nodes) == {N3, N5}
        await assert_all_there(cluster, bucket, values)
        await assert_all_there(cluster, two, alone)


@virtual
async def test_without_an_heir_the_leaver_waits_for_the_target_and_says_so() -> None:
    async with memory_cluster(4, partitions=16) as cluster:
        bucket = await cluster.create_bucket(n=3, w=2)
        await cluster.kill(N3)
        await trio.sleep(5)
        values = await write(cluster, N1, bucket, (N1, N2, N3), w=3)
        assert await targets(cluster, N4) == {N3}
        await cluster.start(N3)
        cluster.cut(N4, [N3])
        await committed(cluster, N1, {"change": "leave", "node": 4})
        # n3 has heard of everything, but not from n4, which alone has what n3 missed.
        await trio.sleep(30)
        assert await targets(cluster, N4) == {N3}
        assert N4 in metadata_of(cluster, N1).members
        cluster.heal()
        await ended(cluster, N4)
        await until_phase(cluster, None)
        await assert_all_there(cluster, bucket, values)


@virtual
async def test_in_the_last_phase_a_leaver_says_what_it_keeps_and_the_plan_waits_for_that() -> None:
    with by_hand():
        async with memory_cluster(4, partitions=16) as cluster:
            bucket = await cluster.create_bucket(n=3, w=2)
            steps = Steps(cluster)
            await steps.begin(Leave(N4))
            await steps.copied()
            cluster.cut(N4, [N3])
            await trio.sleep(1)
            values = await write(cluster, N4, bucket, (N3, N4), w=2)
            assert await targets(cluster, N4) == {N3}
            count = len(await cluster.hints(N4))
            await steps.advance()
            progress = await operator(cluster, N1, "transfer.list")
            assert progress["items"][-1]["name"] == "n4"
            assert not progress["items"][-1]["settled"]
            (kept, *others) = cluster.nodes[N4].parting.waiting()
            assert kept == f"n4 keeps hints that nobody else has yet: {count} for n3"
            assert others == ["n4 has to compare ranges with n3"]
            cluster.heal()
            await until(lambda: not list(cluster.nodes[N4].parting.waiting()), 60)
            await steps.finish()
            await assert_all_there(cluster, bucket, values)


@virtual
async def test_in_the_last_phase_a_leaver_takes_no_hint_and_no_work_of_clients_until_the_plan_is_given_up() -> None:
    with by_hand():
        async with memory_cluster(5, partitions=16) as cluster:
            bucket = await cluster.create_bucket(n=3)
            steps = Steps(cluster)
            await steps.begin(Leave(N5))
            await steps.copied()
            client = await cluster.client(N5)
            await client.put(bucket, "k", b"v")
            await steps.advance()
            with pytest.raises(NotApplied) as refused:
                await client.put(bucket, "k", b"v")
            assert refused.value.reason is Reason.DRAINING
            with pytest.raises(NotApplied, match="abort"):
                await client.admin("node.undrain")
            node = cluster.nodes[N5]
            view = view_of(node, "b")
            place = storage_key(bucket.id, encode_key("late"))
            refusals: list[Exception | None] = []
            node.hints.keep(N1, view, place, record_of(1), refusals.append)
            assert isinstance(refusals[0], ReplicaOverloaded)
            node.hints.owe(N1, view, place, record_of(1))
            assert not await cluster.hints(N5)
            await until(lambda: not list(node.parting.waiting()), 30)
            await steps.give_up()
            await trio.sleep(0.1)
            await client.put(bucket, "k", b"v")
            node.hints.keep(N1, view, place, record_of(1), refusals.append)
            await steps.abort()
            assert refusals[1:] == [None]


@virtual
async def test_a_newcomer_whose_plan_is_given_up_late_leaves_what_it_keeps_for_others() -> None:
    with by_hand():
        async with memory_cluster(4, partitions=16) as cluster:
            bucket = await cluster.create_bucket(n=2, w=2)
            steps = Steps(cluster)
            await steps.begin_join()
            await steps.copied()
            await steps.advance()
            await cluster.kill(N3)
            await trio.sleep(5)
            client = await cluster.client(N1)
            values = {f"k{number}": b"v%d" % number for number in range(200)}
            for key, value in values.items():
                await client.put(bucket, key, value, w=2)
            assert await targets(cluster, N5) == {N3}
            await steps.give_up()
            await until(lambda: not list(cluster.nodes[N5].parting.waiting()), 30)
            assert not await cluster.hints(N5)
            await steps.abort()
            await until(lambda: cluster.nodes[N5].view.metadata is None, 60)
            await cluster.start(N3)
            await assert_all_there(cluster, bucket, values)
            assert set(phases(cluster).values()) == {None}


@virtual
async def test_a_node_that_stops_politely_hands_what_it_keeps_for_the_absent_to_another() -> None:
    async with memory_cluster(5, partitions=16) as cluster:
        bucket = await cluster.create_bucket(n=3, w=3)
        await cluster.kill(N5)
        await trio.sleep(5)
        values = await write(cluster, N1, bucket, (N5,), w=3)
        holders = [node for node in (N1, N2, N3, N4) if await cluster.hints(node)]
        stops = holders[0]
        cluster.processes[stops].drain.set()
        with trio.fail_after(10):
            await cluster.processes[stops].ended.wait()
        await cluster.start(N5)
        await trio.sleep(5)
        for key, value in values.items():
            record = await cluster.record(N5, bucket, key)
            assert value in (record or b""), "whoever kept it was away"
        await cluster.start(stops)
        assert not await cluster.hints(stops)
        await assert_all_there(cluster, bucket, values)


@virtual
async def test_a_node_that_nobody_can_take_hints_from_stops_all_the_same_and_keeps_them() -> None:
    async with memory_cluster(4, partitions=16) as cluster:
        bucket = await cluster.create_bucket(n=3, w=3)
        await cluster.kill(N3)
        await trio.sleep(5)
        values = await write(cluster, N1, bucket, (N1, N2, N3), w=3)
        kept = await cluster.hints(N4)
        assert kept
        cluster.processes[N4].drain.set()
        with trio.fail_after(5):
            await cluster.processes[N4].ended.wait()
        await cluster.start(N4)
        assert await cluster.hints(N4) == kept
        await cluster.start(N3)
        await assert_all_there(cluster, bucket, values)
