"""Iterators over many keys: a page is fetched when the one before it is used up, never earlier."""

from __future__ import annotations

from typing import Generic, TypeVar

from leafdb.client.anyio_driver import AnyioDriver
from leafdb.client.paging import Pager
from leafdb.client.results import Item

A_co = TypeVar("A_co", covariant=True)


class AsyncRange(Generic[A_co]):
    """The pairs of one partition key, by sort key. An iterator: one pass."""

    def __init__(self, driver: AnyioDriver, pager: Pager[A_co]) -> None:
        self._driver = driver
        self._pager = pager

    def __aiter__(self) -> AsyncRange[A_co]:
        return self

    async def __anext__(self) -> Item[A_co]:
        while True:
            while self._pager.empty:
                if self._pager.done:
                    raise StopAsyncIteration
                await self._driver.run(self._pager.page())
            item = self._pager.take()
            if item is not None:
                return item


class AsyncScan(Generic[A_co]):
    """Every key of a bucket in token order, each at least once. An iterator: one pass; `cursor` starts another."""

    def __init__(self, driver: AnyioDriver, pager: Pager[A_co], cursor: bytes | None) -> None:
        self._range = AsyncRange(driver, pager)
        self._pager = pager
        self._cursor = cursor

    @property
    def cursor(self) -> bytes | None:
        """Where `scan(cursor=...)` goes on: behind the last item yielded; None before the first."""
        return self._pager.cursor or self._cursor

    def __aiter__(self) -> AsyncScan[A_co]:
        return self

    async def __anext__(self) -> Item[A_co]:
        return await self._range.__anext__()
