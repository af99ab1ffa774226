"""Which merge is wanted most: pure, so that a decision can be shown and tested without a file.

Leveled compaction. Level 0 holds whole memtables, which overlap, and is measured by their number; every deeper level is
sorted and disjoint and measured by its bytes, each LEVEL_FANOUT times larger than the one above. The level that exceeds
its measure most is merged into the next.

What the executor relies on:

- A job never touches a busy table, one that another job reads or that is known to be damaged. Jobs of one tree that
  share no table have disjoint key ranges on the levels they meet on, so they may run side by side.
- Level 0 goes oldest first, and every table of level 0 that is left out is newer than all that are taken; all tables
  of the output level that touch the inputs' range are inputs. So whatever is older than the inputs, inside their range,
  lies below the output level, and `below` names all of it: this is what makes dropping a tombstone safe.

Values in value files are carried along as places; which of them a job moves is decided in `value_picker`. When no level
wants a merge, a table that holds mostly dead value files is merged with itself, on its level, to let them go.

What lies above the deepest level may make as much below it dead, and while the deepest is smaller than the measures of
those above, that is half of the disk. So when nothing else is wanted, the fullest of the levels above goes down, until
together they hold at most UPPER_LEVELS_SHARE_MAX of the deepest. Trees that have not outgrown level 1 are let be: there
it is a few tables of level 0.

A damaged table is nobody's input but that of its own salvage, which puts what can be read of it in its place, on its
level, tombstones included: so no level moves past a hole, and what the hole had hidden is hidden by nothing else than
the follower's doubt of the lost range (`lost_ranges`). A salvage goes before every compaction: level 0 waits for it.

A tree that is kept by time has windows on level 0, and what becomes of them is decided in `window_picker`. Deeper
levels, where what lasts goes, are as in any other tree.

Left out: moving a table down without rewriting it (keys are hashes; levels always overlap), and rewarding tombstones.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

from leafdb.limits import (
    COMPACTION_BYTES_MAX,
    LEVEL0_COMPACT_TABLES,
    LEVEL1_BYTES,
    LEVEL_FANOUT,
    LEVELS,
    LOST_TABLES_MAX,
    TABLE_BYTES,
    TABLE_VALUE_FILES_MAX,
    UPPER_LEVELS_SHARE_MAX,
    VALUE_LIVE_SHARE_MIN,
    WINDOW_BYTES_MAX,
    WINDOW_TABLES_MAX,
    WINDOWS,
)
from leafdb.storage.forgotten import Forgotten
from leafdb.storage.jobs import CompactionJob
from leafdb.storage.value_picker import files_to_move_out_of, table_to_free_files
from leafdb.storage.version import TableMeta, TreeVersion, Version
from leafdb.storage.window_picker import tables_to_settle, windows_to_merge
from leafdb.types import TreeId

_ONE_TABLE_BYTES: Final = 1 << 62
"""No table gets so large: what is merged stays one."""


@dataclass(frozen=True, slots=True)
class PickerLimits:
    """The measures of the levels and of a job."""

    level0_tables: int = LEVEL0_COMPACT_TABLES
    level1_bytes: int = LEVEL1_BYTES
    fanout: int = LEVEL_FANOUT
    table_bytes: int = TABLE_BYTES
    job_bytes_max: int = COMPACTION_BYTES_MAX
    """Input bytes of one job, as far as one table and what it overlaps allow; values that are moved included."""
    upper_share_max: float = UPPER_LEVELS_SHARE_MAX
    """What may lie above the deepest level at rest, as a share of its bytes."""
    value_live_share_min: float = VALUE_LIVE_SHARE_MIN
    value_files_max: int = TABLE_VALUE_FILES_MAX
    windows: int = WINDOWS
    window_tables: int = WINDOW_TABLES_MAX
    """Neighbours are merged when there are more; at least `2 * windows`."""
    window_bytes_max: int = WINDOW_BYTES_MAX
    """Input bytes of one merge of windows."""


def pick(
    version: Version,
    busy: Collection[int],
    limits: PickerLimits | None = None,
    by_time: Collection[TreeId] = (),
    forgotten: Forgotten | None = None,
) -> CompactionJob | None:
    """The job most wanted that touches no busy table, and moves out of no busy value file; None when nothing is due or
    all that is must wait. Of the trees kept `by_time` it is told what their owner has `forgotten`."""
    limits = limits or PickerLimits()
    forgotten = forgotten or Forgotten()
    wanted = [
        (score, tree, level)
        for tree in version.trees.values()
        for level, score in enumerate(scores(tree, limits))
        if score >= 1 or (level == 0 and tree.tree_id in by_time)
    ]
    for _, tree, level in sorted(wanted, key=lambda item: item[0], reverse=True):
        if level:
            job = _level_job(tree, level, busy, limits)
        elif tree.tree_id in by_time:
            job = _window_job(tree, busy, limits, forgotten)
        else:
            job = _level0_job(tree, busy, limits)
        if job is not None:
            return with_moves(job, version, busy, limits)
    holder = table_to_free_files(version, busy, limits.value_live_share_min)
    if holder is not None:
        job = _job(version.trees[holder.tree_id], [holder], holder.level, limits)
        return with_moves(job, version, busy, limits)
    for tree in version.trees.values():
        job = _make_way(tree, busy, limits)
        if job is not None:
            return with_moves(job, version, busy, limits)
    return None


def with_moves(job: CompactionJob, version: Version, busy: Collection[int], limits: PickerLimits) -> CompactionJob:
    """The job, which is told to move the values it should."""
    moves = files_to_move_out_of(
        version.values,
        job.inputs,
        busy,
        live_share_min=limits.value_live_share_min,
        files_max=limits.value_files_max,
        bytes_max=limits.job_bytes_max,
    )
    return replace(job, move_from=moves)


def pick_salvage(version: Version, damaged: Collection[int], busy: Collection[int]) -> TableMeta | None:
    """The damaged table to be salvaged next: of those that still are, and that no job reads, the oldest. None, too,
    while too many losses wait to be noted."""
    waiting = sorted(number for number in damaged if number in version.tables and number not in busy)
    unnoted = len({lost.file_number for lost in version.lost})
    return version.tables[waiting[0]] if waiting and unnoted < LOST_TABLES_MAX else None


@dataclass(frozen=True, slots=True)
class Descent:
    """How far a tree is on its way down that somebody asked for: level after level into the next, to `last_level`.

    Level 0 is done when it holds nothing from before `upto_lsn`; a deeper one when every key has had its turn, in their
    order. So what is written meanwhile is not chased.
    """

    tree_id: TreeId
    last_level: int
    upto_lsn: int
    level: int = 0
    after: bytes = b""
    """On `level`, tables that end at or below are done. No table ends with the empty key."""
    skipped: int = 0
    """Tables left where they are, since they, or what they would be merged with, are busy for long: damaged."""


def descent(tree: TreeVersion, upto_lsn: int) -> Descent:
    """The way down for a tree as it is: to the last level that holds data, and to level 1 at least."""
    deepest = max((level for level, tables in enumerate(tree.levels) if tables), default=0)
    return Descent(tree.tree_id, max(1, deepest), upto_lsn)


def descend(
    tree: TreeVersion, way: Descent, busy: Collection[int], limits: PickerLimits
) -> tuple[CompactionJob | None, Descent]:
    """The next job on the way down, and the way as it is once the job is done; no job: it has ended.

    Each job is one table, or as much of level 0 as its bound allows, with what it touches: no more room is taken at a
    time than an automatic one takes.
    """
    while way.level < way.last_level:
        if way.level == 0:
            old = [meta for meta in tree.levels[0] if meta.sequence_min <= way.upto_lsn]
            job = _level0_job(tree, busy, limits) if old else None
            if job is not None:
                return job, way
            way = replace(way, level=1, skipped=way.skipped + len(old))
            continue
        meta = next((meta for meta in tree.levels[way.level] if meta.largest > way.after), None)
        if meta is None:
            way = replace(way, level=way.level + 1, after=b"")
            continue
        way = replace(way, after=meta.largest)
        job = _job(tree, [meta], way.level + 1, limits)
        if not any(number in busy for number in job.input_numbers):
            return job, way
        way = replace(way, skipped=way.skipped + 1)
    return None, way


def scores(tree: TreeVersion, limits: PickerLimits) -> list[float]:
    """How full each level is; from 1 on it wants merging. The last level has nowhere to go and no measure."""
    found = [len(tree.levels[0]) / limits.level0_tables]
    allowed = limits.level1_bytes
    for level in range(1, LEVELS - 1):
        found.append(tree.level_bytes(level) / allowed)
        allowed *= limits.fanout
    return found


def fullness(tree: TreeVersion, limits: PickerLimits, *, by_time: bool) -> float:
    """How full the fullest level is: 1.0 is its measure. The windows of a tree kept by time have none here."""
    return max(scores(tree, limits)[1 if by_time else 0 :])


def debt_bytes(version: Version, limits: PickerLimits | None = None, by_time: Collection[TreeId] = ()) -> int:
    """Bytes that stand above their level's measure: what compaction is behind with, for pacing and for the operator.
    Windows of trees kept `by_time` are no debt."""
    limits = limits or PickerLimits()
    debt = 0
    for tree in version.trees.values():
        if len(tree.levels[0]) >= limits.level0_tables and tree.tree_id not in by_time:
            debt += tree.level_bytes(0)
        allowed = limits.level1_bytes
        for level in range(1, LEVELS - 1):
            debt += max(0, tree.level_bytes(level) - allowed)
            allowed *= limits.fanout
    return debt


def _make_way(tree: TreeVersion, busy: Collection[int], limits: PickerLimits) -> CompactionJob | None:
    """Of a tree with too much above its deepest level: the fullest of those goes down."""
    deepest = max((level for level, tables in enumerate(tree.levels) if tables), default=0)
    above = [tree.level_bytes(level) for level in range(deepest)]
    if deepest < 2 or sum(above) <= limits.upper_share_max * tree.level_bytes(deepest):
        return None
    level = above.index(max(above))
    return _level0_job(tree, busy, limits) if level == 0 else _level_job(tree, level, busy, limits)


def _level0_job(tree: TreeVersion, busy: Collection[int], limits: PickerLimits) -> CompactionJob | None:
    """The oldest tables of level 0, as many as the bound allows, with all they touch in level 1."""
    taken: list[TableMeta] = []
    size = 0
    for meta in reversed(tree.levels[0]):
        # Taking a table past a busy one would put its newer data below older data.
        if meta.file_number in busy or (taken and size + meta.size > limits.job_bytes_max):
            break
        taken.append(meta)
        size += meta.size
    if not taken:
        return None
    taken.reverse()
    job = _job(tree, taken, 1, limits)
    return None if any(number in busy for number in job.input_numbers) else job


def _level_job(tree: TreeVersion, level: int, busy: Collection[int], limits: PickerLimits) -> CompactionJob | None:
    """The table that drags the fewest bytes of the next level along, for each of its own; of those, the first."""
    best: TableMeta | None = None
    best_cost = 0.0
    for meta in tree.levels[level]:
        touched = tree.overlapping(level + 1, meta.smallest, meta.largest)
        if meta.file_number in busy or any(other.file_number in busy for other in touched):
            continue
        cost = sum(other.size for other in touched) / meta.size
        if best is None or cost < best_cost:
            best, best_cost = meta, cost
    return None if best is None else _job(tree, [best], level + 1, limits)


def _window_job(
    tree: TreeVersion, busy: Collection[int], limits: PickerLimits, forgotten: Forgotten
) -> CompactionJob | None:
    """What is due on level 0 of a tree kept by time: what lasts goes down, else neighbours become one window; where
    they are too large for that, the oldest goes down."""
    settled = tables_to_settle(tree, busy, forgotten, lasting_max=limits.level0_tables)
    if settled:
        numbers = {meta.file_number for meta in tree.levels[0]} - {meta.file_number for meta in settled}
        job = _level0_job(tree, {*busy, *numbers}, limits)
        if job is not None:
            return job
    merged = windows_to_merge(
        tree, busy, windows=limits.windows, tables_max=limits.window_tables, bytes_max=limits.window_bytes_max
    )
    if merged:
        return _window_of(tree, merged)
    too_large = tree.level_bytes(0) > limits.windows * limits.window_bytes_max
    return _level0_job(tree, busy, limits) if too_large and len(tree.levels[0]) > limits.window_tables else None


def _window_of(tree: TreeVersion, merged: list[TableMeta]) -> CompactionJob:
    """Neighbours on level 0 become one table there: what is older lies behind them, and on every deeper level."""
    older = list(tree)[tree.levels[0].index(merged[-1]) + 1 :]
    smallest = min(meta.smallest for meta in merged)
    largest = max(meta.largest for meta in merged)
    return CompactionJob(
        tree_id=tree.tree_id,
        inputs=tuple(merged),
        output_level=0,
        below=tuple(sorted((meta.smallest, meta.largest) for meta in older if meta.overlaps(smallest, largest))),
        table_bytes=_ONE_TABLE_BYTES,
    )


def _job(tree: TreeVersion, upper: list[TableMeta], output_level: int, limits: PickerLimits) -> CompactionJob:
    smallest = min(meta.smallest for meta in upper)
    largest = max(meta.largest for meta in upper)
    lower = [meta for meta in tree.overlapping(output_level, smallest, largest) if meta not in upper]
    smallest = min([smallest, *(meta.smallest for meta in lower)])
    largest = max([largest, *(meta.largest for meta in lower)])
    below = [
        (meta.smallest, meta.largest)
        for level in range(output_level + 1, LEVELS)
        for meta in tree.overlapping(level, smallest, largest)
    ]
    return CompactionJob(
        tree_id=tree.tree_id,
        inputs=(*upper, *lower),
        output_level=output_level,
        below=tuple(sorted(below)),
        table_bytes=limits.table_bytes,
    )
