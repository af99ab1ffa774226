"""What goes wrong on a disk in memory: chosen calls that fail, and two lies no call tells.

A `Fault` counts the calls of its kind and strikes from the `at`-th on. Kinds are the names of the calls ("append",
"write_at", "sync", "create", "read_at", ...), which then raise, and two that hold for "append" and "write_at":

- "lose": the write is said to be done, and reads show it from the page cache; the platter never gets it, sync or not;
- "misdirect": as "lose", but the platter gets the bytes at another place of the file.

Both show when the cache is gone: after a power cut, or once the file system was told to `evict`.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import Final

LOSE: Final = "lose"
MISDIRECT: Final = "misdirect"

MISDIRECTED_BY_BYTES: Final = 4096


@dataclass(slots=True)
class Fault:
    """Make the calls of one kind fail: the `at`-th from now (1 is the next), and `count` of them."""

    kind: str
    at: int = 1
    error: int = errno.EIO
    count: int = 1
    path_prefix: str = ""
    short: bool = False
    """Half of the data is written before the error."""
    seen: int = field(default=0, init=False)

    def strikes(self, kind: str, path: str) -> bool:
        if kind != self.kind or not path.startswith(self.path_prefix):
            return False
        self.seen += 1
        return self.at <= self.seen < self.at + self.count
