"""Promises: docs/ makes a book without a single warning, and in it every public name and every command is explained.

A link to nowhere, a page that is in no table of contents, a block that is not in the language it says: all of these are
warnings of Sphinx, and each ends the build.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import leafdb
import leafdb.testing
from leafdb_cli.main import build
from support.source_tree import ROOT

BUILD_S = 240.0
NAMES = [f"leafdb.{name}" for name in leafdb.__all__] + [f"leafdb.testing.{name}" for name in leafdb.testing.__all__]
ONLY_NAMED = {"leafdb.Answer", "leafdb.Auth", "leafdb.BLIND", "leafdb.Key", "leafdb.Merge", "leafdb.testing.CLIENTS"}
"""Constants and type aliases: the page itself says all there is to say."""


def test_every_public_name_is_on_the_page() -> None:
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    named = re.findall(r"`(leafdb\.[\w.]+)`(?=[:,])", page)
    assert sorted(set(named)) == sorted(named), "a name with two lines"
    assert sorted(named) == sorted(NAMES)


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The book, built once; its directory."""
    if importlib.util.find_spec("sphinx") is None:
        pytest.skip("sphinx is not installed: pip install '.[docs]'")
    made = tmp_path_factory.mktemp("book")
    finished = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", made / "doctrees",
         ROOT / "docs", made / "html"],
        capture_output=True, text=True, timeout=BUILD_S, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    return made / "html"


def test_every_page_is_in_the_book(book: Path) -> None:
    assert "README.html" in (book / "index.html").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        assert (book / page.relative_to(ROOT / "docs")).with_suffix(".html").exists()


def test_every_public_name_is_explained(book: Path) -> None:
    html = (book / "reference" / "python.html").read_text(encoding="utf-8")
    missing = [name for name in NAMES if name not in ONLY_NAMED and f'id="{name}"' not in html]
    assert not missing, missing


def test_every_command_is_explained(book: Path) -> None:
    html = (book / "reference" / "commands.html").read_text(encoding="utf-8")
    found = list(paths(build()))
    assert len(found) > 40
    missing = [path for path in found if f"Usage: leafdb {path} " not in html]
    assert not missing, missing


def paths(app: typer.Typer, before: str = "") -> Iterator[str]:
    """Every command of the tree, as `kv get`."""
    for command in app.registered_commands:
        name = command.name or (command.callback.__name__.rstrip("_").replace("_", "-") if command.callback else "")
        yield f"{before}{name}"
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from paths(group.typer_instance, f"{before}{group.name} ")
