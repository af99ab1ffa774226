"""Promises of `leafdb dev`: pinned ports, hosts and names; a secret for its owner only; alive = holds the lock."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from leafdb.errors import ConfigError, StoreLocked
from leafdb.vfs.disk import DiskFileSystem
from leafdb_cli.dev_cluster import DevCluster, node_environment
from leafdb_cli.dev_layout import (
    DevNode,
    bind_port,
    config_text,
    existing_nodes,
    free_base_port,
    holder,
    planned_nodes,
    taken_ports,
    write_layout,
)
from leafdb_cli.exits import Quit


def test_ports_names_and_hosts_are_as_pinned(tmp_path: Path) -> None:
    nodes = planned_nodes(tmp_path, 3, 7411)
    assert [node.ports for node in nodes] == [(7411, 7412, 7413), (7421, 7422, 7423), (7431, 7432, 7433)]
    assert [node.name for node in nodes] == ["dev-0", "dev-1", "dev-2"]
    assert nodes[2].member() == {
        "name": "dev-2", "host": "dev-2", "zone": "default",
        "client": "127.0.0.1:7431", "peer": "127.0.0.1:7432", "http": "127.0.0.1:7433",
    }  # fmt: skip
    assert nodes[1].config == tmp_path / "node-1" / "leafdb.toml"
    assert nodes[1].log == tmp_path / "node-1" / "log"


def test_shards_are_members_with_ports_of_their_own_on_one_host(tmp_path: Path) -> None:
    settings = pytest.importorskip("leafdb.node.settings")
    shards = pytest.importorskip("leafdb.node.shards")
    nodes = planned_nodes(tmp_path, 2, 7411, 2)
    write_layout(tmp_path, nodes)
    assert existing_nodes(tmp_path) == nodes
    assert nodes[1].ports == (7431, 7432, 7433, 7441, 7442, 7443)
    config = settings.load(str(nodes[1].config), environment={}).config
    for number, member in enumerate(nodes[1].members()):
        told = shards.shard_of(config, number)
        assert (member["name"], member["host"]) == (told.node.name, told.node.host)
        assert member["client"] == str(told.listen.client)
        assert member["peer"] == str(told.listen.peer)
        assert member["http"] == str(told.listen.http)
    assert {address.port for address in config.cluster.seeds} == {7412, 7422}
    with pytest.raises(ConfigError):
        planned_nodes(tmp_path, 17, 7411, 2)


@pytest.mark.parametrize(("count", "base"), [(0, 7411), (33, 7411), (3, 65_520), (1, 65_535)])
def test_impossible_clusters_are_refused(tmp_path: Path, count: int, base: int) -> None:
    with pytest.raises(ConfigError):
        planned_nodes(tmp_path, count, base)


def test_what_is_written_is_found_again_and_kept(tmp_path: Path) -> None:
    root = tmp_path / "cluster"
    nodes = planned_nodes(root, 3, 7411)
    assert existing_nodes(root) == []
    write_layout(root, nodes)
    assert existing_nodes(root) == nodes
    secret = (root / "secret").read_text()
    assert len(secret.strip()) >= 32
    assert (root / "secret").stat().st_mode & 0o777 == 0o600
    write_layout(root, nodes)
    assert (root / "secret").read_text() == secret


def test_leafdbd_accepts_the_configuration(tmp_path: Path) -> None:
    settings = pytest.importorskip("leafdb.node.settings")
    nodes = planned_nodes(tmp_path, 3, 7411)
    write_layout(tmp_path, nodes)
    config = settings.load(str(nodes[1].config), environment={}).config
    assert (config.node.name, config.node.host) == ("dev-1", "dev-1")
    assert config.listen.client.port == 7421
    assert config.node.data_dir == str(nodes[1].directory / "data")
    assert os.path.samefile(config.cluster.secret_file, tmp_path / "secret")
    assert {address.port for address in config.cluster.seeds} == {7412, 7432}


def test_a_broken_configuration_is_named(tmp_path: Path) -> None:
    (tmp_path / "node-0").mkdir()
    (tmp_path / "node-0" / "leafdb.toml").write_text("[listen]\n")
    with pytest.raises(ConfigError, match="node-0"):
        existing_nodes(tmp_path)


def test_alive_is_who_holds_the_lock(tmp_path: Path) -> None:
    """The lock is the node's own (vfs): looking at it neither takes it away nor keeps anyone from it."""
    node = DevNode(0, tmp_path / "node-0", 7411)
    assert holder(node) is None
    files = DiskFileSystem(node.directory / "data")
    lock = files.lock("LOCK")
    assert holder(node) == os.getpid()
    with pytest.raises(StoreLocked):
        files.lock("LOCK")
    lock.release()
    assert holder(node) is None
    files.lock("LOCK").release()


def test_a_zombie_is_dead(tmp_path: Path) -> None:
    node = DevNode(0, tmp_path / "node-0", 7411)
    program = (
        "import sys\nfrom leafdb.vfs.disk import DiskFileSystem\n"
        f"lock = DiskFileSystem({str(node.directory / 'data')!r}).lock('LOCK')\n"
        "print('held', flush=True)\nsys.stdin.read()\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdin is not None
    assert child.stdout.readline() == b"held\n"
    assert holder(node) == child.pid
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert holder(node) is None, "it has ended, though nobody has waited for it"
    child.stdin.close()
    child.stdout.close()
    child.wait(10)


def test_taken_ports_are_named() -> None:
    def bind(port: int) -> None:
        if port in (7412, 7421):
            raise OSError(errno.EADDRINUSE, "taken")

    assert taken_ports(range(7411, 7424), bind) == [7412, 7421]


def test_a_free_block_is_found_by_binding() -> None:
    blocked: list[int] = []

    def bind(port: int) -> None:
        # Whatever is tried first is taken: the block has to move as a whole.
        if len(blocked) < 3:
            blocked.append(port)
            raise OSError(errno.EADDRINUSE, "taken")

    base = free_base_port(3, Random(1), bind)
    assert base % 10 == 1
    assert base not in blocked

    def refuse(port: int) -> None:
        raise OSError(errno.EADDRINUSE, "taken")

    with pytest.raises(ConfigError, match="no free block"):
        free_base_port(3, Random(1), refuse)


def test_a_listener_makes_its_port_taken() -> None:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert taken_ports([port]) == [port]
    bind_port(port)


def test_another_size_or_place_is_a_usage_error(tmp_path: Path) -> None:
    write_layout(tmp_path, planned_nodes(tmp_path, 3, 7411))
    cluster = DevCluster(tmp_path, lambda text: None)
    for count, base in ((5, None), (None, 9000)):
        with pytest.raises(Quit) as refused:
            cluster.up(count, base)
        assert refused.value.code == 2
        assert "purge" in refused.value.hint


def test_a_taken_port_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        root = tmp_path / "cluster"
        with pytest.raises(Quit) as refused:
            DevCluster(root, lambda text: None).up(1, port)
        assert refused.value.code == 1
        assert str(port) in refused.value.message
        assert not root.exists()


def test_what_is_not_there(tmp_path: Path) -> None:
    cluster = DevCluster(tmp_path, lambda text: None)
    assert cluster.down() == 0
    assert cluster.down(purge=True) == 0
    with pytest.raises(Quit) as refused:
        cluster.kill(0)
    assert refused.value.code == 3
    write_layout(tmp_path, planned_nodes(tmp_path, 2, 7411))
    with pytest.raises(Quit) as refused:
        cluster.start(2)
    assert refused.value.code == 3
    assert cluster.kill(0) is False


def test_purge_takes_only_what_is_the_clusters(tmp_path: Path) -> None:
    write_layout(tmp_path, planned_nodes(tmp_path, 2, 7411))
    (tmp_path / "mine").write_text("keep")
    DevCluster(tmp_path, lambda text: None).down(purge=True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_seeds_are_the_other_nodes(tmp_path: Path) -> None:
    one, two = planned_nodes(tmp_path, 2, 7411)
    assert 'seeds = ["127.0.0.1:7422"]' in config_text(one, [one, two])
    assert "seeds = []" in config_text(one, [one])


def test_a_node_runs_the_code_of_who_starts_it_and_has_settings_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path would lead elsewhere from the node's directory: to whatever is installed, without a word."""
    monkeypatch.chdir("/")
    given = {"PYTHONPATH": os.pathsep.join(("src", "/there")), "HOME": "/root", "LEAFDB__NODE__NAME": "mine"}
    assert node_environment(given) == {"PYTHONPATH": os.pathsep.join(("/src", "/there")), "HOME": "/root"}
    assert node_environment({"HOME": "/root"}) == {"HOME": "/root"}
