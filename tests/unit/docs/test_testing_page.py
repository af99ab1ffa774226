"""Promises: the examples of docs/testing.md run as they stand there, and the one that is a test passes."""

from __future__ import annotations

from support.pages import blocks
from support.source_tree import ROOT


def test_the_examples_run() -> None:
    examples = [block for block in blocks(ROOT / "docs" / "testing.md") if block.language == "python"]
    assert len(examples) == 2
    for block in examples:
        names: dict[str, object] = {}
        exec(compile("\n" * block.lines_before + block.code, "docs/testing.md", "exec"), names)
        for name, value in names.items():
            if name.startswith("test_"):
                assert callable(value)
                value()
