"""The long run of overwrites and deletes runs, short: what it prints has every column, and most of the disk is live."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from support.source_tree import ROOT


def test_a_short_run_prints_its_tables(tmp_path: Path) -> None:
    out = tmp_path / "level-off.md"
    command = ["bench/level_off.py", "--minutes", "0.02", "--keys", "5000", "--long-share", "0.1", "--out", str(out)]
    finished = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    report = out.read_text(encoding="utf-8")
    for row in ("| second third |", "| last third |", "| stopped |", "| flushed, and nothing is due |"):
        assert row in report
    (share,) = re.findall(r"^\| `storage compact` \| [\d.]+ \| [\d.]+ \| ([\d.]+) \|$", report, re.MULTILINE)
    assert float(share) > 0.5
