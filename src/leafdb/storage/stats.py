"""What an engine can say of itself in numbers: for metrics, for the memory ledger, for the operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leafdb.storage.block_cache import BlockCache
from leafdb.storage.committer import Committer
from leafdb.storage.compaction_pace import CompactionPace
from leafdb.storage.maintenance import Maintenance
from leafdb.storage.memtable import Memtable
from leafdb.storage.pressure import Pressure
from leafdb.storage.reads import Reads
from leafdb.storage.snapshots import Snapshots
from leafdb.storage.tables import Tables
from leafdb.storage.verification import Verifier


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counters and sizes of one moment."""

    last_sequence: int
    written_sequence: int
    synced_sequence: int
    commits: int
    memtable_bytes: int
    frozen_memtables: int
    frozen_bytes: int
    flushed_bytes: int
    """Of generations that are in tables, and still in memory to be read there."""
    backlog_bytes: int
    tables: int
    table_bytes: int
    value_files: int
    value_bytes: int
    """The size of all value files."""
    value_live_bytes: int
    value_dead_bytes: int
    """Values that no table refers to any more, in files that have others."""
    reader_bytes: int
    level0_tables: int
    block_cache_bytes: int
    reads_pending: int
    reads_served: int
    reads_refused: int
    flushes: int
    compactions: int
    compaction_share: float
    """Of the time, that a compaction may take; of the last one when there is none."""
    failed_jobs: int
    dropped_tables: int
    """Whole, since all that was in them had expired and was forgotten."""
    dropped_bytes: int
    windows_merged: int
    """Compactions that made one window of several."""
    debt: float
    refusals: int
    disk_full: bool
    disk_free_bytes: int
    unlinks_failed: int
    snapshots: int
    snapshot_bytes_held: int
    """On disk for snapshots alone: the store has moved on from these files."""
    damaged_tables: int
    """Known, and waiting for their salvage."""
    salvages: int
    lost_ranges: int
    """Left out by salvages, and not noted yet."""
    quarantined_files: int
    quarantined_bytes: int


def collect(
    committer: Committer,
    memtable: Memtable,
    maintenance: Maintenance,
    tables: Tables,
    reads: Reads,
    pressure: Pressure,
    snapshots: Snapshots,
    pace: CompactionPace,
    *,
    block_cache_bytes: int,
) -> EngineStats:
    values = tables.version.values
    live = sum(values.live.values())
    return EngineStats(
        last_sequence=committer.next_lsn - 1,
        written_sequence=committer.written_lsn,
        synced_sequence=committer.synced_lsn,
        commits=committer.commits,
        memtable_bytes=memtable.bytes_used,
        frozen_memtables=len(maintenance.frozen),
        frozen_bytes=sum(frozen.bytes_used for frozen in maintenance.frozen),
        flushed_bytes=maintenance.flushed.bytes_used,
        backlog_bytes=committer.backlog_bytes,
        tables=len(tables.version.tables),
        table_bytes=sum(meta.size for meta in tables.version.tables.values()),
        value_files=len(values.metas),
        value_bytes=sum(meta.size for meta in values.metas.values()),
        value_live_bytes=live,
        value_dead_bytes=sum(meta.value_bytes for meta in values.metas.values()) - live,
        reader_bytes=sum(reader.memory_bytes for reader in tables.readers.values()),
        level0_tables=maintenance.windows.level0_tables(tables.version),
        block_cache_bytes=block_cache_bytes,
        reads_pending=reads.pending,
        reads_served=reads.served,
        reads_refused=reads.refused,
        flushes=maintenance.flushes,
        compactions=maintenance.compactions,
        compaction_share=pace.share,
        failed_jobs=maintenance.failed_jobs,
        dropped_tables=maintenance.windows.dropped_tables,
        dropped_bytes=maintenance.windows.dropped_bytes,
        windows_merged=maintenance.windows.merged,
        debt=pressure.debt,
        refusals=pressure.refusals,
        disk_full=pressure.disk_full,
        disk_free_bytes=pressure.free_bytes,
        unlinks_failed=tables.unlinks_failed,
        snapshots=len(snapshots.all()),
        snapshot_bytes_held=snapshots.bytes_held(),
        damaged_tables=len(maintenance.salvages.damaged & tables.head.tables.keys()),
        salvages=maintenance.salvages.done,
        lost_ranges=len(tables.version.lost),
        quarantined_files=len(tables.quarantined),
        quarantined_bytes=sum(kept.size for kept in tables.quarantined),
    )


class Work:
    """Counters that only rise, read where they are kept."""

    __slots__ = ("_cache", "_maintenance", "_pressure", "_reads", "_verifiers")

    def __init__(
        self,
        maintenance: Maintenance,
        verifiers: Sequence[Verifier],
        *,
        cache: BlockCache,
        reads: Reads,
        pressure: Pressure,
    ) -> None:
        self._maintenance = maintenance
        self._verifiers = verifiers
        self._cache = cache
        self._reads = reads
        self._pressure = pressure

    @property
    def block_cache_hits(self) -> int:
        return self._cache.hits

    @property
    def block_cache_misses(self) -> int:
        return self._cache.misses

    @property
    def reads_refused(self) -> int:
        return self._reads.refused

    @property
    def writes_held(self) -> int:
        return self._pressure.refusals

    @property
    def flushes(self) -> int:
        return self._maintenance.flushes

    @property
    def flushed_bytes(self) -> int:
        return self._maintenance.flushed_bytes

    @property
    def compactions(self) -> int:
        return self._maintenance.compactions

    @property
    def compaction_bytes_read(self) -> int:
        return self._maintenance.compaction_bytes_read

    @property
    def compaction_bytes_written(self) -> int:
        return self._maintenance.compaction_bytes_written

    @property
    def failed_jobs(self) -> int:
        return self._maintenance.failed_jobs

    @property
    def dropped_tables(self) -> int:
        return self._maintenance.windows.dropped_tables

    @property
    def dropped_bytes(self) -> int:
        return self._maintenance.windows.dropped_bytes

    @property
    def verified_bytes(self) -> int:
        return sum(verifier.bytes_read for verifier in self._verifiers)

    @property
    def damages_found(self) -> int:
        return sum(verifier.damages_found for verifier in self._verifiers)
