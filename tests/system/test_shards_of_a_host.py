"""Two machines of two shards each, as real processes: what is founded, what comes back by itself, what never outlives
its parent."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import leafdb
from leafdb.ring.metadata import decode
from leafdb.ring.ring import Ring
from leafdb.types import PartitionId
from leafdb_cli.dev_layout import DevNode, holder, lock_holder
from support.processes import Cluster, eventually, run_leafdbd

KEYS = 200
BOTH_HOSTS = 2


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("machines"), 2, shards=2) as cluster:
        yield cluster.up()


@pytest.fixture
def running(machines: Cluster) -> Iterator[Cluster]:
    try:
        machines.heal()
        yield machines
    finally:
        print(machines.logs())


def shard_pid(node: DevNode, shard: int) -> int:
    return lock_holder(node.lock.parent / f"shard-{shard}" / "LOCK") or 0


def pids(node: DevNode) -> list[int]:
    return [shard_pid(node, shard) for shard in range(node.shards)]


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def put_all(cluster: Cluster, bucket: str, word: bytes) -> None:
    with cluster.connect() as client:
        client.create_bucket(bucket, n=BOTH_HOSTS, exist_ok=True)
        carts = client.bucket(bucket)
        for number in range(KEYS):
            carts.put(f"key-{number}", word + b"%d" % number, after=leafdb.BLIND)


def values(cluster: Cluster, bucket: str) -> dict[str, set[bytes]]:
    with cluster.connect() as client:
        carts = client.bucket(bucket)
        found = {}
        for number in range(KEYS):
            match carts.get(f"key-{number}"):
                case leafdb.Found(value=value):
                    found[f"key-{number}"] = {value}
                case leafdb.Conflict(siblings=siblings):
                    found[f"key-{number}"] = {sibling.value for sibling in siblings}
        return found


def test_shards_are_members_of_one_host_and_copies_are_on_both(running: Cluster) -> None:
    put_all(running, "carts", b"tea ")
    assert len(values(running, "carts")) == KEYS
    with running.connect() as client:
        metadata = decode(client.admin("ring")["metadata"])
    assert [(each.name, each.host) for each in metadata.members.values()] == [
        ("dev-0-0", "dev-0"), ("dev-0-1", "dev-0"), ("dev-1-0", "dev-1"), ("dev-1-1", "dev-1"),
    ]  # fmt: skip
    ring = Ring(metadata)
    for partition in map(PartitionId, range(ring.partitions)):
        assert len({metadata.members[node].host for node in ring.primaries(partition, BOTH_HOSTS)}) == BOTH_HOSTS
    assert sorted(ring.loads.values()) == [64, 64, 64, 64]
    assert len({metadata.members[node].host for node in metadata.control}) == BOTH_HOSTS
    shown = running.cli("node", "list")
    assert all(member["name"] in shown.stdout for member in running.members()), shown
    assert "dev-1-1" in running.cli("ring", "show").stdout


def test_a_killed_shard_comes_back_by_itself_and_its_neighbour_stays(running: Cluster) -> None:
    node = running.nodes[0]
    put_all(running, "before", b"before ")
    killed, neighbour = pids(node)
    os.kill(killed, signal.SIGKILL)
    eventually("the shard is started again", lambda: shard_pid(node, 0) not in (0, killed))
    running.await_ready()
    assert shard_pid(node, 1) == neighbour
    assert running.runs(0)
    assert len(values(running, "before")) == KEYS
    assert '"shard crashed"' in running.log_of(0)


def test_no_shard_outlives_its_parent(running: Cluster) -> None:
    node = running.nodes[1]
    children = pids(node)
    running.kill(1)
    eventually("its shards end", lambda: all(map(is_gone, children)))
    assert holder(node) is None
    running.start(1)
    running.await_settled()


def test_the_machine_s_directory_is_taken_while_any_shard_lives(running: Cluster) -> None:
    """A parent that is started while shards of a killed one still end must not meet them."""
    node = running.nodes[1]
    child = shard_pid(node, 0)
    os.kill(child, signal.SIGSTOP)
    try:
        running.kill(1)
        assert holder(node) is not None
        refused = run_leafdbd("--config", str(node.config))
        assert refused.returncode == 1, refused
        assert "belongs to another process" in refused.stderr or "is taken" in refused.stderr
    finally:
        os.kill(child, signal.SIGCONT)
    eventually("the last shard ends", lambda: holder(node) is None)


def test_sigterm_ends_all_of_them_cleanly(running: Cluster) -> None:
    children = pids(running.nodes[0])
    assert running.stop(0) == 0
    assert all(map(is_gone, children))
    said = running.log_of(0)
    assert said.count('"drain took too long"') == 0
    assert '"all shards have ended"' in said.splitlines()[-1]
    running.start(0)
    assert '"clean": false' not in running.log_of(0).rpartition('"all shards have ended"')[2]


def test_a_signal_to_the_whole_group_is_one_drain(running: Cluster) -> None:
    """systemd sends SIGTERM to every process of a unit, and the parent passes its own on."""
    for pid in pids(running.nodes[0]):
        os.kill(pid, signal.SIGTERM)
    assert running.stop(0) == 0
    assert '"stopping at once"' not in running.log_of(0)


def test_one_that_cannot_run_keeps_no_other_from_serving(running: Cluster) -> None:
    node = running.nodes[1]
    identity = node.lock.parent / "shard-1" / "IDENTITY"
    running.stop(1)
    whole = identity.read_bytes()
    identity.write_bytes(whole[:-1] + bytes((whole[-1] ^ 1,)))
    try:
        before = len(running.log_of(1))
        running.spawn(1)
        words = '"shard ended for good: the others serve on"', '"shards": 1}'
        eventually("the parent says so", lambda: all(word in running.log_of(1)[before:] for word in words))
        assert shard_pid(node, 0)
        assert not shard_pid(node, 1)
    finally:
        running.signal(1, signal.SIGTERM)
        assert running.wait(1) == 1, "the worst of its codes"
        identity.write_bytes(whole)


@pytest.mark.parametrize(("shards", "words"), [("1", "holds the data of shards"), ("4", "memory_bytes_max")])
def test_another_number_of_shards_is_looked_at_before_anything_starts(
    running: Cluster, shards: str, words: str
) -> None:
    running.stop(1)
    refused = run_leafdbd("--config", str(running.nodes[1].config), "--set", f"node.shards={shards}")
    assert refused.returncode == 1
    assert words in refused.stderr


def test_a_single_node_s_directory_is_not_for_shards(tmp_path: Path) -> None:
    (tmp_path / "IDENTITY").write_bytes(b"a node's")
    ports = [f"--set=listen.{name}=127.0.0.1:0" for name in ("client", "peer", "http")]
    refused = run_leafdbd("--set", f"node.data_dir={tmp_path}", "--set", "node.shards=2", *ports)
    assert refused.returncode == 1
    assert "a node without shards" in refused.stderr
