"""Promises: dashboards and rules ask only for metrics and labels that nodes have; what is committed for Ansible is what
the definitions make; each alert is on the page that says what to do; promtool agrees, where there is one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from leafdb.node.metrics import Metrics
from leafdb_cli.monitoring_dashboards import dashboards, render
from leafdb_cli.monitoring_queries import Metric, known
from leafdb_cli.monitoring_rules import RULES_FILE, TESTS_FILE, alerts, render_rules, render_tests
from support.source_tree import ROOT
from support.stand_in import Run

COMMITTED = ROOT / "ansible" / "files" / "monitoring"
PAGE = ROOT / "docs" / "operations" / "monitoring.md"
FILES = {f"{each.uid}.json": render(each) for each in dashboards()} | {
    RULES_FILE: render_rules(),
    TESTS_FILE: render_tests(),
}


def expressions() -> Iterator[str]:
    for dashboard in dashboards():
        for panels in dashboard.rows.values():
            for panel in panels:
                yield from (query.text for query in panel.queries)
    yield from (alert.expr for alert in alerts())


def names_on_the_page() -> set[str]:
    """Every sample's name that a node's /metrics page can have."""
    pytest.importorskip("prometheus_client", reason="the page is part of the server extra")
    from prometheus_client.parser import text_string_to_metric_families

    from leafdb.node.metric_tables import GAUGES
    from leafdb.node.metrics_page import MetricsPage

    metrics = Metrics()
    metrics.info("leafdb_build_info", version="1")
    for name, gauge in GAUGES.items():
        metrics.watch(name, (lambda label: lambda: {label: 1.0})(gauge.label) if gauge.label else lambda: 1.0)
    text = MetricsPage(metrics).render().decode()
    return {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}


def test_every_metric_that_is_asked_for_is_on_the_page_of_a_node() -> None:
    page = names_on_the_page()
    asked = {name for text in expressions() for name in re.findall(r"leafdb_[a-z_]+", text)}
    assert len(asked) > 40
    assert asked <= page, asked - page
    assert {name for name in known() if name.startswith("leafdb_")} <= page


def test_a_metric_or_label_that_no_node_has_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match="no node shows"):
        Metric("leafdb_nonsense_total")
    with pytest.raises(ValueError, match="no label colour"):
        Metric("leafdb_requests_total", 'colour="red"')
    with pytest.raises(ValueError, match="no label op"):
        Metric("leafdb_hint_bytes").total("op")


def test_queries_are_well_formed() -> None:
    for text in expressions():
        for opening, closing in ("()", "{}", "[]"):
            assert text.count(opening) == text.count(closing), text
        assert text.count('"') % 2 == 0, text
        assert "rate(" not in text or "[" in text, text


def test_rates_are_of_counters_and_quantiles_of_buckets() -> None:
    for text in expressions():
        for name in re.findall(r"(?:rate|increase)\((leafdb_\w+)", text):
            assert name.endswith(("_total", "_bucket")), text
        for name in re.findall(r"histogram_quantile\([\d.]+, sum by \([^)]*\ble\) \(rate\((\w+)", text):
            assert name.endswith("_bucket"), text
        assert text.count("histogram_quantile") == len(re.findall(r"histogram_quantile\([\d.]+, sum by", text)), text


def test_dashboards_are_three_with_panels_side_by_side() -> None:
    found = [json.loads(render(each)) for each in dashboards()]
    assert [each["uid"] for each in found] == ["leafdb-overview", "leafdb-node", "leafdb-anti-entropy"]
    for each in found:
        panels = each["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        taken: set[tuple[int, int]] = set()
        for panel in panels:
            place = panel["gridPos"]
            cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
            assert not cells & taken, panel["title"]
            assert max(x for x, _ in cells) < 24
            taken |= cells
            if panel["type"] != "row":
                assert panel["targets"]
                assert panel["description"] or "process" in panel["targets"][0]["expr"], panel["title"]
        assert {each["name"] for each in each["templating"]["list"]} == {"datasource", "job", "instance"}


def test_what_is_committed_is_what_the_definitions_make() -> None:
    for name, text in FILES.items():
        path = COMMITTED / name
        assert path.exists(), f"leafdb metrics dashboards|rules --out {COMMITTED}"
        assert path.read_text(encoding="utf-8") == text, f"{name}: leafdb metrics dashboards|rules --out {COMMITTED}"
    assert {path.name for path in COMMITTED.iterdir()} == set(FILES)


def test_each_alert_is_on_the_page_that_says_what_to_do() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [alert.name for alert in alerts() if f"\n### {alert.name}\n" not in text] == []
    written = set(re.findall(r"^### (Leafdb\w+)$", text, re.MULTILINE))
    assert written == {alert.name for alert in alerts()}


def test_each_alert_fires_in_its_case_and_only_then(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus): the rules were parsed only")
    for name in (RULES_FILE, TESTS_FILE):
        (tmp_path / name).write_text(FILES[name], encoding="utf-8")
    for arguments in (("check", "rules", RULES_FILE), ("test", "rules", TESTS_FILE)):
        finished = subprocess.run(
            [promtool, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert finished.returncode == 0, finished.stdout + finished.stderr


def test_the_command_writes_them(run: Run, tmp_path: Path) -> None:
    new = str(tmp_path / "new")
    assert len(run("metrics", "dashboards", "--out", new, "-o", "json").document["items"]) == 3
    assert len(run("metrics", "rules", "--out", new, "-o", "json").document["items"]) == 2
    assert {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "new").iterdir()} == FILES
