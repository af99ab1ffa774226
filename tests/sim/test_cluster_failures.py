"""Three nodes in one loop, some of them killed, cut off or without power: what was acknowledged is still there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio

from leafdb.errors import DeadlineExceeded, LeafdbError, NotApplied, NotEnoughReplicas, OutcomeUnknown
from leafdb.model.bucket import BucketProperties
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.raw_client import RawClient, Severed, op_id_of
from leafdb.testing.virtual_time import virtual
from leafdb.types import Durability, NodeId
from leafdb.vfs.memory import MemoryFileSystem

N1, N2, N3 = NodeId(1), NodeId(2), NodeId(3)


@virtual
async def test_a_write_that_one_node_misses_is_kept_as_a_hint_and_handed_home() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        await cluster.kill(N3)
        await trio.sleep(1)
        for number in range(20):
            assert (await client.put(bucket, f"key{number}", b"v")).acks == 2
        assert len(await cluster.hints(N1)) == 20
        await cluster.start(N3)
        await cluster.settle()
        assert not await cluster.hints(N1)
        assert cluster.nodes[N1].metrics.hints_delivered_total == 20
        returned = await cluster.client(N3)
        for number in range(20):
            reply = await returned.get(bucket, f"key{number}", local=True)
            assert [sibling.value for sibling in reply.siblings] == [b"v"]
        await cluster.assert_replicas_equal(bucket)


@virtual
async def test_a_deleted_key_stays_deleted_after_the_node_that_missed_it_returns() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        written = await client.put(bucket, "k", b"v", w=3)
        await cluster.kill(N2)
        await client.put(bucket, "k", None, written.context)
        await cluster.start(N2)
        returned = await cluster.client(N2)
        assert await returned.values(bucket, "k") == []
        await cluster.settle()
        for node in cluster.nodes:
            there = await cluster.client(node)
            assert (await there.get(bucket, "k", local=True)).siblings == ()
        await cluster.assert_replicas_equal(bucket)


async def write_for(
    cluster: MemoryCluster, bucket: BucketProperties, node: NodeId, stop: trio.Event, acknowledged: dict[str, bytes]
) -> None:
    """One client that writes new keys through one node, as fast as it is answered, whatever happens to the node."""
    client: RawClient | None = None
    number = 0
    while not stop.is_set():
        number += 1
        key, value = f"n{node}-{number}", b"%d" % number
        try:
            if client is None or client.closed:
                client = await cluster.client(node)
            await client.put(bucket, key, value, timeout_s=1.0)
            acknowledged[key] = value
            await trio.sleep(0.002)
        except (Severed, LeafdbError):
            await trio.sleep(0.05)


@asynccontextmanager
async def writers(cluster: MemoryCluster, bucket: BucketProperties) -> AsyncIterator[dict[str, bytes]]:
    """Clients that write through every node while the block runs; what they were told is written, by key."""
    stop, acknowledged = trio.Event(), dict[str, bytes]()
    async with trio.open_nursery() as nursery:
        for node in cluster.disks:
            nursery.start_soon(write_for, cluster, bucket, node, stop, acknowledged)
        yield acknowledged
        stop.set()


@pytest.mark.parametrize("durability", list(Durability))
@virtual
async def test_nothing_acknowledged_is_lost_when_a_node_is_killed_in_mid_write(durability: Durability) -> None:
    async with memory_cluster(3, disk_latency_s=lambda: 0.003) as cluster:
        bucket = await cluster.create_bucket(durability=durability)
        async with writers(cluster, bucket) as acknowledged:
            for victim in (N2, N3, N1):
                await trio.sleep(0.3)
                await cluster.kill(victim)
                await trio.sleep(0.5)
                await cluster.start(victim)
        reader = await cluster.client(N2)
        for key, value in acknowledged.items():
            assert await reader.values(bucket, key, r=2) == [value]
        assert len(acknowledged) > 200
        await cluster.settle()
        await cluster.assert_replicas_equal(bucket)


@pytest.mark.parametrize("durability", list(Durability))
@virtual
async def test_nothing_acknowledged_is_lost_when_all_nodes_are_killed_at_once(durability: Durability) -> None:
    async with memory_cluster(3, disk_latency_s=lambda: 0.003) as cluster:
        bucket = await cluster.create_bucket(durability=durability)
        async with writers(cluster, bucket) as acknowledged:
            await trio.sleep(0.5)
            await cluster.kill(N1, N2, N3)
            await cluster.restart(N1, N2, N3)
        await cluster.settle()
        for node in cluster.nodes:
            reader = await cluster.client(node)
            for key, value in acknowledged.items():
                assert await reader.values(bucket, key, r=2) == [value]
        assert len(acknowledged) > 100
        await cluster.assert_replicas_equal(bucket)


@virtual
async def test_writes_of_an_always_bucket_survive_a_power_cut_of_all_nodes() -> None:
    async with memory_cluster(3, disk_latency_s=lambda: 0.002) as cluster:
        bucket = await cluster.create_bucket(durability=Durability.ALWAYS)
        async with writers(cluster, bucket) as acknowledged:
            await trio.sleep(0.5)
            await cluster.power_cut(N1, N2, N3)
            await cluster.restart(N1, N2, N3)
        await cluster.settle()
        reader = await cluster.client(N2)
        for key, value in acknowledged.items():
            assert await reader.values(bucket, key, r=2) == [value]
        assert len(acknowledged) > 100


@virtual
async def test_a_store_that_lost_its_tail_is_a_new_incarnation_and_says_absent_only_when_complete_again() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket(durability=Durability.PERIODIC)
        client = await cluster.client(N1)
        await client.put(bucket, "k", b"v", w=3)
        cluster.cut(N1, (N2, N3))  # nobody will remind node 1
        await cluster.power_cut(N1, keep=0.0)
        node = await cluster.start(N1)
        assert node.engine.identity.incarnation == 1
        assert node.completeness.incomplete == tuple(range(64))
        client = await cluster.client(N1)
        with pytest.raises(NotEnoughReplicas):
            await client.get(bucket, "k", r=1, timeout_s=1.0)
        with pytest.raises(NotEnoughReplicas):
            await client.get(bucket, "k", local=True)
        # A restart does not make it complete.
        await cluster.kill(N1)
        node = await cluster.start(N1)
        assert node.completeness.incomplete == tuple(range(64))
        cluster.heal()
        await cluster.settle()
        client = await cluster.client(N1)
        assert await client.values(bucket, "k", r=1) == [b"v"]
        assert (await client.get(bucket, "missing", local=True)).siblings == ()


@pytest.mark.parametrize("at", range(8))
@virtual
async def test_that_a_store_has_forgotten_is_never_forgotten_itself(at: int) -> None:
    """A start after a power cut that is killed early leaves enough for the next start to know."""
    async with memory_cluster(2) as cluster:
        await cluster.create_bucket(durability=Durability.PERIODIC)
        await cluster.power_cut(N1, N2, keep=1.0)
        calls: list[str] = []
        clones: list[MemoryFileSystem] = []

        def clone(kind: str, path: str) -> None:
            calls.append(kind)
            if path.startswith("wal/"):
                clones.append(cluster.disks[N1].power_cut(Random(at), keep=1.0))

        cluster.disks[N1].on_call = clone
        await cluster.start(N1)
        await cluster.kill(N1)
        assert len(clones) >= 8
        cluster.disks[N1] = clones[at * len(clones) // 8]
        node = await cluster.start(N1)
        assert node.completeness.incomplete == tuple(range(64))


@virtual
async def test_all_stores_that_lost_their_tails_become_complete_from_each_other() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket(durability=Durability.PERIODIC)
        client = await cluster.client(N1)
        for number in range(20):
            await client.put(bucket, f"key{number}", b"v")
        await cluster.power_cut(N1, N2, N3, keep=0.5)
        await cluster.restart(N1, N2, N3)
        await cluster.settle()
        client = await cluster.client(N2)
        for number in range(20):
            assert await client.values(bucket, f"key{number}", r=3) in ([], [b"v"])
        await cluster.assert_replicas_equal(bucket)


@virtual
async def test_a_write_that_cannot_reach_w_is_refused_before_anything_is_applied() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        await cluster.kill(N2, N3)
        await trio.sleep(0.1)
        with pytest.raises(NotEnoughReplicas) as refused:
            await client.put(bucket, "k", b"v")
        assert (refused.value.alive, refused.value.required) == (1, 2)
        with pytest.raises(NotEnoughReplicas):
            await client.put(bucket, "k", b"v", w=2, pw=2)
        assert await cluster.record(N1, bucket, "k") is None
        assert (await client.put(bucket, "k", b"alone", w=1)).acks == 1
        with pytest.raises(NotEnoughReplicas):
            await client.get(bucket, "k")
        assert await client.values(bucket, "k", r=1) == [b"alone"]
        await cluster.restart(N2, N3)
        await cluster.settle()
        assert await client.values(bucket, "k", r=3) == [b"alone"]


@virtual
async def test_a_write_whose_replicas_are_lost_under_way_is_unknown_and_names_its_operation() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        cluster.cut(N1, (N2, N3), silently=True)
        errors: list[OutcomeUnknown] = []

        async def put() -> None:
            with pytest.raises(OutcomeUnknown) as unknown:
                await client.put(bucket, "k", b"v", op_id=op_id_of(bucket, "k", 1))
            errors.append(unknown.value)

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(put)
            await trio.sleep(0.2)
            cluster.cut(N1, (N2, N3))  # aloud now: what was under way is lost
            await cluster.kill(N2, N3)
        assert trio.current_time() - began < 1.0, "a lost session is news at once, not at the deadline"
        (error,) = errors
        assert (error.op_id, error.acks, error.required) == (op_id_of(bucket, "k", 1), 1, 2)
        assert set(error.replicas) == {"n1", "n2", "n3"}
        cluster.heal()
        await cluster.restart(N2, N3)
        await cluster.settle()
        # It lives on: the coordinator kept hints for both.
        assert await client.values(bucket, "k", r=3) == [b"v"]


@virtual
async def test_deadlines_are_honoured_and_leave_nothing_behind() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        cluster.cut(N1, (N2, N3), silently=True)
        began = trio.current_time()
        with pytest.raises(OutcomeUnknown) as unknown:
            await client.put(bucket, "k", b"v", timeout_s=0.5, op_id=op_id_of(bucket, "k", 1))
        assert unknown.value.op_id == op_id_of(bucket, "k", 1)
        assert 0.5 <= trio.current_time() - began < 0.6
        began = trio.current_time()
        with pytest.raises(DeadlineExceeded) as late:
            await client.get(bucket, "k", timeout_s=0.5)
        assert (late.value.got, late.value.required, late.value.stage) == (1, 2, "replicas")
        assert 0.5 <= trio.current_time() - began < 0.6
        assert not cluster.nodes[N1].coordinator.operations
        cluster.heal()
        await cluster.settle()
        assert await client.values(bucket, "k", r=3) == [b"v"]


@virtual
async def test_a_replica_that_stops_answering_costs_a_read_a_hedge_and_no_more() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        await client.put(bucket, "k", b"v", w=3)
        cluster.cut(N1, (N3,), silently=True)
        began = trio.current_time()
        for _ in range(6):
            assert await client.values(bucket, "k") == [b"v"]
        assert trio.current_time() - began < 1.0
        assert cluster.nodes[N1].metrics.hedges_total >= 2
        cluster.heal()


@virtual
async def test_a_read_that_finds_replicas_differing_brings_them_up_before_it_answers() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        cluster.cut(N1, (N2, N3))
        await trio.sleep(0.1)
        await client.put(bucket, "k", b"only here", w=1)
        held = await cluster.record(N1, bucket, "k")
        await drop_hints(cluster, N1)
        cluster.heal()
        await cluster.meet()
        assert await client.values(bucket, "k", r=3) == [b"only here"]
        for node in cluster.nodes:
            assert await cluster.record(node, bucket, "k") == held


@virtual
async def test_a_read_whose_write_back_cannot_be_confirmed_fails_and_leaves_nothing_behind() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        cluster.cut(N1, (N2, N3))
        await trio.sleep(0.1)
        await client.put(bucket, "k", b"only here", w=1)
        cluster.fill_disk(N2)
        cluster.fill_disk(N3)
        await trio.sleep(15)  # they have noticed: they answer reads and refuse merges
        cluster.heal()
        await cluster.meet()
        with pytest.raises(NotEnoughReplicas) as failed:
            await client.get(bucket, "k", timeout_s=1.0)
        assert (failed.value.alive, failed.value.required) == (1, 2)
        assert not cluster.nodes[N1].coordinator.operations
        cluster.free_disk(N2)
        cluster.free_disk(N3)
        await trio.sleep(15)
        assert await client.values(bucket, "k") == [b"only here"]
        await cluster.settle()


@virtual
async def test_a_read_that_meets_a_full_disk_has_another_replica_hold_what_it_shows() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        cluster.cut(N1, (N2, N3))
        await trio.sleep(0.1)
        await client.put(bucket, "k", b"only here", w=1)
        cluster.fill_disk(N2)
        await trio.sleep(15)  # it has noticed: it answers reads and refuses merges
        cluster.heal()
        await cluster.meet()
        for _ in range(8):  # whoever of the two others is asked first
            assert await client.values(bucket, "k") == [b"only here"]
        assert await cluster.record(N3, bucket, "k") is not None
        cluster.free_disk(N2)
        await trio.sleep(15)
        await cluster.settle()


async def drop_hints(cluster: MemoryCluster, node: NodeId) -> None:
    """Make a node forget what it owes others, as if an operator had taken its hints away."""
    from leafdb.node.hint_keeper import HINTS_TREE

    engine, ledger = cluster.nodes[node].engine, cluster.nodes[node].hints.ledger
    for key, value in (await cluster.hints(node)).items():
        engine.write(((HINTS_TREE, key, None),), Durability.ALWAYS, None)
        ledger.removed(key, value)


@virtual
async def test_a_bucket_made_while_a_node_was_down_is_learned_when_it_returns() -> None:
    async with memory_cluster(3) as cluster:
        await cluster.kill(N3)
        bucket = await cluster.create_bucket("late")
        client = await cluster.client(N1)
        await client.put(bucket, "k", b"v")
        await cluster.start(N3)
        # At once, before gossip has said anything: an unknown bucket is asked for before it is refused.
        returned = await cluster.client(N3)
        await cluster.meet()
        assert await returned.values(bucket, "k") == [b"v"]
        await cluster.settle()
        await cluster.assert_replicas_equal(bucket)
        unknown = BucketProperties(bucket.id + 7, "never", 99)  # type: ignore[arg-type]
        with pytest.raises(NotApplied):
            await returned.get(unknown, "k")
