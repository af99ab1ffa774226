"""Promises: without a Python that will do, `make` says what it tried, why it did not do, and what to install."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.source_tree import ROOT

TOOLS = ("sh", "grep", "sed", "rm", "mkdir", "touch")

NO_VENV = f"""#!/bin/sh
# As Debian's python3 without python3-venv.
case "$*" in *ensurepip*) exit 1;; esac
exec {sys.executable} "$@"
"""
TOO_OLD = """#!/bin/sh
case "$*" in *version_info*) exit 1;; esac
"""
HALF_A_VENV = """#!/bin/sh
case "$*" in *"-m venv"*) mkdir -p .venv/bin; touch .venv/bin/python; exit 1;; esac
"""


@pytest.mark.parametrize(
    ("python", "why"),
    [
        (None, ""),
        (NO_VENV, "python3: has no venv; on Debian and Ubuntu that is the package python3-venv"),
        (TOO_OLD, "python3: older than 3.11, or does not run"),
        (HALF_A_VENV, "python3: could not make .venv"),
    ],
)
def test_without_a_python_it_says_what_to_do(tmp_path: Path, python: str | None, why: str) -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("there is no make here")
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for tool in TOOLS:
        (bin_ / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")
    if python is not None:
        (bin_ / "python3").write_text(python)
        (bin_ / "python3").chmod(0o755)
    finished = subprocess.run(
        [make, "test", "PYTHON=/no/such/python"],
        cwd=tmp_path, env={"PATH": str(bin_)}, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert finished.returncode == 2
    assert "No Python 3.11 or newer with venv was found" in finished.stderr
    assert "sudo apt-get install python3 python3-venv make" in finished.stderr
    assert "make PYTHON=/path/to/python3.12 test" in finished.stderr
    assert "/no/such/python: there is no such program" in finished.stderr
    assert why in finished.stderr
    assert not (tmp_path / ".venv").exists()
