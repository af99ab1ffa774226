"""Notes of deaths: written with what dies, taken away with what goes, and never more than the least is said of them."""

from __future__ import annotations

import pytest

from leafdb.errors import CorruptionError
from leafdb.model.purge import Fate, fate
from leafdb.node.deaths import Deaths, note_key, note_start, split_note
from leafdb.node.horizons import PURGE_TREE
from leafdb.types import TreeId
from support.sweeping import MS, record

TREE = TreeId(300)
KEY = b"\x60\0key"
LIVES = record(5 * MS)
TOMBSTONE = record(6 * MS, value=None)
EXPIRES = record(5 * MS, expires_ms=9)


def written(old: bytes | None, new: bytes | None, deaths: Deaths | None = None) -> dict[int, bool]:
    """The deaths of which notes are written (True) or taken away, when one record replaces another."""
    found = {}
    for tree, note, value in (Deaths() if deaths is None else deaths).entries(3, TREE, KEY, old, new):
        partition, death, noted, key = split_note(note)
        assert (tree, partition, noted, key) == (PURGE_TREE, 3, TREE, KEY)
        assert value in (None, b"")
        found[death // MS] = value is not None
    return found


def test_what_dies_is_noted_and_takes_the_note_of_what_it_replaces_away() -> None:
    assert written(None, TOMBSTONE) == {6: True}
    assert written(LIVES, EXPIRES) == {9: True}
    assert written(EXPIRES, TOMBSTONE) == {9: False, 6: True}
    assert written(TOMBSTONE, TOMBSTONE) == {6: True}
    assert written(TOMBSTONE, None) == {6: False}
    assert written(LIVES, None) == {}
    assert written(b"no record", None) == {}


def test_the_oldest_is_never_more_than_what_is_noted_also_while_somebody_looks() -> None:
    deaths = Deaths()
    told: list[tuple[int, int]] = []
    deaths.on_death = lambda partition, death: told.append((partition, death))
    assert deaths.oldest(3) is None
    written(None, EXPIRES, deaths)
    written(None, TOMBSTONE, deaths)
    assert deaths.oldest(3) == 6 * MS
    assert told == [(3, 9 * MS), (3, 6 * MS)]
    deaths.look(3)
    written(None, EXPIRES, deaths)
    assert deaths.oldest(3) == 6 * MS
    deaths.looked(3, 20 * MS)
    assert deaths.oldest(3) == 9 * MS, "it was noted while the store was read"
    deaths.look(3)
    deaths.looked(3, 1 << 63)
    assert deaths.oldest(3) is None


def test_notes_sort_by_partition_and_death_and_a_damaged_one_is_told() -> None:
    notes = [
        note_key(1, 9, TREE, KEY),
        note_key(2, 3, TREE, KEY),
        note_key(2, 300, TREE, b"\0\0"),
        note_key(3, 0, TREE, KEY),
    ]
    assert notes == sorted(notes)
    assert notes[1] < note_start(2, 300) < notes[2]
    with pytest.raises(CorruptionError):
        split_note(b"\2\0\3")


@pytest.mark.parametrize(
    ("data", "by_right", "expected"),
    [
        (None, True, Fate.STALE),
        (LIVES, True, Fate.STALE),
        (TOMBSTONE, True, Fate.FORGOTTEN),
        (TOMBSTONE, False, Fate.KEPT),
        (EXPIRES, True, Fate.STALE),
        (record(7 * MS, value=None), True, Fate.FORGOTTEN),
        (record(7 * MS, value=None), False, Fate.STALE),
        (b"no record", True, Fate.KEPT),
    ],
)
def test_the_record_decides_and_not_the_note(data: bytes | None, by_right: bool, expected: Fate) -> None:
    assert fate(data, 6 * MS, 8 * MS, by_right=by_right) is expected
