"""The writer cuts runs of any size into the same table, and a table is durable when `finish` returns."""

from __future__ import annotations

from random import Random

import pytest

from leafdb.codec.checksum import xxh3_64
from leafdb.limits import BLOCK_BYTES
from leafdb.storage.block_cache import BlockCache
from leafdb.storage.job_execution import run_slices
from leafdb.storage.sstable_reader import TableReader, verify
from leafdb.storage.sstable_writer import TableWriter
from leafdb.vfs.base import read_file
from leafdb.vfs.memory import Fault
from support.tables import TREE, Model, read_table, store, write_table


def sample(count: int) -> Model:
    rng = Random(3)
    return {b"user%06d" % n: (n, None if n % 50 == 0 else rng.randbytes(rng.randrange(200))) for n in range(count)}


def test_the_cut_of_the_runs_does_not_show_in_the_file() -> None:
    model, files = sample(2000), []
    for run in (1, 7, 100, 5000):
        fs = store()
        meta = write_table(fs, model, run=run)
        files.append(read_file(fs, meta.path))
    assert all(file == files[0] for file in files)


def test_a_table_of_many_slices_never_changes() -> None:
    """Written by the code that finished a table in one go."""
    fs = store()
    content = read_file(fs, write_table(fs, sample(5_000)).path)
    assert (len(content), xxh3_64(content)) == (542_586, 0xC48D202FA88A077A)


def test_blocks_are_of_the_wanted_size() -> None:
    fs = store()
    rng = Random(1)
    meta = write_table(fs, {b"%06d" % n: (n, rng.randbytes(100)) for n in range(2000)})
    reader = TableReader.open(fs, meta, BlockCache(0))
    sizes = [size for _, size in reader._places]
    assert all(BLOCK_BYTES * 0.9 < size < BLOCK_BYTES * 1.1 for size in sizes[:-1])


def test_a_finished_table_survives_the_power_once_its_name_does() -> None:
    fs, model = store(), sample(500)
    meta = write_table(fs, model)
    fs.sync_dir("")
    fs.sync_dir("tables")
    after = fs.power_cut(Random(1), keep=0.0)
    verify(after, meta)
    assert len(read_table(after, meta)) == 500


def test_runs_must_ascend() -> None:
    writer = TableWriter(store(), file_number=1, tree_id=TREE, level=0)
    writer.append_run([], [], [])
    writer.append_run([b"b"], [1], [b""])
    with pytest.raises(AssertionError):
        writer.append_run([b"b"], [2], [b""])
    with pytest.raises(AssertionError):
        run_slices(TableWriter(store(), file_number=1, tree_id=TREE, level=0).finish_slices())


def test_a_taken_name_is_not_overwritten() -> None:
    fs = store()
    write_table(fs, sample(5))
    with pytest.raises(FileExistsError):
        TableWriter(fs, file_number=1, tree_id=TREE, level=0)


def test_a_failed_sync_is_not_hidden() -> None:
    fs = store()
    fs.faults.append(Fault("sync"))
    with pytest.raises(OSError, match="Input/output"):
        write_table(fs, sample(5))
