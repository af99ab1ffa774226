"""Promises: compiled by mypyc, as `LEAFDB_COMPILE=1 pip install .` compiles them, the modules named in `hatch_build.py`
do what they do as they are: the tests of the storage engine hold with them.

It takes a C compiler and minutes, so it runs where it is asked for: LEAFDB_TEST_COMPILED=1.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.source_tree import ROOT

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(1_800)]

VARIABLE = "LEAFDB_TEST_COMPILED"
TESTS = "tests/unit/storage"
COUNTING = "tests/unit/storage/test_slices.py"
"""Counts what a slice does by replacing functions, which compiled modules that call each other do not notice."""


def compiled_modules() -> list[str]:
    """What the build names; it cannot be imported where hatchling is not."""
    tree = ast.parse((ROOT / "hatch_build.py").read_text(encoding="utf-8"))
    (value,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "MODULES"
    )
    assert value is not None
    modules: list[str] = list(ast.literal_eval(value))
    return modules


def test_every_module_that_is_to_be_compiled_is_there() -> None:
    modules = compiled_modules()
    assert modules == sorted(set(modules))
    assert [module for module in modules if not (ROOT / "src" / module).is_file()] == []


@pytest.mark.skipif(os.environ.get(VARIABLE) != "1", reason=f"minutes of a compiler: {VARIABLE}=1 runs it")
def test_what_is_compiled_keeps_the_promises_of_what_is_not(tmp_path: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler (cc) here")
    source = tmp_path / "src"
    shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    (source / "mypy.ini").write_text("[mypy]\nignore_missing_imports = True\nfollow_imports = silent\n")
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    subprocess.run(
        [sys.executable, "-m", "mypyc", *compiled_modules()],
        cwd=source, env={**environment, "MYPYC_OPT_LEVEL": "0"}, check=True,
    )  # fmt: skip
    made = {path.name.partition(".")[0] for path in source.rglob("*.so")}
    assert {Path(module).stem for module in compiled_modules()} <= made
    paths = os.pathsep.join(map(str, (source, ROOT / "cli", ROOT / "tests")))
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", "--ignore", COUNTING, TESTS],
        cwd=ROOT, env={**environment, "PYTHONPATH": paths}, stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-10_000:]
