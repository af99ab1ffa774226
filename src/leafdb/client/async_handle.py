"""What the three kinds of handle share: the bucket, the codec, the driver, and every call in terms of a `form`.

A form turns a reply into what the handle shows; with it, one get, one batch, one scan serve all three.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Generic, TypeVar

from leafdb.client import paging
from leafdb.client.anyio_driver import AnyioDriver
from leafdb.client.async_scan import AsyncRange, AsyncScan
from leafdb.client.catalog import BucketRef, plan_read, plan_write, ready
from leafdb.client.codecs import Codec, encoded
from leafdb.client.context import Blind, Context
from leafdb.client.explained import GetExplained, PutExplained
from leafdb.client.kv import Form, Get, prepare
from leafdb.client.kv import Put as PutCall
from leafdb.client.options import Quorum, Seconds, count_limit, ttl_ms
from leafdb.client.results import Explained, Failed, Put, Written
from leafdb.errors import ClientMisuse
from leafdb.model.key import encode_key
from leafdb.types import Key

T = TypeVar("T")
A = TypeVar("A")


class AsyncHandle(Generic[T]):
    """What the three handles share: the bucket, the codec, the driver; reads and batches in terms of a `form`."""

    def __init__(self, driver: AnyioDriver, ref: BucketRef, codec: Codec[T]) -> None:
        if (
            isinstance(codec, type)
            or not callable(getattr(codec, "encode", None))
            or not callable(getattr(codec, "decode", None))
        ):
            raise ClientMisuse(f"codec= is an instance with encode and decode, such as JSON(Cart), not {codec!r}")
        self._driver = driver
        self._ref = ref
        self._codec = codec

    @property
    def name(self) -> str:
        """The bucket's name."""
        return self._ref.name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._ref.name!r}, {self._codec!r}>"

    async def _get_explained(
        self,
        form: Form[A],
        key: Key,
        r: Quorum | None,
        pr: Quorum | None,
        sloppy: bool | None,
        timeout: Seconds | None,
        local: bool,
    ) -> Explained[A]:
        plan = plan_read(self._ref, r, pr, sloppy, timeout, local)
        return await self._driver.run_key(GetExplained(self._ref, encode_key(key), plan, form))

    async def _get_many(
        self,
        form: Form[A],
        keys: Iterable[Key],
        r: Quorum | None,
        pr: Quorum | None,
        sloppy: bool | None,
        timeout: Seconds | None,
        local: bool,
    ) -> list[A | Failed]:
        encoded_keys = [encode_key(key) for key in keys]
        plan = plan_read(self._ref, r, pr, sloppy, timeout, local)
        await self._driver.run(ready(self._ref, plan.deadline))
        return await self._driver.run_all(Get(self._ref, each, plan, form).steps() for each in encoded_keys)

    def _write(
        self,
        key: Key,
        value: bytes | None,
        after: Context | Blind,
        w: Quorum | None,
        pw: Quorum | None,
        dw: Quorum | None,
        sloppy: bool | None,
        timeout: Seconds | None,
        ttl: Seconds | None,
    ) -> PutCall:
        prepared = prepare(self._ref, key, value, after)
        return PutCall(self._ref, prepared, plan_write(self._ref, w, pw, dw, sloppy, timeout, ttl))

    async def _write_explained(
        self,
        key: Key,
        value: bytes,
        after: Context | Blind,
        w: Quorum | None,
        pw: Quorum | None,
        dw: Quorum | None,
        sloppy: bool | None,
        timeout: Seconds | None,
        ttl: Seconds | None,
    ) -> Explained[Written]:
        prepared = prepare(self._ref, key, value, after)
        plan = plan_write(self._ref, w, pw, dw, sloppy, timeout, ttl)
        return await self._driver.run_key(PutExplained(self._ref, prepared, plan))

    async def put_many(
        self,
        puts: Iterable[Put[T]],
        *,
        w: Quorum | None = None,
        pw: Quorum | None = None,
        dw: Quorum | None = None,
        sloppy: bool | None = None,
        timeout: Seconds | None = None,
    ) -> list[Written | Failed]:
        """Write many keys, pipelined: results in the order of the puts, one deadline for all of them.

        Keys, contexts and values are all checked first; one that is wrong raises before anything is sent.
        """
        checked = [
            (prepare(self._ref, put.key, encoded(self._codec, put.value), put.after), ttl_ms(put.ttl)) for put in puts
        ]
        plan = plan_write(self._ref, w, pw, dw, sloppy, timeout)
        await self._driver.run(ready(self._ref, plan.deadline))
        return await self._driver.run_all(
            PutCall(self._ref, prepared, plan, ttl_ms=ttl).steps() for prepared, ttl in checked
        )

    def _scan(
        self,
        form: Form[A],
        cursor: bytes | None,
        limit: int | None,
        page_size: int,
        r: Quorum | None,
        timeout: Seconds | None,
    ) -> AsyncScan[A]:
        plan_read(self._ref, r, None, None, timeout)
        pager = paging.Pager(
            self._ref,
            partial(plan_read, self._ref, r, None, None, timeout),
            paging.scan_bounds(cursor),
            form,
            page_size=page_size,
            limit=count_limit("limit", limit),
        )
        return AsyncScan(self._driver, pager, cursor)

    def _range(
        self,
        form: Form[A],
        partition_key: str | bytes,
        start: str | bytes | None,
        stop: str | bytes | None,
        reverse: bool,
        limit: int | None,
        r: Quorum | None,
        timeout: Seconds | None,
    ) -> AsyncRange[A]:
        plan_read(self._ref, r, None, None, timeout)
        pager = paging.Pager(
            self._ref,
            partial(plan_read, self._ref, r, None, None, timeout),
            paging.range_bounds(partition_key, start, stop),
            form,
            page_size=paging.RANGE_PAGE_ITEMS,
            limit=count_limit("limit", limit),
            reverse=bool(reverse),
        )
        return AsyncRange(self._driver, pager)
