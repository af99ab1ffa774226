"""Handles on a bucket. Three classes, for three ways to deal with concurrent writes:

    SiblingBucket    shows them: get answers Missing, Found or Conflict, and every write says what it has seen
    Bucket           merges them with a function of yours before you see them
    LwwBucket        has none: the bucket keeps the newest write and drops the others

Making a handle does no I/O. A handle of the wrong kind is a ClientMisuse at its first use. What every call takes: `r`
and `pr` on reads, `w`, `pw`, `dw` and `ttl` on writes, `sloppy` and `timeout` on both; an option left out is the
bucket's, or the client's, own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal, TypeVar, overload

from leafdb.client import forms
from leafdb.client.anyio_driver import AnyioDriver
from leafdb.client.async_explained import AsyncExplainedValues, AsyncExplainedWrites
from leafdb.client.async_scan import AsyncRange, AsyncScan
from leafdb.client.catalog import BucketRef, plan_read, plan_write
from leafdb.client.codecs import Codec, encoded
from leafdb.client.context import BLIND, Blind, Context
from leafdb.client.forms import NO_DEFAULT, NoDefault
from leafdb.client.kv import Form, Get
from leafdb.client.options import Quorum, Seconds
from leafdb.client.results import Answer, Conflict, Explained, Failed, Found, Merge, Missing, Written
from leafdb.model.key import encode_key
from leafdb.types import Key

T = TypeVar("T")


class AsyncSiblingBucket(AsyncExplainedWrites[T]):
    """Values with their concurrent siblings in the open."""

    def __init__(self, driver: AnyioDriver, ref: BucketRef, codec: Codec[T]) -> None:
        super().__init__(driver, ref, codec)
        self._form: Form[Answer[T]] = partial(forms.answer_of, codec)

    async def get(
        self,
        key: Key,
        *,
        r: Quorum | None = None,
        pr: Quorum | None = None,
        sloppy: bool | None = None,
        timeout: Seconds | None = None,
        local: bool = False,
    ) -> Answer[T]:
        """What is there. `local`: the connected node's own replica only, nothing asked of others, nothing repaired."""
        return await self._driver.run_key(
            Get(self._ref, encode_key(key), plan_read(self._ref, r, pr, sloppy, timeout, local), self._form)
        )

    async def get_explained(
        self,
        key: Key,
        *,
        r: Quorum | None = None,
        pr: Quorum | None = None,
        sloppy: bool | None = None,
        timeout: Seconds | None = None,
        local: bool = False,
    ) -> Explained[Answer[T]]:
        """As `get`, and how it was answered: who was asked, who showed which version when, what repair follows."""
        return await self._get_explained(self._form, key, r, pr, sloppy, timeout, local)

    async def put(
        self,
        key: Key,
        value: T,
        *,
        after: Context | Blind,
        w: Quorum | None = None,
        pw: Quorum | None = None,
        dw: Quorum | None = None,
        sloppy: bool | None = None,
        timeout: Seconds | None = None,
        ttl: Seconds | None = None,
    ) -> Written:
        """Write a value in place of what `after` has seen: the context of a read or write of this key, or BLIND."""
        data = encoded(self._codec, value)
        return await self._driver.run_key(self._write(key, data, after, w, pw, dw, sloppy, timeout, ttl))

    async def delete(
        self,
        key: Key,
        *,
        after: Context | Blind,
        w: Quorum | None = None,
        pw: Quorum | None = None,
        dw: Quorum | None = None,
        sloppy: bool | None = None,
        timeout: Seconds | None = None,
    ) -> Written:
        """Delete what `after` has seen; concurrent writes it has not seen stay."""
        return await self._driver.run_key(self._write(key, None, after, w, pw, dw, sloppy, timeout, None))

    async def get_many(
        self,
        keys: Iterable[Key],
        *,
        r: Quorum | None = None,
        pr: Quorum | None = None,
        sloppy: bool | None = None,
        timeout: Seconds | None = None,
        local: bool = False,
    ) -> list[Answer[T] | Failed]:
        """Read many keys, pipelined: answers in the order of the keys, one deadline for all of them."""
        return await self._get_many(self._form, keys, r, pr, sloppy, timeout, local)

    def scan(
        self,
        *,
        cursor: bytes | None = None,
        limit: int | None = None,
        page_size: int = 256,
        r: Quorum | None = None,
        timeout: Seconds | None = None,
    ) -> AsyncScan[Found[T] | Missing | Conflict[T]]:
        """Every key in token order, at least once; what is deleted is left out. `timeout` is for each page."""
        return self._scan(self._form, cursor, limit, page_size, r, timeout)

    def range(
        self,
        partition_key: str | bytes,
        *,
        start: str | bytes | None = None,
        stop: str | bytes | None = None,
        reverse: bool = False,
        limit: int | None = None,
        r: Quorum | None = None,
        timeout: Seconds | None = None,
    ) -> AsyncRange[Found[T] | Missing | Conflict[T]]:
        """The pairs of one partition key by sort key, `start` in, `stop` out. `timeout` is for each page."""
        return self._range(self._form, partition_key, start, stop, reverse, limit, r, timeout)


class AsyncBucket(AsyncExplainedWrites[T], AsyncExplainedValues[T]):
    """Values whose concurrent siblings are merged, in dot order, before you see them. Reading never writes."""

    def __init__(self, driver: AnyioDriver, ref: BucketRef, codec: Codec[T], merge: Merge[T]) -> None:
        super().__init__(driver, ref, codec)
        self._merge = merge
        self._form = partial(forms.merged_of, codec, merge)

    async def get(
        self,
        key: Key,
        *,
        r: Quorum | None = None,
        pr: Quorum | None = None,
        sloppy: bool | None = None,
        timeout: Seconds | None = None,
        local: bool = False,
    ) -> T | None:
        """The merged value, or None when nothing is there."""
        found = await self._driver.run_key(
            Get(self._ref, encode_key(key), plan_read(self._ref, r, pr, sloppy, timeout, local), self._form)
        )
        return found.value if isinstance(found, Found) else None

    async def read(
        self,
        key: Key,
        *,
        r: Quorum | None = None,
        pr: Quorum | None = None,
        sloppy: bool | None = None,
        timeout: Seconds | None = None,
        local: bool = False,
    ) -> Found[T] | Missing:
        """The merged value with the context that covers every sibling it was made of."""
        return await self._driver.run_key(
            Get(self._ref, encode_key(key), plan_read(self._ref, r, pr, sloppy, timeout, local), self._form)
        )

    async def put(
        self,
        key: Key,
        value: T,
        *,
        after: Context | Blind,
        w: Quorum | None = None,
        pw: Quorum | None = None,
        dw: Quorum | None = None,
        sloppy: bool | None = None,
        timeout: Seconds | None = None,
        ttl: Seconds | None = None,
    ) -> Written:
        """Write a value in place of what `after` has seen: the context of a read or write of this key, or BLIND."""
        data = encoded(self._codec, value)
        return await self._driver.run_key(self._write(key, data, after, w, pw, dw, sloppy, timeout, ttl))

    async def delete(
        self,
        key: Key,
        *,
        after: Context | Blind,
        w: Quorum | None = None,
        pw: Quorum | None = None,
        dw: Quorum | None = None,
        sloppy: bool | None = None,
        timeout: Seconds | None = None,
    ) -> Written:
        """Delete what `after` has seen; concurrent writes it has not seen stay."""
        return await self._driver.run_key(self._write(key, None, after, w, pw, dw, sloppy, timeout, None))

    @overload
    async def update(
        self,
        key: Key,
        fn: Callable[[T], T],
        *,
        default: T,
        w: Quorum | None = None,
        pw: Quorum | None = None,
        dw: Quorum | None = None,
        r: Quorum | None = None,
        pr: Quorum | None = None,
        sloppy: bool | None = None,
        timeout: Seconds | None = None,
        ttl: Seconds | None = None,
    ) -> T: ...

    @overload
    async def update(
        self,
        key: Key,
        fn: Callable[[T | None], T],
        *,
        w: Quorum | None = None,
        pw: Quorum | None = None,
        dw: Quorum | None = None,
        r: Quorum | None = None,
        pr: Quorum | None = None,
        sloppy: bool | None = None,
        timeout: Seconds | None = None,
        ttl: Seconds | None = None,
    ) -> T: ...

    async def update(
        self,
        key: Key,
        fn: Callable[[T], T] | Callable[[T | None], T],
        *,
        default: T | Literal[NoDefault.NO_DEFAULT] = NO_DEFAULT,
        w: Quorum | None = None,
        pw: Quorum | None = None,
        dw: Quorum | None = None,
        r: Quorum | None = None,
        pr: Quorum | None = None,
        sloppy: bool | None = None,
        timeout: Seconds | None = None,
        ttl: Seconds | None = None,
    ) -> T:
        """Read, merge, change with `fn`, write with the context of the read; answers the value written.

        `fn` gets a fresh copy on each try, of `default` (else None) where nothing is there. Tried again only when
        provably nothing was applied, never after OutcomeUnknown.
        """
        read = plan_read(self._ref, r, pr, sloppy, timeout)
        write = plan_write(self._ref, w, pw, dw, sloppy, timeout, ttl)
        return await self._driver.run(forms.update(self._ref, self._codec, self._merge, key, fn, default, read, write))

    async def get_many(
        self,
        keys: Iterable[Key],
        *,
        r: Quorum | None = None,
        pr: Quorum | None = None,
        sloppy: bool | None = None,
        timeout: Seconds | None = None,
        local: bool = False,
    ) -> list[Found[T] | Missing | Failed]:
        """Read many keys, pipelined: answers in the order of the keys, one deadline for all of them."""
        return await self._get_many(self._form, keys, r, pr, sloppy, timeout, local)

    def scan(
        self,
        *,
        cursor: bytes | None = None,
        limit: int | None = None,
        page_size: int = 256,
        r: Quorum | None = None,
        timeout: Seconds | None = None,
    ) -> AsyncScan[Found[T] | Missing]:
        """Every key in token order, at least once; what is deleted is left out. `timeout` is for each page."""
        return self._scan(self._form, cursor, limit, page_size, r, timeout)

    def range(
        self,
        partition_key: str | bytes,
        *,
        start: str | bytes | None = None,
        stop: str | bytes | None = None,
        reverse: bool = False,
        limit: int | None = None,
        r: Quorum | None = None,
        timeout: Seconds | None = None,
    ) -> AsyncRange[Found[T] | Missing]:
        """The pairs of one partition key by sort key, `start` in, `stop` out. `timeout` is for each page."""
        return self._range(self._form, partition_key, start, stop, reverse, limit, r, timeout)


class AsyncLwwBucket(AsyncExplainedValues[T]):
    """Values of which the newest wins. The lossy kind: of two concurrent writes one is gone."""

    def __init__(self, driver: AnyioDriver, ref: BucketRef, codec: Codec[T]) -> None:
        super().__init__(driver, ref, codec)
        self._form = partial(forms.single_of, codec)

    async def get(
        self,
        key: Key,
        *,
        r: Quorum | None = None,
        pr: Quorum | None = None,
        sloppy: bool | None = None,
        timeout: Seconds | None = None,
        local: bool = False,
    ) -> T | None:
        """The newest value, or None when nothing is there."""
        found = await self._driver.run_key(
            Get(self._ref, encode_key(key), plan_read(self._ref, r, pr, sloppy, timeout, local), self._form)
        )
        return found.value if isinstance(found, Found) else None

    async def put(
        self,
        key: Key,
        value: T,
        *,
        w: Quorum | None = None,
        pw: Quorum | None = None,
        dw: Quorum | None = None,
        sloppy: bool | None = None,
        timeout: Seconds | None = None,
        ttl: Seconds | None = None,
    ) -> Written:
        """Write a value; it wins over everything with an older stamp."""
        data = encoded(self._codec, value)
        return await self._driver.run_key(self._write(key, data, BLIND, w, pw, dw, sloppy, timeout, ttl))

    async def put_explained(
        self,
        key: Key,
        value: T,
        *,
        w: Quorum | None = None,
        pw: Quorum | None = None,
        dw: Quorum | None = None,
        sloppy: bool | None = None,
        timeout: Seconds | None = None,
        ttl: Seconds | None = None,
    ) -> Explained[Written]:
        """As `put`, and how it was answered: who took it when, what it waits for, what repair follows."""
        data = encoded(self._codec, value)
        return await self._write_explained(key, data, BLIND, w, pw, dw, sloppy, timeout, ttl)

    async def delete(
        self,
        key: Key,
        *,
        w: Quorum | None = None,
        pw: Quorum | None = None,
        dw: Quorum | None = None,
        sloppy: bool | None = None,
        timeout: Seconds | None = None,
    ) -> Written:
        """Delete the value."""
        return await self._driver.run_key(self._write(key, None, BLIND, w, pw, dw, sloppy, timeout, None))

    async def get_many(
        self,
        keys: Iterable[Key],
        *,
        r: Quorum | None = None,
        pr: Quorum | None = None,
        sloppy: bool | None = None,
        timeout: Seconds | None = None,
        local: bool = False,
    ) -> list[Found[T] | Missing | Failed]:
        """Read many keys, pipelined: answers in the order of the keys, one deadline for all of them."""
        return await self._get_many(self._form, keys, r, pr, sloppy, timeout, local)

    def scan(
        self,
        *,
        cursor: bytes | None = None,
        limit: int | None = None,
        page_size: int = 256,
        r: Quorum | None = None,
        timeout: Seconds | None = None,
    ) -> AsyncScan[Found[T] | Missing]:
        """Every key in token order, at least once; what is deleted is left out. `timeout` is for each page."""
        return self._scan(self._form, cursor, limit, page_size, r, timeout)

    def range(
        self,
        partition_key: str | bytes,
        *,
        start: str | bytes | None = None,
        stop: str | bytes | None = None,
        reverse: bool = False,
        limit: int | None = None,
        r: Quorum | None = None,
        timeout: Seconds | None = None,
    ) -> AsyncRange[Found[T] | Missing]:
        """The pairs of one partition key by sort key, `start` in, `stop` out. `timeout` is for each page."""
        return self._range(self._form, partition_key, start, stop, reverse, limit, r, timeout)
