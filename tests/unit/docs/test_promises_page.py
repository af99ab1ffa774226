"""Promises: docs/promises.md names tests that exist, in every line of its tables."""

from __future__ import annotations

import ast
import re

from support.source_tree import ROOT

PAGE = ROOT / "docs" / "promises.md"


def functions_of_tests() -> set[str]:
    """Tests, and the stories that run as tests, by name."""
    return {
        node.name
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_promise_names_tests_that_exist() -> None:
    rows = re.findall(r"^\| (?!Guarantee|-)(.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) > 40
    known = functions_of_tests()
    problems = []
    for row in rows:
        guarantee, _, guards = row.partition(" | ")
        names = re.findall(r"`(\w+)`", guards.rpartition(" | ")[2])
        if not names:
            problems.append(f"nothing guards: {guarantee}")
        problems += [f"{name} does not exist; it is to guard: {guarantee}" for name in names if name not in known]
    assert not problems, "\n".join(problems)
