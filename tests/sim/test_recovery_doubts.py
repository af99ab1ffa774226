"""A cluster is recovered with a value older than what some of its members had come to: what they have dropped since
they do not take for absent. And a plan in progress goes on, or back."""

from __future__ import annotations

import pytest
import trio
import trio.lowlevel

from leafdb.model.bucket import BucketProperties
from leafdb.model.key import encode_key
from leafdb.node.completeness import KEY
from leafdb.node.register import META_TREE, METADATA_KEY
from leafdb.ring import transitions
from leafdb.ring.plan import Phase
from leafdb.ring.token import storage_key
from leafdb.testing.cluster import MemoryCluster, address_of, memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId, TreeId
from support import plans
from support.plans import Steps
from support.repairs import partition_of
from support.ring_changes import plan_of
from support.ring_operators import committed, metadata_of, operator, until_phase
from support.transports import until

N1, N2, N3, N4, N5, N6 = map(NodeId, range(1, 7))
ALL = 255
KEYS = 150


async def fill(cluster: MemoryCluster, bucket: BucketProperties, keys: int, *, size: int = 10) -> dict[str, bytes]:
    client = await cluster.client(N3)
    values = {f"k{number}": b"%d" % number * size for number in range(keys)}
    for key, value in values.items():
        await client.put(bucket, key, value, w=bucket.n)
    return values


async def recovered(cluster: MemoryCluster, bucket: BucketProperties) -> tuple[Steps, dict[str, NodeId]]:
    """N5 has joined a cluster of four, and everybody has dropped what went to it. N3 alone has not heard of the end of
    that plan, and is cut off; the cluster is begun anew with what it knows. Answers keys that others had and dropped,
    each with one who will hold it again."""
    steps = Steps(cluster)
    await steps.begin_join()
    await steps.copied()
    await steps.advance()
    before = {key: await holders_of(cluster, bucket, key) for key in map("k{}".format, range(KEYS))}
    cluster.cut(N3, (N1, N2, N4, N5))
    await trio.sleep(1)
    await plans.change(cluster.nodes[N1], transitions.finish, plan_of(steps.ring.metadata).id)
    dropped: dict[str, NodeId] = {}
    await trio.sleep(10)
    for key, holders in before.items():
        for node in set(holders) - await holders_of(cluster, bucket, key) - {N3}:
            dropped[key] = node
    await operator(cluster, N3, "cluster.recover", dry_run=False, cluster="test", lost=[1, 2, 4, 5])
    return Steps(cluster, N3), dropped


async def holders_of(cluster: MemoryCluster, bucket: BucketProperties, key: str) -> set[NodeId]:
    """Who has anything of a key on its disk."""
    return {node for node in cluster.nodes if await cluster.record(node, bucket, key) is not None}


async def stuck(*_: object) -> None:
    """Background work that gets no further."""
    await trio.sleep_forever()


async def believed(cluster: MemoryCluster) -> None:
    """Everybody believes in the new generation."""
    with trio.fail_after(60):
        while any(metadata_of(cluster, node).generation == 1 for node in cluster.nodes):  # noqa: ASYNC110
            await trio.sleep(0.001)


@virtual
async def test_who_holds_a_range_again_that_it_had_dropped_does_not_say_that_it_is_empty() -> None:
    with plans.by_hand():
        async with memory_cluster(4, partitions=64) as cluster:
            bucket = await cluster.create_bucket(n=2)
            values = await fill(cluster, bucket, KEYS)
            steps, dropped = await recovered(cluster, bucket)
            assert len({*dropped.values()}) > 1
            cluster.heal()
            await believed(cluster)
            for each in cluster.nodes.values():
                each.anti_entropy.pace.spent = stuck  # type: ignore[method-assign, assignment]
            assert not cluster.nodes[N3].completeness.incomplete, "it has dropped nothing"
            await steps.abort()
            asked = 0
            for key, node in dropped.items():
                if await cluster.record(node, bucket, key) is None:
                    asked += 1
                    client = await cluster.client(node)
                    assert await client.values(bucket, key, r=1) == [values[key]], key
            assert asked, "it is again where it had been dropped"


@virtual
async def test_that_doubt_is_on_the_disk_before_the_metadata_are_and_goes_when_all_is_there_again() -> None:
    with plans.by_hand():
        async with memory_cluster(4, partitions=64) as cluster:
            bucket = await cluster.create_bucket(n=2)
            values = await fill(cluster, bucket, KEYS)
            steps, dropped = await recovered(cluster, bucket)
            written: list[bytes] = []

            def seen(node: NodeId, tree: TreeId, key: bytes, value: bytes | None) -> None:
                if node == N1 and tree == META_TREE and key in (KEY, METADATA_KEY):
                    written.append(key)

            cluster.observe_writes(seen)
            begun = trio.Event()
            cluster.nodes[N1].view.on_install.append(lambda _: begun.set())
            cluster.heal()
            with trio.fail_after(60):
                await begun.wait()
            assert written[:2] == [KEY, METADATA_KEY]
            await cluster.power_cut(N1, keep=0.0)
            cluster.cut(N1, (N2, N3, N4, N5))
            node = await cluster.start(N1)
            assert metadata_of(cluster, N1).generation > 1
            mine = [key for key, holder in dropped.items() if holder == N1]
            assert mine
            for key in mine:
                partition = partition_of(node, storage_key(bucket.id, encode_key(key)))
                assert partition in node.completeness.incomplete
            cluster.heal()
            await believed(cluster)
            await steps.abort()
            await until(lambda: N5 in cluster.nodes and cluster.nodes[N5].view.metadata is None, 60)
            await cluster.settle()
            await cluster.assert_replicas_equal(bucket)
            client = await cluster.client(N1)
            for key, value in values.items():
                assert await client.values(bucket, key, r=ALL) == [value]


@virtual
async def test_who_has_dropped_nothing_is_believed_at_once_when_its_cluster_is_recovered() -> None:
    """Who is lost for good is not waited for, before anything can be read again."""
    async with memory_cluster(5, partitions=16) as cluster:
        bucket = await cluster.create_bucket(n=3)
        values = await fill(cluster, bucket, 50)
        await cluster.kill(N1, N2)
        await trio.sleep(20)
        await operator(cluster, N3, "cluster.recover", dry_run=False, cluster="test", lost=[1, 2])
        with trio.fail_after(20):
            while any(metadata_of(cluster, node).generation == 1 for node in cluster.nodes):  # noqa: ASYNC110
                await trio.sleep(0.1)
        assert not any(node.completeness.incomplete for node in cluster.nodes.values())
        for at, (key, value) in enumerate(values.items()):
            client = await cluster.client((N3, N4, N5)[at % 3])
            assert await client.values(bucket, key, r=1) == [value]


@pytest.mark.parametrize("given_up", [False, True])
@virtual
async def test_a_plan_whose_copies_are_being_made_goes_on_or_back_under_the_new_generation(given_up: bool) -> None:
    async with memory_cluster(5, partitions=16) as cluster:
        bucket = await cluster.create_bucket(n=3)
        values = await fill(cluster, bucket, 300, size=200)
        machine = await cluster.add_node()
        await committed(cluster, N4, {"change": "join", "address": address_of(machine)})
        await until(lambda: machine in cluster.nodes and cluster.nodes[machine].view.metadata is not None, 30)
        cluster.nodes[machine].transfers.set_limit(20_000)
        await until(lambda: cluster.nodes[machine].transfers.report().bytes_done > 0, 30)
        assert not cluster.nodes[machine].transfers.settled()
        await cluster.kill(N1, N2)
        await trio.sleep(20)
        await operator(cluster, N3, "cluster.recover", dry_run=False, cluster="test", lost=[1, 2])
        cluster.nodes[machine].transfers.set_limit(0)
        await until(lambda: metadata_of(cluster, machine).generation > 1, 60)
        plan = metadata_of(cluster, machine).plan
        assert plan is not None
        assert plan.phase is Phase.WRITE_BOTH_READ_OLD
        client = await cluster.client(N4)
        for number in range(50):
            values[f"after{number}"] = b"v"
            await client.put(bucket, f"after{number}", b"v", w=1)
        if given_up:
            await operator(cluster, N4, "cluster.abort")
            await until(lambda: cluster.nodes[machine].view.metadata is None, 60)
        await cluster.restart(N1, N2)
        await until_phase(cluster, None, N1, N2, N3, N4, N5)
        await cluster.settle()
        await cluster.assert_replicas_equal(bucket)
        assert (machine in metadata_of(cluster, N1).members) is not given_up
        for key, value in values.items():
            assert await client.values(bucket, key, r=ALL) == [value]
