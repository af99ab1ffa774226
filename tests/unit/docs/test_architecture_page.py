"""Promises: docs/architecture.md has one line for each file of node/, and names no file that is not there."""

from __future__ import annotations

import re

from support.source_tree import ROOT

PAGE = ROOT / "docs" / "architecture.md"


def test_every_file_of_the_node_has_its_line() -> None:
    text = PAGE.read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+\.py)` \| \S", text, re.MULTILINE)
    there = {path.name for path in (ROOT / "src" / "leafdb" / "node").glob("*.py")} - {"__init__.py"}
    assert sorted(set(listed)) == sorted(listed), "a file with two lines"
    assert not there - set(listed), f"give each a line in the section on node/: {sorted(there - set(listed))}"
    assert not set(listed) - there, f"gone, so their lines go too: {sorted(set(listed) - there)}"


def test_every_folder_of_the_source_has_its_row() -> None:
    text = PAGE.read_text(encoding="utf-8")
    folders = {path.parent.name for path in (ROOT / "src" / "leafdb").glob("*/*.py")}
    missing = [folder for folder in sorted(folders) if f"`{folder}/`" not in text]
    assert not missing, missing
