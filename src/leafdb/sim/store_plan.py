"""What one seed of the store tier is like: constants shrunk so that every limit is met, and which faults are on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Final

from leafdb.storage.compaction_picker import PickerLimits
from leafdb.storage.settings import EngineConfig

FAULTS: Final = (
    "kill",
    "power cut",
    "crash while recovering",
    "clean close",
    "sync fails",
    "write fails",
    "read fails",
    "disk full",
    "damage",
    "stale blocks",
)
DEATHS: Final = ("kill", "power cut")

EXPIRY: Final = "leafdb.sim.store_windows:expires_ms"
"""Named here, and not imported: jobs look for it by its name."""


@dataclass(frozen=True, slots=True)
class StorePlan:
    """See the module."""

    config: EngineConfig
    faults: frozenset[str]
    keys: int
    value_bytes_max: int
    trees: int
    periodic: float
    """Share of writes acknowledged before the sync."""
    crash_every: int
    """Operations between two crashes, about."""
    diligence: float
    """Chance that a thing which waits to be done is done after an operation."""
    cold: float
    """Chance that the disk answers no read at once, from one opening to the next."""

    @property
    def deaths(self) -> tuple[str, ...]:
        """How a process may die that has not failed."""
        return tuple(name for name in DEATHS if name in self.faults)

    @classmethod
    def draw(cls, rng: Random) -> StorePlan:
        memtable_bytes = rng.choice((2_000, 4_000, 8_000, 16_000))
        config = EngineConfig(
            memtable_bytes=memtable_bytes,
            frozen_memtables_max=rng.choice((1, 2, 4)),
            wal_segment_bytes=rng.choice((1_500, 6_000, 1 << 20)),
            wal_batch_bytes_max=rng.choice((300, 2_000, 1 << 20)),
            auto_commit=rng.random() < 0.7,
            level0_slow_tables=6,
            level0_stop_tables=9,
            disk_free_bytes_low=4_000,
            disk_free_bytes_high=8_000,
            block_cache_bytes=rng.choice((0, 4_000, 1 << 20)),
            manifest_bytes_max=rng.choice((300, 1_000, 10_000)),
            file_number_lease=rng.choice((1, 4, 20)),
            store_id=rng.randbytes(16),
            compaction=rng.choice(
                (
                    PickerLimits(level0_tables=3),
                    PickerLimits(
                        level0_tables=2, level1_bytes=4_000, fanout=2, table_bytes=2_000, job_bytes_max=12_000
                    ),
                )
            ),
        )
        if config.store_id[0] % 2:  # no draw of its own, so that seeds stay what they are
            config = replace(config, flushed_bytes_max=memtable_bytes)
        faults = {name for name in FAULTS if rng.random() < 0.6}
        if not faults & set(DEATHS):
            faults.add(rng.choice(DEATHS))
        plan = cls(
            config=config,
            faults=frozenset(faults),
            keys=rng.choice((8, 40, 150)),
            value_bytes_max=rng.choice((40, 250, 900)),
            trees=rng.choice((1, 2, 4)),
            periodic=rng.choice((0.0, 0.3, 0.8)),
            crash_every=rng.choice((15, 60, 200)),
            diligence=rng.choice((0.1, 0.3, 0.7)),
            cold=rng.choice((0.0, 0.5)),
        )
        # Drawn last, so that a seed is in all else what it was before there were value files.
        inline_bytes_max = rng.choice((20, 100, 1 << 20))
        files_max = rng.choice((2, 4, 64))
        limits = replace(config.compaction, value_files_max=files_max)
        # As late, for trees kept by time.
        expiry = rng.choice(("", EXPIRY))
        windows, bytes_max = rng.choice((1, 2, 4)), rng.choice((6_000, 1 << 20))
        limits = replace(limits, windows=windows, window_tables=2 * windows, window_bytes_max=bytes_max)
        return replace(
            plan, config=replace(config, value_inline_bytes_max=inline_bytes_max, compaction=limits, expiry=expiry)
        )
