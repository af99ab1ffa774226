"""A value file gives each value under its own key and no other, or an error that says where it is damaged."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from random import Random

import pytest

from leafdb.codec.checksum import crc32c
from leafdb.errors import CorruptionError, UnknownFormat
from leafdb.storage.sstable_reader import WOULD_BLOCK
from leafdb.storage.value_files import Place, ValueFiles, ValueMeta, references_from_plain
from leafdb.storage.value_format import FOOTER_BYTES, HEADER_BYTES, VALUE_OVERHEAD_BYTES
from leafdb.storage.value_reader import OpenFiles, ValueReader, verify_values
from leafdb.storage.value_writer import ValueWriter
from leafdb.types import TreeId
from leafdb.vfs.base import read_file
from leafdb.vfs.memory import Fault, MemoryFileSystem
from support.drawings import drawn
from support.tables import TREE, store

Written = dict[bytes, tuple[Place, bytes]]


def write_values(
    fs: MemoryFileSystem, count: int, *, file_number: int = 8, size: int = 300
) -> tuple[ValueMeta, Written]:
    rng = Random(file_number)
    writer = ValueWriter(fs, file_number=file_number, tree_id=TREE)
    written: Written = {}
    for number in range(count):
        key = b"key%03d" % number
        value = rng.randbytes(size) if number % 3 else bytes(size)
        written[key] = writer.add(key, value), value
    return writer.finish(), written


def other_store(content: bytes, meta: ValueMeta) -> MemoryFileSystem:
    fs = store()
    file = fs.create(meta.path)
    file.append(content)
    file.close()
    return fs


def test_every_value_comes_back_from_its_place() -> None:
    fs = store()
    meta, written = write_values(fs, 50)
    reader = ValueReader(fs, meta, OpenFiles())
    for key, (place, value) in written.items():
        assert reader.get(place, key) == value
        assert reader.get_now(place, key) == value
    assert list(reader.frames()) == [(key, place, value) for key, (place, value) in written.items()]
    assert meta.value_bytes == sum(place.size for place, _ in written.values())
    reader.close()
    verify_values(fs, meta)
    assert fs.open_files == 0
    assert meta.size < 50 * (300 + VALUE_OVERHEAD_BYTES + 6), "what compresses is compressed"


def test_nothing_is_waited_for_but_by_a_read_that_may() -> None:
    fs = store()
    meta, written = write_values(fs, 2)
    reader = ValueReader(fs, meta, OpenFiles())
    place, value = written[b"key001"]
    assert reader.get_now(place, b"key001") is WOULD_BLOCK, "the file is not open"
    assert reader.get(place, b"key001") == value
    assert reader.get_now(place, b"key001") == value
    fs.cold = True
    assert reader.get_now(place, b"key001") is WOULD_BLOCK
    assert reader.get(place, b"key001") == value


def test_a_place_of_another_value_is_damage() -> None:
    fs = store()
    meta, written = write_values(fs, 4)
    twin, _ = write_values(fs, 4, file_number=9)
    reader = ValueReader(fs, meta, OpenFiles())
    place = written[b"key001"][0]
    for wrong in (
        written[b"key002"][0],
        replace(place, offset=place.offset + 1),
        replace(place, size=place.size - 1),
        replace(place, size=3),
        replace(place, offset=0),
        replace(place, offset=meta.size),
    ):
        with pytest.raises(CorruptionError) as caught:
            reader.get(wrong, b"key001")
        assert caught.value.path == meta.path
    with pytest.raises(CorruptionError, match="another key"):
        reader.get(place, b"key002")
    swapped = ValueReader(other_store(read_file(fs, twin.path), meta), meta, OpenFiles())
    with pytest.raises(CorruptionError, match="the header of file 9"):
        swapped.get(place, b"key001")


def test_every_flipped_byte_is_found_and_no_wrong_value_is_given() -> None:
    fs = store()
    meta, _ = write_values(fs, 6, size=40)
    for offset in range(meta.size):
        fs.flip(meta.path, offset, 1 << offset % 8)
        with pytest.raises(CorruptionError) as caught:
            verify_values(fs, meta)
        assert caught.value.path == meta.path
        assert 0 <= caught.value.offset <= meta.size
        fs.flip(meta.path, offset, 1 << offset % 8)
    verify_values(fs, meta)


def test_random_damage_gives_the_value_or_an_error() -> None:
    fs = store()
    meta, written = write_values(fs, 12)
    sound = read_file(fs, meta.path)
    errors = 0
    for seed in range(80):
        reader = ValueReader(other_store(damaged(sound, Random(seed)), meta), meta, OpenFiles())
        for key, (place, value) in written.items():
            try:
                assert reader.get(place, key) == value
            except (CorruptionError, UnknownFormat):
                errors += 1
    assert errors > 80, "the damage is to be met"


def damaged(sound: bytes, rng: Random) -> bytes:
    data = bytearray(sound)
    for _ in range(rng.choice((1, 2, 5))):
        at, source, size = rng.randrange(len(data)), rng.randrange(len(data)), rng.choice((1, 8, 64, 512))
        size = min(size, len(data) - at, len(data) - source)
        match rng.randrange(4):
            case 0:
                data[at : at + size] = bytes(size)
            case 1:
                data[at : at + size] = rng.randbytes(size)
            case 2:
                data[at : at + size] = data[source : source + size]
            case _:
                del data[at : at + size]
                data += bytes(len(sound) - len(data))
    return bytes(data)


def test_a_newer_format_is_refused_and_not_called_damage() -> None:
    fs = store()
    meta, _ = write_values(fs, 2)
    data = bytearray(read_file(fs, meta.path))
    data[8:10] = (2).to_bytes(2, "little")
    with pytest.raises(CorruptionError):
        verify_values(other_store(bytes(data), meta), meta)
    data[HEADER_BYTES - 4 : HEADER_BYTES] = crc32c(bytes(data[: HEADER_BYTES - 4])).to_bytes(4, "little")
    with pytest.raises(UnknownFormat, match="format 2"):
        verify_values(other_store(bytes(data), meta), meta)


def test_a_file_the_manifest_describes_differently_is_found() -> None:
    fs = store()
    meta, _ = write_values(fs, 5)
    for other in (
        replace(meta, tree_id=TreeId(TREE + 1)),
        replace(meta, count=4),
        replace(meta, size=meta.size - FOOTER_BYTES),
    ):
        with pytest.raises(CorruptionError):
            verify_values(fs, other)


def test_a_file_that_cannot_be_opened_is_tried_again() -> None:
    fs = store()
    meta, written = write_values(fs, 5)
    place, value = written[b"key002"]
    reader = ValueReader(fs, meta, OpenFiles())
    fs.faults.append(Fault("read_at", count=1))
    with pytest.raises(CorruptionError, match="unreadable"):
        reader.get(place, b"key002")
    assert reader.get(place, b"key002") == value
    with pytest.raises(CorruptionError, match="cannot be opened"):
        ValueReader(store(), meta, OpenFiles()).get(place, b"key002")


def test_threads_read_at_once() -> None:
    fs = store()
    meta, written = write_values(fs, 200)
    reader = ValueReader(fs, meta, OpenFiles())

    def read(seed: int) -> None:
        for key in Random(seed).sample(sorted(written), 150):
            place, value = written[key]
            assert reader.get(place, key) == value

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, range(4)))
    reader.close()
    assert fs.open_files == 0, "whoever opened it too, closed it"


def test_no_more_files_are_kept_open_than_allowed() -> None:
    fs, open_files = store(), OpenFiles(2)
    files = [write_values(fs, 3, file_number=number) for number in range(1, 6)]
    readers = [ValueReader(fs, meta, open_files) for meta, _ in files]
    for _ in range(2):
        for reader, (_, written) in zip(readers, files, strict=True):
            place, value = written[b"key002"]
            assert reader.get(place, b"key002") == value
            assert fs.open_files <= 2
    assert open_files.kept == 2
    place, value = files[4][1][b"key000"]
    assert readers[4].get_now(place, b"key000") is WOULD_BLOCK
    readers[0].close()
    assert readers[4].get(place, b"key000") == value
    assert readers[4].get_now(place, b"key000") == value, "there was room for it"
    for reader in readers:
        reader.close()
    assert (fs.open_files, open_files.kept) == (0, 0)


def test_the_file_drawn_in_the_format_page_is_read_for_ever() -> None:
    (data,) = drawn("values.md")
    meta = ValueMeta(8, TREE, len(data), 2)
    fs = other_store(data, meta)
    verify_values(fs, meta)
    reader = ValueReader(fs, meta, OpenFiles())
    assert reader.get(Place(8, 32, 32), b"user1a") == b"a large value"
    assert reader.get(Place(8, 64, 33), b"user1ab") == b"ab" * 40


# -- which files there are


def test_live_bytes_are_what_tables_refer_to_and_a_file_nobody_refers_to_is_gone() -> None:
    meta = ValueMeta(5, TREE, 1064, 10)
    files = ValueFiles().after([meta], [(TREE, ((5, 600),)), (TREE, ((5, 400),))], [])
    assert files.live == {5: 1000}
    assert files.share(5) == 1.0
    fewer = files.after([], [(TREE, ((5, 100),))], [((5, 600),)])
    assert fewer.live == {5: 500}
    fewer.check([(TREE, ((5, 100),)), (TREE, ((5, 400),))])
    assert not fewer.after([], [], [((5, 500),)]).metas
    assert files.live == {5: 1000}, "what was before stays as it was"
    with pytest.raises(AssertionError):
        fewer.check([(TREE, ((5, 499),))])


@pytest.mark.parametrize(
    ("added", "gained", "lost"),
    [
        ([ValueMeta(5, TREE, 100, 1)], [], []),
        ([], [(TREE, ((6, 1),))], []),
        ([], [(TreeId(TREE + 1), ((5, 1),))], []),
        ([], [(TREE, ((5, 1),))], []),
        ([], [], [((5, 1001),)]),
    ],
)
def test_an_edit_that_does_not_fit_is_refused(
    added: list[ValueMeta],
    gained: list[tuple[TreeId, tuple[tuple[int, int], ...]]],
    lost: list[tuple[tuple[int, int], ...]],
) -> None:
    files = ValueFiles().after([ValueMeta(5, TREE, 1064, 10)], [(TREE, ((5, 1000),))], [])
    with pytest.raises(ValueError):
        files.after(added, gained, lost)


@pytest.mark.parametrize(
    "plain", [7, [7], [[1]], [[1, 2, 3]], [[1, 0]], [[2, 5], [1, 5]], [[1, 5], [1, 5]], [["a", 5]]]
)
def test_malformed_references_are_refused(plain: object) -> None:
    with pytest.raises(ValueError):
        references_from_plain(plain)


@pytest.mark.parametrize("plain", [7, [1, 2, 3], [0, 256, 100, 1], [1, 256, 64, 1], [1, 256, 100, 0], [1, "a", 100, 1]])
def test_malformed_descriptions_are_refused(plain: object) -> None:
    with pytest.raises(ValueError):
        ValueMeta.from_plain(plain)
