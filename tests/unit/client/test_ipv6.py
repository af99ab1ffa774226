"""A node behind an IPv6 address is met by both clients: from the URL, and through the ring."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import anyio
import pytest

import leafdb
from leafdb import BLIND, Found
from unit.client.fake_node import FakeCluster


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 loopback: {error}")
    with FakeCluster(host="::1") as made:
        made.grow(2)
        made.create("b")
        yield made


def test_the_blocking_client(cluster: FakeCluster) -> None:
    first = f"leafdb://[::1]:{cluster.node.address.port}"
    with leafdb.connect(first) as db:
        raw = db.bucket("b")
        raw.put_many(leafdb.Put(f"k{number}", b"v", BLIND) for number in range(20))
        assert isinstance(raw.get("k1"), Found)
    assert all(node.sessions for node in cluster.nodes), "the ring's addresses are read, too"


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_the_asynchronous_client(cluster: FakeCluster, backend: str) -> None:
    async def main() -> None:
        async with leafdb.connect_async(cluster.url, routing="listed") as db:
            raw = db.bucket("b")
            await raw.put("k", b"v", after=BLIND)
            assert isinstance(await raw.get("k"), Found)

    anyio.run(main, backend=backend)


def test_who_cannot_be_reached_is_named_as_in_the_url() -> None:
    with leafdb.connect("leafdb://[::1]:1", timeout=1.0) as db, pytest.raises(leafdb.ConnectFailed) as failed:
        db.ping()
    assert list(failed.value.attempts) == ["[::1]:1"]
