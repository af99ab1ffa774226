"""Promises: `leafdb --help` is quick (it imports next to nothing), every command has help, none is a stub, options that
would be ignored are refused, closed pipes end quietly."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import typer

from leafdb_cli.main import NOUNS, build, main, noun_of

COMMANDS = {
    "dev": {"up", "down", "status", "kill", "start", "logs"},
    "kv": {
        "get",
        "put",
        "del",
        "siblings",
        "where",
        "history",
        "why-kept",
        "outcome",
        "range",
        "scan",
        "import",
        "export",
    },
    "bucket": {"list", "show", "create", "set", "drop"},
    "ring": {"show", "simulate", "history"},
    "cluster": {"init", "status", "stage", "plan", "commit", "clear", "abort", "recover"},
    "node": {"list", "show", "drain", "undrain", "safe-to-stop", "loglevel", "profile"},
    "stats": {"latency", "queues", "top"},
    "metrics": {"dashboards", "rules"},
    "transfer": {"list", "limit"},
    "hints": {"list", "pause", "resume", "purge"},
    "backup": {"create", "list", "verify", "restore"},
    "repair": {"run", "status", "cancel", "purge", "schedule", "acknowledge"},
    "storage": {"stats", "flush", "compact", "verify", "tasks", "dump", "snapshot"},
    "config": {"check", "show"},
    "cert": {"init", "issue", "show", "rotate", "invite", "join"},
    "bench": {"run"},
    "sim": {"run", "determinism", "museum", "detector"},
    "user": {"list", "show", "create", "set", "grant", "revoke", "drop"},
    "role": {"list", "show", "create", "grant", "revoke", "drop"},
    "token": {"list", "create", "drop"},
    "task": {"list", "show", "wait", "cancel"},
    "context": {"add", "list", "use", "show", "remove"},
    "completion": {"bash", "zsh", "fish", "words"},
    "status": set(),
    "doctor": set(),
    "top": set(),
    "shell": set(),
    "version": set(),
}

HEAVY = (
    "rich", "pydantic", "trio", "anyio", "cbor2", "leafdb.client", "leafdb.node", "leafdb.wire", "leafdb.model", "http",
    "leafdb_cli.kv", "leafdb_cli.dev", "leafdb_cli.bench", "leafdb.sim", "leafdb.testing",
    "readline", "tomllib", "concurrent.futures", "leafdb_cli.top", "leafdb_cli.doctor", "leafdb_cli.completing",
)  # fmt: skip
MODULES_MAX = 260
"""Python and typer alone are about 200; wall time is not asserted, what costs it is."""


class Ended(NamedTuple):
    """How a run of the command line ended."""

    code: object
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process: a process of its own costs a quarter of a second each."""

    def one(*arguments: str) -> Ended:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        return Ended(ended.value.code, *capsys.readouterr())

    return one


def test_help_imports_next_to_nothing() -> None:
    program = (
        "import sys\nfrom leafdb_cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "sys.stderr.write(chr(10).join(sys.modules))\n"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    loaded = set(finished.stderr.split())
    assert all(noun in finished.stdout for noun in NOUNS)
    assert not [name for name in HEAVY if name in loaded]
    assert len(loaded) < MODULES_MAX, len(loaded)


def test_the_commands_are_those_of_this_version() -> None:
    root = typer.main.get_command(build())
    found = {name: set(getattr(command, "commands", {})) for name, command in root.commands.items()}  # type: ignore[attr-defined]  # typer hides the class of a group
    assert found == COMMANDS
    for name, command in root.commands.items():  # type: ignore[attr-defined]  # as above
        assert command.help, name
        for verb, inner in getattr(command, "commands", {}).items():
            assert inner.help, f"{name} {verb}"


@pytest.mark.parametrize(
    ("line", "noun"),
    [
        ("--node kv status", "status"),
        ("-o json kv get", "kv"),
        ("--help", ""),
        ("nonsense", ""),
        ("--yes dev up", "dev"),
    ],
)
def test_the_noun_is_found_behind_options(line: str, noun: str) -> None:
    assert noun_of(line.split()) == noun


@pytest.mark.parametrize(
    "line",
    ["nonsense", "kv", "kv nonsense", "kv get only-a-bucket", "status --dry-run", "kv get b k --watch",
     "kv put b k v --after AA --blind", "kv put b k", "kv get b zz --key-hex", "--timeout never status",
     "-o yaml status", "kv put b k v --after nonsense", "kv get b k --r many", "cluster init c", "repair",
     "cluster stage", "cluster stage leave", "cluster commit nonsense", "cluster plan --watch", "transfer limit fast",
     "ring simulate", "ring simulate --join a,size=3", "ring simulate --replace b", "bucket set b w",
     "bucket set b w=many", "bucket set b ttl=soon", "bucket set b sloppy=perhaps"],
)  # fmt: skip
def test_wrong_usage_is_code_2_and_says_why(run: Run, line: str) -> None:
    finished = run(*line.split(), "--node", "127.0.0.1:1")
    assert finished.code == 2, finished.err
    assert finished.err or "Usage" in finished.out
    assert "Traceback" not in finished.err


def test_nobody_there_is_code_5_and_names_the_address(run: Run) -> None:
    finished = run("status", "--node", "127.0.0.1:1", "--timeout", "1s")
    assert (finished.code, finished.out) == (5, "")
    assert "127.0.0.1:1" in finished.err
    assert "Traceback" not in finished.err


def test_a_url_that_makes_no_sense_is_code_1(run: Run) -> None:
    finished = run("status", "--node", "leafdb://user:secret@host")
    assert finished.code == 1
    assert finished.err.startswith("leafdb: ")


def test_a_closed_pipe_ends_quietly() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "leafdb_cli.main", "version"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    complaint = process.stderr.read()
    process.stderr.close()
    assert process.wait(30) == 0
    assert complaint == ""


def test_config_check_lists_every_problem_with_its_path(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("pydantic")
    file = tmp_path / "leafdb.toml"
    file.write_text('[node]\nnam = "x"\n[storage]\nmemtable_bytes = 3\n')
    finished = run("config", "check", str(file), "-o", "jsonl")
    assert finished.code == 1
    assert "node.nam" in finished.out
    assert "did you mean node.name" in finished.out
    assert "storage.memtable_bytes" in finished.out
    file.write_text('[node]\nname = "x"\n')
    fine = run("config", "check", str(file))
    assert (fine.code, fine.out) == (0, "")
