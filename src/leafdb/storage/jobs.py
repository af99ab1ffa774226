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
from leafdb.limits import TABLE_BYTES, VALUE_INLINE_BYTES_MAX
from leafdb.storage.forgotten import Told, told_from_plain
from leafdb.storage.lost_ranges import LostRange, Range
from leafdb.storage.value_files import ValueMeta
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
    values: tuple[tuple[TreeId, int], ...] = ()
    """The file number allotted to each tree for its large values. A tree not named here keeps them in its table."""
    inline_bytes_max: int = VALUE_INLINE_BYTES_MAX
    """A longer value is large."""
    expiring: tuple[TreeId, ...] = ()
    """Trees of which it is to be told when all that a table holds has expired."""
    expiry: str = ""
    """The name of the filter that tells it of a value (`expiry`)."""

    def to_plain(self) -> dict[str, Any]:
        return {
            "kind": "flush",
            "segments": list(self.segments),
            "outputs": [list(output) for output in self.outputs],
            "upto_lsn": self.upto_lsn,
            "after_lsn": self.after_lsn,
            "values": [list(output) for output in self.values],
            "inline_bytes_max": self.inline_bytes_max,
            "expiring": list(self.expiring),
            "expiry": self.expiry,
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> FlushJob:
        try:
            return cls(
                segments=tuple(_text(path) for path in plain["segments"]),
                outputs=tuple((TreeId(_number(tree)), _number(number)) for tree, number in plain["outputs"]),
                upto_lsn=_number(plain["upto_lsn"]),
                after_lsn=_number(plain["after_lsn"]),
                values=tuple((TreeId(_number(tree)), _number(number)) for tree, number in plain["values"]),
                inline_bytes_max=_number(plain["inline_bytes_max"]),
                expiring=tuple(TreeId(_number(tree)) for tree in plain["expiring"]),
                expiry=_text(plain["expiry"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"malformed flush job: {error}") from error


@dataclass(frozen=True, slots=True)
class FlushResult:
    """What a flush made: a table for each tree that had writes, a value file for each that had large values."""

    added: tuple[TableMeta, ...]
    values: tuple[ValueMeta, ...] = ()

    def to_plain(self) -> dict[str, Any]:
        return {
            "added": [meta.to_plain() for meta in self.added],
            "values": [meta.to_plain() for meta in self.values],
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> FlushResult:
        try:
            return cls(
                added=tuple(TableMeta.from_plain(meta) for meta in plain["added"]),
                values=tuple(ValueMeta.from_plain(meta) for meta in plain["values"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"malformed flush result: {error}") from error


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
    move_from: tuple[ValueMeta, ...] = ()
    """Value files whose values, as far as the inputs refer to them, are written to a file of their own."""
    value_output: int = 0
    """The file number allotted to that one; 0: nothing is moved."""
    forgotten: tuple[Told, ...] = ()
    """What the owner has forgotten, where the inputs lie, in order: such values are taken for deletions."""
    expiry: str = ""
    """The name of the filter that tells when a value expires (`expiry`); wanted if anything was forgotten."""

    @property
    def outputs_wanted(self) -> int:
        """How many tables the job may need to write. With fewer its last one only grows; none stays unwritten."""
        return 2 + 2 * sum(meta.size for meta in self.inputs) // self.table_bytes

    @property
    def numbers_wanted(self) -> int:
        """How many file numbers to allot."""
        return self.outputs_wanted + bool(self.move_from)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The file numbers allotted."""
        return (*self.outputs, self.value_output) if self.value_output else self.outputs

    @property
    def input_numbers(self) -> tuple[int, ...]:
        return tuple(meta.file_number for meta in self.inputs)

    def with_outputs(self, file_numbers: tuple[int, ...]) -> CompactionJob:
        """The job with these numbers to write under; if it moves values, the last one is for them."""
        if not self.move_from:
            return replace(self, outputs=file_numbers)
        return replace(self, outputs=file_numbers[:-1], value_output=file_numbers[-1])

    def to_plain(self) -> dict[str, Any]:
        return {
            "kind": "compaction",
            "tree_id": self.tree_id,
            "inputs": [meta.to_plain() for meta in self.inputs],
            "output_level": self.output_level,
            "below": [list(pair) for pair in self.below],
            "outputs": list(self.outputs),
            "table_bytes": self.table_bytes,
            "move_from": [meta.to_plain() for meta in self.move_from],
            "value_output": self.value_output,
            "forgotten": [list(told) for told in self.forgotten],
            "expiry": self.expiry,
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
                move_from=tuple(ValueMeta.from_plain(meta) for meta in plain["move_from"]),
                value_output=_number(plain["value_output"]),
                forgotten=tuple(told_from_plain(told) for told in plain["forgotten"]),
                expiry=_text(plain["expiry"]),
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
    values: tuple[ValueMeta, ...] = ()
    """The file of the values that were moved, if any were."""

    def edit(self) -> VersionEdit:
        """What the engine writes to the manifest to publish the result."""
        return VersionEdit(added=self.added, removed=self.removed, values=self.values)

    def to_plain(self) -> dict[str, Any]:
        return {
            "added": [meta.to_plain() for meta in self.added],
            "removed": list(self.removed),
            "entries_read": self.entries_read,
            "entries_written": self.entries_written,
            "values": [meta.to_plain() for meta in self.values],
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> CompactionResult:
        try:
            return cls(
                added=tuple(TableMeta.from_plain(meta) for meta in plain["added"]),
                removed=tuple(_number(number) for number in plain["removed"]),
                entries_read=_number(plain["entries_read"]),
                entries_written=_number(plain["entries_written"]),
                values=tuple(ValueMeta.from_plain(meta) for meta in plain["values"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"malformed compaction result: {error}") from error


@dataclass(frozen=True, slots=True)
class SalvageJob:
    """Write what can be read of one damaged table as another in its place, on its level."""

    table: TableMeta
    output: int
    """The file number allotted."""
    doubted: tuple[ValueMeta, ...] = ()
    """Value files of the table in which something could not be read: an entry stays only if its value there can."""

    def to_plain(self) -> dict[str, Any]:
        return {
            "kind": "salvage",
            "table": self.table.to_plain(),
            "output": self.output,
            "doubted": [meta.to_plain() for meta in self.doubted],
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> SalvageJob:
        try:
            return cls(
                table=TableMeta.from_plain(plain["table"]),
                output=_number(plain["output"]),
                doubted=tuple(ValueMeta.from_plain(meta) for meta in plain["doubted"]),
            )
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
JobResult = FlushResult | CompactionResult | SalvageResult

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
