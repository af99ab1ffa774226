"""The sweeper at a start: it finds what is noted, behind however many notes that were taken away."""

from __future__ import annotations

import trio

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
