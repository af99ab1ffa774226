"""Promises of `leafdb shell`: the same commands without a process for each; what one does wrong ends that line alone,
and a script at its first failure."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from leafdb.errors import NotApplied, Reason
from leafdb_cli import shell as shell_module
from leafdb_cli.options import Format, Options
from leafdb_cli.shell import completer, history_path, run_line, shared_options
from support.stand_in import Run, StandIn

BUCKETS: dict[str, list[dict[str, str]]] = {"buckets": []}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def test_a_script_runs_line_by_line(run: Run, node: StandIn) -> None:
    node.verbs["bucket.list"] = BUCKETS
    script = "# what is there\nbucket list -o json\n\nleafdb bucket list  # again\nversion -o jsonl\n"
    ended = run("shell", typed=script)
    assert ended.code == 0
    assert len(node.asked("bucket.list")) == 2
    assert '"kind": "BucketList"' in ended.out
    assert '"client"' in ended.out


def test_a_script_ends_at_the_first_line_that_fails(run: Run, node: StandIn) -> None:
    node.verbs["bucket.list"] = BUCKETS
    node.verbs["bucket.get"] = NotApplied("no bucket is called b", reason=Reason.NO_SUCH_BUCKET)
    ended = run("shell", typed="bucket list\nbucket show b\nbucket list\n")
    assert ended.code == 3
    assert len(node.asked("bucket.list")) == 1
    assert "no bucket is called b" in ended.err
    assert "line 2 ended with 3" in ended.err


def test_global_options_of_the_shell_hold_for_its_lines(run: Run, node: StandIn) -> None:
    node.verbs["bucket.list"] = BUCKETS
    ended = run("-o", "json", "shell", typed="bucket list\n")
    assert '"kind": "BucketList"' in ended.out
    other = run("-o", "json", "shell", typed="bucket list -o table\n")
    assert other.out == "", "and a line may say otherwise"


def test_a_line_may_go_elsewhere(run: Run, node: StandIn, tmp_path: Path) -> None:
    node.verbs["bucket.list"] = BUCKETS
    here = os.environ["LEAFDB_NODE"]
    ended = run("--node", "127.0.0.1:1", "shell", typed=f"bucket list --node {here}\n")
    assert ended.code == 0, ended.err
    assert run("context", "add", "here", here).code == 0
    assert run("--node", "127.0.0.1:1", "shell", typed="bucket list --cluster here\n").code == 0


def test_the_options_of_a_shell_as_words() -> None:
    assert shared_options(Options()) == []
    options = Options(node="h:1", output=Format.JSONL, timeout_s=2.0, yes=True, wait=True, no_color=True)
    assert shared_options(options) == [
        "--node", "h:1", "--output", "jsonl", "--timeout", "2.0s", "--yes", "--wait", "--no-color",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("shell", 2, "this is a shell already"),
        ("kv get 'b", 2, "close the quotation"),
        ("nonsense", 2, "No such command"),
        ("status --dry-run", 2, "has no --dry-run"),
    ],
)
def test_a_wrong_line_says_so_and_the_shell_lives(
    capsys: pytest.CaptureFixture[str], line: str, code: int, says: str
) -> None:
    assert run_line(line, []) == code
    assert says in capsys.readouterr().err


def test_help_is_one_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_line("help", []) == 0
    assert "Exit codes" in capsys.readouterr().out
    assert run_line("help kv", []) == 0
    assert "siblings" in capsys.readouterr().out


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> list[str | type[BaseException]]:
    """What a person types at the prompts, or does; the prompts are kept."""
    lines: list[str | type[BaseException]] = []

    def answer(prompt: str) -> str:
        PROMPTS.append(prompt)
        line = lines.pop(0) if lines else EOFError
        if isinstance(line, str):
            return line
        raise line

    PROMPTS.clear()
    monkeypatch.setattr("builtins.input", answer)
    return lines


PROMPTS: list[str] = []
STATUS = {
    "cluster": "prod", "epoch": 5, "healthy": True, "nodes_up": 1, "nodes_total": 1, "hints_pending": 0,
    "repair_pending": 0, "problems": [], "errors": {},
}  # fmt: skip


def test_a_person_is_asked_under_the_clusters_name_until_exit(
    run: Run, node: StandIn, typed: list[str | type[BaseException]]
) -> None:
    node.verbs |= {"bucket.list": BUCKETS, "status": STATUS}
    typed += ["bucket list", KeyboardInterrupt, "nonsense", "bucket list", "exit"]
    ended = run("shell", terminal=True)
    assert ended.code == 0, "the last command went well"
    assert PROMPTS == ["leafdb prod> "] * 5
    assert len(node.asked("bucket.list")) == 2
    typed += ["nonsense", EOFError]
    assert run("shell", terminal=True).code == 2, "the last command did not"


def test_the_prompt_follows_the_context(run: Run, node: StandIn, typed: list[str | type[BaseException]]) -> None:
    node.verbs["status"] = STATUS
    here = os.environ.pop("LEAFDB_NODE")
    typed += [f"context add here {here} --use", "exit"]
    assert run("--timeout", "1s", "shell", terminal=True).code == 0
    os.environ["LEAFDB_NODE"] = here
    assert PROMPTS[1] == "leafdb prod> "


def test_who_is_silent_is_named_by_what_we_call_it(run: Run, typed: list[str | type[BaseException]]) -> None:
    assert run("--node", "127.0.0.1:1", "shell", terminal=True).code == 0
    assert PROMPTS == ["leafdb 127.0.0.1:1 (silent)> "]


def test_lines_are_kept_for_their_owner_alone(run: Run, node: StandIn, typed: list[str | type[BaseException]]) -> None:
    pytest.importorskip("readline")
    node.verbs["status"] = STATUS
    run("shell", terminal=True)
    assert stat.S_IMODE(history_path().stat().st_mode) == 0o600


def test_the_tab_key_completes(run: Run, node: StandIn) -> None:
    node.verbs["bucket.list"] = {"buckets": [{"name": "carts"}, {"name": "cats"}]}

    class Readline:
        line = "kv get ca"

        def get_line_buffer(self) -> str:
            return self.line

        def get_endidx(self) -> int:
            return len(self.line)

    one = completer(Readline(), [])
    assert [one("ca", state) for state in range(3)] == ["carts ", "cats ", None]


def test_no_process_is_started_for_a_line(run: Run, node: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    node.verbs["bucket.list"] = BUCKETS
    import subprocess

    def refused(*args: object, **kwargs: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refused)
    assert run("shell", typed="bucket list\n").code == 0
    assert "subprocess" not in vars(shell_module)
