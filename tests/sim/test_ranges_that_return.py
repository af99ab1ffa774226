"""A node that gave a range away, dropped it and gets it back does not know its own dots; in the end all are equal."""

from __future__ import annotations

import pytest
import trio

from leafdb.model.clock import CausalClock
from leafdb.model.key import encode_key
from leafdb.model.record import header
from leafdb.ring.staging import Leave
from leafdb.ring.token import storage_key
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import Durability, NodeId, TreeId
from support.old_and_new import NEW, written
from support.plans import Steps, by_hand
from support.repairs import plant
from support.transports import until

N1, N2, N3, N4, N5 = map(NodeId, range(1, 6))
KEYS = 120


async def filled_by_everybody(cluster: MemoryCluster, *, n: int) -> dict[str, bytes]:
    """Each key has dots of each of its primaries."""
    bucket = await cluster.create_bucket(n=n)
    values = {}
    for number in range(KEYS):
        key = f"k{number}"
        for node in cluster.primaries(bucket, key):
            client = await cluster.client(node)
            found = await client.get(bucket, key)
            await client.put(bucket, key, b"v%d" % number, context=found.context)
        values[key] = b"v%d" % number
    await cluster.settle()
    return values


@pytest.mark.parametrize("count", [1, 2])
@virtual
async def test_replicas_are_equal_after_a_range_went_away_and_came_back(count: int) -> None:
    with by_hand():
        async with memory_cluster(4, partitions=32) as cluster:
            values = await filled_by_everybody(cluster, n=2)
            bucket = cluster.nodes[N1].view.buckets[256].properties
            steps = Steps(cluster)
            await steps.begin_join(count)
            await steps.copied()
            await steps.end()
            await cluster.settle()
            for node in [number for number in cluster.nodes if number > N4]:
                await steps.begin(Leave(node))
                await steps.copied()
                await steps.end()
                await cluster.settle()
            await cluster.assert_replicas_equal(bucket)
            client = await cluster.client(N1)
            for key, value in values.items():
                assert await client.values(bucket, key, r=2) == [value]


@pytest.mark.parametrize("anew", [False, True], ids=["to nothing", "to a key written anew"])
@virtual
async def test_a_record_that_comes_back_to_who_had_dropped_it_makes_the_others_hear_of_the_fresh_entry(
    anew: bool,
) -> None:
    """To a key written anew: tier HUNT, seed 277473824. n3 had forgotten its deletion by right, and the key was written
    through another node before it was shown the deletion again."""
    async with memory_cluster(3, partitions=8) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        await client.put(bucket, "k", b"v", w=3)
        record = await cluster.record(N1, bucket, "k")
        assert record is not None
        node = cluster.nodes[N1]
        place = storage_key(bucket.id, encode_key("k"))
        node.replica.remove(TreeId(bucket.id), place, record, Durability.PERIODIC)
        await trio.sleep(1)
        known = clock_of(record)
        if anew:
            await plant(node, "b", "k", written(1, NEW))
            known = known.merge(clock_of(written(1, NEW)))
        await plant(node, "b", "k", record)
        said = await cluster.record(N1, bucket, "k")
        assert said is not None
        assert clock_of(said) != known
        assert node.anti_entropy.pending
        await until(lambda: not node.anti_entropy.pending, 30)
        assert {await cluster.record(number, bucket, "k") for number in cluster.nodes} == {said}


def clock_of(record: bytes) -> CausalClock:
    return header(record).clock
