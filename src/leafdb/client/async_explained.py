"""Explained calls that kinds of handle have in common: writes that say what they replace, reads of a single value."""

from __future__ import annotations

from typing import TypeVar

from leafdb.client.async_handle import AsyncHandle
from leafdb.client.codecs import encoded
from leafdb.client.context import Blind, Context
from leafdb.client.kv import Form
from leafdb.client.options import Quorum, Seconds
from leafdb.client.results import Explained, Found, Missing, Written
from leafdb.types import Key

T = TypeVar("T")


class AsyncExplainedWrites(AsyncHandle[T]):
    """Of buckets that keep siblings."""

    async def put_explained(
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
    ) -> Explained[Written]:
        """As `put`, and how it was answered: who took it when, what it waits for, what repair follows."""
        data = encoded(self._codec, value)
        return await self._write_explained(key, data, after, w, pw, dw, sloppy, timeout, ttl)


class AsyncExplainedValues(AsyncHandle[T]):
    """Of handles that show one value or none."""

    _form: Form[Found[T] | Missing]

    async def get_explained(
        self,
        key: Key,
        *,
        r: Quorum | None = None,
        pr: Quorum | None = None,
        sloppy: bool | None = None,
        timeout: Seconds | None = None,
        local: bool = False,
    ) -> Explained[T | None]:
        """As `get`, and how it was answered: who was asked, who showed which version when, what repair follows."""
        found = await self._get_explained(self._form, key, r, pr, sloppy, timeout, local)
        value = found.answer.value if isinstance(found.answer, Found) else None
        return Explained(value, found.explanation)

    async def read_explained(
        self,
        key: Key,
        *,
        r: Quorum | None = None,
        pr: Quorum | None = None,
        sloppy: bool | None = None,
        timeout: Seconds | None = None,
        local: bool = False,
    ) -> Explained[Found[T] | Missing]:
        """As `get_explained`, with the context that covers what was read."""
        return await self._get_explained(self._form, key, r, pr, sloppy, timeout, local)
