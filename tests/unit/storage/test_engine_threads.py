"""The same engine on real files, threads and a worker process, under a loop of its own."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from random import Random
from shutil import copytree

import pytest

from leafdb.errors import StorageError, StoreLocked
from leafdb.storage.engine import Engine
from leafdb.storage.executor import ThreadExecutor
from leafdb.storage.job_runner import ProcessJobRunner
from leafdb.storage.lsm_tree import Page
from leafdb.storage.settings import EngineConfig
from leafdb.storage.snapshot_files import Snapshot
from leafdb.types import Durability, TreeId
from leafdb.vfs.disk import DiskFile, DiskFileSystem

TREE = TreeId(300)
CONFIG = EngineConfig(value_inline_bytes_max=80, memtable_bytes=200_000)


class Loop:
    """Runs callbacks on the test's thread, as the event loop would."""

    def __init__(self) -> None:
        self.queue: SimpleQueue[Callable[[], object]] = SimpleQueue()

    def run_until(self, condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
        while not condition():
            try:
                self.queue.get(timeout=timeout_s)()
            except Empty:
                pytest.fail("nothing happened")


class RealStore:
    def __init__(self, root: Path, config: EngineConfig = CONFIG, fs: DiskFileSystem | None = None) -> None:
        self.loop = Loop()
        self.log = ThreadExecutor(1, self.loop.queue.put, name="log")
        self.readers = ThreadExecutor(2, self.loop.queue.put, name="read")
        self.jobs = ProcessJobRunner(str(root), self.loop.queue.put)
        self.failures: list[StorageError] = []
        self.threads: set[str] = set()
        try:
            self.engine = Engine.open(
                fs or DiskFileSystem(root),
                config=config,
                log_executor=self.log,
                read_executor=self.readers,
                jobs=self.jobs,
                now_s=lambda: 0.0,
                on_failure=self.failures.append,
            )
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        self.jobs.close()
        self.log.close()
        self.readers.close()

    def close(self) -> None:
        self.engine.close()
        self.stop()


class SlowSyncs(DiskFile):
    """A file whose syncs begin when they are let."""

    begun: threading.Event
    let: threading.Event

    def sync(self) -> None:
        self.begun.set()
        assert self.let.wait(30.0)
        super().sync()


class SlowLogDisk(DiskFileSystem):
    """A file system that can hold up the syncs of the log."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.begun, self.let = threading.Event(), threading.Event()
        self.let.set()

    def create(self, path: str) -> DiskFile:
        file = super().create(path)
        if not path.startswith("wal/"):
            return file
        file.close()
        slow = SlowSyncs(path, os.open(os.path.join(self.root, path), os.O_RDWR))
        slow.begun, slow.let = self.begun, self.let
        return slow


def test_periodic_writes_are_acknowledged_while_a_sync_hangs_and_are_not_taken_for_synced(tmp_path: Path) -> None:
    fs = SlowLogDisk(tmp_path)
    store = RealStore(tmp_path, fs=fs)
    engine = store.engine
    told: list[str] = []
    engine.create_tree(TREE, lambda: told.append("made"))

    def put(name: str) -> None:
        engine.write([(TREE, name.encode(), b"v")], Durability.PERIODIC, lambda error: told.append(name))
        engine.flush_batch()

    store.loop.run_until(lambda: "made" in told)
    put("before")
    fs.begun.clear()
    fs.let.clear()
    asked = engine.last_sequence
    engine.when_safe(asked, Durability.ALWAYS, lambda error: told.append("synced"))
    engine.flush_batch()
    assert fs.begun.wait(30.0)
    for name in ("during", "too"):
        put(name)
    assert told == ["made", "before", "during", "too"]
    assert engine.safe_sequence(Durability.ALWAYS) < asked
    fs.let.set()
    store.loop.run_until(lambda: "synced" in told)
    assert engine.safe_sequence(Durability.ALWAYS) == asked, "the sync does not speak for what came during it"
    engine.check()
    store.close()
    again = RealStore(tmp_path)
    found = [again.engine.get_now(TREE, name.encode()) for name in ("before", "during", "too")]
    assert [slot and slot[0] for slot in found] == [b"v"] * 3
    again.close()


def test_a_store_on_disk_with_threads_and_a_worker(tmp_path: Path) -> None:
    root = tmp_path / "store"
    store = RealStore(root)
    store.engine.create_tree(TREE)
    with pytest.raises(StoreLocked, match="is held by process"):
        RealStore(root)
    rng = Random(4)
    model: dict[bytes, bytes | None] = {}
    told: list[int] = []

    def done(error: StorageError | None) -> None:
        assert error is None
        store.threads.add(threading.current_thread().name)
        told.append(1)

    writes = 3000
    for number in range(writes):
        key = b"%04d" % rng.randrange(1200)
        value = None if rng.random() < 0.1 else rng.randbytes(rng.choice((60, 100)))
        model[key] = value
        store.engine.write([(TREE, key, value)], rng.choice(list(Durability)), done)
        if number % 40 == 0:
            store.engine.flush_batch()
    store.loop.run_until(lambda: len(told) == writes)
    assert store.threads == {threading.main_thread().name}
    assert store.engine.stats().commits < writes / 4
    store.loop.run_until(lambda: store.engine.stats().flushes >= 2)

    found: dict[bytes, bytes | None] = {}

    def keep(key: bytes) -> Callable[[tuple[bytes | None, int] | StorageError], None]:
        def answered(answer: tuple[bytes | None, int] | StorageError) -> None:
            assert not isinstance(answer, StorageError)
            found[key] = answer[0]

        return answered

    for key in model:
        store.engine.get_soon(TREE, key, keep(key))
    store.loop.run_until(lambda: len(found) == len(model))
    assert found == model
    pages: list[Page | StorageError] = []
    store.engine.scan_soon(TREE, b"", None, limit=5000, bytes_max=1 << 22, done=pages.append)
    store.loop.run_until(lambda: bool(pages))
    (page,) = pages
    assert isinstance(page, Page)
    alive = {key: value for key, value in model.items() if value is not None}
    assert dict(page.items) == alive
    store.engine.check()
    last: list[StorageError | None] = []
    store.engine.write([(TREE, b"last", b"words")], Durability.PERIODIC, last.append)
    store.close()
    assert last == [None]
    assert not store.failures

    again = RealStore(root)
    assert again.engine.recovery.clean
    assert again.engine.recovery.boot == 2
    assert again.engine.get_now(TREE, b"last") == (b"words", writes + 1)
    flushed: list[bool] = []
    again.engine.flush_soon(lambda: flushed.append(True))
    again.loop.run_until(lambda: bool(flushed))
    for key in sorted(model)[:50]:
        slot = again.engine.get_now(TREE, key)
        assert slot is None or slot == (model[key], 0)
    again.close()
    names = {"CLEAN", "CURRENT", "IDENTITY", "LOCK", "MANIFEST-0000000002", "snapshots", "tables", "values", "wal"}
    assert {path.name for path in root.iterdir()} == names


def test_a_directory_that_cannot_be_written_is_a_typed_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    with pytest.raises(OSError) as caught:
        DiskFileSystem(blocked / "store")
    assert caught.value.errno == errno.ENOTDIR


def test_a_snapshot_on_disk_links_what_the_store_has(tmp_path: Path) -> None:
    store = RealStore(tmp_path / "store")
    store.engine.create_tree(TREE)
    for number in range(300):
        store.engine.write([(TREE, b"%04d" % number, b"x" * 100)])
    answers: list[Snapshot | StorageError] = []
    store.engine.snapshot_soon("s", answers.append)
    store.loop.run_until(lambda: bool(answers))
    (snapshot,) = answers
    assert isinstance(snapshot, Snapshot)
    there = tmp_path / "store" / "snapshots" / "s"
    for path, size in snapshot.files.items():
        found = (there / path).stat()
        assert (found.st_nlink, found.st_size) == (2, size)
        assert found.st_ino == (tmp_path / "store" / path).stat().st_ino
    copytree(there, tmp_path / "copy")
    dropped: list[StorageError | None] = []
    store.engine.drop_snapshot_soon("s", dropped.append)
    store.loop.run_until(lambda: bool(dropped))
    assert dropped == [None]
    assert not there.exists()
    store.close()
    copy = RealStore(tmp_path / "copy", replace(CONFIG, snapshot=True))
    read: list[object] = []
    copy.engine.get_soon(TREE, b"0299", read.append)
    copy.loop.run_until(lambda: bool(read))
    assert read == [(b"x" * 100, 0)]
    assert copy.engine.last_sequence == 300
    copy.close()
