"""What may be chosen of an engine. The walls behind it are in `leafdb.limits`, which gives the defaults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from leafdb import limits
from leafdb.storage.compaction_picker import PickerLimits
from leafdb.types import TreeId


def every_tree(tree_id: TreeId) -> bool:
    """No tree is an exception."""
    return True


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Sizes and times of one store. Raises nothing; the user's numbers are judged where they are read."""

    memtable_bytes: int = limits.MEMTABLE_BYTES
    """A generation is frozen at this size. Memory: times `frozen_memtables_max` + 1."""
    frozen_memtables_max: int = limits.FROZEN_MEMTABLES_MAX
    """Writes stop when so many generations wait for their flush; from half of it on they are slowed."""
    flushed_bytes_max: int = 0
    """Generations that are in tables stay readable in memory while they and the memtable take no more (`flushed`)."""
    wal_segment_bytes: int = limits.WAL_SEGMENT_BYTES
    """A generation is frozen, too, when its segment is this long: overwriting a few keys grows only the log."""
    wal_batch_bytes_max: int = limits.WAL_BATCH_BYTES_MAX
    """A batch this large is handed over without waiting for the commit before it."""
    wal_sync_interval_ms: int = limits.WAL_SYNC_INTERVAL_MS
    """What a power cut may take of acknowledged PERIODIC writes."""
    auto_commit: bool = True
    """Hand a batch over at the loop's next opportunity. Off: the owner calls `flush_batch` after each burst, which
    saves one wakeup of the loop a batch."""
    level0_slow_tables: int = limits.LEVEL0_SLOW_TABLES
    level0_stop_tables: int = limits.LEVEL0_STOP_TABLES
    """Between the two, writes of all trees are slowed, the more the closer; at the second they stop."""
    disk_free_bytes_low: int = limits.DISK_FREE_BYTES_LOW
    disk_free_bytes_high: int = limits.DISK_FREE_BYTES_HIGH
    """Below `low` new writes are refused, until there is more than `high` again."""
    block_cache_bytes: int = limits.BLOCK_CACHE_BYTES
    reads_queued_max: int = limits.READS_QUEUED_MAX
    reader_jobs_max: int = limits.READER_THREADS
    """Read jobs given to the read executor at once: its number of threads."""
    manifest_bytes_max: int = limits.MANIFEST_BYTES_MAX
    """A longer manifest is replaced by a snapshot."""
    file_number_lease: int = limits.FILE_NUMBER_LEASE
    """File numbers are made durable in blocks of so many before any of them is used."""
    value_inline_bytes_max: int = limits.VALUE_INLINE_BYTES_MAX
    """A longer value is written to a value file, and the table holds its place."""
    compaction: PickerLimits = field(default_factory=PickerLimits)
    """The measures of the levels and of one compaction."""
    expiry: str = ""
    """The name of the filter that tells when a value expires (`storage.expiry`). Set: the owner tells which trees are
    kept by time (`Engine.keep_by_time`), and before it does nothing is compacted."""
    snapshot: bool = False
    """Open a snapshot, or a copy of one, to read it; what is opened otherwise must be none."""
    salvages: Callable[[TreeId], bool] = every_tree
    """Whether damaged tables of a tree are salvaged: what is lost of it can be had from elsewhere, or be done without.
    Of others the damaged part stays where it is and is answered with CorruptionError."""
    store_id: bytes = bytes(16)
    """Sixteen bytes to name the store by, drawn by the owner. Used only when the store is made."""
