"""A node among the machines that watch it: systemd hears of its life, the pages tell the truth at every stage of it,
SIGHUP changes what may change, and all of it through real processes.
"""

from __future__ import annotations

import json
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leafdb import BLIND
from leafdb.node.metric_tables import labels_of
from leafdb_cli.dev_layout import CLUSTER_NAME
from support.processes import Cluster, eventually

prometheus_parser = pytest.importorskip("prometheus_client.parser")

pytestmark = pytest.mark.system

WATCHDOG_S = 0.2


class Systemd:
    """The socket of a service manager, and what it was told."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self._told: list[dict[str, str]] = []

    def told(self) -> list[dict[str, str]]:
        """Every message so far, by name."""
        while True:
            try:
                message = self._socket.recv(65_536).decode()
            except BlockingIOError:
                return self._told
            self._told.append(dict(line.split("=", 1) for line in message.splitlines()))

    def values(self, name: str) -> list[str]:
        return [message[name] for message in self.told() if name in message]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[Cluster]:
    """One node that nobody started yet."""
    with Cluster(tmp_path / "lone", 1) as cluster:
        try:
            yield cluster
        finally:
            print(cluster.logs())


def page(cluster: Cluster, path: str, index: int = 0) -> tuple[int, str]:
    """Status and body; 0 while nobody listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{cluster.nodes[index].http_port}{path}", timeout=10.0) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def test_systemd_and_the_pages_hear_how_a_node_is(lone: Cluster, tmp_path: Path) -> None:
    systemd = Systemd(tmp_path / "notify")
    try:
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": str(int(WATCHDOG_S * 1_000_000))}
        lone.spawn(0, **environment)
        eventually("READY", lambda: systemd.values("READY") == ["1"])
        assert systemd.values("STATUS")[-1] == "serving as dev-0"
        eventually("the watchdog is fed", lambda: len(systemd.values("WATCHDOG")) > 3)

        assert page(lone, "/livez") == (200, "ok\n"), "a blank node lives"
        assert page(lone, "/readyz") == (503, "not part of a cluster yet\n")
        with lone.connect_to(0, timeout=30.0) as db:
            db.admin("cluster.init", {"name": CLUSTER_NAME, "members": lone.members()}, changes=True)
            assert page(lone, "/readyz") == (200, "ok\n")
            status, body = page(lone, "/healthz?verbose")
            checks = {check["name"]: check for check in json.loads(body)["checks"]}
            assert status == 200, body
            assert {"loop", "ready", "disk", "memory", "complete", "hints", "repair", "losses"} <= set(checks)
            db.create_bucket("b", n=1)
            db.bucket("b").put("k", b"v" * 100, after=BLIND)
            _all_metrics_are_there(page(lone, "/metrics")[1])

            lone.ask(0, "node.drain")
            assert page(lone, "/readyz") == (503, "draining\n")
            assert page(lone, "/livez")[0] == 200, "a node that drains is not to be restarted"
        systemd.told()  # such a socket holds ten messages: what comes beyond that is dropped
        lone.signal(0, signal.SIGTERM)
        eventually("STOPPING", lambda: systemd.values("STOPPING"))
        assert lone.wait(0) == 0
        (stopping,) = [message for message in systemd.told() if "STOPPING" in message]
        assert stopping["STATUS"] == "draining"
        assert int(stopping["EXTEND_TIMEOUT_USEC"]) == 15_000_000, "five to drain, ten for the last flush"
    finally:
        systemd.close()


def _all_metrics_are_there(text: str) -> None:
    """Every metric that is described, and what this node has just done."""
    families = {family.name: family for family in prometheus_parser.text_string_to_metric_families(text)}
    shown = set(families) | {f"{name}_total" for name in families} | {f"{name}_info" for name in families}
    assert set(labels_of()) <= shown, set(labels_of()) - shown
    values = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert values["leafdb_requests_total", "put"] == 1
    assert values["leafdb_request_duration_seconds_count", "put"] == 1
    assert values["leafdb_put_value_bytes_sum",] == 100
    assert values["leafdb_wal_sync_duration_seconds_count",] > 0
    assert values["leafdb_event_loop_lag_seconds_count",] > 0
    assert values["leafdb_disk_bytes",] >= values["leafdb_disk_free_bytes",] > 0
    assert values["leafdb_ranges_short", "put"] == 0
    assert values["leafdb_members", "alive"] == 1
    assert values["leafdb_process_resident_memory_bytes",] > 0


def test_a_node_without_a_quorum_lives_and_is_ready(cluster: Cluster) -> None:
    """To restart it, or to send nobody there, would make one dead node three."""
    with cluster.connect() as db:
        db.create_bucket("manners", exist_ok=True)
    cluster.kill(1, 2)
    eventually("it knows", lambda: _dead(cluster) == 2)
    assert page(cluster, "/livez")[0] == 200
    assert page(cluster, "/readyz")[0] == 200
    text = page(cluster, "/metrics")[1]
    short = [
        sample.value
        for family in prometheus_parser.text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "leafdb_ranges_short"
    ]
    assert short
    assert all(value > 0 for value in short), "neither puts nor gets have two of three"


def _dead(cluster: Cluster) -> float:
    for family in prometheus_parser.text_string_to_metric_families(page(cluster, "/metrics")[1]):
        for sample in family.samples:
            if sample.name == "leafdb_members" and sample.labels["state"] == "dead":
                return float(sample.value)
    return 0.0


def events(cluster: Cluster, event: str) -> list[dict[str, Any]]:
    """Lines of a node's log."""
    lines = [json.loads(line) for line in cluster.log_of(0).splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def test_a_reload_changes_a_running_node_and_says_what_waits(lone: Cluster) -> None:
    lone.up()
    config = lone.nodes[0].config
    with lone.connect_to(0) as db:
        db.create_bucket("b", n=1)
        db.bucket("b").put("secret-name", b"v", after=BLIND)
        assert events(lone, "a request was slow") == []
        text = config.read_text()
        config.write_text(
            text + '\n[log]\nslow_request = "1ms"\nlevel = "debug"\n[replication]\nrequest_timeout = "9s"\n'
        )
        lone.signal(0, signal.SIGHUP)
        eventually("it is read", lambda: events(lone, "configuration reloaded"))
        assert events(lone, "these settings wait for a restart")[0]["settings"] == ["replication.request_timeout"]
        settings = lone.ask(0, "config.show")
        assert settings is not None
        by_path = {line["path"]: line for line in settings["settings"]}
        assert (by_path["log.level"]["value"], by_path["log.level"]["origin"]) == ('"debug"', f"file {config.name}")
        assert by_path["replication.request_timeout"]["waiting"] == '"9s"'
        assert by_path["node.name"]["origin"].startswith("file")

        def slow() -> list[dict[str, Any]]:
            db.bucket("b").put("secret-name", b"v" * 500_000, after=BLIND, dw=1)
            return events(lone, "a request was slow")

        line = eventually("a sync takes a millisecond now and then", slow)[0]
        assert line["node"] == "dev-0"
        assert (line["op"], line["bucket"]) == ("put", "b")
        assert len(line["key_hash"]) == 16
        assert line["took_s"] >= 0.001
        assert line["request_id"] > 0
        assert "secret-name" not in lone.log_of(0)
        where = lone.cli("kv", "where", "b", "secret-name", "-o", "json")
        assert json.loads(where.stdout)["items"][0]["key_hash"] == line["key_hash"]

        config.write_text(text + "\n[nonsense]\n")
        lone.signal(0, signal.SIGHUP)
        (refused,) = eventually("it is refused", lambda: events(lone, "configuration not reloaded"))
        assert "nonsense" in str(refused["problems"])


def test_a_real_node_is_profiled_while_it_serves(lone: Cluster) -> None:
    lone.up()
    shown = lone.cli("node", "profile", "--seconds", "0.5", "-o", "json")
    assert shown.returncode == 0, shown.stderr
    document = json.loads(shown.stdout)
    assert document["node"] == "dev-0"
    assert document["samples"] > 10
    assert {item["thread"] for item in document["items"]} >= {"MainThread"}
    level = lone.cli("node", "loglevel", "--set", "debug", "-o", "json")
    assert json.loads(level.stdout)["items"] == [{"name": "dev-0", "level": "debug", "was": "info"}]
    metrics = lone.cli("metrics", "--name", "build_info", "-o", "json")
    (build,) = json.loads(metrics.stdout)["items"]
    assert build["value"] == 1
