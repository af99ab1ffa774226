"""What a reader has to know about the machine that a figure comes from."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Final

from leafdb_cli.workloads.machine import sync_ms

ROOT: Final = Path(__file__).resolve().parents[1]


def machine_notes(directory: str) -> dict[str, str]:
    """What a reader has to know about where this ran."""
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    return {
        "processor": f"{cpu}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores usable",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "data on": file_system(directory),
        "fdatasync of 4 KiB there": f"{sync_ms(directory):.3f} ms (median)",
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "leafdb": revision(),
    }


def file_system(directory: str) -> str:
    """The kind of file system a directory is on."""
    best, kind = "", "unknown"
    real = os.path.realpath(directory)
    for line in Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
        _, point, name, *_ = line.split()
        if (real == point or real.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, name
    return kind


def revision() -> str:
    """The commit that ran, where there is git to ask."""
    try:
        finished = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return finished.stdout.strip()
