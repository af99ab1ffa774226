"""A survey counts what the version holds, largest tree first."""

from __future__ import annotations

from random import Random

from leafdb.storage.survey import LevelShape, TreeShape
from leafdb.types import TreeId
from support.store import TREE, Store

OTHER = TreeId(301)


def test_trees_are_counted_by_level_and_the_log_by_segment() -> None:
    store = Store()
    store.engine.create_tree(TREE)
    store.engine.create_tree(OTHER)
    store.settle()
    assert store.engine.survey().wal_segments == 1
    store.put(b"a", Random(1).randbytes(500), tree=OTHER)
    store.put(b"a", b"v")
    store.put(b"b", None)
    store.engine.flush_soon()
    store.commit()
    assert store.engine.survey().wal_segments == 2
    store.settle()
    store.put(b"c", b"v" * 100)
    found = store.engine.survey()
    sizes = {meta.tree_id: meta.size for meta in store.engine._tables.version.tables.values()}
    assert found.trees == (
        TreeShape(OTHER, (LevelShape(0, 1, sizes[OTHER], 1, 0),)),
        TreeShape(TREE, (LevelShape(0, 1, sizes[TREE], 2, 1),)),
    )
    assert found.flushed_bytes == sum(sizes.values())
    assert found.wal_segments == 1
    assert 100 < found.segment_bytes < 200
    assert found.compacting is None
    assert store.engine.work.flushes == 1
    assert store.engine.work.flushed_bytes == found.flushed_bytes
