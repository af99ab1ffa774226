"""Promises of `leafdb top`: rates and quantiles of the time between two looks, what waits, in 80 columns and as JSON;
a node that restarts or cannot be read costs its own figures only."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

from leafdb.node.metrics import Metrics
from leafdb_cli import top
from leafdb_cli.top_figures import Sample, difference, figures, histograms_of, quantile_s, rows_of, waiting_lines, whole
from support.stand_in import Run, StandIn

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
INF = float("inf")


def sample(at_s: float, latencies: dict[str, Any] | None = None, **counters: dict[str, float]) -> Sample:
    return Sample(at_s, {name.replace("_", "-"): values for name, values in counters.items()}, latencies or {})


def test_rates_are_differences_over_the_time_between() -> None:
    before = sample(
        10.0, dev_0={"gets_total": 100, "puts_total": 5, "failures_total": 1, "rejected_overloaded_total": 2}
    )
    now = sample(
        12.0,
        dev_0={
            "gets_total": 300, "puts_total": 5, "failures_total": 2, "outcomes_unknown_total": 1,
            "rejected_overloaded_total": 3, "rejected_draining_total": 1, "inflight_requests": 7,
            "hints_pending.dev-1": 2, "hints_pending.dev-2": 3,
        },
    )  # fmt: skip
    (item,) = figures(before, now, {"dev-0": "alive"})
    assert (item["gets_per_s"], item["puts_per_s"], item["failed_per_s"], item["refused_per_s"]) == (100.0, 0, 1.0, 1.0)
    assert (item["in_flight"], item["hints"], item["repairs"]) == (7, 5, None)


def test_a_node_that_was_started_again_or_is_away_has_no_rates() -> None:
    before = sample(10.0, dev_0={"gets_total": 100}, dev_1={"gets_total": 4})
    now = sample(12.0, dev_0={"gets_total": 30}, dev_2={"gets_total": 4})
    again, away, new = figures(before, now, {"dev-0": "alive", "dev-1": "dead", "dev-2": "alive"})
    assert (again["gets_per_s"], away["gets_per_s"], new["gets_per_s"]) == (None, None, None)
    assert whole(before, now, [again, away, new])["gets_per_s"] is None


def test_a_quantile_is_interpolated_in_its_bucket() -> None:
    histogram = {0.001: 50.0, 0.01: 90.0, 0.1: 100.0, INF: 100.0}
    assert quantile_s(histogram, 0.5) == pytest.approx(0.001)
    assert quantile_s(histogram, 0.25) == pytest.approx(0.0005)
    assert quantile_s(histogram, 0.7) == pytest.approx(0.0055)
    assert quantile_s(histogram, 0.99) == pytest.approx(0.091)
    assert quantile_s({0.1: 0.0, INF: 5.0}, 0.5) == pytest.approx(0.1), "beyond the last bound: that bound, and more"
    assert quantile_s({0.1: 0.0, INF: 0.0}, 0.5) is None
    assert quantile_s({}, 0.5) is None


def test_latencies_are_those_of_the_time_between() -> None:
    before, now = {0.001: 100.0, 0.1: 100.0, INF: 100.0}, {0.001: 100.0, 0.1: 110.0, INF: 110.0}
    assert difference(before, now) == {0.001: 0.0, 0.1: 10.0, INF: 10.0}
    assert difference(now, before) == before, "started again"
    earlier, later = [sample(at, {"dev-0": {"get": counts}}, dev_0={}) for at, counts in ((1.0, before), (2.0, now))]
    (item,) = figures(earlier, later, {"dev-0": "alive"})
    assert 1.0 < item["get_p50_ms"] < item["get_p99_ms"] <= 100.0
    assert item["put_p50_ms"] is None


def test_the_page_of_a_real_node_can_be_read() -> None:
    pytest.importorskip("prometheus_client")
    from leafdb.node.metrics_page import MetricsPage

    metrics = Metrics()
    for seconds in (0.0005, 0.002, 0.002, 9.0):
        metrics.put_duration.observe(seconds)
    found = histograms_of(MetricsPage(metrics).render().decode())
    assert set(found) >= {"put", "get"}
    assert found["put"][INF] == 4
    assert found["put"][0.0025] == 3
    assert quantile_s(found["get"], 0.5) is None


def test_what_waits_is_told_and_what_is_always_there_is_not() -> None:
    quiet = dict.fromkeys(("hints", "repairs", "copies", "outbox_bytes", "compaction_bytes"), 0)
    assert waiting_lines([{"name": "a", **quiet}, {"name": "b", **quiet, "outbox_bytes": 4_000}]) == []
    assert waiting_lines([{"name": "a", **quiet, "hints": 12, "outbox_bytes": 3 << 20, "repairs": None}]) == [
        "a: 12 hints for others, 3.0 MiB to be sent"
    ]


@pytest.fixture
def page() -> Iterator[tuple[str, list[str]]]:
    """An address of a page of metrics, and the texts that it gives, in order; the last one stays."""
    texts: list[str] = []

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = texts.pop(0) if len(texts) > 1 else texts[0]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Not into the test's output."""

    server = HTTPServer(("127.0.0.1", 0), Page)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}", texts
    finally:
        server.shutdown()
        server.server_close()


def metrics_text(fast: int, slow: int) -> str:
    name = "leafdb_request_duration_seconds_bucket"
    return (
        f'{name}{{le="0.001",op="get"}} {fast}\n{name}{{le="0.1",op="get"}} {fast + slow}\n'
        f'{name}{{le="+Inf",op="get"}} {fast + slow}\nleafdb_requests_total{{op="get"}} 9\n'
    )


def stats(gets: int, **other: float) -> dict[str, Any]:
    counters = {"gets_total": gets, "puts_total": 10.0, "inflight_requests": 3, "repairs_pending": 2, **other}
    return {"stats": {"dev-0": counters, "dev-1": counters}, "errors": {"dev-2": "no session"}}


@pytest.fixture
def cluster(node: StandIn, page: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Two nodes that answer, of which one's page can be read, and one that is away."""
    monkeypatch.setattr(top, "INTERVAL_S", 0.01)
    monkeypatch.setattr(top, "WATCH_S", 0.01)
    address, texts = page
    texts += [metrics_text(10, 0), metrics_text(110, 2)]
    node.verbs["node.list"] = {
        "nodes": [
            {"name": "dev-0", "state": "alive", "http": address},
            {"name": "dev-1", "state": "draining", "http": "127.0.0.1:1"},
            {"name": "dev-2", "state": "dead", "http": address},
        ]
    }
    node.verbs["stats"] = [stats(100), stats(200)]
    return node


def test_one_look_as_json(run: Run, cluster: StandIn) -> None:
    document = run("top", "-o", "json").document
    assert document["kind"] == "TopList"
    first, second, third = document["items"]
    assert (first["name"], first["state"], third["state"]) == ("dev-0", "alive", "dead")
    assert first["gets_per_s"] > 0
    assert 0 < first["get_p50_ms"] < 1 < first["get_p99_ms"] < 100
    assert (second["get_p50_ms"], third["gets_per_s"]) == (None, None)
    assert document["errors"] == {"dev-2": "no session"}
    assert list(document["without_latencies"]) == ["dev-1"]
    assert document["total"]["in_flight"] == 6
    assert document["total"]["get_p50_ms"] == first["get_p50_ms"]


def test_one_look_as_a_table(run: Run, cluster: StandIn) -> None:
    ended = run("top")
    heading, first, second, third, total = ended.out.splitlines()
    assert heading.split()[:3] == ["node", "get/s", "put/s"]
    assert " ms" in first
    assert second.startswith("dev-1 (draining)")
    assert third.startswith("dev-2 (dead)")
    assert total.startswith("all")
    assert "dev-0: 2 partitions to compare" in ended.err
    assert "no latencies of dev-1: 127.0.0.1:1: " in ended.err
    assert "dev-2 could not be asked: no session" in ended.err


def test_watching_without_a_terminal_is_one_table_after_the_other(
    run: Run, cluster: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after(monkeypatch, 3)
    ended = run("top", "--watch", "-o", "jsonl")
    assert ended.code == 130
    assert len([json.loads(line) for line in ended.out.splitlines()]) == 6


def interrupt_after(monkeypatch: pytest.MonkeyPatch, sleeps: int) -> None:
    left = [sleeps]

    def sleep(seconds: float) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(top, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))


def test_live_on_a_terminal_until_interrupted(run: Run, cluster: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    interrupt_after(monkeypatch, 3)
    ended = run("top", "--no-color", terminal=True)
    assert ended.code == 130
    lines = ESCAPES.sub("", ended.out).splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert any("dev-1 (draining)" in line for line in lines)
    assert any("control-C ends it" in line for line in lines)


def test_live_says_when_nobody_answers_and_goes_on(run: Run, cluster: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    from leafdb.errors import Overloaded

    cluster.verbs["stats"] = [stats(100), Overloaded("too many admin verbs are running", retry_after=0.0)]
    interrupt_after(monkeypatch, 2)
    ended = run("--timeout", "300ms", "top", "--no-color", terminal=True)
    assert ended.code == 130
    assert "! no answer: too many admin verbs" in ESCAPES.sub("", ended.out)


def test_rows_have_no_sum_of_a_single_node() -> None:
    before, now = sample(1.0, dev_0={"gets_total": 1}), sample(2.0, dev_0={"gets_total": 11})
    items = figures(before, now, {"dev-0": "alive"})
    assert [row["name"] for row in rows_of(items, whole(before, now, items))] == ["dev-0"]
