"""The real asynchronous client against whole nodes in one loop, over streams in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Literal

import anyio
import pytest
import trio

from leafdb.client.async_client import AsyncClient
from leafdb.client.codecs import Text
from leafdb.client.connect import async_client_over
from leafdb.client.context import BLIND
from leafdb.client.results import Conflict, Found, Missing
from leafdb.client.url import Address
from leafdb.errors import ConnectFailed, LeafdbError, NotApplied, Reason
from leafdb.testing.cluster import CLIENT_HOST, MemoryCluster, host_of, memory_cluster
from leafdb.testing.network import MemoryByteStream
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId

N1, N2, N3 = NodeId(1), NodeId(2), NodeId(3)


class Stream:
    """A stream in memory as the client wants one."""

    def __init__(self, stream: MemoryByteStream) -> None:
        self._stream = stream

    async def send(self, item: bytes) -> None:
        try:
            await self._stream.send_all(item)
        except trio.BrokenResourceError as error:
            raise anyio.BrokenResourceError from error

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        try:
            return await self._stream.receive_some(max_bytes)
        except trio.BrokenResourceError as error:
            raise anyio.BrokenResourceError from error

    async def aclose(self) -> None:
        await self._stream.aclose()


@asynccontextmanager
async def connected(
    cluster: MemoryCluster, routing: Literal["ring", "listed"] = "ring", *, via: tuple[NodeId, ...] = (N1, N2, N3)
) -> AsyncIterator[AsyncClient]:
    """A client that knows these nodes' addresses."""

    async def dial(address: Address) -> Stream:
        return Stream(await cluster.network.at(CLIENT_HOST).dial(address.host, address.port))

    addresses = [Address(host_of(node), 1) for node in via]
    async with async_client_over(addresses, dial=dial, routing=routing, rng=Random(1)) as client:
        yield client


@virtual
async def test_a_session_with_buckets_siblings_and_a_merge() -> None:
    async with memory_cluster(3) as cluster, connected(cluster) as db:
        await db.create_bucket("carts")
        carts = db.bucket("carts", codec=Text())
        assert isinstance(await carts.get("k"), Missing)
        first = await carts.put("k", "one", after=BLIND)
        await carts.put("k", "two", after=first.context)
        found = await carts.get("k")
        assert isinstance(found, Found)
        assert found.value == "two"
        await carts.put("k", "left", after=found.context)
        await carts.put("k", "right", after=found.context)
        conflict = await carts.get("k")
        assert isinstance(conflict, Conflict)
        assert sorted(sibling.value for sibling in conflict.siblings) == ["left", "right"]
        await carts.delete("k", after=conflict.context)
        assert isinstance(await carts.get("k"), Missing)
        status = await db.status()
        assert (status.nodes_up, status.nodes_total, status.healthy) == (3, 3, True)


@virtual
async def test_a_client_lives_through_the_death_of_each_node_in_turn() -> None:
    async with memory_cluster(3) as cluster, connected(cluster) as db:
        await db.create_bucket("b")
        bucket = db.bucket("b", codec=Text())
        acknowledged: dict[str, str] = {}

        async def write(stop: trio.Event) -> None:
            number = 0
            while not stop.is_set():
                number += 1
                try:
                    await bucket.put(f"key{number}", str(number), after=BLIND, timeout=2.0)
                    acknowledged[f"key{number}"] = str(number)
                except (LeafdbError, TimeoutError):
                    pass
                await trio.sleep(0.02)

        async with trio.open_nursery() as nursery:
            stop = trio.Event()
            nursery.start_soon(write, stop)
            for node in (N1, N2, N3):
                await trio.sleep(0.3)
                await cluster.kill(node)
                await trio.sleep(0.5)
                await cluster.start(node)
                await cluster.meet()
            stop.set()
        assert len(acknowledged) > 60
        for key, value in acknowledged.items():
            found = await bucket.get(key)
            assert isinstance(found, Found)
            assert found.value == value
        await cluster.settle()
        for node in cluster.nodes:
            async with connected(cluster, "listed", via=(node,)) as listed:
                there = listed.bucket("b", codec=Text())
                for key, value in acknowledged.items():
                    local = await there.get(key, local=True)
                    assert isinstance(local, Found)
                    assert local.value == value


@virtual
async def test_scans_show_every_key_once_whatever_node_is_down() -> None:
    async with memory_cluster(3) as cluster, connected(cluster) as db:
        await db.create_bucket("b")
        bucket = db.bucket("b", codec=Text())
        keys = {f"key{number}".encode() for number in range(150)}
        for key in sorted(keys):
            await bucket.put(key, "v", after=BLIND)
        for down in (None, N2):
            if down is not None:
                await cluster.kill(down)
                await trio.sleep(0.5)
            seen = [item.key async for item in bucket.scan(page_size=40)]
            assert sorted(seen) == sorted(keys)
        await cluster.start(N2)
        await cluster.settle()


@virtual
async def test_errors_keep_their_types_from_the_node_to_the_caller() -> None:
    async with memory_cluster(3) as cluster, connected(cluster) as db:
        with pytest.raises(NotApplied) as missing:
            await db.bucket("none").get("k")
        assert missing.value.reason is Reason.NO_SUCH_BUCKET
        await db.create_bucket("b")
        with pytest.raises(NotApplied) as exists:
            await db.create_bucket("b")
        assert exists.value.reason is Reason.BUCKET_EXISTS
        await cluster.kill(N1, N2, N3)
        with pytest.raises((ConnectFailed, TimeoutError)):
            await db.bucket("b").get("k", timeout=1.0)
        await cluster.restart(N1, N2, N3)
