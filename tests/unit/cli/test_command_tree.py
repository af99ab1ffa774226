"""Promises: every command has help with an example, every example is a line that the command takes, and every option
says what it is for."""

from __future__ import annotations

import pathlib
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import typer

from leafdb_cli.main import build
from leafdb_cli.options import hoist

EXAMPLES = re.compile(r"Examples?: (leafdb .+)\Z", re.DOTALL)
NEXT = re.compile(r",\s+(?=leafdb\s)")
REST_OF_SHELL = re.compile(r" (?:&&|[|<>]|>>) .*")

Path = tuple[str, ...]


def commands(group: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every command that does something, with the words that call it."""
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        if inner is None or command.invoke_without_command:
            yield (*path, name), command
        if inner is not None:
            yield from commands(command, (*path, name))


TREE: Any = typer.main.get_command(build())
COMMANDS = dict(commands(TREE))


def examples_of(help_text: str) -> list[str]:
    """The lines that a help text shows, without what a shell would do around them."""
    found = EXAMPLES.search(help_text.strip())
    return [REST_OF_SHELL.sub("", " ".join(line.split())) for line in NEXT.split(found[1])] if found else []


def test_examples_are_found() -> None:
    text = "Do it.\n\nAs ever.\n\nExamples: leafdb a b, leafdb\n  a c && leafdb d, leafdb e > f"
    assert examples_of(text) == ["leafdb a b", "leafdb a c", "leafdb e"]
    assert examples_of("Do it. Example it is not.") == []


def test_every_command_has_an_example() -> None:
    assert len(COMMANDS) > 80
    assert [" ".join(path) for path, command in COMMANDS.items() if not examples_of(command.help or "")] == []


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Which commands were called; none of them does anything."""
    ran: list[Path] = []

    def recorder(words: Path) -> Callable[..., None]:
        return lambda **values: ran.append(words)

    for path, command in COMMANDS.items():
        monkeypatch.setattr(command, "callback", recorder(path))
    return ran


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_example_is_taken(path: Path, called: list[Path], tmp_path: pathlib.Path) -> None:
    """A backup that an example names has to be there; the rest is words."""
    for line in examples_of(COMMANDS[path].help):
        program, *words = shlex.split(line.replace("/backups/monday", str(tmp_path)))
        assert program == "leafdb"
        called.clear()
        with suppress(SystemExit):  # as every line ends that asks for JSON
            TREE.main(hoist(words), prog_name="leafdb", standalone_mode=False)
        assert path in called, f"{line!r} calls {called}"


def test_a_wrong_example_would_be_seen(called: list[Path]) -> None:
    with pytest.raises(Exception, match="No such option"):
        TREE.main(["status", "--nonsense"], prog_name="leafdb", standalone_mode=False)


def test_every_option_says_what_it_is_for() -> None:
    silent = [
        f"{' '.join(path)} {param.opts[0]}"
        for path, command in COMMANDS.items()
        for param in command.params
        if param.param_type_name == "option" and not param.help
    ]
    assert silent == []


def test_help_fits_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """But for an example or a list of choices that cannot be broken."""
    monkeypatch.setenv("COLUMNS", "80")
    wide = []
    for path in COMMANDS:
        TREE.main([*path, "--help"], prog_name="leafdb", standalone_mode=False)
        wide += [line for line in capsys.readouterr().out.splitlines() if len(line) > 80 and " " in line.strip()]
    assert wide == []
