"""Promises of `leafdb stats`, `metrics`, `config show`, `node loglevel` and `node profile`: their JSON, quantiles that
are Prometheus', a span's own figures, keys of all nodes added up."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from leafdb_cli import stats
from leafdb_cli.node_process import function_items
from leafdb_cli.stats import hot_items, latency_items, quantile
from support.stand_in import Run, StandIn

BOUNDS = [0.001, 0.01, 0.1]


def durations(counts: list[int], total: float) -> list[dict[str, Any]]:
    return [{"metric": "request", "op": "put", "bounds": BOUNDS, "counts": counts, "total": total}]


def test_latency_of_all_nodes(run: Run, node: StandIn) -> None:
    node.verbs["stats.latency"] = {
        "nodes": {"a": {"durations": durations([90, 10, 0, 0], 0.2)}},
        "errors": {"b": "no session to node 2"},
    }
    shown = run("stats", "latency", "-o", "json").document
    assert shown["kind"] == "LatencyList"
    assert shown["errors"] == {"b": "no session to node 2"}
    assert shown["items"] == [
        {
            "node": "a", "what": "request", "op": "put", "count": 100, "mean_ms": 2.0, "p50_ms": 0.556,
            "p99_ms": 9.1, "p999_ms": 9.91,
        }
    ]  # fmt: skip
    run("stats", "latency", "b")
    assert node.asked("stats.latency") == [{"node": ""}, {"node": "b"}]


def test_the_latency_of_a_span_is_only_what_it_had(run: Run, node: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(stats, "sleep", slept.append)
    before, after = durations([900, 0, 0, 0], 0.9), durations([900, 0, 100, 0], 5.9)
    node.verbs["stats.latency"] = [
        {"nodes": {"a": {"durations": before}}},
        {"nodes": {"a": {"durations": after}}},
    ]
    item = run("stats", "latency", "--for", "10s", "-o", "json").item
    assert (item["count"], item["mean_ms"], item["p50_ms"]) == (100, 50.0, 55.0)
    assert slept == [10.0]
    assert run("stats", "latency", "--for", "ten").code == 2
    assert run("stats", "latency", "--for", "2h").code == 2


def test_a_process_that_began_anew_meanwhile_is_shown_as_it_is() -> None:
    (item,) = latency_items("a", durations([5, 0, 0, 0], 0.005), durations([900, 0, 0, 0], 0.9))
    assert item["count"] == 5
    assert latency_items("a", durations([0, 0, 0, 0], 0.0)) == [], "nothing to be said of what never came"


@pytest.mark.parametrize(
    ("counts", "q", "wanted"),
    [([4, 0, 0, 0], 0.5, 0.0005), ([0, 4, 0, 0], 0.5, 0.0055), ([2, 2, 0, 0], 1.0, 0.01), ([0, 0, 0, 7], 0.5, 0.1)],
)
def test_quantiles_are_those_of_prometheus(counts: list[int], q: float, wanted: float) -> None:
    assert quantile(BOUNDS, counts, q) == pytest.approx(wanted)


def test_queues(run: Run, node: StandIn) -> None:
    line = {"queue": "requests", "waiting": 3, "room": 16_384}
    node.verbs["stats.queues"] = {"nodes": {"a": {"queues": [line]}}, "errors": {}}
    assert run("stats", "queues", "-o", "json").item == {"node": "a", **line}
    assert "16384" in run("stats", "queues").out


def test_hot_keys_of_all_nodes_are_added_up(run: Run, node: StandIn) -> None:
    def hot(key: list[bytes], reads: int) -> dict[str, Any]:
        return {"bucket": "carts", "key": key, "reads": reads, "writes": 1, "error": 0}

    nodes = {
        "a": {"sampled": 100, "keys": [hot([b"alice"], 29), hot([b"p", b"s\xff"], 9)]},
        "b": {"sampled": 100, "keys": [hot([b"alice"], 19)]},
    }
    first, second = hot_items(nodes)
    assert first == {
        "bucket": "carts", "key": "alice", "shown": "alice", "share": 0.25, "reads": 48, "writes": 2, "error": 0,
        "nodes": ["a", "b"],
    }  # fmt: skip
    assert (second["key"], second["sort_key_base64"], second["shown"]) == ("p", "c/8=", "p / s\\xff")
    node.verbs["stats.top"] = {"nodes": nodes, "errors": {}}
    shown = run("stats", "top", "-n", "1", "-o", "json").document
    assert (shown["kind"], shown["sampled"], len(shown["items"])) == ("HotKeyList", 200, 1)


def test_metrics_by_name(run: Run, node: StandIn) -> None:
    node.verbs["metrics.read"] = {
        "samples": [
            {"metric": "leafdb_hints_total", "labels": {"event": "stored"}, "value": 3.0},
            {"metric": "leafdb_x_seconds_bucket", "labels": {"le": "+Inf"}, "value": 5.0},
            {"metric": "leafdb_x_seconds_count", "labels": {}, "value": 5.0},
        ]
    }
    shown = run("metrics", "--name", "hints", "-o", "json")
    assert shown.item == {"metric": "leafdb_hints_total", "labels": {"event": "stored"}, "value": 3.0}
    assert "event=stored" in run("metrics").out
    assert "_bucket" not in run("metrics").out
    assert "le=+Inf" in run("metrics", "--buckets").out
    assert run("metrics", "--name", "nonsense").err == "no metric has that in its name\n"


def test_settings_of_a_node(run: Run, node: StandIn) -> None:
    def line(path: str, value: str, **more: Any) -> dict[str, Any]:
        plain = {
            "default": '"info"',
            "differs": value != '"info"',
            "origin": "default",
            "reloadable": True,
            "waiting": "",
        }
        return {"path": path, "value": value, **plain, **more}

    node.verbs["config.show"] = {
        "node": "a",
        "settings": [
            line("log.level", '"info"'),
            line("log.form", '"json"', origin="file leafdb.toml"),
            line("log.zone", '"info"', waiting='"r2"'),
        ],
    }
    every = run("config", "show", "-o", "json").document
    assert (every["kind"], every["node"], len(every["items"])) == ("SettingList", "a", 3)
    assert [item["path"] for item in run("config", "show", "--diff", "-o", "json").document["items"]] == [
        "log.form", "log.zone",
    ]  # fmt: skip
    table = run("config", "show", "--origin")
    assert "file leafdb.toml" in table.out
    assert "waits for a restart" in table.out
    assert "file leafdb.toml" not in run("config", "show").out


def test_the_level_of_a_log(run: Run, node: StandIn) -> None:
    node.verbs["ping"] = {"node": 1, "name": "a", "epoch": 1}
    node.verbs["node.loglevel"] = {"node": "a", "level": "debug", "was": "info"}
    shown = run("node", "loglevel", "--set", "debug", "-o", "json").item
    assert shown == {"name": "a", "level": "debug", "was": "info"}
    run("node", "loglevel")
    assert node.asked("node.loglevel") == [{"level": "debug"}, {}]
    assert run("node", "loglevel", "--set", "loud").code == 2


def test_a_profile(run: Run, node: StandIn, tmp_path: Path) -> None:
    address = os.environ["LEAFDB_NODE"]
    node.verbs["ping"] = {"node": 1, "name": "a", "epoch": 1}
    node.verbs["node.list"] = {"nodes": [{"name": "a", "client": address}], "errors": {}}
    stacks = [{"stack": "loop;main:f;main:g", "seen": 30}, {"stack": "loop;main:h", "seen": 10}]
    node.verbs["node.profile"] = {"node": "a", "samples": 40, "stacks": stacks}
    out = tmp_path / "a.folded"
    shown = run("node", "profile", "a", "--seconds", "0.2", "--out", str(out), "-o", "json").document
    assert (shown["kind"], shown["samples"]) == ("ProfileList", 40)
    assert shown["items"] == [
        {"thread": "loop", "function": "main:g", "seen": 30, "share": 0.75},
        {"thread": "loop", "function": "main:h", "seen": 10, "share": 0.25},
    ]
    assert out.read_text() == "loop;main:f;main:g 30\nloop;main:h 10\n"
    assert node.asked("node.profile") == [{"seconds": 0.2}]
    assert run("node", "profile", "--seconds", "100").code == 2
    assert function_items([]) == []
