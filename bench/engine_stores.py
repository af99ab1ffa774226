"""leafdb's engine and the stores it is measured beside, all behind one protocol, each through its ordinary Python API.

No store syncs its log. What is given to one is given to all: a write buffer of a tenth of the data, a cache of the same
size, LZ4 or the like where the store compresses. Everything else stays at the store's defaults.

leafdb is driven as a node drives it, on one thread: threads for the log and for reads, a worker process for flushes and
compactions, `admit` before every write, the batch handed over after a burst. The log of LevelDB and RocksDB gets every
put on its own, lmdb and sqlite3 commit once in COMMIT_WRITES.
"""

from __future__ import annotations

import importlib.util
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, Protocol

from leafdb.limits import LEVEL0_COMPACT_TABLES, READER_THREADS, SCAN_PAGE_BYTES_MAX, SCAN_PAGE_ITEMS_MAX
from leafdb.storage import block
from leafdb.storage.engine import Engine
from leafdb.storage.executor import ThreadExecutor
from leafdb.storage.job_runner import ProcessJobRunner
from leafdb.storage.lsm_tree import Page
from leafdb.storage.memtable import ENTRY_OVERHEAD_BYTES
from leafdb.storage.settings import EngineConfig
from leafdb.types import Durability, TreeId
from leafdb.vfs.disk import DiskFileSystem

COMPILED: Final = "leafdb-compiled"
BURST_WRITES: Final = 32
COMMIT_WRITES: Final = 1_000
CACHE_BYTES: Final = 32 << 20
MAP_BYTES: Final = 4 << 30
TREE: Final = TreeId(256)


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a store may know of the data beforehand."""

    records: int
    key_bytes: int
    value_bytes: int

    @property
    def live_bytes(self) -> int:
        return self.records * (self.key_bytes + self.value_bytes)

    @property
    def buffer_bytes(self) -> int:
        """The write buffer: the data is ten times as large."""
        return self.live_bytes // 10


class Store(Protocol):
    """One open store. `put` and `get` are what is measured, so they may be the library's own methods."""

    @property
    def put(self) -> Callable[[bytes, bytes], object]: ...

    @property
    def get(self) -> Callable[[bytes], bytes | None]: ...

    def scan(self) -> Iterator[tuple[bytes, bytes]]:
        """Every record, in order of keys."""

    def flush(self) -> None:
        """Hand on what was gathered: the end of a burst, or of a transaction."""

    def busy(self) -> bool:
        """Whether the store knows of work it still owes; None of the others can tell, and answer False."""

    def wait(self, seconds: float) -> None:
        """Let what runs beside go on for so long."""

    def worker_pid(self) -> int | None:
        """The process that works for the store beside this one."""

    def close(self) -> None: ...


class Quiet:
    """A store without a loop and without a process of its own."""

    def flush(self) -> None:
        pass

    def busy(self) -> bool:
        return False

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def worker_pid(self) -> int | None:
        return None


class LeafdbStore:
    """The engine under a loop that is a queue."""

    def __init__(
        self, path: Path, sizes: Sizes, burst_writes: int = BURST_WRITES, config: EngineConfig | None = None
    ) -> None:
        self._queue: SimpleQueue[Callable[[], object]] = SimpleQueue()
        to_loop = self._queue.put
        self._log = ThreadExecutor(1, to_loop, name="log")
        self._readers = ThreadExecutor(READER_THREADS, to_loop, name="reader")
        self._jobs = ProcessJobRunner(str(path), to_loop)
        self._jobs.start()
        self._burst_writes = burst_writes
        self._left = burst_writes
        self._engine = Engine.open(
            DiskFileSystem(path),
            config=config
            or EngineConfig(
                memtable_bytes=(sizes.live_bytes + sizes.records * ENTRY_OVERHEAD_BYTES) // 10,
                block_cache_bytes=CACHE_BYTES,
                auto_commit=False,
            ),
            log_executor=self._log,
            read_executor=self._readers,
            jobs=self._jobs,
            now_s=time.monotonic,
            on_failure=_raise,
        )
        self._engine.create_tree(TREE)
        self._get_now = self._engine.get_now
        self._write = self._engine.write
        self._admit = self._engine.admit

    def put(self, key: bytes, value: bytes | None) -> None:
        """A value of None deletes."""
        while wait_s := self._admit():
            self.flush()
            self.wait(wait_s)
        self._write(((TREE, key, value),), Durability.PERIODIC)
        self._left -= 1
        if not self._left:
            self.flush()

    def get(self, key: bytes) -> bytes | None:
        slot = self._get_now(TREE, key)
        return self._get_soon(key) if slot is None else slot[0]

    def _get_soon(self, key: bytes) -> bytes | None:
        found: list[Any] = []
        self._engine.get_soon(TREE, key, found.append)
        while not found:
            self._queue.get()()
        value: bytes | None = found[0][0]
        return value

    def scan(self) -> Iterator[tuple[bytes, bytes]]:
        start: bytes | None = b""
        while start is not None:
            pages: list[Any] = []
            self._engine.scan_soon(
                TREE, start, None, limit=SCAN_PAGE_ITEMS_MAX, bytes_max=SCAN_PAGE_BYTES_MAX, done=pages.append
            )
            while not pages:
                self._queue.get()()
            page = pages[0]
            assert isinstance(page, Page), page
            yield from page.items
            start = page.next_key

    def flush(self) -> None:
        self._left = self._burst_writes
        self._engine.flush_batch()
        while not self._queue.empty():
            self._queue.get()()
        self._engine.on_time(time.monotonic())

    def busy(self) -> bool:
        stats = self._engine.stats()
        return stats.frozen_memtables > 0 or stats.level0_tables >= LEVEL0_COMPACT_TABLES

    def wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0:
            try:
                self._queue.get(timeout=left_s)()
            except Empty:
                return

    def worker_pid(self) -> int | None:
        return self._jobs.pid

    def close(self) -> None:
        self._engine.close()
        self._jobs.close()
        self._log.close()
        self._readers.close()


class LeafdbSingles(LeafdbStore):
    """The same with every write handed to the log on its own, as LevelDB and RocksDB do it."""

    def __init__(self, path: Path, sizes: Sizes) -> None:
        super().__init__(path, sizes, burst_writes=1)


class CompiledStore(LeafdbStore):
    """leafdb as `LEAFDB_COMPILE=1 pip install .` makes it."""

    def __init__(self, path: Path, sizes: Sizes) -> None:
        assert str(block.__file__).endswith(".so"), f"{block.__file__} is not compiled"
        super().__init__(path, sizes)


class PlyvelStore(Quiet):
    """LevelDB."""

    def __init__(self, path: Path, sizes: Sizes) -> None:
        plyvel = importlib.import_module("plyvel")
        self._db = plyvel.DB(
            os.fspath(path),
            create_if_missing=True,
            write_buffer_size=sizes.buffer_bytes,
            lru_cache_size=CACHE_BYTES,
            bloom_filter_bits=10,
        )
        self.put, self.get = self._db.put, self._db.get

    def scan(self) -> Iterator[tuple[bytes, bytes]]:
        yield from self._db.iterator()

    def close(self) -> None:
        self._db.close()


class RocksdictStore(Quiet):
    """RocksDB, in its raw mode: bytes in, bytes out."""

    def __init__(self, path: Path, sizes: Sizes) -> None:
        rocksdict = importlib.import_module("rocksdict")
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(sizes.buffer_bytes)
        options.set_compression_type(rocksdict.DBCompressionType.lz4())
        blocks = rocksdict.BlockBasedOptions()
        blocks.set_block_cache(rocksdict.Cache(CACHE_BYTES))
        blocks.set_bloom_filter(10, False)
        options.set_block_based_table_factory(blocks)
        self._db = rocksdict.Rdict(os.fspath(path), options)
        self.put, self.get = self._db.put, self._db.get

    def scan(self) -> Iterator[tuple[bytes, bytes]]:
        yield from self._db.items()

    def close(self) -> None:
        self._db.close()


class LmdbStore(Quiet):
    """lmdb: a transaction for COMMIT_WRITES puts, a transaction for all reads between."""

    def __init__(self, path: Path, sizes: Sizes) -> None:
        lmdb = importlib.import_module("lmdb")
        self._env = lmdb.open(os.fspath(path), map_size=MAP_BYTES, sync=False, metasync=False)
        self._left = 0
        self._begin(write=False)

    def _begin(self, *, write: bool) -> None:
        self._writing = write
        self._transaction = self._env.begin(write=write)

    def put(self, key: bytes, value: bytes) -> None:
        if not self._left:
            self.flush()
            self._transaction.abort()
            self._begin(write=True)
            self._left = COMMIT_WRITES
        self._left -= 1
        self._transaction.put(key, value)

    def get(self, key: bytes) -> bytes | None:
        value: bytes | None = self._transaction.get(key)
        return value

    def scan(self) -> Iterator[tuple[bytes, bytes]]:
        yield from self._transaction.cursor()

    def flush(self) -> None:
        self._left = 0
        if self._writing:
            self._transaction.commit()
            self._begin(write=False)

    def close(self) -> None:
        self.flush()
        self._transaction.abort()
        self._env.close()


class SqliteStore(Quiet):
    """sqlite3: one table by key, write-ahead log, a transaction for COMMIT_WRITES puts."""

    def __init__(self, path: Path, sizes: Sizes) -> None:
        path.mkdir(exist_ok=True)
        self._connection = sqlite3.connect(path / "data.sqlite3", isolation_level=None)
        for pragma in ("journal_mode=WAL", "synchronous=OFF", f"cache_size={-CACHE_BYTES // 1024}"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.execute("CREATE TABLE IF NOT EXISTS records (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")
        self._execute = self._connection.execute
        self._left = 0

    def put(self, key: bytes, value: bytes) -> None:
        if not self._left:
            self.flush()
            self._execute("BEGIN")
            self._left = COMMIT_WRITES
        self._left -= 1
        self._execute("INSERT OR REPLACE INTO records VALUES (?, ?)", (key, value))

    def get(self, key: bytes) -> bytes | None:
        row = self._execute("SELECT value FROM records WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def scan(self) -> Iterator[tuple[bytes, bytes]]:
        yield from self._execute("SELECT key, value FROM records ORDER BY key")

    def flush(self) -> None:
        self._left = 0
        if self._connection.in_transaction:
            self._execute("COMMIT")

    def close(self) -> None:
        self.flush()
        self._connection.close()


@dataclass(frozen=True, slots=True)
class Kind:
    """A store that can be measured, and the package it needs."""

    open: Callable[[Path, Sizes], Store]
    package: str | None = None

    def installed(self) -> bool:
        return self.package is None or importlib.util.find_spec(self.package) is not None


KINDS: Final = {
    "leafdb": Kind(LeafdbStore),
    COMPILED: Kind(CompiledStore),
    "leafdb-singly": Kind(LeafdbSingles),
    "plyvel": Kind(PlyvelStore, "plyvel"),
    "rocksdict": Kind(RocksdictStore, "rocksdict"),
    "lmdb": Kind(LmdbStore, "lmdb"),
    "sqlite3": Kind(SqliteStore),
}


def _raise(error: Exception) -> None:
    raise error
