"""What lies on the disk of a store at rest: the files that are named, and in them no more that is dead than may be."""

from __future__ import annotations

from leafdb.sim.store_plan import StorePlan
from leafdb.sim.trace import Trace
from leafdb.storage.manifest import current_manifest, read_manifest
from leafdb.storage.stats import EngineStats
from leafdb.storage.value_files import value_path
from leafdb.storage.version import Version, table_path
from leafdb.storage.wal import segment_numbers
from leafdb.testing.violation import Invariant, require
from leafdb.vfs.memory import MemoryFileSystem


def check_files(disk: MemoryFileSystem, plan: StorePlan, stats: EngineStats, trace: Trace) -> None:
    """The disk holds what the manifest names, the log from the first unflushed write on, and no more."""
    number = current_manifest(disk)
    assert number is not None, "a store without a manifest"
    version = read_manifest(disk, number)
    named = [table_path(number) for number in sorted(version.tables)]
    named += [value_path(number) for number in sorted(version.values.metas)]
    there = [f"{directory}/{name}" for directory in ("tables", "values") for name in disk.list(directory)]
    require(there == named, Invariant.SPACE_RECLAIMED, f"files {there} where the manifest names {named}")
    _check_values(version, plan)
    if not stats.frozen_memtables:
        numbers = segment_numbers(disk)
        require(len(numbers) == 1, Invariant.SPACE_RECLAIMED, f"segments {numbers} of a log that is flushed")
    trace.probe("a compaction below level 1", any(meta.level > 1 for meta in version.tables.values()))
    if plan.config.compaction.level1_bytes > disk.used_bytes():
        _check_tombstones(version)


def _check_values(version: Version, plan: StorePlan) -> None:
    """No more lies dead in mostly dead value files than tables are large; no table refers to too many."""
    if plan.config.expiry:
        return  # windows keep what is dead in their value files until they leave, or are merged
    limits, files = plan.config.compaction, version.values
    mostly_dead = [number for number in files.metas if files.share(number) < limits.value_live_share_min]
    dead = sum(files.metas[number].value_bytes - files.live[number] for number in mostly_dead)
    merged = sum(meta.size for meta in version.tables.values() if meta.level > 0)
    require(
        dead <= merged,
        Invariant.SPACE_RECLAIMED,
        f"{dead} dead bytes in value files {mostly_dead}, and nothing is done",
    )
    if "read fails" in plan.faults:
        return  # values that could not be read stayed where they were, and the table goes on to refer to them
    for meta in version.tables.values():
        many = len(meta.references) > limits.value_files_max
        require(not many, Invariant.SPACE_RECLAIMED, f"table {meta.file_number} refers to {len(meta.references)} files")


def _check_tombstones(version: Version) -> None:
    """Where no level lies below and none ever did, a merged table has no tombstones."""
    kept = [meta.file_number for meta in version.tables.values() if meta.level == 1 and meta.tombstones]
    require(not kept, Invariant.SPACE_RECLAIMED, f"tables {kept} keep tombstones with nothing under them")
