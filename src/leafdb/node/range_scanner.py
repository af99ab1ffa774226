"""Reads a range of this store for an exchange: into key lists of some of its tree's leaves.

Pages come from the engine's reader pool, a few hundred keys at a time, and are hashed at the pace of background work.
Only what may be shown is read: a version the commit has not passed is waited for (`read_page`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from typing import Final

import trio

from leafdb.errors import StorageError
from leafdb.merkle.compare import Entry
from leafdb.merkle.tree import leaf_of, record_digest
from leafdb.node.engine_reads import read_page
from leafdb.node.pace import Pace
from leafdb.node.view import BucketView
from leafdb.storage.engine import Engine
from leafdb.storage.lsm_tree import Page
from leafdb.storage.reads import ReadsOverloaded

PAGE_KEYS_MAX: Final = 512
PAGE_BYTES_MAX: Final = 256 * 1024
SCAN_COST_S: Final = 2e-6
"""What a reader thread takes for one key, about: it shares the interpreter with the loop."""
FIRST_COST_S: Final = 50e-6
"""And to find where a range begins."""
OVERLOADED_WAIT_S: Final = 0.1
OVERLOADED_TRIES: Final = 50

Range = tuple[bytes, bytes]
"""Storage keys: from the first (in) to the second (out)."""


class RangeScanner:
    """Scans for exchanges, of one node."""

    def __init__(self, engine: Engine, pace: Pace) -> None:
        self._engine = engine
        self._pace = pace

    async def leaves(self, bucket: BucketView, span: Range, wanted: Collection[int]) -> dict[int, list[Entry]]:
        """Keys and record digests of the wanted leaves of a range, in order of keys. Raises StorageError."""
        found: dict[int, list[Entry]] = {leaf: [] for leaf in wanted}
        async with aclosing(self._pages(bucket, span)) as pages:
            async for items in pages:
                began = self._pace.begin()
                for key, record in items:
                    entries = found.get(leaf_of(key))
                    if entries is not None:
                        entries.append((key, record_digest(key, record)))
                await self._pace.spent(began, SCAN_COST_S * len(items))
        return found

    async def _pages(self, bucket: BucketView, span: Range) -> AsyncGenerator[list[tuple[bytes, bytes]], None]:
        start, stop = span
        while True:
            page = await self.page(bucket, start, stop)
            yield page.items
            if page.next_key is None:
                return
            start = page.next_key

    async def page(
        self, bucket: BucketView, start: bytes, stop: bytes, *, keys: int = PAGE_KEYS_MAX, size: int = PAGE_BYTES_MAX
    ) -> Page:
        """One page of at most so many keys that may be shown. Raises StorageError."""
        for _ in range(OVERLOADED_TRIES):
            try:
                return await read_page(
                    self._engine,
                    bucket.tree,
                    start,
                    stop,
                    limit=keys,
                    bytes_max=size,
                    durability=bucket.durability,
                )
            except ReadsOverloaded:
                await trio.sleep(OVERLOADED_WAIT_S)
        raise StorageError("too many reads wait for the disk")

    async def first(self, bucket: BucketView, span: Range) -> bytes | None:
        """The first key in a range, None when there is none. Raises StorageError."""
        start, stop = span
        while True:
            page = await self.page(bucket, start, stop, size=1)
            await self._pace.spent(self._pace.begin(), FIRST_COST_S)
            if page.items:
                return page.items[0][0]
            if page.next_key is None:
                return None
            start = page.next_key
