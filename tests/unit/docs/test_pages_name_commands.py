"""Promises: a command that the documentation names exists, with every option it is shown with, and so does a target of
the Makefile. Commands run in this process: a process of its own costs a quarter of a second each."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterable

import pytest

from leafdb_cli.main import main as leafdb
from support.pages import Command, commands, pages, split
from support.source_tree import ROOT


def named(*programs: str) -> list[Command]:
    """Every line of the documentation that calls one of these programs; pages about bytes call none."""
    return [command for page in pages() if page.parent.name != "formats" for command in commands(page, *programs)]


def help_of(arguments: Iterable[str]) -> tuple[object, str]:
    """The exit code and the text of `leafdb ARGUMENTS --help`."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), pytest.raises(SystemExit) as ended:
        leafdb([*arguments, "--help"])
    return ended.value.code, said.getvalue()


def test_every_leafdb_command_exists() -> None:
    found = named("leafdb")
    assert len(found) > 10
    seen: dict[tuple[str, ...], tuple[object, str]] = {}
    problems = []
    for command in found:
        path, options = split(command.words[1:])
        key = tuple(path)
        if key not in seen:
            seen[key] = help_of(path)
        code, text = seen[key]
        if code != 0:
            problems.append(f"{command.where}: exits {code}")
        problems += [f"{command.where}: no {option}" for option in options if option not in text]
    assert not problems, "\n".join(problems)


def test_every_option_of_leafdbd_exists() -> None:
    from leafdb.node.main import main

    with contextlib.redirect_stdout(io.StringIO()) as said, pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    problems = [
        f"{command.where}: no {word}"
        for command in named("leafdbd")
        for word in command.words[1:]
        if word.startswith("--") and word.partition("=")[0] not in said.getvalue()
    ]
    assert not problems, "\n".join(problems)


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    found = named("make")
    assert {"demo", "test"} <= {word for command in found for word in command.words}
    problems = [
        command.where
        for command in found
        for word in command.words[1:]
        if "=" not in word and not word.startswith("-") and word not in targets
    ]
    assert not problems, "\n".join(problems)


def test_the_detector_can_tell() -> None:
    assert help_of(["kv", "get"])[0] == 0
    assert help_of(["kv", "nonsense"])[0] != 0
    assert help_of(["nonsense"])[0] != 0
    assert split(("-o", "json", "kv", "put", "carts", "alice", "tea", "--blind")) == (["kv", "put"], ["--blind"])
