"""The client itself: hands out bucket handles and speaks about the cluster.

Made by `leafdb.connect_async` (or over any dialer by `connect.async_client_over`). Making one does no I/O; its first
call connects. Safe to share between tasks, within one event loop and one process.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Literal, TypeVar, overload

from leafdb.client import admin, deadlines
from leafdb.client.anyio_driver import AnyioDriver
from leafdb.client.async_bucket import AsyncBucket, AsyncLwwBucket, AsyncSiblingBucket
from leafdb.client.catalog import BucketRef
from leafdb.client.codecs import Codec, Raw
from leafdb.client.core import Core
from leafdb.client.info import BucketInfo, Pong, Status
from leafdb.client.options import Quorum, Seconds, timeout_s
from leafdb.client.results import Merge, Outcome
from leafdb.client.session_token import SessionToken
from leafdb.errors import ClientMisuse
from leafdb.types import Conflict

T = TypeVar("T")


class AsyncClient:
    """A connection to a cluster. Use it as `async with`, or call `close`."""

    def __init__(self, core: Core, driver: AnyioDriver) -> None:
        self._core = core
        self._driver = driver

    async def __aenter__(self) -> AsyncClient:
        await self._driver.open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._driver.leave(exc_type, exc, traceback)

    async def close(self) -> None:
        """Close every connection; the client is of no use afterwards. Closing twice is harmless."""
        await self._driver.close()

    def deadline(self, seconds: Seconds) -> AbstractContextManager[None]:
        """`with db.deadline(1.0):` every call of this client inside ends in time; blocks nest by the nearer one."""
        return deadlines.block(self._core, timeout_s(seconds), self._core.clock)

    # -- sessions

    @property
    def session_token(self) -> SessionToken:
        """All that this client has written and read until now, as bytes: who observes it sees no less.

        Taking it makes this client a session: from now on its own reads and writes keep the four guarantees as well.
        """
        return self._core.session.token(self._core.cluster_id)

    def observe(self, token: SessionToken) -> None:
        """From now on, see no less than the client this token was taken from."""
        self._core.observe(token)

    # -- handles

    @overload
    def bucket(self, name: str) -> AsyncSiblingBucket[bytes]: ...

    @overload
    def bucket(self, name: str, *, codec: Codec[T]) -> AsyncSiblingBucket[T]: ...

    @overload
    def bucket(self, name: str, *, merge: Merge[bytes]) -> AsyncBucket[bytes]: ...

    @overload
    def bucket(self, name: str, *, codec: Codec[T], merge: Merge[T]) -> AsyncBucket[T]: ...

    def bucket(
        self, name: str, *, codec: Codec[Any] | None = None, merge: Merge[Any] | None = None
    ) -> AsyncSiblingBucket[Any] | AsyncBucket[Any]:
        """A handle on a bucket that keeps siblings: shown as they are, or merged by `merge` before you see them."""
        ref = BucketRef(self._core, name, Conflict.SIBLINGS)
        codec = Raw() if codec is None else codec
        if merge is None:
            return AsyncSiblingBucket(self._driver, ref, codec)
        if not callable(merge):
            raise ClientMisuse(f"merge= is a function of two values, not {merge!r}")
        return AsyncBucket(self._driver, ref, codec, merge)

    @overload
    def lww_bucket(self, name: str) -> AsyncLwwBucket[bytes]: ...

    @overload
    def lww_bucket(self, name: str, *, codec: Codec[T]) -> AsyncLwwBucket[T]: ...

    def lww_bucket(self, name: str, *, codec: Codec[Any] | None = None) -> AsyncLwwBucket[Any]:
        """A handle on a bucket in which the newest write wins."""
        ref = BucketRef(self._core, name, Conflict.LWW)
        return AsyncLwwBucket(self._driver, ref, Raw() if codec is None else codec)

    # -- buckets

    async def create_bucket(
        self,
        name: str,
        *,
        n: int = 3,
        r: Quorum = "quorum",
        w: Quorum = "quorum",
        pr: Quorum = 0,
        pw: Quorum = 0,
        dw: Quorum = 0,
        conflict: Literal["siblings", "lww"] = "siblings",
        durability: Literal["always", "periodic"] = "always",
        ttl: Seconds | None = None,
        sloppy: bool = True,
        exist_ok: bool = False,
        timeout: Seconds | None = None,
    ) -> BucketInfo:
        """Create a bucket; answers once every live member holds it. `exist_ok` accepts equal properties only."""
        properties = admin.wanted_properties(
            name, n=n, r=r, w=w, pr=pr, pw=pw, dw=dw, conflict=conflict, durability=durability, ttl=ttl, sloppy=sloppy
        )
        return await self._driver.run(admin.create_bucket(self._core, properties, exist_ok=exist_ok, timeout=timeout))

    async def drop_bucket(self, name: str, *, timeout: Seconds | None = None) -> None:
        """Drop a bucket and everything in it."""
        return await self._driver.run(admin.drop_bucket(self._core, name, timeout))

    async def buckets(self, *, timeout: Seconds | None = None) -> dict[str, BucketInfo]:
        """Every bucket's properties by name."""
        return await self._driver.run(admin.list_buckets(self._core, timeout))

    # -- the account

    async def change_password(self, password: str, *, timeout: Seconds | None = None) -> None:
        """Change the password of the user that this client has logged in as. Whoever has logged in with the old one is
        turned out, this client too: connect again with the new one."""
        return await self._driver.run(admin.change_password(self._core, password, timeout))

    # -- the cluster

    async def ping(self, *, timeout: Seconds | None = None) -> Pong:
        """Ask any node whether it is there."""
        return await self._driver.run(admin.ping(self._core, timeout))

    async def status(self, *, timeout: Seconds | None = None) -> Status:
        """The cluster in a few figures."""
        return await self._driver.run(admin.status(self._core, timeout))

    async def outcome(self, op_id: bytes, *, timeout: Seconds | None = None) -> Outcome:
        """What became of the write with this operation id, as far as the cluster can tell. Any client may ask."""
        return await self._driver.run(admin.outcome(self._core, op_id, timeout))

    async def admin(
        self, verb: str, args: Mapping[str, Any] | None = None, *, changes: bool = False, timeout: Seconds | None = None
    ) -> Mapping[str, Any]:
        """Any administrative verb with its plain answer: what the command line is built on. `changes`: not repeated."""
        return await self._driver.run(
            admin.admin(self._core, verb, args or {}, self._core.deadline(timeout), changes=changes)
        )
