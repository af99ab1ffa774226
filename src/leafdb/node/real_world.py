"""The world a node runs in for real: the disk, sockets, threads, a worker process, the machine's clocks and entropy.

This is the one file of node/ that may touch them.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Final

import trio

from leafdb.errors import ConfigError
from leafdb.limits import DESCRIPTORS_FOR_FILES, READER_THREADS
from leafdb.node.machine import machine_facts
from leafdb.node.world import World
from leafdb.storage.executor import Callback, Resting, ThreadExecutor
from leafdb.storage.job_runner import ProcessJobRunner
from leafdb.transport.stream import SocketNetwork
from leafdb.vfs.disk import DiskFileSystem

BOOT_ID_PATH: Final = Path("/proc/sys/kernel/random/boot_id")


def wall_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


def boot_id() -> str:
    """A name of this boot of the machine. Where the system has none every start counts as another boot: a store that
    was not shut down cleanly then takes it that its page cache is gone, which is the safe mistake."""
    try:
        return BOOT_ID_PATH.read_text().strip()
    except OSError:
        return os.urandom(16).hex()


def disk_bytes(path: str) -> int:
    """The size of the file system that a directory lies on; 0 when it cannot be asked."""
    try:
        found = os.statvfs(path)
    except OSError:
        return 0
    return found.f_frsize * found.f_blocks


def descriptors_for_connections() -> int:
    """How many of the descriptors this process may have are for connections: the rest is for the engine's files, which
    must not fail because somebody connects too often."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(soft - DESCRIPTORS_FOR_FILES, soft // 2)


class Bugs:
    """Callbacks from threads run between trio's tasks, where an exception would be trio's end. It is kept, and raised
    by a task of the node's, which stops the node in good order: it has no right to go on."""

    def __init__(self) -> None:
        self._first: Exception | None = None
        self._met = trio.Event()

    def guard(self, callback: Callback) -> None:
        """Run a callback; keep what it raises."""
        try:
            callback()
        except Exception as error:
            self._first = self._first or error
            self._met.set()

    async def raise_first(self) -> None:
        """Wait for the first exception and raise it."""
        await self._met.wait()
        assert self._first is not None
        raise self._first


@contextlib.asynccontextmanager
async def real_world(data_dir: str) -> AsyncIterator[World]:
    """Threads and worker for one node on `data_dir`; they end with the context. ConfigError when it cannot be used."""
    token = trio.lowlevel.current_trio_token()
    bugs = Bugs()

    def to_loop(callback: Callback) -> None:
        token.run_sync_soon(bugs.guard, callback)

    try:
        fs = DiskFileSystem(data_dir, pause=time.sleep)
    except OSError as error:
        raise ConfigError(f"node.data_dir: {data_dir} cannot be used: {error.strerror}") from None
    log_executor = ThreadExecutor(1, to_loop, name="wal")
    resting = Resting(time.sleep, time.thread_time)
    read_executor = ThreadExecutor(READER_THREADS, to_loop, name="reader", resting=resting)
    jobs = ProcessJobRunner(fs.root, to_loop)
    jobs.start()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bugs.raise_first)
            yield World(
                fs=fs,
                network=SocketNetwork(descriptors_for_connections()),
                now=trio.lowlevel.current_clock().current_time,
                now_ms=wall_ms,
                rng=random.Random(int.from_bytes(os.urandom(16), "big")),
                random_bytes=os.urandom,
                log_executor=log_executor,
                read_executor=read_executor,
                jobs=jobs,
                boot_id=boot_id(),
                worker_pid=lambda: jobs.pid,
                pid=os.getpid(),
                disk_bytes=partial(disk_bytes, fs.root),
                machine=machine_facts,
            )
            nursery.cancel_scope.cancel()
    finally:
        jobs.close()
        log_executor.close()
        read_executor.close()
