"""Promises: every problem that a node or the cluster can report has its row in docs/operations/trouble.md, and so has
every way in which `leafdbd` ends on its own."""

from __future__ import annotations

import ast
import re

import pytest

from leafdb.node import endings
from support.source_tree import ROOT

PAGE = (ROOT / "docs" / "operations" / "trouble.md").read_text(encoding="utf-8")
NODE = ROOT / "src" / "leafdb" / "node"
WORDS = re.compile(r"[a-z]{2,}(?:[ ,][a-z]+)+")


def sentences(file: str, function: str) -> list[str]:
    """The longest run of words in each text that a function makes, its docstring left out."""
    tree = ast.parse((NODE / file).read_text(encoding="utf-8"))
    defined = (ast.FunctionDef, ast.AsyncFunctionDef)
    (body,) = [node.body for node in ast.walk(tree) if isinstance(node, defined) and node.name == function]
    texts = []
    inside: set[int] = set()
    for statement in body[1:]:
        for node in ast.walk(statement):
            if isinstance(node, ast.JoinedStr):
                inside |= {id(part) for part in ast.walk(node)}
                texts.append("".join(str(part.value) for part in node.values if isinstance(part, ast.Constant)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
                texts.append(node.value)
    return [max(found, key=len) for text in texts if (found := [run for run in WORDS.findall(text) if " " in run])]


@pytest.mark.parametrize(("file", "function"), [("self_report.py", "problems"), ("admin_cluster.py", "status")])
def test_every_problem_has_its_row(file: str, function: str) -> None:
    wanted = sentences(file, function)
    assert len(wanted) >= 4
    missing = [sentence for sentence in wanted if sentence not in PAGE]
    assert not missing, f"docs/operations/trouble.md says nothing of: {missing}"


def test_every_exit_code_of_a_failure_is_explained() -> None:
    for code in (endings.CANNOT_RUN, endings.BUG, endings.DISK_FAILED, endings.EXPELLED):
        assert f"| {code} | " in PAGE
