"""A flush turns sealed segments into one table per tree that holds the newest write of each key, durably."""

from __future__ import annotations

from random import Random

import pytest

from leafdb.errors import CorruptionError
from leafdb.storage.flush import flush_slices, run_flush
from leafdb.storage.jobs import FlushJob, FlushResult
from leafdb.storage.sstable_reader import verify
from leafdb.storage.wal import WalWriter, segment_path
from leafdb.storage.wal_format import ENTRY
from leafdb.types import TreeId
from leafdb.vfs.base import read_file
from leafdb.vfs.memory import MemoryFileSystem
from support.tables import TREE, read_table, store, write_segment

OTHER, DROPPED, IDLE = TreeId(257), TreeId(258), TreeId(259)


def test_each_tree_gets_one_table_with_the_newest_of_each_key() -> None:
    fs = store()
    first = write_segment(fs, 1, 1, [(TREE, b"b", b"1"), (OTHER, b"b", b"2"), (TREE, b"a", b"3")])
    second = write_segment(fs, 2, 4, [(TREE, b"b", None), (DROPPED, b"x", b"5"), (OTHER, b"c", b"6")])
    job = FlushJob(segments=(first, second), outputs=((TREE, 11), (OTHER, 12), (IDLE, 13)), upto_lsn=6)
    mine, theirs = run_flush(fs, job).added
    assert (mine.file_number, mine.tree_id, mine.level) == (11, TREE, 0)
    assert read_table(fs, mine) == [(b"a", 3, b"3"), (b"b", 4, None)]
    assert (mine.sequence_min, mine.sequence_max, mine.tombstones) == (3, 4, 1)
    assert (theirs.file_number, theirs.tree_id) == (12, OTHER)
    assert read_table(fs, theirs) == [(b"b", 2, b"2"), (b"c", 6, b"6")]
    assert fs.list("tables") == ["0000000011.sst", "0000000012.sst"]


def test_what_was_flushed_before_is_skipped() -> None:
    fs = store()
    path = write_segment(fs, 1, 1, [(TREE, b"a", b"1"), (TREE, b"b", b"2"), (TREE, b"c", b"3")])
    (meta,) = run_flush(fs, FlushJob(segments=(path,), outputs=((TREE, 1),), upto_lsn=3, after_lsn=2)).added
    assert read_table(fs, meta) == [(b"c", 3, b"3")]
    assert run_flush(fs, FlushJob(segments=(path,), outputs=((TREE, 2),), upto_lsn=3, after_lsn=3)) == FlushResult(())


def test_what_was_flushed_before_may_end_within_a_frame() -> None:
    fs = store()
    writer = WalWriter(fs)
    writer.start_segment(1, 1)
    writer.append(1, 3, [part for key in (b"a", b"b", b"c") for part in (ENTRY.pack(0, TREE, 1, 1), key, key)])
    writer.append(4, 1, [ENTRY.pack(0, TREE, 1, 1), b"d", b"d"])
    writer.seal()
    for after in range(4):
        job = FlushJob(segments=(segment_path(1),), outputs=((TREE, 1 + after),), upto_lsn=4, after_lsn=after)
        (meta,) = run_flush(fs, job).added
        kept = [(key, lsn, key) for lsn, key in enumerate((b"a", b"b", b"c", b"d"), 1) if lsn > after]
        assert read_table(fs, meta) == kept


def test_a_large_flush_runs_in_slices() -> None:
    fs, rng = store(), Random(2)
    writes = [(TREE, rng.randbytes(8), b"v%d" % n) for n in range(5000)]
    path = write_segment(fs, 1, 1, writes)
    slices = flush_slices(fs, FlushJob(segments=(path,), outputs=((TREE, 1),), upto_lsn=5000))
    steps = 0
    while True:
        try:
            next(slices)
        except StopIteration as end:
            (meta,) = end.value.added
            break
        steps += 1
    assert steps >= 5
    verify(fs, meta)
    assert meta.entries == 5000


def test_damage_in_a_sealed_segment_fails_the_flush() -> None:
    fs = store()
    path = write_segment(fs, 1, 1, [(TREE, b"key", b"value")])
    fs.flip(path, 60)
    with pytest.raises(CorruptionError):
        run_flush(fs, FlushJob(segments=(path,), outputs=((TREE, 1),), upto_lsn=1))
    assert fs.list("tables") == []


def test_a_sealed_segment_that_lost_its_last_frames_fails_the_flush() -> None:
    """What is left is whole: only the one who wrote it knows that there was more."""
    fs = store()
    head = write_segment(fs, 1, 1, [(TREE, b"a", b"1")])
    size = len(read_file(fs, head))
    first = write_segment(fs, 2, 1, [(TREE, b"a", b"1"), (TREE, b"b", b"2")])
    second = write_segment(fs, 3, 3, [(TREE, b"c", b"3")])
    file = fs.open_append(first)
    file.truncate(size)
    file.close()
    for segments, upto_lsn in (((first,), 2), ((first, second), 3), ((second,), 3), ((), 1)):
        with pytest.raises(CorruptionError):
            run_flush(fs, FlushJob(segments=segments, outputs=((TREE, 1),), upto_lsn=upto_lsn))
    assert fs.list("tables") == []


def test_tables_survive_the_power_with_their_names() -> None:
    fs: MemoryFileSystem = store()
    fs.sync_dir("")
    path = write_segment(fs, 1, 1, [(TREE, b"a", b"1"), (OTHER, b"b", b"2")])
    metas = run_flush(fs, FlushJob(segments=(path,), outputs=((TREE, 1), (OTHER, 2)), upto_lsn=2)).added
    after = fs.power_cut(Random(1), keep=0.0)
    for meta in metas:
        verify(after, meta)
