"""Which tables make up the store at one moment, and how one moment becomes the next.

A `Version` is immutable: readers hold one and are never disturbed by flushes and compactions, which publish a new one.
The manifest persists the `VersionEdit`s that lead from the empty version to the present one; nothing else says which
tables belong to the store.

Invariants (`check`): level 0 tables are ordered newest first by sequence and may overlap; the tables of every deeper
level are sorted by key and disjoint; trees never mix; a file number belongs to one table, for ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final

from leafdb.limits import LEVELS
from leafdb.storage.lost_ranges import LostRange
from leafdb.storage.value_files import (
    References,
    ValueFiles,
    ValueMeta,
    references_from_plain,
    references_to_plain,
)
from leafdb.types import TreeId

TABLES_DIRECTORY: Final = "tables"
_META_FIELDS: Final = 11
_EDIT_PARTS: Final = frozenset(
    ("added", "removed", "created", "dropped", "flushed", "next", "boot", "values", "lost", "lost_noted")
)


def table_path(file_number: int) -> str:
    """Where the table of that number lies below the store's root."""
    return f"{TABLES_DIRECTORY}/{file_number:010d}.sst"


@dataclass(frozen=True, slots=True)
class TableMeta:
    """What the manifest knows of one table without opening it."""

    file_number: int
    tree_id: TreeId
    level: int
    size: int
    entries: int
    smallest: bytes
    largest: bytes
    sequence_min: int
    sequence_max: int
    tombstones: int = 0
    newest_expiry_ms: int = 0
    """No entry outlives this; 0: some do not expire, or it is not known. Told of trees that are kept by time."""

    references: References = ()
    """The value files in which its entries have places, and the bytes of these values."""

    @property
    def path(self) -> str:
        return table_path(self.file_number)

    @property
    def value_bytes(self) -> int:
        """What its entries refer to in value files."""
        return sum(size for _, size in self.references)

    def overlaps(self, smallest: bytes, largest: bytes) -> bool:
        """Whether any key of the closed range smallest..largest may be in this table."""
        return self.smallest <= largest and smallest <= self.largest

    def to_plain(self) -> list[Any]:
        """The persisted form: a list in a fixed order, which only ever grows at its end."""
        references = [references_to_plain(self.references)] if self.references else []
        return [
            self.file_number,
            self.tree_id,
            self.level,
            self.size,
            self.entries,
            self.smallest,
            self.largest,
            self.sequence_min,
            self.sequence_max,
            self.tombstones,
            self.newest_expiry_ms,
            *references,
        ]

    @classmethod
    def from_plain(cls, plain: Any) -> TableMeta:
        """The reverse of `to_plain`; ValueError when the bytes it came from cannot have been ours."""
        if not isinstance(plain, list) or len(plain) < _META_FIELDS:
            raise ValueError("a table's description is a list of at least 11 items")
        for position, item in enumerate(plain[:_META_FIELDS]):
            fits = type(item) is bytes if position in (5, 6) else type(item) is int and item >= 0
            if not fits:
                raise ValueError(f"item {position} of a table's description is {item!r:.40}")
        meta = replace(cls(*plain[:_META_FIELDS]), references=references_from_plain([*plain, []][_META_FIELDS]))
        problems = meta.problems()
        if problems:
            raise ValueError(problems[0])
        return meta

    def problems(self) -> list[str]:
        """What cannot be true of a table, in words; empty when all is well."""
        name = f"table {self.file_number}"
        found = []
        if self.file_number < 1:
            found.append(f"{name}: file numbers start at 1")
        if not 0 <= self.level < LEVELS:
            found.append(f"{name}: level {self.level} does not exist")
        if self.entries < 1 or self.size < 1:
            found.append(f"{name}: empty")
        if not 0 <= self.tombstones <= self.entries:
            found.append(f"{name}: {self.tombstones} tombstones of {self.entries} entries")
        if self.smallest > self.largest:
            found.append(f"{name}: smallest key above largest")
        if not 0 <= self.sequence_min <= self.sequence_max:
            found.append(f"{name}: sequence range {self.sequence_min}..{self.sequence_max}")
        return found


@dataclass(frozen=True, slots=True)
class VersionEdit:
    """One step from a version to the next; what a manifest record holds. None: unchanged."""

    added: tuple[TableMeta, ...] = ()
    removed: tuple[int, ...] = ()
    """File numbers. A number both removed and added is a table that changes level."""
    created_trees: tuple[TreeId, ...] = ()
    dropped_trees: tuple[TreeId, ...] = ()
    """Dropping a tree removes its tables without naming them."""
    flushed_lsn: int | None = None
    """Every WAL record at or below is in tables, for all trees (one memtable generation is one WAL segment)."""
    next_file_number: int | None = None
    """No file with this number or a higher one has been used; durable before the number is."""
    boot: int | None = None
    values: tuple[ValueMeta, ...] = ()
    """Value files that came. One leaves with the last table that refers to it, without being named."""
    lost: tuple[LostRange, ...] = ()
    """What tables that leave had, and no table has any more: they could not be read."""
    lost_noted: tuple[int, ...] = ()
    """Of these tables whoever follows the store has noted what was lost."""

    def to_plain(self) -> dict[str, Any]:
        """A map holding only what the edit says; the key names are persisted."""
        plain: dict[str, Any] = {}
        if self.added:
            plain["added"] = [meta.to_plain() for meta in self.added]
        if self.removed:
            plain["removed"] = list(self.removed)
        if self.values:
            plain["values"] = [meta.to_plain() for meta in self.values]
        if self.created_trees:
            plain["created"] = list(self.created_trees)
        if self.dropped_trees:
            plain["dropped"] = list(self.dropped_trees)
        if self.lost:
            plain["lost"] = [lost.to_plain() for lost in self.lost]
        if self.lost_noted:
            plain["lost_noted"] = list(self.lost_noted)
        for name, number in (("flushed", self.flushed_lsn), ("next", self.next_file_number), ("boot", self.boot)):
            if number is not None:
                plain[name] = number
        return plain

    @classmethod
    def from_plain(cls, plain: Any) -> VersionEdit:
        """The reverse of `to_plain`; ValueError when malformed or of a shape this build does not know."""
        if not isinstance(plain, dict):
            raise ValueError("a version edit is a map")
        unknown = set(plain) - _EDIT_PARTS
        if unknown:
            raise ValueError(f"a version edit with unknown parts {sorted(map(str, unknown))}")
        added, values, lost = (plain.get(name, []) for name in ("added", "values", "lost"))
        if not all(isinstance(part, list) for part in (added, values, lost)):
            raise ValueError("the added tables, the value files or the lost ranges of a version edit are not a list")
        return cls(
            added=tuple(TableMeta.from_plain(item) for item in added),
            removed=tuple(_numbers(plain, "removed")),
            created_trees=tuple(TreeId(number) for number in _numbers(plain, "created")),
            dropped_trees=tuple(TreeId(number) for number in _numbers(plain, "dropped")),
            flushed_lsn=_number(plain, "flushed"),
            next_file_number=_number(plain, "next"),
            boot=_number(plain, "boot"),
            values=tuple(ValueMeta.from_plain(item) for item in values),
            lost=tuple(LostRange.from_plain(item) for item in lost),
            lost_noted=tuple(_numbers(plain, "lost_noted")),
        )


def _numbers(plain: dict[str, Any], name: str) -> list[int]:
    numbers = plain.get(name, [])
    if not isinstance(numbers, list) or any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError(f"{name!r} of a version edit is not a list of numbers")
    return numbers


def _number(plain: dict[str, Any], name: str) -> int | None:
    number = plain.get(name)
    if number is not None and (type(number) is not int or number < 0):
        raise ValueError(f"{name!r} of a version edit is not a number")
    return number


class TreeVersion:
    """The tables of one tree, by level. Immutable; a new one for each change."""

    __slots__ = ("levels", "tree_id")

    def __init__(self, tree_id: TreeId, tables: Iterator[TableMeta] | list[TableMeta]) -> None:
        by_level: list[list[TableMeta]] = [[] for _ in range(LEVELS)]
        for meta in tables:
            by_level[meta.level].append(meta)
        by_level[0].sort(key=lambda meta: (meta.sequence_max, meta.file_number), reverse=True)
        for level in by_level[1:]:
            level.sort(key=lambda meta: meta.smallest)
        self.tree_id: TreeId = tree_id
        self.levels: tuple[tuple[TableMeta, ...], ...] = tuple(map(tuple, by_level))

    def overlapping(self, level: int, smallest: bytes, largest: bytes) -> list[TableMeta]:
        """The tables of `level` that touch the closed range."""
        return [meta for meta in self.levels[level] if meta.smallest <= largest and smallest <= meta.largest]

    def tables_between(self, start: bytes, stop: bytes | None) -> list[TableMeta]:
        """The tables that touch start <= key < stop (None: no end), those with newer data first."""
        return [meta for meta in self if meta.largest >= start and (stop is None or meta.smallest < stop)]

    def level_bytes(self, level: int) -> int:
        return sum(meta.size for meta in self.levels[level])

    def __iter__(self) -> Iterator[TableMeta]:
        for level in self.levels:
            yield from level

    def check(self) -> None:
        numbers = [meta.file_number for meta in self]
        assert len(numbers) == len(set(numbers)), "a table twice in one tree"
        for level, tables in enumerate(self.levels):
            for meta in tables:
                assert meta.tree_id == self.tree_id, f"table {meta.file_number} of another tree"
                assert meta.level == level, f"table {meta.file_number} on the wrong level"
                assert not meta.problems(), meta.problems()[0]
            if level == 0:
                newest = [meta.sequence_max for meta in tables]
                assert newest == sorted(newest, reverse=True), "level 0 is not newest first"
                continue
            for left, right in pairwise(tables):
                assert left.largest < right.smallest, f"tables {left.file_number} and {right.file_number} overlap"


class Version:
    """All trees at one moment, with the numbers that must survive a restart."""

    __slots__ = ("boot", "flushed_lsn", "lost", "next_file_number", "tables", "trees", "values")

    def __init__(
        self,
        trees: Mapping[TreeId, TreeVersion] | None = None,
        *,
        flushed_lsn: int = 0,
        next_file_number: int = 1,
        boot: int = 0,
        values: ValueFiles | None = None,
        lost: tuple[LostRange, ...] = (),
    ) -> None:
        self.trees: Mapping[TreeId, TreeVersion] = MappingProxyType(dict(trees or {}))
        self.tables: Mapping[int, TableMeta] = MappingProxyType(
            {meta.file_number: meta for tree in self.trees.values() for meta in tree}
        )
        self.flushed_lsn: int = flushed_lsn
        self.next_file_number: int = next_file_number
        self.boot: int = boot
        self.values: ValueFiles = values or ValueFiles()
        self.lost: tuple[LostRange, ...] = lost
        """What nobody has noted yet; of trees that are there."""

    def apply(self, edit: VersionEdit) -> Version:
        """The version after `edit`; ValueError when the edit does not fit this version."""
        trees = {tree_id: tree for tree_id, tree in self.trees.items() if tree_id not in edit.dropped_trees}
        if len(trees) != len(self.trees) - len(edit.dropped_trees):
            raise ValueError(f"drops a tree that is not there: {edit.dropped_trees}")
        for tree_id in edit.created_trees:
            if tree_id in self.trees:
                raise ValueError(f"creates tree {tree_id}, which exists")
            trees[tree_id] = TreeVersion(tree_id, [])
        removed = set(edit.removed)
        changed: dict[TreeId, list[TableMeta]] = {}
        for file_number in removed:
            if file_number not in self.tables:
                raise ValueError(f"removes table {file_number}, which is not there")
            changed[self.tables[file_number].tree_id] = []
        for meta in edit.added:
            if meta.file_number in self.tables and meta.file_number not in removed:
                raise ValueError(f"adds table {meta.file_number}, which exists")
            changed.setdefault(meta.tree_id, []).append(meta)
        for tree_id, added in changed.items():
            if tree_id not in trees:
                if added:
                    raise ValueError(f"adds a table to tree {tree_id}, which is not there")
                continue
            kept = [meta for meta in trees[tree_id] if meta.file_number not in removed]
            trees[tree_id] = TreeVersion(tree_id, kept + added)
        leaving = [self.tables[number] for number in removed if self.tables[number].tree_id not in edit.dropped_trees]
        leaving += [meta for tree_id in edit.dropped_trees for meta in self.trees[tree_id]]
        values = self.values.after(
            edit.values,
            [(meta.tree_id, meta.references) for meta in edit.added if meta.references],
            [meta.references for meta in leaving if meta.references],
        )
        return Version(
            trees,
            flushed_lsn=max(self.flushed_lsn, edit.flushed_lsn or 0),
            next_file_number=max(self.next_file_number, edit.next_file_number or 0),
            boot=max(self.boot, edit.boot or 0),
            values=values,
            lost=self._lost_after(edit, trees),
        )

    def _lost_after(self, edit: VersionEdit, trees: Mapping[TreeId, TreeVersion]) -> tuple[LostRange, ...]:
        """Of what was lost in a tree that is dropped nobody has to hear. ValueError when the edit does not fit."""
        noted = set(edit.lost_noted)
        if noted - {lost.file_number for lost in self.lost}:
            raise ValueError(f"notes losses of which nothing is known: {edit.lost_noted}")
        for lost in edit.lost:
            if lost.tree_id not in trees or lost.file_number in self.tables.keys() - set(edit.removed):
                raise ValueError(f"a lost range of table {lost.file_number}, which does not leave")
        kept = (lost for lost in self.lost if lost.file_number not in noted and lost.tree_id in trees)
        return (*kept, *edit.lost)

    def snapshot(self) -> VersionEdit:
        """The one edit that leads from the empty version to this one: the first record of a new manifest."""
        return VersionEdit(
            added=tuple(self.tables.values()),
            created_trees=tuple(sorted(self.trees)),
            flushed_lsn=self.flushed_lsn,
            next_file_number=self.next_file_number,
            boot=self.boot,
            values=tuple(meta for _, meta in sorted(self.values.metas.items())),
            lost=self.lost,
        )

    def has_file(self, number: int) -> bool:
        """Whether a table or a value file of this version has that number."""
        return number in self.tables or number in self.values.metas

    def files(self) -> dict[str, int]:
        """Every file that makes up the version, by its path below the store's root, and its size in bytes."""
        return {meta.path: meta.size for metas in (self.tables, self.values.metas) for meta in metas.values()}

    def check(self) -> None:
        numbers = [meta.file_number for tree in self.trees.values() for meta in tree]
        assert len(numbers) == len(set(numbers)) == len(self.tables), "a file number belongs to two tables"
        assert all(number < self.next_file_number for number in numbers), "a table beyond the next file number"
        assert not self.values.metas.keys() & self.tables.keys(), "a number of a table and of a value file"
        assert all(number < self.next_file_number for number in self.values.metas), (
            "a value file beyond the next number"
        )
        self.values.check((meta.tree_id, meta.references) for meta in self.tables.values())
        assert all(lost.tree_id in self.trees for lost in self.lost), "something is lost of a tree that is not there"
        assert not {lost.file_number for lost in self.lost} & self.tables.keys(), "a table is lost and in use"
        for tree_id, tree in self.trees.items():
            assert tree.tree_id == tree_id
            tree.check()
