"""A pass reads every table and value file once in the interval, evenly by bytes, and goes on where it was."""

from __future__ import annotations

from random import Random

import pytest

from leafdb.limits import SCRUB_BYTES_PER_S
from leafdb.storage import scrub
from leafdb.storage.scrub import Scrubbed, ScrubPass
from leafdb.storage.value_files import ValueMeta
from leafdb.storage.version import TableMeta
from support.store import TREE, Store
from support.tables import meta_of

INTERVAL_MS = 1_000_000


def tables_of(*sizes: int, first: int = 1) -> dict[int, TableMeta]:
    return {number: meta_of(number, b"a", b"b", size=size) for number, size in enumerate(sizes, first)}


def test_every_table_is_due_once_and_evenly_by_its_bytes() -> None:
    tables = tables_of(100, 300, 500, 100)
    now = scrub.begin(tables, 5_000)
    due = []
    while (turn := scrub.next_turn(now, tables, INTERVAL_MS)) is not None:
        due.append((turn.file.file_number, turn.due_ms - 5_000))
        now = scrub.had_its_turn(now, turn.file)
    assert due == [(1, 0), (2, 90_000), (3, 360_000), (4, 810_000)]
    assert scrub.over_ms(now, INTERVAL_MS) == 1_005_000


def test_value_files_have_turns_among_the_tables_by_the_numbers_they_share() -> None:
    files: dict[int, Scrubbed] = {**tables_of(100, 100), 3: ValueMeta(3, TREE, 800, 1), **tables_of(200, first=4)}
    now = scrub.begin(files, 0)
    due = []
    while (turn := scrub.next_turn(now, files, INTERVAL_MS)) is not None:
        due.append((turn.file.path, turn.due_ms))
        now = scrub.had_its_turn(now, turn.file)
    assert due == [
        (files[1].path, 0),
        (files[2].path, 75_000),
        ("values/0000000003.val", 150_000),
        (files[4].path, 750_000),
    ]


def test_tables_that_come_and_go_meanwhile_change_nothing_for_the_others() -> None:
    rng = Random(3)
    for _ in range(50):
        tables = tables_of(*(rng.randint(1, 1_000) for _ in range(rng.randint(1, 30))))
        stay = {number for number in tables if rng.random() < 0.7}
        now = scrub.begin(tables, 0)
        had: list[int] = []
        last_ms = 0
        while (turn := scrub.next_turn(now, tables, INTERVAL_MS)) is not None:
            assert turn.due_ms < INTERVAL_MS
            last_ms = turn.due_ms
            had.append(turn.file.file_number)
            now = ScrubPass.decode(scrub.had_its_turn(now, turn.file).encode())  # a restart
            for gone in rng.sample(sorted(tables), len(tables) // 3):
                if gone not in stay:
                    del tables[gone]
            tables |= tables_of(50, first=100 + len(had))
        assert last_ms <= scrub.SHARE * INTERVAL_MS
        assert had == sorted(set(had))
        assert stay <= set(had)
        assert all(number <= now.upto for number in had), "what is new waits for the next pass"


def test_an_empty_store_has_a_pass_that_is_over() -> None:
    now = scrub.begin((), 7)
    assert scrub.next_turn(now, {}, INTERVAL_MS) is None
    assert scrub.next_turn(now, tables_of(5), INTERVAL_MS) is None


def test_a_large_store_is_read_faster() -> None:
    assert scrub.bytes_per_s(tables_of(10).values(), INTERVAL_MS) == SCRUB_BYTES_PER_S
    large = tables_of(*[1 << 40] * 4).values()
    assert scrub.bytes_per_s(large, INTERVAL_MS) * INTERVAL_MS / 1_000 > 4 << 40


@pytest.mark.parametrize("stored", [b"", b"\xa0", b"\x01", b"\xa1\x65after\x00"])
def test_what_is_no_pass_is_refused(stored: bytes) -> None:
    with pytest.raises(ValueError):
        ScrubPass.decode(stored)


def test_a_table_that_has_left_is_read_by_nobody() -> None:
    store = Store()
    found: list[object] = []
    store.engine.scrub_soon(77, bytes_per_s=1_000, done=found.append)
    store.settle()
    (verified,) = found
    assert verified.files_total == 0  # type: ignore[attr-defined]
