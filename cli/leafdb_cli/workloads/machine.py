"""What a run costs the machine: CPU of the servers, and how fast the disk under them syncs."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
SYNC_TRIES: Final = 60
SYNC_BYTES: Final = 4_096
LOOPBACK: Final = ("127.", "localhost", "[::1]", "::1")


def cpu_s(pid: int) -> float | None:
    """User and system time of a process so far; None when there is none of that number here."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    # The command's name stands in parentheses and may hold spaces and parentheses itself.
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def server_pids(nodes: Iterable[Mapping[str, Any]]) -> list[int]:
    """Every leafdbd and its worker, when all of them run on this machine; none otherwise."""
    pids: list[int] = []
    for node in nodes:
        if not str(node["client"]).startswith(LOOPBACK):
            return []
        if node["state"] != "alive":
            continue
        for pid in (node.get("pid"), node.get("worker_pid")):
            if pid and cpu_s(int(pid)) is None:
                return []
            if pid:
                pids.append(int(pid))
    return pids


class CpuMeter:
    """CPU that processes spend between two readings."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._before = {pid: cpu_s(pid) for pid in pids}

    def spent_s(self) -> float | None:
        """Seconds since; None when there is nothing to read, or a process has ended."""
        if not self._before:
            return None
        total = 0.0
        for pid, before in self._before.items():
            after = cpu_s(pid)
            if before is None or after is None:
                return None
            total += after - before
        return total


def sync_ms(directory: str | None = None, tries: int = SYNC_TRIES) -> float:
    """The median of an append and fdatasync in this directory, or in that of the system for temporary files."""
    with tempfile.TemporaryFile(dir=directory) as file:
        times = []
        for _ in range(tries):
            os.write(file.fileno(), bytes(SYNC_BYTES))
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000
