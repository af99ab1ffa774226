"""Promises: leafdb_server is real processes that can be killed and come back, and none of them is left afterwards."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import leafdb
from leafdb import BLIND, Found
from leafdb.testing import Servers
from leafdb.testing.servers import clean_environment, free_ports

pytestmark = pytest.mark.system


def test_nodes_are_killed_and_started_and_keep_what_they_took(leafdb_server: Servers) -> None:
    n1, n2, n3 = leafdb_server.nodes
    with leafdb_server.connect() as db, leafdb.connect(leafdb_server.url) as same:
        db.create_bucket("b")
        bucket = db.bucket("b", codec=leafdb.Text())
        bucket.put("before", "v", after=BLIND, w="all")
        leafdb_server.kill(n3)
        assert [leafdb_server.runs(node) for node in leafdb_server.nodes] == [True, True, False]
        bucket.put("meanwhile", "v", after=BLIND)
        leafdb_server.start(n3)
        leafdb_server.settle()
        assert same.status().nodes_up == 3
        with leafdb_server.connect(via=n3) as third:
            for key in ("before", "meanwhile"):
                assert isinstance(third.bucket("b").get(key, local=True), Found)
    leafdb_server.pause(n2)
    leafdb_server.resume(n2)
    leafdb_server.stop(n2)
    assert not leafdb_server.runs(n2)
    assert "stop" in leafdb_server.log(n2)
    with pytest.raises(ValueError, match="node 1 runs already"):
        leafdb_server.start(n1)


@pytest.mark.leafdb(nodes=1)
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_asynchronous_client_reaches_them(leafdb_server: Servers) -> None:
    async with leafdb_server.connect_async(via=1) as db:
        assert (await db.ping()).name == "n1"


def test_a_cluster_that_cannot_start_leaves_nothing(tmp_path: Path) -> None:
    servers = Servers(tmp_path / "cluster", nodes=2)
    (tmp_path / "cluster" / "n2").mkdir(parents=True)  # in its way
    with pytest.raises(FileExistsError), servers:
        pass
    assert not any(servers.runs(node) for node in servers.nodes)


def test_a_blank_node_can_be_added_and_the_members_are_waited_for_without_it(leafdb_server: Servers) -> None:
    node = leafdb_server.add_node()
    assert leafdb_server.nodes == (1, 2, 3, node)
    with leafdb_server.connect(via=node) as fresh:
        assert fresh.ping().node == 0
    leafdb_server.await_ready()
    leafdb_server.settle()
    assert leafdb_server.peer_address(node) != leafdb_server.address(node)
    leafdb_server.stop(node)
    assert leafdb_server.wait(node) == 0


def test_a_node_that_ends_shows_its_log(tmp_path: Path) -> None:
    with Servers(tmp_path / "cluster", nodes=1) as servers:
        servers.stop(1)
        config = tmp_path / "cluster" / "n1" / "leafdb.toml"
        config.write_text(config.read_text(encoding="utf-8") + "\n[nonsense]\n", encoding="utf-8")
        with pytest.raises(RuntimeError, match=r"(?s)n1 has ended.*nonsense"):
            servers.start(1)


def test_ports_are_free_and_different() -> None:
    ports = free_ports(12)
    assert len(set(ports)) == 12


def test_nothing_configures_a_node_by_accident() -> None:
    environment = {"PATH": "/bin", "LEAFDB__NODE__NAME": "other", "NOTIFY_SOCKET": "/run/x"}
    assert clean_environment(environment) == {"PATH": "/bin"}
    assert set(clean_environment(os.environ)) <= set(os.environ)
