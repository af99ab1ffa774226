"""Which value files make up the store at one moment, and how much of each is live.

A value file holds the large values of one tree, apart from its tables, which hold their places (decision 0009, section
1). It is immutable, so its values only die: when the last table that has a place in it leaves, it leaves. What is live
in a file is the sum of what the tables say they refer to, kept exact from edit to edit; nothing else counts it.

Invariants (`check`): every file known has a table that refers to it; no file has more live bytes than bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from leafdb.types import TreeId

VALUES_DIRECTORY: Final = "values"
FILE_OVERHEAD_BYTES: Final = 64
"""Header and footer of a value file: what is in it beside values."""
_META_FIELDS: Final = 4

References = tuple[tuple[int, int], ...]
"""What a table refers to: value file and live bytes there, ascending by file."""


def value_path(file_number: int) -> str:
    """Where the value file of that number lies below the store's root."""
    return f"{VALUES_DIRECTORY}/{file_number:010d}.val"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value lies: the number of its file, the offset there, the size with its seal."""

    file_number: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class ValueMeta:
    """What the manifest knows of one value file without opening it."""

    file_number: int
    tree_id: TreeId
    size: int
    count: int
    """How many values it was written with."""

    @property
    def path(self) -> str:
        return value_path(self.file_number)

    @property
    def value_bytes(self) -> int:
        """What its values take, dead ones included."""
        return self.size - FILE_OVERHEAD_BYTES

    def to_plain(self) -> list[Any]:
        """The persisted form: a list in a fixed order, which only ever grows at its end."""
        return [self.file_number, self.tree_id, self.size, self.count]

    @classmethod
    def from_plain(cls, plain: Any) -> ValueMeta:
        """The reverse of `to_plain`; ValueError when the bytes it came from cannot have been ours."""
        if not isinstance(plain, list) or len(plain) < _META_FIELDS:
            raise ValueError("a value file's description is a list of at least 4 items")
        number, tree, size, count = plain[:_META_FIELDS]
        if any(type(item) is not int or item < 0 for item in (number, tree, size, count)):
            raise ValueError(f"a value file's description with {plain[:_META_FIELDS]!r:.60}")
        if number < 1 or count < 1 or size <= FILE_OVERHEAD_BYTES:
            raise ValueError(f"value file {number} of {size} bytes with {count} values")
        return cls(number, TreeId(tree), size, count)


def references_to_plain(references: References) -> list[list[int]]:
    return [list(pair) for pair in references]


def references_from_plain(plain: Any) -> References:
    """The reverse of `references_to_plain`; ValueError unless files ascend and each has bytes."""
    if not isinstance(plain, list):
        raise ValueError("a table's references are not a list")
    found: list[tuple[int, int]] = []
    for pair in plain:
        if not isinstance(pair, list) or len(pair) != 2 or any(type(item) is not int or item < 1 for item in pair):
            raise ValueError(f"a reference to a value file is {pair!r:.40}")
        found.append((pair[0], pair[1]))
    if [number for number, _ in found] != sorted({number for number, _ in found}):
        raise ValueError("a table's references do not ascend")
    return tuple(found)


class ValueFiles:
    """The value files of all trees at one moment. Immutable."""

    __slots__ = ("live", "metas")

    def __init__(self, metas: Mapping[int, ValueMeta] | None = None, live: Mapping[int, int] | None = None) -> None:
        self.metas: Mapping[int, ValueMeta] = MappingProxyType(dict(metas or {}))
        self.live: Mapping[int, int] = MappingProxyType(dict(live or {}))
        """Bytes that tables refer to, by file."""

    def share(self, file_number: int) -> float:
        """How much of the file's values is live, from 0 to 1."""
        return self.live[file_number] / self.metas[file_number].value_bytes

    def after(
        self,
        added: Iterable[ValueMeta],
        gained: Iterable[tuple[TreeId, References]],
        lost: Iterable[References],
    ) -> ValueFiles:
        """The files after an edit that adds these, with the references of tables that come and of those that leave.

        A file that nobody refers to any more is gone. ValueError when the edit does not fit.
        """
        metas, live = dict(self.metas), dict(self.live)
        touched: set[int] = set()
        for meta in added:
            if meta.file_number in metas:
                raise ValueError(f"adds value file {meta.file_number}, which exists")
            metas[meta.file_number] = meta
            live[meta.file_number] = 0
            touched.add(meta.file_number)
        for tree_id, references in gained:
            for number, size in references:
                if number not in metas or metas[number].tree_id != tree_id:
                    raise ValueError(f"a table of tree {tree_id} refers to value file {number}, which is not there")
                live[number] += size
                touched.add(number)
        for references in lost:
            for number, size in references:
                live[number] -= size
                touched.add(number)
        if not touched:
            return self
        for number in touched:
            if not 0 <= live[number] <= metas[number].value_bytes:
                raise ValueError(f"value file {number} of {metas[number].size} bytes has {live[number]} live")
            if not live[number]:
                del metas[number], live[number]
        return ValueFiles(metas, live)

    def check(self, references: Iterable[tuple[TreeId, References]]) -> None:
        """`references`: those of all tables."""
        counted = dict.fromkeys(self.metas, 0)
        for tree_id, pairs in references:
            for number, size in pairs:
                assert number in self.metas, f"value file {number} is referred to and not there"
                assert self.metas[number].tree_id == tree_id, f"value file {number} of another tree"
                counted[number] += size
        assert counted == self.live, "live bytes are not what the tables refer to"
        for number, live in self.live.items():
            assert 0 < live <= self.metas[number].value_bytes, f"value file {number} with {live} live bytes"
