"""Saves kept trees before the log forgets what they were made from.

The store asks before it publishes a flush. Then every tree that has changed since it was saved is saved, each as of the
moment at which it is: a number greater than the flush's does no harm, as the log of what is between stays. When all of
it is synced the flush may go on. So a saved tree is never older than what the log no longer has, and never newer than
what the log would bring back: its entry stands in the log behind every write that is in it.

It takes the loop a fifth of a millisecond at a time, at a pace of its own: a flush must not wait for exchanges, and no
request for a flush. A clean end saves nothing: the log has it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from leafdb.errors import StorageError
from leafdb.node.kept_trees import KeptTrees, split
from leafdb.node.logs import Log
from leafdb.node.pace import Pace
from leafdb.storage.wal_format import WalEntry
from leafdb.types import Durability, TreeId

SAVE_SLICE_S: Final = 0.000_2
"""Shorter than what is done for exchanges at a time: every flush has it done, for each tree that was written to."""
SAVE_SHARE: Final = 0.1
"""Of the loop's time: a node that is busy for four fifths of it must keep up with its requests meanwhile. The trees of
a bucket, 256 of them, take a tenth of a second then."""

log: Log = Log("trees")


class TreeSaver:
    """See the top of this file. Made before the store is opened; `run` is its one task."""

    def __init__(self, trees: KeptTrees, pace: Pace) -> None:
        self._trees = trees
        self._pace = pace
        self._go_on: Callable[[], None] | None = None
        self._asked = trio.Event()

    def before_flush(self, lsn: int, go_on: Callable[[], None]) -> None:
        """The log is about to forget everything up to `lsn`. Never answers inside this call: it may come out of the
        middle of a write, of which the store knows already and its tree does not."""
        self._go_on = go_on
        self._asked.set()

    async def run(self) -> None:
        """Save when asked, until cancelled."""
        while True:
            try:
                await self.answer()
            except StorageError as error:
                log.error("hash trees cannot be saved", reason=str(error))  # nor anything else: the store has failed
                return

    async def answer(self) -> None:
        """Wait until the store asks, save, and let it go on. Raises StorageError."""
        await self._asked.wait()
        self._asked = trio.Event()
        go_on, self._go_on = self._go_on, None
        assert go_on is not None
        await self.save()
        go_on()

    async def save(self) -> None:
        """Save every tree that has changed by now; return when that is synced. Raises StorageError."""
        trees = self._trees
        waiting, trees.dirty = trees.dirty, {}
        for kept in waiting.values():
            kept.dirty = False
        began = self._pace.begin()
        entries: list[WalEntry] = []
        while waiting:
            place, kept = waiting.popitem()
            if trees.ranges.get(place) is not kept or kept.tree is None:
                continue  # dropped meanwhile; or doubted, which has been noted
            if kept.tree.keys < 0:
                bucket, partition = split(place)
                trees.doubt(TreeId(bucket), partition, "it has fewer keys than none")
                continue
            if kept.dirty:  # written to since this began: what is saved now has that, too
                kept.dirty = False
                del trees.dirty[place]
            entries.append(trees.as_saved(place, kept))
            if self._pace.over(began):
                trees.write_saved(entries)
                entries = []
                await self._pace.spent(began)
                began = self._pace.begin()
        if entries:
            trees.write_saved(entries)
        await synced(trees)


async def synced(trees: KeptTrees) -> None:
    """Return when everything that was saved of trees is on the disk. Raises StorageError."""
    over = trio.Event()
    problems: list[StorageError] = []

    def safe(error: StorageError | None) -> None:
        if error is not None:
            problems.append(error)
        over.set()

    trees.engine.when_safe(trees.saved_sequence, Durability.ALWAYS, safe)
    await over.wait()
    if problems:
        raise problems[0]
