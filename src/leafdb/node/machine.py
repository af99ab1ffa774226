"""What the machine gives this process: open files, memory, and the kernel's settings that matter to a server.

For whoever asks a node what may be wrong (`admin_doctor`). Read when asked, for most of it can change while the process
runs; what cannot be read is left out, as on a system that is not Linux.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

KERNEL: Final[Mapping[str, str]] = {
    "listen_backlog_max": "/proc/sys/net/core/somaxconn",
    "swappiness": "/proc/sys/vm/swappiness",
}
MEMORY: Final = "/proc/meminfo"
MEMORY_LINES: Final[Mapping[str, str]] = {"memory_bytes": "MemTotal", "swap_bytes": "SwapTotal"}


def machine_facts() -> dict[str, int]:
    """By name; bytes and counts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = {"open_files_max": soft, "open_files_hard": hard}
    for name, path in KERNEL.items():
        with suppress(OSError, ValueError):
            found[name] = int(_read(path))
    with suppress(OSError, ValueError, IndexError):
        lines = dict(line.split(":", 1) for line in _read(MEMORY).splitlines())
        found |= {name: int(lines[line].split()[0]) * 1024 for name, line in MEMORY_LINES.items() if line in lines}
    return found


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()
