"""Promises of completion: every word of the tree, names where names are due, at once or not at all; the scripts are
what their shells take."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from leafdb_cli.completing import Names, candidates, live_names, split_line
from leafdb_cli.completion import BASH, FISH, ZSH
from leafdb_cli.main import NOUNS
from leafdb_cli.options import Options
from support.source_tree import ROOT
from support.stand_in import Run, StandIn

ASKED: list[Options] = []


def names() -> Names:
    """Names without anybody to ask."""

    def asked(found: list[str]) -> list[str]:
        return found

    def buckets(options: Options) -> list[str]:
        ASKED.append(options)
        return asked(["carts", "cats", "dogs"])

    return Names(buckets, lambda options: asked(["dev-0", "dev-1"]), lambda: asked(["prod", "test"]))


def at(line: str) -> list[str]:
    return candidates(split_line(line), names())


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("leafdb sta", ["stats", "status"]),
        ("leafdb kv ge", ["get"]),
        ("leafdb storage snapshot ", ["create", "drop", "list"]),
        ("leafdb kv get ca", ["carts", "cats"]),
        ("leafdb kv get carts ", []),
        ("leafdb kv get carts --ex", ["--explain"]),
        ("leafdb kv get --r 2 --local c", ["carts", "cats"]),
        ("leafdb node drain ", ["dev-0", "dev-1"]),
        ("leafdb storage stats --only dev-", ["dev-0", "dev-1"]),
        ("leafdb storage snapshot create ", []),
        ("leafdb cluster stage leave dev-1", ["dev-1"]),
        ("leafdb hints purge ", ["dev-0", "dev-1"]),
        ("leafdb context use ", ["prod", "test"]),
        ("leafdb --cluster p", ["prod"]),
        ("leafdb status -o j", ["json", "jsonl"]),
        ("leafdb --watch -o json kv get c", ["carts", "cats"]),
        ("leafdb kv nonsense ", []),
        ("leafdb nonsense ", []),
        ("leafdb kv put carts 'alice an", []),
        ("LEAFDB_NODE=h:1 /usr/bin/leafdb kv sc", ["scan"]),
        ("leafdb completion ", ["bash", "fish", "zsh"]),
        ("kv get d", ["dogs"]),
    ],
)
def test_what_may_stand_there(line: str, wanted: list[str]) -> None:
    assert at(line) == wanted


def test_nouns_and_options_are_all_there() -> None:
    assert at("leafdb ") == sorted(NOUNS)
    assert {"--node", "--dry-run", "--help"} <= set(at("leafdb -"))
    assert {"--limit", "--node", "--help"} <= set(at("leafdb kv scan -"))


def test_names_are_asked_of_the_nodes_that_the_line_is_for() -> None:
    ASKED.clear()
    at("leafdb --node h:1 kv get ")
    at("leafdb kv get --cluster=prod ")
    assert [(options.node, options.cluster) for options in ASKED] == [("h:1", ""), ("", "prod")]


def test_names_come_from_a_node_that_answers(run: Run, node: StandIn) -> None:
    node.verbs["bucket.list"] = {"buckets": [{"name": "carts"}, {"name": "dogs"}]}
    node.verbs["node.list"] = {"nodes": [{"name": "dev-0"}]}
    assert run("completion", "words", "--", "leafdb kv get ").out == "carts\ndogs\n"
    assert run("completion", "words", "--", "leafdb node drain ").out == "dev-0\n"


def test_nobody_there_is_no_words_and_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LEAFDB_NODE", "127.0.0.1:1")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert candidates(["kv", "get", ""], live_names()) == []
    assert candidates(["context", "use", ""], live_names()) == []
    (tmp_path / "leafdb").mkdir()
    (tmp_path / "leafdb" / "clusters.toml").write_text("[broken")
    assert candidates(["--cluster", ""], live_names()) == []


SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_command_prints_the_script_and_the_shell_can_read_it(run: Run, shell: str, tmp_path: Path) -> None:
    assert run("completion", shell).out == SCRIPTS[shell]
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed: its script is not read")
    script = tmp_path / "script"
    script.write_text(SCRIPTS[shell])
    subprocess.run([shell, "-n", str(script)], check=True, timeout=30)


def test_bash_completes_with_it(tmp_path: Path) -> None:
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    program = tmp_path / "leafdb"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m leafdb_cli.entry "$@"\n')
    program.chmod(0o755)
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "cli")])
    finished = subprocess.run(
        ["bash", "--norc", "-c", f"{BASH}COMP_LINE='leafdb kv sc'; COMP_POINT=12; _leafdb; echo ${{COMPREPLY[@]}}"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": path, "HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert finished.stdout == "scan\n", finished.stderr
