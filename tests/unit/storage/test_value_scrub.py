"""A scrub reads value files too; what it finds there is lost alone, once, and only if some table needs it."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from leafdb.errors import StorageError
from leafdb.storage.compaction_picker import PickerLimits
from leafdb.storage.lost_ranges import LostRange
from leafdb.storage.value_files import ValueMeta
from leafdb.storage.value_format import HEADER_BYTES
from leafdb.storage.verification import Verified
from leafdb.vfs.memory import Fault
from support.store import SMALL, TREE, Store

CONFIG = replace(
    SMALL,
    memtable_bytes=1 << 20,
    value_inline_bytes_max=100,
    compaction=PickerLimits(level0_tables=2, level1_bytes=1 << 20, table_bytes=1 << 20),
)
VALUE_BYTES = 500
FRAME_BYTES = 8 + 4 + VALUE_BYTES + 5
"""Of a value with a key of four bytes."""


def large(seed: int, count: int = 20) -> dict[bytes, bytes | None]:
    rng = Random(seed)
    return {b"k%03d" % number: rng.randbytes(VALUE_BYTES) for number in range(count)}


def filled(*batches: dict[bytes, bytes | None]) -> tuple[Store, list[LostRange]]:
    """A store into which these were flushed, one after the other; and what it loses from now on."""
    store = Store(config=CONFIG)
    store.engine.create_tree(TREE)
    store.settle()
    for items in batches:
        for key, value in items.items():
            store.put(key, value)
        store.engine.flush_soon()
        store.settle()
    lost: list[LostRange] = []
    store.engine.on_lost = lost.extend
    return store, lost


def values_of(store: Store) -> ValueMeta:
    """The first value file."""
    return min(store.engine._tables.version.values.metas.values(), key=lambda meta: meta.file_number)


def scrub(store: Store, number: int) -> Verified:
    told: list[Verified | StorageError] = []
    store.engine.scrub_soon(number, bytes_per_s=0, done=told.append)
    store.settle()
    (found,) = told
    assert isinstance(found, Verified)
    return found


def test_a_sound_value_file_is_read_to_its_last_byte() -> None:
    store, lost = filled(large(1))
    meta = values_of(store)
    found = scrub(store, meta.file_number)
    assert (found.files, found.bytes_read, found.damages_found) == (1, meta.size, 0)
    assert meta.file_number in store.engine.files()
    assert not lost
    store.close()
    assert store.fs.open_files == 0


def test_rot_that_no_read_met_is_found_once_and_costs_one_key() -> None:
    store, lost = filled(large(1))
    meta = values_of(store)
    store.fs.flip(meta.path, HEADER_BYTES + 7 * FRAME_BYTES + 100)
    found = scrub(store, meta.file_number)
    (damage,) = found.damages
    assert (damage.path, damage.tree_id) == (meta.path, TREE)
    assert damage.smallest == damage.largest == b"k007"
    assert [(each.smallest, each.largest) for each in lost] == [(b"k007", b"k007")]
    assert dict(store.items()) == {key: value for key, value in large(1).items() if key != b"k007"}
    assert meta.file_number in store.engine.files(), "the other values are there"
    again = scrub(store, meta.file_number)
    assert (again.damages_found, store.engine.stats().salvages) == (0, 1), "nothing refers to it any more"
    store.engine.check()


def test_rot_of_a_dead_value_is_no_damage() -> None:
    store, lost = filled(large(1), {b"z": b"-"}, dict(list(large(2).items())[:5]), {b"z": b"+"})
    meta = values_of(store)
    assert store.engine._tables.version.values.live[meta.file_number] == 15 * FRAME_BYTES, "merged, and still needed"
    store.fs.flip(meta.path, HEADER_BYTES + 2 * FRAME_BYTES + 100)
    assert scrub(store, meta.file_number).damages_found == 0
    assert not lost
    assert store.engine.stats().salvages == 0
    store.fs.flip(meta.path, HEADER_BYTES + 9 * FRAME_BYTES + 100)
    assert [damage.smallest for damage in scrub(store, meta.file_number).damages] == [b"k009"]
    assert [each.smallest for each in lost] == [b"k009"]


def test_what_lies_behind_a_damaged_length_is_read_all_the_same() -> None:
    store, lost = filled(large(1))
    meta = values_of(store)
    store.fs.flip(meta.path, HEADER_BYTES + 3 * FRAME_BYTES + 4)
    store.fs.flip(meta.path, HEADER_BYTES + 12 * FRAME_BYTES + 200)
    assert [damage.smallest for damage in scrub(store, meta.file_number).damages] == [b"k003", b"k012"]
    assert [each.smallest for each in lost] == [b"k003", b"k012"]


@pytest.mark.parametrize("place", ["gone", "header", "footer"])
def test_a_file_that_cannot_be_opened_is_one_damage_of_all_its_keys(place: str) -> None:
    store, lost = filled({**large(1), b"small": b"1"})
    meta = values_of(store)
    if place == "gone":
        store.fs.unlink(meta.path)
    else:
        store.fs.flip(meta.path, 10 if place == "header" else meta.size - 1)
    (damage,) = scrub(store, meta.file_number).damages
    assert (damage.smallest, damage.largest) == (b"k000", b"small"), "of the table that refers to it"
    assert all(any(each.smallest <= key <= each.largest for each in lost) for key in large(1))
    assert dict(store.items()) == {b"small": b"1"}
    assert meta.file_number not in store.engine.files()


def test_a_disk_that_does_not_answer_once_is_no_damage() -> None:
    store, lost = filled(large(1))
    meta = values_of(store)
    store.fs.faults.append(Fault("read_at", at=9, path_prefix=meta.path))
    assert scrub(store, meta.file_number).damages_found == 0
    assert not lost


def test_a_table_that_cannot_be_read_says_nothing_of_the_values() -> None:
    store, lost = filled(large(1))
    meta = values_of(store)
    (table,) = store.engine.tables().values()
    store.fs.flip(meta.path, HEADER_BYTES + 3 * FRAME_BYTES + 100)
    store.fs.flip(table.path, table.size - 1)
    assert scrub(store, meta.file_number).damages_found == 0, "it has a turn of its own"
    assert scrub(store, table.file_number).damages_found == 1
    assert lost
    assert store.items() == []


def test_verification_calls_the_same_things_damage() -> None:
    store, lost = filled(large(1))
    meta = values_of(store)
    store.fs.flip(meta.path, HEADER_BYTES + 7 * FRAME_BYTES + 100)
    told: list[Verified | StorageError] = []
    for _ in range(2):
        store.engine.verify_soon(bytes_per_s=0, done=told.append)
        store.settle()
    first, second = told
    assert isinstance(first, Verified)
    assert isinstance(second, Verified)
    assert [damage.smallest for damage in first.damages] == [b"k007"]
    assert second.damages_found == 0, "it has healed as far as it can"
    assert len(lost) == 1


def test_a_holder_that_was_merged_since_the_run_began_is_found_under_its_new_number() -> None:
    store, lost = filled(large(1))
    meta = values_of(store)
    told: list[Verified | StorageError] = []
    store.engine.verify_soon(bytes_per_s=1, done=told.append)
    store.commit()
    store.fs.flip(meta.path, HEADER_BYTES + 7 * FRAME_BYTES + 100)
    for number in range(4):
        store.put(b"z%d" % number, b"-")
        store.engine.flush_soon()
        store.settle()
    while not told:
        store.elapse(100_000)
        store.settle()
    assert [each.smallest for each in lost] == [b"k007"]
