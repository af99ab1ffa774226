"""Promises: the example of docs/testing.md is a test that passes, as it stands there."""

from __future__ import annotations

from support.pages import blocks
from support.source_tree import ROOT


def test_the_example_runs() -> None:
    (block,) = [block for block in blocks(ROOT / "docs" / "testing.md") if block.language == "python"]
    names: dict[str, object] = {}
    exec(compile("\n" * block.lines_before + block.code, "docs/testing.md", "exec"), names)
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert len(tests) == 1
    assert callable(tests[0])
    tests[0]()
