"""Where a key of one tree is looked for: its tables with their readers, laid out so that few of them are asked.

Most reads of a store find one key, and of the tables whose range covers it all but one or two have never seen it. So
ranges and filters are judged here, in one loop over all tables and with one hash, before any reader is called.

A search belongs to one `TreeVersion` and is immutable like it: readers on any thread keep theirs, a new version brings
new ones for the trees that it changes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

from leafdb.codec.checksum import xxh3_64
from leafdb.storage.bloom import bits_of
from leafdb.storage.sstable_reader import TableReader
from leafdb.storage.version import TreeVersion, Version
from leafdb.types import TreeId


class TreeSearch:
    """See the module."""

    __slots__ = ("_level0", "_levels", "_tree")

    def __init__(self, tree: TreeVersion, readers: Mapping[int, TableReader]) -> None:
        """`readers` are by file number, and hold all that the tree has."""
        self._tree = tree
        level0, *deeper = [[readers[meta.file_number] for meta in level] for level in tree.levels]
        self._level0 = level0
        self._levels = [([reader.meta.largest for reader in level], level) for level in deeper if level]
        """Of the levels that hold something: most trees use two of seven."""

    def readers_for(self, key: bytes) -> list[TableReader]:
        """The readers of the tables that may hold `key`, those with newer data first."""
        digest = xxh3_64(key)
        bits = bits_of(digest)
        line = digest >> 32
        found = []
        for reader in self._level0:
            lines = reader.filter_lines
            if lines[line * len(lines) >> 32] & bits == bits and reader.meta.smallest <= key <= reader.meta.largest:
                found.append(reader)
        for bounds, level in self._levels:
            index = bisect_left(bounds, key)
            if index < len(level):
                reader = level[index]
                lines = reader.filter_lines
                if lines[line * len(lines) >> 32] & bits == bits and reader.meta.smallest <= key:
                    found.append(reader)
        return found

    def is_of(self, tree: TreeVersion) -> bool:
        """Whether this is the search of exactly that tree at that moment."""
        return self._tree is tree

    def check(self) -> None:
        readers = [*self._level0, *(reader for _, level in self._levels for reader in level)]
        assert [reader.meta.file_number for reader in readers] == [meta.file_number for meta in self._tree]


def searches_of(
    version: Version, readers: Mapping[int, TableReader], before: Mapping[TreeId, TreeSearch]
) -> Mapping[TreeId, TreeSearch]:
    """The searches of all trees of `version`; those of `before` stay where the tree has not changed."""
    return {
        tree_id: before[tree_id] if tree_id in before and before[tree_id].is_of(tree) else TreeSearch(tree, readers)
        for tree_id, tree in version.trees.items()
    }
