"""Promises: docs/cli.md has every command there is; a noun that has a page of its own is on that page."""

from __future__ import annotations

import re
from collections.abc import Iterator

import typer

from leafdb_cli.main import build
from support.source_tree import ROOT

PAGES = [ROOT / "docs" / "cli.md", ROOT / "docs" / "operations" / "local-cluster.md"]


def verbs(app: typer.Typer, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command of the tree, as (noun, verb)."""
    for command in app.registered_commands:
        name = command.name or (command.callback.__name__.rstrip("_").replace("_", "-") if command.callback else "")
        yield (*path, name)
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from verbs(group.typer_instance, (*path, str(group.name)))


def test_every_command_is_on_the_page() -> None:
    lines = [line for page in PAGES for line in page.read_text(encoding="utf-8").splitlines()]
    found = list(verbs(build()))
    missing = []
    for words in found:
        wanted = [re.compile(rf"(?<![\w-]){re.escape(word)}(?![\w-])") for word in words]
        if not any(all(word.search(line) for word in wanted) for line in lines):
            missing.append(" ".join(words))
    assert missing == []


def test_the_look_at_the_tree_sees_it() -> None:
    found = set(verbs(build("cluster"))) | set(verbs(build("node")))
    assert {("cluster", "stage", "force-remove"), ("cluster", "recover"), ("node", "safe-to-stop")} <= found
