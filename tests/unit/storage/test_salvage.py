"""A salvage keeps everything that can be read, says where the rest lay, and never tells less than what is gone."""

from __future__ import annotations

import errno
from collections.abc import Callable
from random import Random

import pytest

from leafdb.errors import CorruptionError
from leafdb.storage.block import Stored
from leafdb.storage.block_cache import BlockCache
from leafdb.storage.jobs import SalvageJob, SalvageResult
from leafdb.storage.lost_ranges import READ_TRIES, Range, coarsened
from leafdb.storage.salvage import run_salvage
from leafdb.storage.sstable_reader import TableReader, verify
from leafdb.storage.version import TableMeta
from leafdb.vfs.memory import Fault, MemoryFileSystem
from support.tables import Model, read_table, store, write_table

OUTPUT = 99


def many(count: int = 3_000) -> Model:
    """Some ten blocks, every seventh entry a tombstone."""
    rng = Random(count)
    return {b"%06d" % n: (n + 10, None if n % 7 == 0 else rng.randbytes(40)) for n in range(count)}


def holds(ranges: tuple[Range, ...], key: bytes) -> bool:
    return any(smallest <= key <= largest for smallest, largest in ranges)


def salvaged(fs: MemoryFileSystem, meta: TableMeta, model: Model) -> SalvageResult:
    """What is kept is as written; what is not lies in what is told."""
    open_files = fs.open_files
    result = run_salvage(fs, SalvageJob(meta, OUTPUT))
    assert fs.open_files == open_files, "whatever happens, files are closed"
    kept: dict[bytes, tuple[int, Stored]] = {}
    if result.added is not None:
        verify(fs, result.added)
        assert (result.added.level, result.added.tree_id) == (meta.level, meta.tree_id)
        assert meta.sequence_min <= result.added.sequence_min <= result.added.sequence_max <= meta.sequence_max
        kept = {key: (sequence, value) for key, sequence, value in read_table(fs, result.added)}
    assert kept.items() <= model.items()
    assert all(holds(result.lost, key) for key in model.keys() - kept.keys())
    assert all(meta.smallest <= low <= high <= meta.largest for low, high in result.lost)
    return result


def blocks(fs: MemoryFileSystem, meta: TableMeta) -> list[tuple[int, int]]:
    reader = TableReader.open(fs, meta, BlockCache(0))
    reader.close()
    return list(reader._places)


@pytest.mark.parametrize("level", [0, 2])
def test_a_bad_block_is_left_out_and_its_neighbours_are_kept(level: int) -> None:
    model = many()
    for bad in ([0], [3], [3, 4], [-1], [0, 5, -1]):
        fs = store()
        meta = write_table(fs, model, level=level)
        places = blocks(fs, meta)
        for index in bad:
            fs.flip(meta.path, places[index][0] + 30)
        result = salvaged(fs, meta, model)
        assert result.added is not None
        lost = len(model) - result.added.entries
        assert 0 < lost < len(model) / len(places) * (len(bad) + 1), "no more than the blocks that are bad"
        assert len(result.lost) == {1: 1, 2: 1, 3: 3}[len(bad)], "neighbours are one range"
        assert result.added.tombstones > 0, "tombstones stay"


def test_any_bit_of_a_table_may_flip() -> None:
    model = many(400)
    rng = Random(7)
    for _ in range(150):
        fs = store()
        meta = write_table(fs, model)
        fs.flip(meta.path, rng.randrange(meta.size), 1 << rng.randrange(8))
        result = salvaged(fs, meta, model)
        assert result.lost or result.added is not None


def shorter(fs: MemoryFileSystem, meta: TableMeta) -> None:
    fs.open_append(meta.path).truncate(meta.size // 2)


def unlinked(fs: MemoryFileSystem, meta: TableMeta) -> None:
    fs.unlink(meta.path)


def without_index(fs: MemoryFileSystem, meta: TableMeta) -> None:
    offset, size = blocks(fs, meta)[-1]
    fs.flip(meta.path, offset + size + 2_000)


def without_footer(fs: MemoryFileSystem, meta: TableMeta) -> None:
    fs.flip(meta.path, meta.size - 20)


@pytest.mark.parametrize("damage", [shorter, unlinked, without_index, without_footer])
def test_a_table_that_cannot_be_opened_is_lost_whole(damage: Callable[[MemoryFileSystem, TableMeta], None]) -> None:
    fs, model = store(), many()
    meta = write_table(fs, model)
    damage(fs, meta)
    assert salvaged(fs, meta, model) == SalvageResult(added=None, lost=((meta.smallest, meta.largest),))


def test_what_can_be_read_the_second_time_is_not_lost() -> None:
    fs, model = store(), many()
    meta = write_table(fs, model)
    result = salvaged(fs, meta, model)
    assert result.added is not None
    assert (result.lost, result.added.entries) == ((), len(model))


def test_a_disk_that_does_not_answer_is_damage_and_a_process_without_files_is_not() -> None:
    fs, model = store(), many()
    meta = write_table(fs, model)
    for times, lost in ((READ_TRIES - 1, 0), (READ_TRIES, 1)):
        fs = store()
        meta = write_table(fs, model)
        fs.faults.append(Fault("read_at", at=4, count=times, error=errno.EIO))
        assert len(salvaged(fs, meta, model).lost) == lost
    for kind, at in (("open", 1), ("read_at", 4)):
        fs = store()
        meta = write_table(fs, model)
        fs.faults.append(Fault(kind, at=at, error=errno.EMFILE))
        with pytest.raises(CorruptionError):
            run_salvage(fs, SalvageJob(meta, OUTPUT))


def test_more_entries_promised_than_found_make_the_whole_table_doubtful() -> None:
    fs, model = store(), many(100)
    meta = write_table(fs, model)
    wrong = TableMeta.from_plain([*meta.to_plain()[:4], meta.entries + 1, *meta.to_plain()[5:]])
    with pytest.raises(CorruptionError):
        verify(fs, wrong)
    result = run_salvage(fs, SalvageJob(wrong, OUTPUT))
    assert result.lost == ((meta.smallest, meta.largest),)


def test_many_ranges_become_fewer_wider_ones_and_none_is_forgotten() -> None:
    assert coarsened([(b"c", b"d"), (b"a", b"b"), (b"b", b"c")]) == ((b"a", b"d"),)
    rng = Random(3)
    for _ in range(200):
        cuts = sorted({rng.randbytes(2) for _ in range(2 * rng.randint(1, 60))})
        ranges = list(zip(cuts[::2], cuts[1::2], strict=False))
        few = coarsened(ranges, 8)
        assert len(few) <= 8
        assert list(few) == sorted(few)
        assert all(any(low <= start and stop <= high for low, high in few) for start, stop in ranges)
