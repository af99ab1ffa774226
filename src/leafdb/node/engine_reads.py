"""Reads of the store by tasks that may wait: for the disk, and for what they read to be safe to show."""

from __future__ import annotations

from typing import Generic, TypeVar

import trio

from leafdb.errors import StorageError
from leafdb.limits import SCAN_PAGE_BYTES_MAX, SCAN_PAGE_ITEMS_MAX
from leafdb.storage.engine import Engine
from leafdb.storage.lsm_tree import Page
from leafdb.storage.memtable import Slot
from leafdb.types import Durability, TreeId

T = TypeVar("T")


class Awaited(Generic[T]):
    """What a callback will be told once, for a task that waits for it."""

    def __init__(self) -> None:
        self._ready = trio.Event()
        self._told: list[T] = []

    def done(self, told: T) -> None:
        """The callback."""
        self._told.append(told)
        self._ready.set()

    async def result(self) -> T:
        """What it was told."""
        await self._ready.wait()
        return self._told[0]


async def read_value(engine: Engine, tree: TreeId, key: bytes) -> bytes | None:
    """One value, waiting for the disk. Raises StorageError."""
    found: Awaited[Slot | StorageError] = Awaited()
    engine.get_soon(tree, key, found.done)
    result = await found.result()
    if isinstance(result, StorageError):
        raise result
    return result[0]


async def read_page(
    engine: Engine,
    tree: TreeId,
    start: bytes,
    stop: bytes | None,
    *,
    limit: int = SCAN_PAGE_ITEMS_MAX,
    bytes_max: int = SCAN_PAGE_BYTES_MAX,
    durability: Durability = Durability.PERIODIC,
) -> Page:
    """One page of a tree that may be shown, waiting for the disk and the log. Raises StorageError."""
    ready = trio.Event()
    found: list[Page | StorageError] = []

    def done(page: Page | StorageError) -> None:
        found.append(page)
        if isinstance(page, StorageError):
            ready.set()
        else:
            engine.when_safe(page.sequence, durability, safe)

    def safe(error: StorageError | None) -> None:
        if error is not None:
            found[0] = error
        ready.set()

    engine.scan_soon(tree, start, stop, limit=limit, bytes_max=bytes_max, done=done)
    await ready.wait()
    page = found[0]
    if isinstance(page, StorageError):
        raise page
    return page
