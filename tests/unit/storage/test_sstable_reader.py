"""A table gives exactly what was written into it, or an error that says where it is damaged."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from random import Random

import pytest

from leafdb.codec.checksum import crc32c
from leafdb.errors import CorruptionError, UnknownFormat
from leafdb.limits import BLOCK_PAYLOAD_BYTES_MAX
from leafdb.storage.block import ABSENT
from leafdb.storage.block_cache import BlockCache
from leafdb.storage.sstable_format import FOOTER_BYTES, FORMAT_WITH_PLACES, Footer
from leafdb.storage.sstable_reader import WOULD_BLOCK, TableReader, verify
from leafdb.storage.value_files import Place
from leafdb.storage.version import TableMeta, table_path
from leafdb.vfs.base import FileSystem, read_file
from leafdb.vfs.memory import Fault, MemoryFileSystem
from support.drawings import drawn
from support.tables import TREE, Model, entries_of, read_table, store, write_table


def sample(count: int, seed: int = 1, value_bytes: int = 100) -> Model:
    rng = Random(seed)
    return {
        rng.randbytes(8) + b"key%d" % n: (n + 1, None if n % 7 == 0 else rng.randbytes(rng.randrange(value_bytes + 1)))
        for n in range(count)
    }


def patch(fs: FileSystem, meta: TableMeta, offset: int, data: bytes) -> None:
    file = fs.open_append(meta.path)
    file.write_at(offset, data)
    file.close()


@pytest.mark.parametrize("count", [1, 2, 100, 3000])
def test_every_entry_comes_back(count: int) -> None:
    fs, model = store(), sample(count)
    meta = write_table(fs, model)
    reader = TableReader.open(fs, meta, BlockCache(1 << 20))
    for key, (_, value) in model.items():
        assert reader.get_now(key) == value
        assert reader.get(key) == value
        assert reader.may_contain(key)
        assert reader.get_now(key + b"\0") is ABSENT
        assert reader.get(key[:-1]) is ABSENT
    assert list(reader.iterate(b"", None)) == entries_of(model)
    assert (meta.entries, meta.tombstones) == (count, sum(value is None for _, value in model.values()))
    assert (meta.smallest, meta.largest) == (min(model), max(model))
    assert (meta.sequence_min, meta.sequence_max) == (1, count)
    reader.close()
    verify(fs, meta)
    assert fs.open_files == 0


def test_ranges_are_half_open_in_both_directions() -> None:
    fs, model = store(), sample(700)
    reader = TableReader.open(fs, write_table(fs, model), BlockCache(0))
    entries = entries_of(model)
    bounds = [b"", b"\x40", b"\xff" * 9, entries[0][0], entries[123][0], entries[123][0] + b"\0", entries[-1][0]]
    for start in bounds:
        for stop in (*bounds, None):
            expected = [entry for entry in entries if entry[0] >= start and (stop is None or entry[0] < stop)]
            assert list(reader.iterate(start, stop)) == expected
            assert list(reader.iterate(start, stop, reverse=True)) == expected[::-1]


@pytest.mark.parametrize("blocks", [1, 3, 1000])
def test_runs_are_the_whole_table_in_order(blocks: int) -> None:
    fs, model = store(), sample(900)
    reader = TableReader.open(fs, write_table(fs, model), BlockCache(0))
    assert [entry for run in reader.runs(blocks) for entry in zip(*run, strict=True)] == entries_of(model)


def test_a_large_value_has_a_block_of_its_own_size() -> None:
    fs = store()
    model: Model = {b"a": (1, b"x"), b"b": (2, Random(1).randbytes(1 << 20)), b"c": (3, b"y" * 300_000)}
    meta = write_table(fs, model)
    assert read_table(fs, meta) == entries_of(model)
    assert meta.size < (1 << 20) + 10_000, "what compresses is compressed"


def test_a_block_over_the_bound_of_decompression_is_readable() -> None:
    fs = store()
    model: Model = {b"a": (1, bytes(BLOCK_PAYLOAD_BYTES_MAX)), b"b": (2, b"y")}
    assert read_table(fs, write_table(fs, model)) == entries_of(model)


def test_a_cold_block_is_not_waited_for_and_a_warm_one_is_not_read_again() -> None:
    fs, model = store(), sample(10)
    reader = TableReader.open(fs, write_table(fs, model), BlockCache(1 << 20))
    key = min(model)
    fs.cold = True
    assert reader.get_now(key) is WOULD_BLOCK
    assert reader.get(key) == model[key][1]
    fs.faults.append(Fault("read_at", count=1000))
    assert reader.get_now(key) == model[key][1]
    reader.close()
    assert reader.meta.entries == 10


def test_closing_gives_the_cache_its_bytes_back() -> None:
    fs, model, cache = store(), sample(500), BlockCache(1 << 20)
    reader = TableReader.open(fs, write_table(fs, model), cache)
    for key in model:
        reader.get(key)
    assert cache.bytes_used > 0
    reader.close()
    assert cache.bytes_used == 0


def test_threads_and_the_loop_read_at_once() -> None:
    fs, model = store(), sample(2000)
    reader = TableReader.open(fs, write_table(fs, model), BlockCache(60_000))

    def read(seed: int) -> None:
        rng = Random(seed)
        for key in rng.sample(sorted(model), 600):
            found = reader.get(key) if seed else reader.get_now(key)
            assert found == model[key][1]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, range(4)))
    reader._cache.check()


def test_every_flipped_byte_of_a_small_table_is_found() -> None:
    fs, model = store(), sample(20, value_bytes=10)
    meta = write_table(fs, model)
    for offset in range(meta.size):
        fs.flip(meta.path, offset, 1 << offset % 8)
        with pytest.raises(CorruptionError) as caught:
            verify(fs, meta)
        assert caught.value.path == meta.path
        assert 0 <= caught.value.offset <= meta.size
        fs.flip(meta.path, offset, 1 << offset % 8)
    verify(fs, meta)


def test_a_cut_or_lengthened_table_is_found() -> None:
    fs, model = store(), sample(50)
    meta = write_table(fs, model)
    data = read_file(fs, meta.path)
    for size in (0, 1, 10, meta.size - FOOTER_BYTES, meta.size - 1, meta.size + 1):
        other = store()
        file = other.create(meta.path)
        file.append((data + b"x")[:size])
        with pytest.raises(CorruptionError):
            verify(other, meta)
        assert other.open_files == 1, "only the writer's own"


def test_a_missing_table_is_damage() -> None:
    with pytest.raises(CorruptionError, match="cannot be opened"):
        verify(store(), write_table(store(), sample(1)))


def test_a_table_under_another_number_is_found() -> None:
    fs, model = store(), sample(50)
    meta = write_table(fs, model)
    other = TableMeta.from_plain([2, *meta.to_plain()[1:]])
    fs.rename(meta.path, other.path)
    with pytest.raises(CorruptionError, match="the footer of table 1"):
        verify(fs, other)


def test_a_block_written_to_the_place_of_another_is_found() -> None:
    fs = store()
    model: Model = {b"%03d" % n: (n, Random(n).randbytes(20_000)) for n in range(4)}  # one block each, equally long
    meta = write_table(fs, model)
    data = read_file(fs, meta.path)
    reader = TableReader.open(fs, meta, BlockCache(0))
    (first_at, size), (second_at, second_size) = reader._places[:2]
    assert size == second_size
    patch(fs, meta, second_at, data[first_at : first_at + size])
    with pytest.raises(CorruptionError, match="checksum"):
        reader.get(b"001")
    assert reader.get(b"000") == model[b"000"][1]


def test_a_table_the_manifest_describes_differently_is_found() -> None:
    fs, model = store(), sample(50)
    plain = write_table(fs, model).to_plain()
    for position, wrong in ((1, TREE + 1), (4, 51), (5, b"\0"), (6, b"\xff" * 9), (7, 0), (8, 99), (9, 1)):
        other = TableMeta.from_plain([*plain[:position], wrong, *plain[position + 1 :]])
        with pytest.raises(CorruptionError, match="manifest"):
            verify(fs, other)
    verify(fs, TableMeta.from_plain([*plain[:2], 3, *plain[3:]]))  # moved to another level


def test_a_newer_format_is_refused_and_not_called_damage() -> None:
    fs, model = store(), sample(5)
    meta = write_table(fs, model)
    footer = bytearray(read_file(fs, meta.path)[-FOOTER_BYTES:])
    footer[-14:-12] = (FORMAT_WITH_PLACES + 1).to_bytes(2, "little")
    patch(fs, meta, meta.size - FOOTER_BYTES, bytes(footer))
    with pytest.raises(CorruptionError):
        verify(fs, meta)
    footer[-12:-8] = crc32c(bytes(footer[:-12])).to_bytes(4, "little")
    patch(fs, meta, meta.size - FOOTER_BYTES, bytes(footer))
    with pytest.raises(UnknownFormat, match="format 3"):
        verify(fs, meta)


def test_an_unreadable_sector_is_damage_with_its_place() -> None:
    fs, model = store(), sample(500)
    reader = TableReader.open(fs, write_table(fs, model), BlockCache(0))
    fs.faults.append(Fault("read_at", count=1000))
    with pytest.raises(CorruptionError, match="unreadable") as caught:
        reader.get(max(model))
    assert caught.value.offset > 0
    with pytest.raises(CorruptionError, match="unreadable"):
        list(reader.iterate(b"", None))


def test_the_tables_drawn_in_the_format_page_are_read_for_ever() -> None:
    first, second = drawn("sstable.md")
    meta = TableMeta(7, TREE, 0, len(first), 3, b"user1a", b"user1ab", 10, 15, tombstones=1)
    fs = store()
    fs.create(meta.path).append(first)
    verify(fs, meta)
    assert read_table(fs, meta) == [(b"user1a", 10, b"hi"), (b"user1a1", 15, None), (b"user1ab", 11, b"bye")]
    with_places = replace(meta, size=len(second), references=((8, 65),))
    fs = store()
    fs.create(meta.path).append(second)
    verify(fs, with_places)
    places = Place(8, 32, 32), Place(8, 64, 33)
    assert read_table(fs, with_places) == [
        (b"user1a", 10, places[0]),
        (b"user1a1", 15, None),
        (b"user1ab", 11, places[1]),
    ]
    with pytest.raises(CorruptionError):
        verify(fs, replace(with_places, references=((8, 64),)))
    with pytest.raises(CorruptionError, match="format 2"):
        verify(fs, replace(with_places, references=()))


def test_a_footer_of_parts_that_overlap_is_refused() -> None:
    fs = MemoryFileSystem()
    fs.mkdir("tables")
    meta = TableMeta(1, TREE, 0, 100 + FOOTER_BYTES, 1, b"a", b"a", 1, 1)
    wrong = ((0, 50), (40, 50), (90, 10)), ((0, 50), (50, 40), (90, 9)), ((1 << 60, 5), (50, 40), (90, 10))
    for first, second, third in wrong:
        tail = Footer(1, first, second, third).encode()
        with pytest.raises(CorruptionError):
            Footer.decode(tail, meta)
    assert table_path(1) == meta.path
