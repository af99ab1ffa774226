"""Promises: a figure in README.md is one that was measured: it stands in the results the table names."""

from __future__ import annotations

import re

from support.source_tree import ROOT


def test_every_figure_was_measured() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("## Figures\n")[2].partition("\n## ")[0]
    (link,) = set(re.findall(r"\]\((bench/results/[^)]+)\)", section))
    measured = set(re.findall(r"[\d.,-]*\d", (ROOT / link).read_text(encoding="utf-8")))
    rows = re.findall(r"^\| (?:put|get)\b.*?\| (.*) \|$", section, re.MULTILINE)
    figures = [figure for row in rows for figure in row.split(" | ")]
    assert len(figures) >= 9
    assert not [figure for figure in figures if figure not in measured]
