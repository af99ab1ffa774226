"""A write is newer than all that its writer saw, whatever the clocks of the nodes say that took it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from random import Random

import pytest
import trio

from leafdb.client.async_client import AsyncClient
from leafdb.client.connect import async_client_over
from leafdb.client.url import Address
from leafdb.model.context import past_in
from leafdb.model.hlc import LOGICAL_BITS
from leafdb.model.record import decode, newest_stamp
from leafdb.testing.cluster import CLIENT_HOST, MemoryCluster, host_of, memory_cluster
from leafdb.testing.real_client import dialler
from leafdb.testing.virtual_time import virtual
from leafdb.types import Conflict, NodeId

N1, N2, N3 = map(NodeId, range(1, 4))
SEEDS = count(7)
"""Two clients with one seed would draw the same operation ids."""


@asynccontextmanager
async def client_of(cluster: MemoryCluster, *nodes: NodeId) -> AsyncIterator[AsyncClient]:
    """One that speaks to these nodes only."""
    addresses = [Address(host_of(node), 1) for node in nodes]
    dial = dialler(cluster.network, CLIENT_HOST)
    async with async_client_over(addresses, dial=dial, routing="listed", rng=Random(next(SEEDS))) as db:
        yield db


@virtual
async def test_in_an_lww_bucket_what_a_client_writes_over_what_it_read_wins_through_a_slow_clock() -> None:
    async with memory_cluster(3) as cluster:
        await cluster.create_bucket(conflict=Conflict.LWW)
        cluster.skew_ms[N2] = -3_000
        cluster.cut(N2, [N1, N3])
        async with client_of(cluster, N1) as writer, client_of(cluster, N1, N2) as reader:
            await writer.lww_bucket("b").put("k", b"read", w=2)
            assert await reader.lww_bucket("b").get("k", r=1) == b"read"
            await cluster.kill(N1)
            await reader.lww_bucket("b").put("k", b"over it", w=1)
        cluster.heal()
        await cluster.restart(N1)
        await cluster.settle()
        async with client_of(cluster, N3) as anybody:
            assert await anybody.lww_bucket("b").get("k", r=3) == b"over it"


@virtual
@pytest.mark.parametrize("conflict", Conflict)
async def test_a_deletion_is_newer_than_what_it_deletes_where_that_has_never_been(conflict: Conflict) -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket(conflict=conflict)
        cluster.skew_ms[N2] = -3_600_000
        cluster.cut(N2, [N1, N3])
        fast, slow = await cluster.client(N1), await cluster.client(N2)
        await fast.put(bucket, "k", b"v")
        read = (await fast.get(bucket, "k")).context
        deleted = await slow.put(bucket, "k", None, read, w=1)
        record = await cluster.record(N2, bucket, "k")
        assert record is not None
        assert newest_stamp(record) == past_in(deleted.context).stamp == past_in(read).stamp + 1
        cluster.heal()
        await cluster.settle()
        assert await fast.values(bucket, "k", r=3) == []


@virtual
async def test_a_stamp_far_ahead_refuses_no_write_and_drags_no_clock() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        cluster.skew_ms[N1] = 50 * 366 * 86_400_000
        await trio.sleep(2.0)  # it leases stamps of that time
        ahead, sound = await cluster.client(N1), await cluster.client(N2)
        context = (await ahead.put(bucket, "k", b"v", w=3)).context
        far = past_in(context).stamp
        for number in range(50):
            context = (await sound.put(bucket, "k", b"%d" % number, context)).context
        assert far < past_in(context).stamp <= far + 51
        other = (await sound.put(bucket, "other", b"v")).context
        assert past_in(other).stamp >> LOGICAL_BITS <= cluster.now_ms() + 1


@virtual
async def test_a_stand_in_goes_above_what_the_writer_saw_as_well() -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket()
        n4 = NodeId(4)
        key = cluster.key_of(bucket, N1, N2, N3)
        cluster.skew_ms[n4] = -3_000
        first = await (await cluster.client(N1)).put(bucket, key, b"v", w=3)
        cluster.cut(n4, [N1, N2, N3])
        over = await (await cluster.client(n4)).put(bucket, key, b"w", first.context, w=1)
        assert over.primaries == 0
        assert past_in(over.context).stamp == past_in(first.context).stamp + 1


@virtual
async def test_a_read_of_siblings_and_deletions_is_as_new_as_the_newest_of_them() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        one = await client.put(bucket, "k", b"1")
        await client.put(bucket, "k", b"2")
        await client.put(bucket, "k", None, one.context)
        read = await client.get(bucket, "k")
        assert [sibling.value for sibling in read.siblings] == [b"2"]
        record = await cluster.record(N1, bucket, "k")
        assert record is not None
        assert past_in(read.context).stamp == max(s.stamp for s in decode(record).siblings.values())
        assert past_in(read.context).stamp > max(s.stamp for s in read.siblings)
        assert past_in((await client.get(bucket, "nothing")).context).stamp == 0
