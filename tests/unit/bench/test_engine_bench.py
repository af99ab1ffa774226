"""The engine's benchmark runs: every workload answers right, on leafdb and on a store that every Python has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.source_tree import ROOT

WORKLOADS = (
    "fillseq", "fillrandom", "readrandom, cold", "readrandom, hot", "readmissing", "scan", "overwrite", "mixed",
    "write amplification", "space amplification",
)  # fmt: skip


def test_every_workload_runs(tmp_path: Path) -> None:
    out = tmp_path / "engine.md"
    command = ["bench/run.py", "engine", "--quick", "--stores", "leafdb,sqlite3", "--out", str(out)]
    finished = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    report = out.read_text(encoding="utf-8")
    assert "| leafdb | sqlite3 |" in report
    for workload in WORKLOADS:
        assert f"\n| {workload} | " in report


def test_a_store_that_is_not_installed_is_named() -> None:
    script = "import engine_bench; print(engine_bench.page({}, 1, ['plyvel'], {}))"
    finished = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, 'bench'); {script}"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "plyvel: not installed: pip install plyvel" in finished.stdout, finished.stderr[-2000:]
