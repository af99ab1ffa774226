"""Whether the store can take a write now: slowed by debt before it is stopped by it, and refused when the disk is full.

Debt is what stands between a write and its place in the tree: frozen memtables waiting for their flush, level-0 tables
waiting for compaction. Below the slow mark there is none. Between slow and stop, writes are admitted at a pace that
falls from PACE_FIRST_S to PACE_LAST_S apart as debt goes from 0 to 1, so that a load and the compaction meet somewhere
instead of running into the wall; at stop nothing is admitted.

The disk is full below one watermark and until above another, so that it does not flap. What memory holds that no table
holds yet is counted as written twice: flushes go on when nothing else does, and only they free the log. Compactions and
syncs go on as well, which is what the room kept is for.
"""

from __future__ import annotations

from typing import Final

from leafdb.errors import DiskFull
from leafdb.storage.settings import EngineConfig

PACE_FIRST_S: Final = 0.000_05
PACE_LAST_S: Final = 0.01
CREDIT_S: Final = 0.01
"""Requests come in bursts: what was not used of so much time may be used at once."""
STOP_S: Final = 0.25
"""What is answered when nothing is admitted: ask again after."""


class Pressure:
    """The state behind `Engine.admit`; told of every change by the engine."""

    __slots__ = ("_config", "_next_s", "_pace_s", "calm", "debt", "disk_full", "free_bytes", "owed_bytes", "refusals")

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._pace_s = 0.0
        self._next_s = 0.0
        self.debt: float = 0.0
        self.calm: bool = True
        self.disk_full: bool = False
        self.free_bytes: int = 0
        self.owed_bytes: int = 0
        self.refusals: int = 0

    def update(self, *, frozen_memtables: int, level0_tables: int, backlog_bytes: int) -> None:
        """Judge the debt anew."""
        config = self._config
        frozen_slow = max(1, config.frozen_memtables_max // 2)
        self.debt = max(
            _share(frozen_memtables, frozen_slow, config.frozen_memtables_max),
            _share(level0_tables, config.level0_slow_tables, config.level0_stop_tables),
            _share(backlog_bytes, 4 * config.wal_batch_bytes_max, 16 * config.wal_batch_bytes_max),
        )
        self._pace_s = PACE_FIRST_S * (PACE_LAST_S / PACE_FIRST_S) ** min(self.debt, 1.0) if self.debt else 0.0
        self.calm = not self.debt and not self.disk_full

    def observe_free(self, free_bytes: int, owed_bytes: int = 0) -> None:
        """Judge the room on the disk anew, of which flushes will still take `owed_bytes`."""
        self.free_bytes = free_bytes
        self.owed_bytes = owed_bytes
        if free_bytes - owed_bytes < self._config.disk_free_bytes_low:
            self.disk_full = True
        elif free_bytes - owed_bytes > self._config.disk_free_bytes_high:
            self.disk_full = False
        self.calm = not self.debt and not self.disk_full

    def admit(self, now_s: float) -> float:
        """0.0: write now. Else: try again after so many seconds. DiskFull when there is no room."""
        if self.calm:
            return 0.0
        if self.disk_full:
            self.refusals += 1
            low, high = self._config.disk_free_bytes_low, self._config.disk_free_bytes_high
            raise DiskFull(
                f"{self.free_bytes} bytes are free, {self.owed_bytes} of them needed by flushes: "
                f"no writes from below {low} until above {high}",
                path="wal",
            )
        if self.debt >= 1.0:
            self.refusals += 1
            return STOP_S
        if now_s >= self._next_s:
            self._next_s = max(self._next_s, now_s - CREDIT_S) + self._pace_s
            return 0.0
        self.refusals += 1
        return self._next_s - now_s


def _share(value: int, slow: int, stop: int) -> float:
    """0 below `slow`, rising, 1 from `stop` on."""
    if value < slow:
        return 0.0
    return min(1.0, (value - slow + 1) / (stop - slow + 1))
