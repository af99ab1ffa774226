"""What an engine does by the clock: sync what was written PERIODIC, look at the disk's room, give failed jobs again.

The owner calls `on_time` when `deadline` says so, or simply often. A write is synced at the latest half an interval
after the first call that sees it; so calling at least four times an interval keeps `wal_sync_interval_ms`.
"""

from __future__ import annotations

from typing import Final

from leafdb.storage.committer import Committer
from leafdb.storage.maintenance import Maintenance
from leafdb.storage.pressure import Pressure
from leafdb.storage.settings import EngineConfig
from leafdb.vfs.base import FileSystem

WATERMARK_INTERVAL_S: Final = 0.1
"""What a fast disk takes in so much time must be small beside the room that is kept."""
WATERMARK_IDLE_S: Final = 1.0
"""While nothing is written; the first write after that looks at once."""


class Timing:
    """The due times; on the loop."""

    def __init__(
        self,
        fs: FileSystem,
        config: EngineConfig,
        committer: Committer,
        pressure: Pressure,
        maintenance: Maintenance,
    ) -> None:
        self._fs = fs
        self._sync_wait_s = config.wal_sync_interval_ms / 2_000
        self._committer = committer
        self._pressure = pressure
        self._maintenance = maintenance
        self._sync_due_s: float | None = None
        self._looked_s: float | None = None
        self._looked_lsn = 0

    def on_time(self, now_s: float) -> None:
        """Do what is due. OSError when the file system cannot even say how full it is."""
        if not self._committer.unsynced:
            self._sync_due_s = None
        elif self._sync_due_s is None:
            self._sync_due_s = now_s + self._sync_wait_s
        elif now_s >= self._sync_due_s:
            self._sync_due_s = None
            self._committer.sync_soon()
        if self._looked_s is None or now_s >= self._watermark_due_s(self._looked_s):
            self._looked_s = now_s
            self._looked_lsn = self._committer.next_lsn
            self._pressure.observe_free(self._fs.free_bytes(), self._owed_bytes())
        self._maintenance.on_time(now_s)

    def _owed_bytes(self) -> int:
        """About what flushes have still to write: the frozen generations and what the present one has logged."""
        frozen = sum(memtable.bytes_used for memtable in self._maintenance.frozen)
        return self._committer.segment_bytes + frozen

    def _watermark_due_s(self, looked_s: float) -> float:
        idle = self._committer.next_lsn == self._looked_lsn
        return looked_s + (WATERMARK_IDLE_S if idle else WATERMARK_INTERVAL_S)

    def deadline(self, now_s: float) -> float:
        due = [now_s if self._looked_s is None else self._watermark_due_s(self._looked_s)]
        if self._sync_due_s is not None:
            due.append(self._sync_due_s)
        elif self._committer.unsynced:
            due.append(now_s)
        retry_s = self._maintenance.deadline()
        if retry_s is not None:
            due.append(retry_s)
        return min(due)
