"""The sweeper at a start, and where nothing happens: it finds what is noted, behind however many notes that were taken
away, and forgets what is not."""

from __future__ import annotations

import pytest
import trio

from leafdb.errors import StoreFailed
from leafdb.node import sweeper
from leafdb.types import Durability
from support.sweeping import MS, SweptStore, record

TAKEN_AWAY = 6_000


def test_it_finds_a_note_behind_many_that_were_taken_away() -> None:
    """Tier cluster, seed 54: a page that met nothing but removed notes was asked for again, for ever; no partition was
    swept any more, and so none compared."""
    life = SweptStore()
    for number in range(TAKEN_AWAY):
        key = b"\0\0%d" % number
        life.write(key, record(1_000 * MS + number, value=None), Durability.PERIODIC)
        life.write(key, None, Durability.PERIODIC)
        if number % 100 == 0:
            life.settle()
    life.write(b"\0\0last", record(2_000 * MS, value=None), Durability.PERIODIC)
    life.settle()
    life.store.close()
    again = SweptStore(life.fs)

    async def looks() -> None:
        with trio.move_on_after(60.0):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(again.sweeper.run)
                while not again.sweeper.quiet:  # noqa: ASYNC110  # the store is stepped beside this
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()

    again.run(looks)
    assert again.sweeper.quiet
    assert again.sweeper.oldest_death(0) == 2_000 * MS


def test_what_was_taken_back_is_not_told_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """No horizon passes over a note that is not there any more, so nothing but time lets it be looked for again."""
    monkeypatch.setattr(sweeper, "LOOK_AGAIN_S", 1.0)
    life = SweptStore()
    for number, key in enumerate((b"\0\0renewed", b"\x20\0renewed")):
        life.write(key, record(1_000 * MS, expires_ms=2_000), Durability.PERIODIC)
        life.write(key, record(1_001 * MS, expires_ms=9_000) if number else None, Durability.PERIODIC)
    life.write(b"\x40\0dead", record(1_500 * MS, value=None), Durability.PERIODIC)

    async def rests() -> None:
        with trio.move_on_after(3.0):
            await life.sweeper.run()

    life.run(rests)
    life.sweeper.check()
    deaths = [life.sweeper.oldest_death(partition) for partition in range(3)]
    assert deaths == [None, 9_000 * MS, 1_500 * MS]
    assert life.sweeper.dead_since(5_000 * MS) == [1_500 * MS]


def test_a_look_that_fails_forgets_no_note_that_came_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the least death would be taken for a later one, and what died before it be passed over for good."""
    life = SweptStore()
    for key in (b"\0\0dead", b"\x20\0dead"):
        life.write(key, record(2_000 * MS, value=None), Durability.PERIODIC)
    first_after = life.sweeper._first_after

    async def fails(partition: int, horizon: int) -> int:
        if partition == 1:
            raise StoreFailed("a test", path="")
        life.write(b"\x20\0older", record(1_500 * MS, value=None), Durability.PERIODIC)
        return await first_after(partition, horizon)

    monkeypatch.setattr(life.sweeper, "_first_after", fails)
    with pytest.raises(StoreFailed):
        life.run(life.sweeper._look_again)
    assert life.sweeper.oldest_death(1) == 1_500 * MS
