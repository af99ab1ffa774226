"""Of a tree's tables only those are asked for a key that may hold it, and newer data is met first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from leafdb.errors import CorruptionError
from leafdb.storage.block_cache import BlockCache
from leafdb.storage.damaged_table import DamagedTable
from leafdb.storage.sstable_reader import TableReader
from leafdb.storage.tree_search import TreeSearch, searches_of
from leafdb.storage.version import Version, VersionEdit
from leafdb.types import TreeId
from leafdb.vfs.memory import MemoryFileSystem
from support.tables import TREE, store, write_table

OTHER = TreeId(257)


def table(fs: MemoryFileSystem, number: int, keys: Sequence[bytes], level: int = 0) -> TableReader:
    meta = write_table(fs, dict.fromkeys(keys, (number, b"v")), file_number=number, level=level)
    return TableReader.open(fs, meta, BlockCache(0))


def numbers(search: TreeSearch, key: bytes) -> list[int]:
    return [reader.meta.file_number for reader in search.readers_for(key)]


def version_of(*readers: TableReader) -> Version:
    version = Version().apply(VersionEdit(created_trees=(TREE, OTHER)))
    return version.apply(VersionEdit(added=tuple(reader.meta for reader in readers), next_file_number=100))


def test_level_0_is_asked_newest_first_and_one_table_of_each_deeper_level() -> None:
    fs = store()
    readers = [
        table(fs, 1, [b"a", b"c", b"m"]),
        table(fs, 2, [b"a", b"c", b"g", b"z"]),
        table(fs, 3, [b"a", b"c", b"f"], level=1),
        table(fs, 4, [b"h", b"z"], level=1),
        table(fs, 5, [b"c", b"z"], level=3),
    ]
    version = version_of(*readers)
    search = TreeSearch(version.trees[TREE], {reader.meta.file_number: reader for reader in readers})
    search.check()
    assert numbers(search, b"c") == [2, 1, 3, 5]
    assert numbers(search, b"g") == [2]
    assert numbers(search, b"z") == [2, 4, 5]
    assert numbers(search, b"zz") == numbers(search, b"") == []


def test_a_damaged_table_is_asked_for_every_key_of_its_range_and_no_other() -> None:
    fs = store()
    for level in (0, 1):
        whole = table(fs, 6 + level, [b"c", b"f"], level=level)
        damaged = DamagedTable(whole.meta, CorruptionError("torn", path=whole.meta.path, offset=0))
        search = TreeSearch(version_of(damaged).trees[TREE], {damaged.meta.file_number: damaged})
        assert [len(search.readers_for(key)) for key in (b"b", b"c", b"d", b"f", b"g")] == [0, 1, 1, 1, 0]


def test_a_search_stays_as_long_as_its_tree_does() -> None:
    fs = store()
    one, two = table(fs, 1, [b"a"]), table(fs, 2, [b"b"])
    readers = {1: one, 2: two}
    before = version_of(one)
    first = searches_of(before, readers, {})
    after = before.apply(VersionEdit(removed=(1,), added=(two.meta, replace(one.meta, level=1))))
    second = searches_of(after, readers, first)
    assert second.keys() == {TREE, OTHER}
    assert second[OTHER] is first[OTHER]
    assert (numbers(first[TREE], b"b"), numbers(second[TREE], b"b")) == ([], [2])
    assert numbers(second[TREE], b"a") == [1]
    assert searches_of(after.apply(VersionEdit(dropped_trees=(OTHER,))), readers, second) == {TREE: second[TREE]}
