"""A slice of a job is short, whatever the size of its tables: what one slice does is counted here, not timed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from random import Random
from typing import Any

import pytest

from leafdb.limits import COMPACTION_CHUNK_BLOCKS, FILTER_SLICE_KEYS, SORT_SLICE_KEYS
from leafdb.storage import sstable_writer
from leafdb.storage.block import Block, Columns
from leafdb.storage.bloom import filter_slices
from leafdb.storage.compaction import compaction_slices
from leafdb.storage.flush import flush_slices
from leafdb.storage.jobs import CompactionJob, FlushJob, JobResult, SalvageJob
from leafdb.storage.salvage import salvage_slices
from leafdb.storage.sstable_writer import TableWriter
from support.tables import TREE, store, write_segment, write_table

KEYS = 6 * FILTER_SLICE_KEYS


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What has been done so far: blocks read, runs and entries taken, steps of a filter (`test_bloom` bounds those)."""
    done: Counter[str] = Counter()
    columns, append_run = Block.columns, TableWriter.append_run

    def decoded(self: Block) -> Columns:
        done["blocks"] += 1
        return columns(self)

    def appended(self: TableWriter, keys: Any, sequences: Any, values: Any) -> None:
        done["runs"] += 1
        done["entries"] += len(keys)
        append_run(self, keys, sequences, values)

    def filtered(hashes: Sequence[int], bits_per_key: int) -> Generator[None, None, bytes]:
        slices = filter_slices(hashes, bits_per_key)
        while True:
            done["filter steps"] += 1
            try:
                yield next(slices)
            except StopIteration as end:
                built: bytes = end.value
                return built

    monkeypatch.setattr(Block, "columns", decoded)
    monkeypatch.setattr(TableWriter, "append_run", appended)
    monkeypatch.setattr(sstable_writer, "filter_slices", filtered)
    return done


def most_of_a_slice(slices: Generator[None, None, JobResult], done: Counter[str]) -> Counter[str]:
    """The most of each kind of work that was done between two chances to give way."""
    most: Counter[str] = Counter()
    done.clear()
    for _ in slices:
        most |= done
        done.clear()
    return most | done


def test_a_compaction_reads_a_chunk_or_writes_a_run_or_filters_some_keys(work: Counter[str]) -> None:
    fs, rng = store(), Random(4)
    inputs = tuple(
        write_table(fs, {rng.randbytes(8): (n, b"%d" % n) for n in range(KEYS)}, file_number=number, run=500)
        for number in (1, 2, 3)
    )
    most = most_of_a_slice(
        compaction_slices(fs, CompactionJob(tree_id=TREE, inputs=inputs, output_level=1, outputs=(4,))), work
    )
    assert most["blocks"] == COMPACTION_CHUNK_BLOCKS + 1, "that one is the index of a table that is opened"
    assert most["runs"] == 1
    assert most["filter steps"] == 1


def test_a_flush_takes_some_entries_or_filters_some_keys(work: Counter[str]) -> None:
    fs, rng = store(), Random(5)
    path = write_segment(fs, 1, 1, [(TREE, rng.randbytes(8), b"%d" % n) for n in range(KEYS)])
    most = most_of_a_slice(flush_slices(fs, FlushJob(segments=(path,), outputs=((TREE, 1),), upto_lsn=KEYS)), work)
    assert most["runs"] == 1
    assert most["entries"] == SORT_SLICE_KEYS
    assert most["filter steps"] == 1


def test_a_salvage_copies_a_block_or_filters_some_keys(work: Counter[str]) -> None:
    fs = store()
    meta = write_table(fs, {b"%06d" % n: (n, b"%d" % n) for n in range(KEYS)}, run=500)
    most = most_of_a_slice(salvage_slices(fs, SalvageJob(table=meta, output=2)), work)
    assert most["blocks"] == 2, "the index when it is opened"
    assert most["runs"] == 1
    assert most["filter steps"] == 1
