"""What left the version is removed one piece after the other: reads that wait for the disk want the same threads."""

from __future__ import annotations

import pytest

from leafdb.storage.version import table_path
from leafdb.vfs.base import replace_file
from leafdb.vfs.memory import Fault
from support.store import TREE, Store


def test_one_removal_is_under_way_at_a_time() -> None:
    store = Store()
    tables = store.engine._tables
    for name in ("one", "two", "three"):
        replace_file(store.fs, f"tables/{name}", b"content")
        tables.remove_soon([f"tables/{name}"])
    for left in (["three", "two"], ["three"], []):
        assert store.executor.pending == 1
        store.executor.run_pending(1)
        assert store.fs.list("tables") == left
    assert store.executor.pending == 0


def test_one_that_fails_is_counted_and_keeps_nobody_up() -> None:
    store = Store()
    for name in ("one", "two"):
        replace_file(store.fs, f"tables/{name}", b"content")
    store.fs.faults.append(Fault("unlink", path_prefix="tables/one"))
    for name in ("one", "two"):
        store.engine._tables.remove_soon([f"tables/{name}"])
    store.settle()
    assert store.fs.list("tables") == ["one"]
    assert store.engine.stats().unlinks_failed == 1


def test_what_waits_when_the_store_is_closed_is_closed_and_swept_by_the_next_open() -> None:
    store = Store()
    store.engine.create_tree(TREE)
    store.put(b"key", b"value")
    store.engine.flush_soon()
    store.settle()
    tables = store.engine._tables
    ((number, reader),) = tables.readers.items()
    orphan = table_path(number + 1_000)
    replace_file(store.fs, orphan, b"left a version")
    tables.remove_soon(["wal/nothing"])
    tables.discard([number + 1_000], [tables.readers.pop(number)])
    tables.close()  # as an engine does whose executor does not call back any more
    with pytest.raises(OSError, match="closed"):
        reader._file.read_at(0, 1)
    assert store.fs.exists(orphan)
    again = Store(store.fs.copy())
    assert not again.fs.exists(orphan)
    assert again.get(b"key") == b"value"
