"""Promises: every error of the command line says what happened and what to do next, and ends with its exit code; with
-o json it is an object on the last line of stderr, and stdout is empty."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

import pytest
import typer

from leafdb import errors
from leafdb.errors import LeafdbError, NotApplied, Reason
from leafdb_cli import exits
from leafdb_cli.advice import BY_REASON, advice_of
from leafdb_cli.exits import explanation
from leafdb_cli.guard import wants_json
from leafdb_cli.main import build
from support.source_tree import ROOT
from support.stand_in import Run, StandIn

SOURCES = sorted((ROOT / "cli" / "leafdb_cli").glob("*.py"))
SAYS_IT_ITSELF = (errors.ConfigError, errors.ClientMisuse, errors.StorageError)
"""Their messages are made where the cause is known, and each says what to do."""
EXAMPLES: list[LeafdbError] = [
    errors.ContextMismatch("x"),
    errors.DataError("x"),
    errors.OpenFailed("x", path="p", reason="r"),
    errors.ConnectFailed("x"),
    errors.NotEnoughReplicas("x", alive=1, required=2),
    errors.Overloaded("x", retry_after=1.0),
    errors.OutcomeUnknown("x", acks=1, required=2, op_id=b"\x01" * 16),
    errors.OutcomeUnknown("x", acks=1, required=2),
    errors.DeadlineExceeded("x", stage="queue"),
    errors.ServerBug("x"),
    errors.ProtocolError("x"),
]
PAGE_CODES = {
    int(code): text
    for code, text in re.findall(
        r"^\| (\d+) \| (.+) \|$", (ROOT / "docs" / "cli.md").read_text(encoding="utf-8"), re.MULTILINE
    )
}


def quits(source: str) -> list[ast.Call]:
    """Every place that ends a command with a code."""
    return [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Quit"
    ]


def hintless(source: str) -> list[int]:
    """The lines of those that say what happened and not what to do."""
    return [call.lineno for call in quits(source) if len(call.args) + len(call.keywords) == 2]


def test_every_end_of_a_command_says_what_to_do() -> None:
    found = {path.name: lines for path in SOURCES if (lines := hintless(path.read_text(encoding="utf-8")))}
    assert found == {}
    assert sum(len(quits(path.read_text(encoding="utf-8"))) for path in SOURCES) > 60, "there is something to look at"


def test_the_look_at_ends_sees_one_without_a_hint() -> None:
    assert hintless("def f():\n    raise Quit(exits.FAILED, 'it broke')\n") == [2]
    assert hintless("raise Quit(7)\nraise Quit(7, 'it broke', 'mend it')\n") == []


def test_every_refusal_says_what_to_do() -> None:
    assert set(BY_REASON) == set(Reason)
    assert all(BY_REASON.values())


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_every_kind_of_error_says_what_to_do(error: LeafdbError) -> None:
    *_, last = explanation(error).splitlines()
    assert last == f"  {advice_of(error)}"
    assert len(last) <= 120


def test_no_kind_of_error_is_left_out() -> None:
    def below(kind: type[LeafdbError]) -> set[type[LeafdbError]]:
        return {kind, *(each for inner in kind.__subclasses__() for each in below(inner))}

    known = {type(error) for error in EXAMPLES} | {LeafdbError, NotApplied}
    public = {kind for kind in below(LeafdbError) if kind.__module__ == errors.__name__}
    assert {kind for kind in public - known if not issubclass(kind, SAYS_IT_ITSELF)} == set()


@pytest.mark.parametrize("reason", Reason)
def test_a_refusal_is_a_message_advice_and_a_code(run: Run, node: StandIn, reason: Reason) -> None:
    node.verbs["bucket.get"] = NotApplied("it was refused", reason=reason)
    ended = run("bucket", "show", "carts", "--timeout", "1s")
    assert ended.code == exits.BY_REASON[reason]
    assert ended.code in PAGE_CODES
    assert ended.out == ""
    happened, advice = ended.err.splitlines()
    assert happened.startswith("leafdb: it was refused")
    assert advice == f"  {BY_REASON[reason]}"
    told = run("bucket", "show", "carts", "--timeout", "1s", "-o", "json")
    assert (told.code, told.out) == (ended.code, "")
    about = last_document(told.err)
    assert (about["code"], about["reason"], about["hint"]) == (ended.code, str(reason), BY_REASON[reason])


def last_document(err: str) -> dict[str, Any]:
    """The error that the last line of stderr is."""
    found = json.loads(err.splitlines()[-1])
    assert (found["apiVersion"], found["kind"]) == ("leafdb/v1", "Error")
    about: dict[str, Any] = found["error"]
    return about


USAGE = ["nonsense", "kv nonsense", "kv", "kv get only-a-bucket", "status --dry-run", "--timeout never status", "--odd"]


@pytest.mark.parametrize("line", USAGE)
@pytest.mark.parametrize("form", ["-o json", "--output=jsonl", "-ojson"])
def test_wrong_usage_is_json_too(run: Run, line: str, form: str) -> None:
    ended = run(*line.split(), *form.split())
    assert (ended.code, ended.out) == (2, "")
    about = last_document(ended.err)
    assert about["code"] == 2
    assert about["message"]
    assert about["hint"].endswith("--help says how it is used")


def test_help_and_success_are_as_ever_with_json(run: Run, node: StandIn) -> None:
    node.verbs["bucket.list"] = {"buckets": []}
    ended = run("bucket", "list", "-o", "json")
    assert (ended.code, ended.err, ended.document["items"]) == (0, "", [])
    helped = run("-o", "json", "bucket", "--help")
    assert (helped.code, helped.err) == (0, "")
    assert "Usage" in helped.out


def test_a_missing_file_and_an_interrupt_are_json_too(run: Run, node: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = run("kv", "put", "carts", "k", "--file", "/nowhere/at/all", "-o", "json")
    assert ended.code == 1
    assert last_document(ended.err)["message"].startswith("/nowhere/at/all: ")
    assert "relative path" in last_document(ended.err)["hint"]

    def interrupted(args: Any) -> Any:
        raise AssertionError("the client is interrupted before it asks")

    node.verbs["bucket.list"] = interrupted
    monkeypatch.setattr("leafdb_cli.session.Session.ask", _interrupt)
    stopped = run("bucket", "list", "-o", "json")
    assert (stopped.code, stopped.out) == (130, "")
    assert last_document(stopped.err) == {"code": 130, "message": "interrupted", "hint": ""}


def _interrupt(*args: object, **kwargs: object) -> None:
    raise KeyboardInterrupt


def test_json_is_seen_on_a_line_that_cannot_be_parsed() -> None:
    assert wants_json(["--odd", "-o", "json"])
    assert wants_json(["--output=jsonl"])
    assert wants_json(["-ojson", "kv"])
    assert not wants_json(["-o", "table", "kv", "json"])
    assert not wants_json(["kv", "get", "-o"])


COMMAND = re.compile(r"leafdb((?: (?:[a-z]+[a-z-]*))+)")


def commands_named() -> dict[str, set[str]]:
    """Every command line that a string of the sources names, as far as it is words of the tree, and where."""
    found: dict[str, set[str]] = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for match in COMMAND.finditer(node.value):
                    found.setdefault(match[1].strip(), set()).add(path.name)
    return found


def test_every_command_that_a_message_names_exists() -> None:
    root: Any = typer.main.get_command(build())
    wrong = {}
    for line, where in commands_named().items():
        command = root
        for word in line.split():
            if (inner := getattr(command, "commands", {})) == {}:
                break
            if word not in inner:
                wrong[line] = where
                break
            command = inner[word]
    assert {line: where for line, where in wrong.items() if line not in PROSE} == {}


PROSE = {"clusters", "command", "for bash", "for zsh", "for fish", "leafdb"}
"""What follows the word in sentences about leafdb itself."""
