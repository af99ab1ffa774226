"""What the engine asks of the worker, as plain values that cross a process boundary.

A job names everything it may touch: the files it reads and the file numbers it may write. It carries no rights beyond
them, so a job of a worker that outlived its parent can disturb nothing.

`from_plain` raises ValueError on anything malformed; the layouts are drawn in docs/formats/worker.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from leafdb.errors import StorageError
from leafdb.limits import TABLE_BYTES
from leafdb.storage.lost_ranges import LostRange, Range
from leafdb.storage.version import TableMeta, VersionEdit
from leafdb.types import TreeId


@dataclass(frozen=True, slots=True)
class FlushJob:
    """Write what sealed WAL segments hold as one level-0 table per tree."""

    segments: tuple[str, ...]
    """Paths, oldest first."""
    outputs: tuple[tuple[TreeId, int], ...]
    """The file number allotted to each tree. A tree not named here (a dropped one) is skipped."""
    upto_lsn: int
    """The last write the segments hold: one that ends before it has lost something."""
    after_lsn: int = 0
    """Writes at or below are in tables already and are skipped."""

    def to_plain(self) -> dict[str, Any]:
        return {
            "kind": "flush",
            "segments": list(self.segments),
            "outputs": [list(output) for output in self.outputs],
            "upto_lsn": self.upto_lsn,
            "after_lsn": self.after_lsn,
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> FlushJob:
        try:
            return cls(
                segments=tuple(_text(path) for path in plain["segments"]),
                outputs=tuple((TreeId(_number(tree)), _number(number)) for tree, number in plain["outputs"]),
                upto_lsn=_number(plain["upto_lsn"]),
                after_lsn=_number(plain["after_lsn"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"malformed flush job: {error}") from error


@dataclass(frozen=True, slots=True)
class CompactionJob:
    """Merge tables of one tree into new ones on `output_level`."""

    tree_id: TreeId
    inputs: tuple[TableMeta, ...]
    """Those with newer data first: level 0 newest first, then deeper levels."""
    output_level: int
    below: tuple[Range, ...] = ()
    """Key ranges of the tables under the output level: inside them a tombstone must be kept."""
    outputs: tuple[int, ...] = ()
    """File numbers allotted, `outputs_wanted` of them. The picker leaves this empty; the engine fills it in."""
    table_bytes: int = TABLE_BYTES

    @property
    def outputs_wanted(self) -> int:
        """How many file numbers the job may need. With fewer its last table only grows; none stays unwritten."""
        return 2 + 2 * sum(meta.size for meta in self.inputs) // self.table_bytes

    @property
    def input_numbers(self) -> tuple[int, ...]:
        return tuple(meta.file_number for meta in self.inputs)

    def with_outputs(self, file_numbers: tuple[int, ...]) -> CompactionJob:
        return replace(self, outputs=file_numbers)

    def to_plain(self) -> dict[str, Any]:
        return {
            "kind": "compaction",
            "tree_id": self.tree_id,
            "inputs": [meta.to_plain() for meta in self.inputs],
            "output_level": self.output_level,
            "below": [list(pair) for pair in self.below],
            "outputs": list(self.outputs),
            "table_bytes": self.table_bytes,
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> CompactionJob:
        try:
            return cls(
                tree_id=TreeId(_number(plain["tree_id"])),
                inputs=tuple(TableMeta.from_plain(meta) for meta in plain["inputs"]),
                output_level=_number(plain["output_level"]),
                below=tuple((_bytes(low), _bytes(high)) for low, high in plain["below"]),
                outputs=tuple(_number(number) for number in plain["outputs"]),
                table_bytes=_number(plain["table_bytes"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"malformed compaction job: {error}") from error


@dataclass(frozen=True, slots=True)
class CompactionResult:
    """What a compaction made and what it replaced."""

    added: tuple[TableMeta, ...]
    removed: tuple[int, ...]
    entries_read: int
    entries_written: int

    def edit(self) -> VersionEdit:
        """What the engine writes to the manifest to publish the result."""
        return VersionEdit(added=self.added, removed=self.removed)

    def to_plain(self) -> dict[str, Any]:
        return {
            "added": [meta.to_plain() for meta in self.added],
            "removed": list(self.removed),
            "entries_read": self.entries_read,
            "entries_written": self.entries_written,
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> CompactionResult:
        try:
            return cls(
                added=tuple(TableMeta.from_plain(meta) for meta in plain["added"]),
                removed=tuple(_number(number) for number in plain["removed"]),
                entries_read=_number(plain["entries_read"]),
                entries_written=_number(plain["entries_written"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"malformed compaction result: {error}") from error


@dataclass(frozen=True, slots=True)
class SalvageJob:
    """Write what can be read of one damaged table as another in its place, on its level."""

    table: TableMeta
    output: int
    """The file number allotted."""

    def to_plain(self) -> dict[str, Any]:
        return {"kind": "salvage", "table": self.table.to_plain(), "output": self.output}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> SalvageJob:
        try:
            return cls(table=TableMeta.from_plain(plain["table"]), output=_number(plain["output"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"malformed salvage job: {error}") from error


@dataclass(frozen=True, slots=True)
class SalvageResult:
    """What is left of a damaged table, and what is not."""

    added: TableMeta | None
    """None: nothing could be read."""
    lost: tuple[Range, ...]
    """Where keys may have been that are not in `added`; none when all could be read this time."""

    def edit(self, table: TableMeta) -> VersionEdit:
        """What the engine writes to the manifest to put the result in the place of `table`: with the holes in it."""
        return VersionEdit(
            added=() if self.added is None else (self.added,),
            removed=(table.file_number,),
            lost=tuple(LostRange(table.file_number, table.tree_id, *lost) for lost in self.lost),
        )

    def to_plain(self) -> dict[str, Any]:
        return {
            "added": None if self.added is None else self.added.to_plain(),
            "lost": [list(pair) for pair in self.lost],
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> SalvageResult:
        try:
            added = plain["added"]
            return cls(
                added=None if added is None else TableMeta.from_plain(added),
                lost=tuple((_bytes(low), _bytes(high)) for low, high in plain["lost"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"malformed salvage result: {error}") from error


Job = FlushJob | CompactionJob | SalvageJob
JobResult = list[TableMeta] | CompactionResult | SalvageResult
"""A flush job answers the tables it wrote, the others their results."""

Outcome = JobResult | StorageError
Done = Callable[[Outcome], None]
"""Gets a job's outcome: on the loop, later, exactly once."""

ToLoop = Callable[[Callable[[], None]], None]
"""Runs a callback on the loop's thread, soon; may be called from any thread (trio's `run_sync_soon`)."""


def job_from_plain(plain: Any) -> Job:
    """The job a map describes; ValueError when it describes none."""
    if not isinstance(plain, dict):
        raise ValueError("a job is a map")
    match plain.get("kind"):
        case "flush":
            return FlushJob.from_plain(plain)
        case "compaction":
            return CompactionJob.from_plain(plain)
        case "salvage":
            return SalvageJob.from_plain(plain)
        case kind:
            raise ValueError(f"unknown kind of job {kind!r:.40}")


def _number(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"not a number: {value!r:.40}")
    return value


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError(f"not a path: {value!r:.40}")
    return value


def _bytes(value: Any) -> bytes:
    if type(value) is not bytes:
        raise ValueError(f"not bytes: {value!r:.40}")
    return value
