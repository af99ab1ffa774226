"""A backup of three real nodes under load, and what comes back of it in one node and in five: every acknowledged write,
siblings, expiries, and nothing that was deleted. A damaged backup is refused, with the file named."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leafdb import BLIND, Answer, Conflict, Found, Missing
from leafdb.client.sync_client import Client
from leafdb.errors import LeafdbError
from support.processes import WAIT_S, Cluster, clean_environment, eventually

pytestmark = pytest.mark.system

KEYS = 600
Values = dict[str, list[bytes]]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("source")) as cluster:
        try:
            yield cluster.up()
        finally:
            print(cluster.logs())


def leafdb_cli(cluster: Cluster | None, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    node = {} if cluster is None else {"LEAFDB_NODE": cluster.nodes[0].client}
    ended = subprocess.run(
        [sys.executable, "-m", "leafdb_cli.main", *arguments],
        capture_output=True, text=True, timeout=2 * WAIT_S, env={**clean_environment(), **node}, check=False,
    )  # fmt: skip
    assert ended.returncode == code, (arguments, ended.returncode, ended.stdout, ended.stderr)
    return ended


def items(ended: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(ended.stdout)["items"]
    return found


class Writer:
    """Puts new keys, one after the other, until stopped; knows which were acknowledged."""

    def __init__(self, client: Client) -> None:
        self._bucket = client.bucket("carts")
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.acknowledged: list[str] = []

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._stopped.is_set():
            key = f"load-{number}"
            try:
                self._bucket.put(key, key.encode(), after=BLIND)
                self.acknowledged.append(key)
            except LeafdbError:
                continue
            finally:
                number += 1


def fill(cluster: Cluster) -> Values:
    """Values of all kinds; what a reader is to find of each key."""
    with cluster.connect() as client:
        client.create_bucket("carts", exist_ok=True)
        client.create_bucket("newest", conflict="lww", n=2, exist_ok=True)
        carts, newest = client.bucket("carts"), client.lww_bucket("newest")
        found: Values = {}
        for number in range(KEYS):
            key, value = f"k{number}", b"value %d " % number * (1 + number % 40)
            written = carts.put(key, value, after=BLIND)
            found[key] = [value]
            if number % 5 == 1:
                carts.delete(key, after=written.context)
                found[key] = []
            elif number % 5 == 2:
                carts.put(key, b"other", after=BLIND)
                found[key] = sorted((value, b"other"))
            elif number % 5 == 3:
                carts.put(key, b"over", after=written.context, ttl=3600.0)
                found[key] = [b"over"]
        for number in range(50):
            newest.put(f"n{number}", b"old")
            newest.put(f"n{number}", b"new %d" % number)
        return found


def values_of(answer: Answer[bytes]) -> list[bytes]:
    match answer:
        case Missing():
            return []
        case Found(value):
            return [value]
        case Conflict(siblings):
            return sorted(sibling.value for sibling in siblings)


@pytest.fixture(scope="module")
def backup(source: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Values]:
    """Made while a client writes: everything acknowledged before it began is in it."""
    expected = fill(source)
    directory = tmp_path_factory.mktemp("backups")
    with source.connect() as client, Writer(client) as writer:
        while len(writer.acknowledged) < 100:
            threading.Event().wait(0.01)
        before = list(writer.acknowledged)
        (made,) = items(leafdb_cli(source, "backup", "create", str(directory), "--name", "first", "-o", "json"))
    assert len(writer.acknowledged) > len(before), "it was made under load"
    assert (made["state"], made["missing"], made["buckets"]) == ("finished", None, 2)
    assert [path.name for path in directory.iterdir()] == ["first"], "nothing is left beside it"
    for index in range(3):
        assert list((source.nodes[index].directory).rglob("snapshots/*")) == []
    return directory / "first", expected | {key: [key.encode()] for key in before}


def check_restored(cluster: Cluster, expected: Values) -> None:
    with cluster.connect(timeout=30.0) as client:
        carts = client.bucket("carts")
        for key, values in expected.items():
            assert values_of(carts.get(key, r="all")) == values, key
        newest = client.lww_bucket("newest")
        assert [newest.get(f"n{number}") for number in range(50)] == [b"new %d" % number for number in range(50)]
        assert client.buckets()["newest"].n == 2


@pytest.mark.parametrize("count", [1, 5])
def test_it_comes_back_in_a_cluster_of_another_shape(backup: tuple[Path, Values], tmp_path: Path, count: int) -> None:
    path, expected = backup
    with Cluster(tmp_path, count) as cluster:
        try:
            cluster.up()
            first = items(leafdb_cli(cluster, "backup", "restore", str(path), "-o", "json"))
            by_bucket = {each["bucket"]: each for each in first}
            living = sum(map(bool, expected.values()))
            assert by_bucket["carts"]["restored"] >= living
            assert by_bucket["carts"]["dead"] == KEYS // 5
            assert by_bucket["carts"]["siblings"] == KEYS // 5
            assert by_bucket["newest"]["restored"] == 50
            check_restored(cluster, expected)
            refused = leafdb_cli(cluster, "backup", "restore", str(path), code=4)
            assert "holds keys" in refused.stderr
            with cluster.connect() as client:
                answer = client.bucket("carts").get("k0")
                client.bucket("carts").put("k0", b"since", after=answer.context)
            arguments = ("backup", "restore", str(path), "--bucket", "carts", "--into", "carts", "-o", "json")
            (again,) = items(leafdb_cli(cluster, *arguments))
            assert again["restored"] == by_bucket["carts"]["restored"]
            check_restored(cluster, expected | {"k0": [b"since"]})
        finally:
            print(cluster.logs())


def test_a_damaged_backup_is_refused_and_the_file_named(
    source: Cluster, backup: tuple[Path, Values], tmp_path: Path
) -> None:
    path = tmp_path / "damaged"
    shutil.copytree(backup[0], path)
    table = max((path / "node-2" / "tables").iterdir(), key=lambda each: each.stat().st_size)
    damaged = bytearray(table.read_bytes())
    damaged[len(damaged) // 2] ^= 0x10
    table.write_bytes(damaged)
    name = f"node-2/tables/{table.name}"
    (problem,) = items(leafdb_cli(None, "backup", "verify", str(path), "-o", "json", code=1))
    assert problem["path"] == name
    refused = leafdb_cli(source, "backup", "restore", str(path), "--bucket", "carts", "--into", "damaged", code=1)
    assert name in refused.stderr
    assert "nothing was restored" in refused.stderr
    with source.connect() as client:
        assert "damaged" not in client.buckets()
    (sound,) = items(leafdb_cli(None, "backup", "verify", str(backup[0]), "-o", "json"))
    assert sound["state"] == "finished"


def test_it_comes_back_beside_the_original_in_the_same_cluster(source: Cluster, backup: tuple[Path, Values]) -> None:
    """The nodes find dots of their own in it, of which they know nothing under this key."""
    path, expected = backup
    arguments = ("backup", "restore", str(path), "--bucket", "carts", "--into", "copy")
    leafdb_cli(source, *arguments)
    source.await_settled()
    with source.connect(timeout=30.0) as client:
        copy = client.bucket("copy")
        for key, values in expected.items():
            assert values_of(copy.get(key, r="all")) == values, key


def test_an_interrupted_backup_goes_on(source: Cluster, backup: tuple[Path, Values], tmp_path: Path) -> None:
    arguments = ("backup", "create", str(tmp_path), "--name", "slow")
    began = subprocess.Popen(
        [sys.executable, "-m", "leafdb_cli.main", *arguments, "--rate", "8KiB"],
        stderr=subprocess.PIPE, env={**clean_environment(), "LEAFDB_NODE": source.nodes[0].client},
    )  # fmt: skip
    try:
        eventually("a file has come", lambda: list(tmp_path.glob("slow.part/node-1/CURRENT")))
        began.send_signal(signal.SIGINT)
        _, said = began.communicate(timeout=WAIT_S)
    finally:
        began.kill()
        began.wait()
    assert began.returncode == 130, said
    assert not (tmp_path / "slow").exists()
    ended = leafdb_cli(source, *arguments)
    assert "going on with the snapshots" in ended.stderr
    leafdb_cli(None, "backup", "verify", str(tmp_path / "slow"))
    assert [path.name for path in tmp_path.iterdir()] == ["slow"]


def test_a_member_that_is_down_is_gone_without_only_when_that_is_said(
    source: Cluster, backup: tuple[Path, Values], tmp_path: Path
) -> None:
    source.kill(2)
    try:
        name = source.nodes[2].name
        refused = leafdb_cli(source, "backup", "create", str(tmp_path), "--name", "two", code=5)
        assert name in refused.stderr
        arguments = ("backup", "create", str(tmp_path), "--name", "two", "--allow-missing", name, "-o", "json")
        (made,) = items(leafdb_cli(source, *arguments))
        assert made["missing"] == name
        leafdb_cli(None, "backup", "verify", str(tmp_path / "two"))
        leafdb_cli(source, "backup", "create", str(tmp_path), "--name", "two", code=1)
        (listed,) = items(leafdb_cli(None, "backup", "list", str(tmp_path), "-o", "json"))
        assert listed == made
    finally:
        source.start(2)
