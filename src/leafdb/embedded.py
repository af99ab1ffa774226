"""`leafdb.open` and `leafdb.open_async`: a whole node inside this process, with the same client as everywhere.

The node is the one `leafdbd` runs, in a thread of its own with a trio loop of its own, whatever loop the program has.
It is a cluster of one member, founded when the directory is first opened, and it listens nowhere: each connection of
the client is one end of a socket pair whose other end is handed to the node. In `:memory:` the files are memory, too.

    thread of the program                     thread of the node
    Client -- BlockingConnection -- socketpair -- PairListener -- Acceptor -- Coordinator ...

The node ends when the client is closed, when the client is forgotten and collected, or when the program exits,
whichever comes first; each time in order, so that the next open finds the mark of a clean shutdown. A directory holds
SECRET, 32 random bytes that seal the contexts this store hands out; it is also how a directory is known as one of ours,
for a `leafdbd` has its secret elsewhere. docs/operations/embedded.md.
"""

from __future__ import annotations

import atexit
import errno
import os
import re
import socket
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from random import Random
from types import TracebackType
from typing import Final

import anyio
import trio

from leafdb.client.anyio_connection import Transport
from leafdb.client.anyio_driver import AnyioDriver
from leafdb.client.async_client import AsyncClient
from leafdb.client.blocking_driver import BlockingDriver
from leafdb.client.core import Core
from leafdb.client.options import Seconds
from leafdb.client.sync_client import Client
from leafdb.client.url import Address as ClientAddress
from leafdb.config import Address, AuthConfig, Config, ListenConfig, NodeConfig
from leafdb.errors import (
    ConfigError,
    CorruptionError,
    LeafdbError,
    OpenFailed,
    StorageError,
    StoreLocked,
    UnknownFormat,
)
from leafdb.limits import REQUEST_TIMEOUT_S_DEFAULT
from leafdb.node.admin_founding import cluster_init
from leafdb.node.endings import leaves
from leafdb.node.node import Node
from leafdb.node.real_world import Bugs, real_world, wall_ms
from leafdb.node.world import World
from leafdb.storage.executor import Callback, ThreadExecutor
from leafdb.storage.identity import IDENTITY_PATH
from leafdb.storage.job_runner import InlineJobRunner
from leafdb.transport.pairs import CLIENT_PORT, HOST, PairNetwork
from leafdb.vfs.base import FileSystem, read_file
from leafdb.vfs.memory import MemoryFileSystem

MEMORY: Final = ":memory:"
SECRET_PATH: Final = "SECRET"  # noqa: S105
SECRET_BYTES: Final = 32

Path = str | os.PathLike[str]


def open(path: Path, *, timeout: Seconds = REQUEST_TIMEOUT_S_DEFAULT) -> Client:
    """Open the store in the directory `path`, or make one; `":memory:"` keeps nothing. Raises OpenFailed.

    `timeout` is the default of each call. Close the client, or use it in a `with` block, to close the store.
    """
    node = EmbeddedNode(path)
    core = _core(timeout, time.monotonic)
    node.start()
    driver = EmbeddedDriver(core, node)
    node.live_with(driver)
    return Client(core, driver)


def open_async(path: Path, *, timeout: Seconds = REQUEST_TIMEOUT_S_DEFAULT) -> AsyncClient:
    """The same for trio and asyncio: `async with leafdb.open_async(path) as db`. Entering the block opens the store and
    may raise OpenFailed; leaving it closes the store."""
    node = EmbeddedNode(path)
    core = _core(timeout, anyio.current_time)
    driver = AsyncEmbeddedDriver(core, node)
    node.live_with(driver)
    return AsyncClient(core, driver)


def _core(timeout: Seconds, clock: Callable[[], float]) -> Core:
    address = ClientAddress(HOST, CLIENT_PORT)
    return Core((address,), zone=None, timeout=timeout, routing="listed", clock=clock, rng=Random())


class EmbeddedNode:
    """The node and its thread. Any thread may call; everything may be called twice."""

    def __init__(self, path: Path) -> None:
        self.path: str = os.fspath(path)
        if not isinstance(self.path, str) or not self.path:
            raise OpenFailed(f"{path!r} is no path", path=str(path), reason="unwritable: a path is a str and not empty")
        self._pid = os.getpid()
        self._thread: threading.Thread | None = None
        self._told = threading.Event()
        self._failure: BaseException | None = None
        self._network = PairNetwork()
        self._token: trio.lowlevel.TrioToken | None = None
        self._stop: trio.Event | None = None
        self._stopping = False

    # -- for the program's threads

    def start(self) -> None:
        """Start, and wait until requests are served. Raises OpenFailed."""
        assert self._thread is None
        self._thread = threading.Thread(target=self._main, name=f"leafdb {self.path}", daemon=True)
        atexit.register(self.stop)
        self._thread.start()
        try:
            self._told.wait()
        except BaseException:
            self.stop()
            raise
        if self._failure is not None:
            self._thread.join()
            reason = reason_of(self._failure)
            raise OpenFailed(
                f"{self.path} cannot be opened: {reason}", path=self.path, reason=reason
            ) from self._failure

    def live_with(self, owner: object) -> None:
        """Stop when `owner` is collected."""
        weakref.finalize(owner, self.begin_stop).atexit = False

    def connect(self) -> socket.socket:
        """The client's end of a new connection, blocking. OSError when the node has ended."""
        near, far = socket.socketpair()
        try:
            assert self._token is not None
            self._token.run_sync_soon(self._network.offer, far)
        except trio.RunFinishedError:
            near.close()
            far.close()
            text = "the store is closed" if self._failure is None else f"the store {reason_of(self._failure)}"
            raise OSError(errno.ECONNREFUSED, text) from None
        return near

    def begin_stop(self) -> None:
        """Ask the node to end. Waits for nothing: the garbage collector may call it, on any thread."""
        self._stopping = True
        token, stop = self._token, self._stop
        if os.getpid() == self._pid and token is not None and stop is not None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(stop.set)

    def stop(self) -> None:
        """End the node and wait until the store is closed. Nothing happens in the child of a fork."""
        thread = self._thread
        if os.getpid() != self._pid or thread is None:
            return
        self.begin_stop()
        if thread is not threading.current_thread():
            thread.join()

    # -- the node's thread

    def _main(self) -> None:
        try:
            trio.run(self._run)
        except BaseException as error:  # of any kind: whoever opens, or uses, the store is told
            self._failure = error
        finally:
            self._told.set()
            atexit.unregister(self.stop)

    async def _run(self) -> None:
        self._stop = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        if self._stopping:
            return
        made: AbstractAsyncContextManager[World] = memory_world() if self.path == MEMORY else real_world(self.path)
        async with made as world:
            node = Node(config_of(self.path), replace(world, network=self._network), secret_of(world.fs))
            ready = trio.Event()

            async def begin() -> None:
                await ready.wait()
                await _be_founded(node, self.path)
                self._told.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(begin)
                await node.run(drain=trio.Event(), stop=self._stop, on_ready=ready.set)
                nursery.cancel_scope.cancel()


@asynccontextmanager
async def memory_world() -> AsyncIterator[World]:
    """As `real_world`, on files that are gone afterwards."""
    token = trio.lowlevel.current_trio_token()
    bugs = Bugs()

    def to_loop(callback: Callback) -> None:
        token.run_sync_soon(bugs.guard, callback)

    fs = MemoryFileSystem()
    executor = ThreadExecutor(1, to_loop, name="leafdb-memory")
    jobs = InlineJobRunner(fs, to_loop)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bugs.raise_first)
            yield World(
                fs=fs,
                network=PairNetwork(),
                now=trio.lowlevel.current_clock().current_time,
                now_ms=wall_ms,
                rng=Random(int.from_bytes(os.urandom(16), "big")),
                random_bytes=os.urandom,
                log_executor=executor,
                read_executor=executor,
                jobs=jobs,
                boot_id=MEMORY,
                worker_pid=lambda: None,
                pid=os.getpid(),
            )
            nursery.cancel_scope.cancel()
    finally:
        jobs.close()
        executor.close()


async def _be_founded(node: Node, path: str) -> None:
    """A new store becomes a cluster of one."""
    if node.view.metadata is None:
        listen = node.config.listen
        member = {"name": HOST, "client": str(listen.client), "peer": str(listen.peer)}
        await cluster_init(node, {"name": cluster_name_of(path), "members": [member]})


def config_of(path: str) -> Config:
    """What an embedded node is told."""
    listen = ListenConfig(
        client=Address(HOST, CLIENT_PORT), peer=Address(HOST, CLIENT_PORT + 1), http=Address(HOST, CLIENT_PORT + 2)
    )
    return Config(node=NodeConfig(name=HOST, data_dir=path), listen=listen, auth=AuthConfig(mode="off"))


def cluster_name_of(path: str) -> str:
    """A cluster is called after the directory it is founded in."""
    name = re.sub(r"[^a-z0-9._-]+", "-", os.path.basename(os.path.abspath(path)).lower()).strip("._-")[:63]
    return "memory" if path == MEMORY else name.strip("._-") or HOST


def secret_of(fs: FileSystem) -> bytes:
    """What seals this store's contexts; made with the store. Raises OpenFailed where the store is not one of ours."""
    drafts = f"{SECRET_PATH}."
    names = [name for name in fs.list("") if not name.startswith(drafts)]
    if SECRET_PATH not in names:
        if IDENTITY_PATH in names:
            raise _Foreign("it is the data directory of a leafdbd: start that")
        if names:
            raise _Foreign(f"it holds files that are not leafdb's ({', '.join(names[:3])})")
        _write_secret(fs, drafts + os.urandom(8).hex())
    secret = read_file(fs, SECRET_PATH)
    if len(secret) != SECRET_BYTES:
        raise CorruptionError(f"{SECRET_PATH} has {len(secret)} bytes, not {SECRET_BYTES}", path=SECRET_PATH)
    return secret


def _write_secret(fs: FileSystem, draft: str) -> None:
    """Whoever links its draft first wins, for good: two processes may be opening at once, and none has the lock yet."""
    file = fs.create(draft)
    try:
        file.append(os.urandom(SECRET_BYTES))
        file.sync()
    finally:
        file.close()
    with suppress(FileExistsError):
        fs.link(draft, SECRET_PATH)
    fs.unlink(draft)
    fs.sync_dir("")


class _Foreign(LeafdbError):
    """The directory is not an embedded store."""


def reason_of(error: BaseException) -> str:
    """Why a store cannot be opened: a word and a sentence."""
    reasons = [_reason(leaf) for leaf in leaves(error)]
    return min(reasons, key=lambda reason: reason.startswith("failed"))


def _reason(error: BaseException) -> str:
    match error:
        case StoreLocked():
            return f"locked: {error}"
        case _Foreign():
            return f"foreign: {error}"
        case UnknownFormat():
            return f"newer: {error}"
        case CorruptionError():
            return f"damaged: {error}"
        case ConfigError():  # of its settings an embedded node has one that can be wrong: the directory
            return f"unwritable: {str(error).removeprefix('node.data_dir: ')}"
        case OSError(strerror=str(text), filename=str(name)):
            return f"unwritable: {name}: {text}"
        case StorageError() | OSError():
            return f"unwritable: {error}"
        case LeafdbError():
            return f"failed: {error}"
        case _:
            return f"failed: leafdb broke one of its own rules: {type(error).__name__}: {error}"


# -- the client's side


class EmbeddedDriver(BlockingDriver):
    """A client's driver that owns the node it speaks to."""

    def __init__(self, core: Core, node: EmbeddedNode) -> None:
        super().__init__(core, lambda address, timeout_s: node.connect())
        self._node = node

    def close(self) -> None:
        """Close the connections, then the store."""
        super().close()
        self._node.stop()


class AsyncEmbeddedDriver(AnyioDriver):
    """The same under trio or asyncio: what waits for the disk waits in a thread."""

    def __init__(self, core: Core, node: EmbeddedNode) -> None:
        async def dial(_: ClientAddress) -> Transport:
            return PairTransport(node.connect())

        super().__init__(core, dial)
        self._node = node

    async def open(self) -> None:
        """Enter the block: start the node."""
        await super().open()
        try:
            await anyio.to_thread.run_sync(self._node.start)
        except BaseException as error:
            await self.leave(type(error), error, error.__traceback__)
            raise

    async def close(self) -> None:
        """Close the connections, then the store."""
        await super().close()
        await self._end()

    async def leave(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the block: close the connections, then the store."""
        try:
            await super().leave(exc_type, exc, traceback)
        finally:
            await self._end()

    async def _end(self) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._node.stop)


class PairTransport:
    """The client's end of a socket pair under trio or asyncio."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self._socket = connected

    async def send(self, item: bytes, /) -> None:
        """Send all of it."""
        await anyio.lowlevel.checkpoint()
        rest = memoryview(item)
        while rest:
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                await anyio.wait_writable(self._socket)

    async def receive(self, max_bytes: int = 65_536, /) -> bytes:
        """Some bytes; b"" at the end."""
        await anyio.lowlevel.checkpoint()
        while True:
            try:
                return self._socket.recv(max_bytes)
            except BlockingIOError:
                await anyio.wait_readable(self._socket)

    async def aclose(self) -> None:
        """Close it; nobody waits for it any more."""
        self._socket.close()
