"""Promises: docs/operations/metrics.md is what the node's own tables say, every metric of a node is in it, and what no
code counts is marked."""

from __future__ import annotations

import runpy

from leafdb.node.metric_tables import labels_of
from support.source_tree import ROOT

PAGE = ROOT / "docs" / "operations" / "metrics.md"
TOOL = ROOT / "tools" / "metrics_reference.py"


def test_what_is_committed_is_what_the_tables_say() -> None:
    made = runpy.run_path(str(TOOL))["render"]()
    assert PAGE.read_text(encoding="utf-8") == made, "run tools/metrics_reference.py > docs/operations/metrics.md"


def test_the_page_names_every_metric() -> None:
    text = PAGE.read_text(encoding="utf-8")
    metrics = labels_of()
    missing = [metric for metric in sorted(metrics) if f"| `{metric}` |" not in text]
    assert not missing, missing


def test_the_detector_of_idle_counters_can_tell() -> None:
    moves = runpy.run_path(str(TOOL))["moves"]
    assert moves("coordinator.metrics.puts_total += 1", "puts_total")
    assert moves("self.counters.sent_bytes_total += sent", "sent_bytes_total"), "the node reads what transport counts"
    assert moves("pump.counters.handler_errors_total += 1", "callbacks_failed_total")
    assert not moves("self.counters.puts_total += 1", "puts_total"), "whose counters are these?"
    assert not moves("        self.forwards_total = 0\n", "forwards_total")
