"""Promises of `leafdb dev` with real processes: ready means ready, dead means dead, twice is fine, nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import leafdb
from leafdb import BLIND, Found
from leafdb_cli.dev_layout import existing_nodes, holder

pytestmark = pytest.mark.system

RUN_S = 90


def leafdb_cli(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """The command line as a process of its own, as users have it."""
    finished = subprocess.run(
        [sys.executable, "-m", "leafdb_cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("LEAFDB")},
    )
    assert finished.returncode == code, finished.stdout + finished.stderr
    assert "Traceback" not in finished.stderr
    return finished


def items(finished: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    document = json.loads(finished.stdout)
    assert document["apiVersion"] == "leafdb/v1"
    found: list[dict[str, Any]] = document["items"]
    return found


def processes_below(directory: Path) -> list[int]:
    """Every process whose command line or working directory names the directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes() + os.fsencode(os.readlink(entry / "cwd"))
        except OSError:
            continue
        if os.fsencode(directory) in words:
            found.append(int(entry.name))
    return found


def test_the_life_of_a_local_cluster(tmp_path: Path) -> None:
    root = tmp_path / "cluster"
    where = ("--dir", str(root))
    try:
        nodes = items(leafdb_cli("dev", "up", "-n", "3", *where, "--base-port", "0", "-o", "json"))
        assert [node["state"] for node in nodes] == ["running"] * 3
        first = nodes[0]["client"]

        # Ready is ready: the very first request succeeds.
        with leafdb.connect(f"leafdb://{first}") as db:
            db.create_bucket("b")
            db.bucket("b").put("k", b"before", after=BLIND, w="all")

        # Sessions of their own, nothing inherited.
        for node in nodes:
            pid = node["pid"]
            assert os.getsid(pid) == pid
            assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
            assert os.readlink(f"/proc/{pid}/fd/1") == str(root / node["name"].replace("dev", "node") / "log")

        # Up again changes nothing; another size is a usage error; a second cluster on these ports is refused.
        again = items(leafdb_cli("dev", "up", "-n", "3", *where, "-o", "json"))
        assert [node["pid"] for node in again] == [node["pid"] for node in nodes]
        leafdb_cli("dev", "up", "-n", "4", *where, code=2)
        port = int(first.rpartition(":")[2])
        refused = leafdb_cli("dev", "up", "--dir", str(tmp_path / "other"), "--base-port", str(port), code=1)
        assert str(port) in refused.stderr
        assert not (tmp_path / "other").exists()

        # kill is SIGKILL: dead on return, though nobody has waited for it.
        leafdb_cli("dev", "kill", "2", *where)
        assert holder(existing_nodes(root)[2]) is None
        states = [node["state"] for node in items(leafdb_cli("dev", "status", *where, "-o", "json"))]
        assert states == ["running", "running", "stopped"]
        leafdb_cli("dev", "kill", "2", *where)
        leafdb_cli("dev", "kill", "9", *where, code=3)

        # start returns when it is ready; what was written before is there.
        leafdb_cli("dev", "start", "2", *where)
        leafdb_cli("dev", "start", "2", *where)
        with leafdb.connect(f"leafdb://{nodes[2]['client']}", routing="listed") as db:
            found = db.bucket("b").get("k")
            assert isinstance(found, Found)
            assert found.value == b"before"
        assert "leafdb" in leafdb_cli("dev", "logs", "2", *where).stdout

        # down stops all, twice is fine; up brings the data back; purge takes it.
        leafdb_cli("dev", "down", *where)
        leafdb_cli("dev", "down", *where)
        assert processes_below(root) == []
        leafdb_cli("dev", "up", *where)
        with leafdb.connect(f"leafdb://{first}") as db:
            found = db.bucket("b").get("k")
            assert isinstance(found, Found)
            assert found.value == b"before"
    finally:
        leafdb_cli("dev", "down", "--purge", *where)
    assert not root.exists()
    assert processes_below(tmp_path) == []
    leafdb_cli("dev", "down", "--purge", *where)


def test_an_interrupted_up_leaves_nothing_running(tmp_path: Path) -> None:
    root = tmp_path / "cluster"
    command = [sys.executable, "-m", "leafdb_cli.main", "dev", "up", "--dir", str(root), "--base-port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + RUN_S
    while not list(root.glob("node-*/data/LOCK")):
        assert time.monotonic() < deadline
        assert process.poll() is None, "it ended before it could be interrupted"
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=RUN_S)
    try:
        assert process.returncode == 130, complaint
        assert "Traceback" not in complaint
        assert processes_below(root) == []
    finally:
        leafdb_cli("dev", "down", "--purge", "--dir", str(root))


def test_a_node_that_cannot_start_is_told_with_its_log(tmp_path: Path) -> None:
    root = tmp_path / "cluster"
    root.mkdir()
    (root / "secret").write_text("a secret that everybody on this machine can read")
    (root / "secret").chmod(0o644)
    refused = leafdb_cli("dev", "up", "-n", "1", "--dir", str(root), "--base-port", "0", code=1)
    assert "dev-0 ended with code 1" in refused.stderr
    assert "chmod 600" in refused.stderr
    assert processes_below(root) == []


def test_the_demo_holds(tmp_path: Path) -> None:
    """`make demo` without its installation; nothing of it is left afterwards."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    finished = subprocess.run(
        [sys.executable, "-m", "leafdb_cli.demo"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "kill -9 dev-2" in finished.stderr
    assert "every byte as it was written" in finished.stderr
    assert "exchanges" in finished.stdout
    assert list(tmp_path.iterdir()) == []
    assert processes_below(tmp_path) == []


def test_a_demo_that_is_told_to_stop_leaves_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "leafdb_cli.demo"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    deadline = time.monotonic() + RUN_S
    while not list(tmp_path.glob("leafdb-demo-*/cluster/node-*/data/LOCK")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(RUN_S) == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []
    assert processes_below(tmp_path) == []
