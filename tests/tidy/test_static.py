"""The tools' own verdicts: formatted, linted, typed. One test each; a tool that is not installed is skipped aloud."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys

import pytest

from support.source_tree import ROOT


def run_pyright(*arguments: str) -> None:
    """pyright of the package index fetches and runs a program of Node: where that fails, it is the reason to skip."""
    if importlib.util.find_spec("pyright") is None:
        pytest.skip("pyright is not installed; `pip install pyright` brings it, if there is Node or a way to fetch it")
    probe = subprocess.run(
        [sys.executable, "-m", "pyright", "--version"], capture_output=True, text=True, timeout=280, check=False
    )
    if probe.returncode:
        pytest.skip(f"pyright does not run here: {(probe.stderr or probe.stdout).strip()[-300:]}")
    run_tool("pyright", *arguments)


def run_tool(module: str, *arguments: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed; `make test` installs it")
    # pyright finds what is installed by asking the first `python` of PATH.
    path = os.pathsep.join((os.path.dirname(sys.executable), os.environ.get("PATH", "")))
    finished = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout[-8000:] + finished.stderr[-2000:]


def test_linted() -> None:
    run_tool("ruff", "check", "--output-format=concise", "src", "cli", "tests")


def test_formatted() -> None:
    run_tool("ruff", "format", "--check", "src", "cli", "tests")


def test_typed() -> None:
    run_tool("mypy", "--no-pretty")


def test_completely_typed_to_whoever_imports_it() -> None:
    """Every public symbol has a type that is known, and known to be the same to every checker."""
    run_pyright("--verifytypes", "leafdb", "--ignoreexternal")


def test_what_can_be_compiled_is_there() -> None:
    """The build's own file is looked at, not run: only who compiles has what it imports."""
    tree = ast.parse((ROOT / "hatch_build.py").read_text(encoding="utf-8"))
    (modules,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "MODULES"
        if node.value is not None
    )
    assert len(modules) == 4
    assert [name for name in modules if not (ROOT / "src" / name).is_file()] == []
