"""Promises: every example of docs/testing-your-code.md is a test that passes, as users would run it."""

from __future__ import annotations

import re

import pytest

import leafdb.client.sync_client
import leafdb.embedded
import leafdb.testing.scenario  # noqa: F401
from support.pages import blocks
from support.source_tree import ROOT

pytest_plugins = ("pytester",)
pytestmark = pytest.mark.system

PAGE = ROOT / "docs" / "testing-your-code.md"


def test_the_examples_pass(pytester: pytest.Pytester) -> None:
    page = ""
    for block in blocks(PAGE):
        if block.language == "python":
            page += "\n" * (block.lines_before - page.count("\n")) + block.code  # tracebacks name the page's own lines
    pytester.makepyfile(page)
    pytester.makeini("[pytest]\naddopts = --strict-markers\nfilterwarnings = error\n")
    result = pytester.runpytest_inprocess("-v")
    outcomes = result.parseoutcomes()
    assert set(outcomes) == {"passed"}
    for name in re.findall(r"def (test_\w+)", page):
        result.stdout.re_match_lines([rf".*::{name}\b.* PASSED.*"])


def test_every_fixture_has_its_section() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for fixture in ("leafdb_memory", "leafdb_cluster", "leafdb_faults", "leafdb_server"):
        assert re.search(rf"^## .*`{fixture}`$", text, re.MULTILINE), fixture
        assert re.search(rf"^(async )?def test_\w+\(.*\b{fixture}\b", text, re.MULTILINE), f"no example of {fixture}"
