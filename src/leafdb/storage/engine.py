"""The storage engine: ordered trees of bytes, durable, one log for all of them. It knows no rings, clocks or records.

Everything here runs on the loop and never waits: what may wait for the disk goes through the executors and the job
runner, and comes back as a callback. A write is in memory, and read by everyone, as soon as `write` returns; its
sequence number says what must be committed (`when_safe`) before anything that saw it may leave the node.

The first I/O error on the log, the manifest or a flush is final (`on_failure`): from then on every call raises
StoreFailed and everyone who waited gets it. What is on disk then is for the next open to judge.

The parts: `memtable` and `wal` hold a generation of writes, `committer` makes it durable, `maintenance` turns it into
tables, `tables` publishes those, `lsm_tree` and `reads` read it all, `pressure` slows writers, `recovery` opens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from leafdb.errors import StorageError, StoreFailed
from leafdb.storage.committer import Committer, Waiter
from leafdb.storage.executor import Callback, Executor
from leafdb.storage.identity import Identity, write_identity
from leafdb.storage.job_runner import JobRunner
from leafdb.storage.lsm_tree import Scan, find_frozen, find_now
from leafdb.storage.maintenance import Maintenance
from leafdb.storage.memtable import ENTRY_OVERHEAD_BYTES, Memtable, Slot
from leafdb.storage.pressure import Pressure
from leafdb.storage.reads import GetDone, Reads, ScanDone
from leafdb.storage.recovery import Recovered, RecoveryReport, leave_clean_mark, recover
from leafdb.storage.settings import EngineConfig
from leafdb.storage.stats import EngineStats, collect
from leafdb.storage.tables import Tables
from leafdb.storage.timing import Timing
from leafdb.storage.version import VersionEdit
from leafdb.storage.wal_format import WalEntry
from leafdb.types import Durability, TreeId
from leafdb.vfs.base import FileSystem


class Engine:
    """See the module. Made by `open`."""

    def __init__(
        self,
        parts: Recovered,
        log_executor: Executor,
        read_executor: Executor,
        jobs: JobRunner,
        *,
        now_s: Callable[[], float],
        on_failure: Callable[[StorageError], None],
    ) -> None:
        assert parts.writer is not None
        assert parts.report is not None
        config = parts.config
        self.config = config
        self.recovery: RecoveryReport = parts.report
        self._parts = parts
        self.identity: Identity = parts.identity
        self._now_s = now_s
        self._on_failure = on_failure
        self._failure: StoreFailed | None = None  # what every call raises: the store failed, or is closed
        self._broken = False
        self._closed = False
        self._segment = parts.segment
        self._log_executor = log_executor
        self._pressure = Pressure(config)
        self._committer = Committer(
            log_executor,
            parts.writer,
            next_lsn=parts.next_lsn,
            batch_bytes_max=config.wal_batch_bytes_max,
            auto_commit=config.auto_commit,
            lost_before=lambda: parts.manifest.lost,
            on_sealed=lambda lsn: self._maintenance.sealed(lsn),
            on_failure=self._fail,
        )
        self._tables = Tables(
            parts.fs,
            parts.version,
            parts.readers,
            cache=parts.cache,
            manifest=parts.manifest,
            log_executor=log_executor,
            read_executor=read_executor,
            next_number=parts.next_number,
            number_lease=config.file_number_lease,
            on_failure=self._part_failed,
            on_published=self._changed,
        )
        self._maintenance = Maintenance(
            self._tables,
            jobs,
            frozen=reversed(parts.frozen),
            sealed_lsn=parts.next_lsn - 1,
            limits=config.compaction,
            now_s=now_s,
            on_failure=self._part_failed,
            on_change=self._changed,
        )
        self._reads = Reads(
            read_executor, self._tables, queued_max=config.reads_queued_max, jobs_max=config.reader_jobs_max
        )
        self._timing = Timing(parts.fs, config, self._committer, self._pressure, self._maintenance)
        self._memtable = Memtable(parts.version.trees, segments=[self._segment], first_lsn=parts.next_lsn)
        self._trees = self._memtable.trees
        self._changed()
        self.on_time(now_s())
        self._maintenance.pump()

    @classmethod
    def open(
        cls,
        fs: FileSystem,
        *,
        config: EngineConfig,
        log_executor: Executor,
        read_executor: Executor,
        jobs: JobRunner,
        now_s: Callable[[], float],
        on_failure: Callable[[StorageError], None],
    ) -> Engine:
        """Lock and recover the store in `fs`, or make one. `log_executor` must keep order: one thread.

        Raises StoreLocked, CorruptionError, UnknownFormat, DiskFull or StoreFailed.
        """
        parts = recover(fs, config)
        return cls(parts, log_executor, read_executor, jobs, now_s=now_s, on_failure=on_failure)

    # -- who this store is

    def stamp(self, *, cluster_id: bytes, node_id: int, incarnation: int) -> None:
        """Write who this store belongs to, durably, before returning: for founding and joining. Waits for the disk."""
        self._usable()
        identity = replace(self.identity, cluster_id=cluster_id, node_id=node_id, incarnation=incarnation)
        try:
            write_identity(self._parts.fs, identity)
        except OSError as error:
            self._part_failed(error, "the stamp cannot be written")
            self._usable()
        self.identity = identity

    # -- trees

    def trees(self) -> list[TreeId]:
        return sorted(self._trees)

    def create_tree(self, tree_id: TreeId, done: Callback | None = None) -> None:
        """Make a tree, usable at once and durable before any write to it is; no-op when it is there.

        `done` is called when it is durable. A number that was dropped is taken again only when nothing written under
        it is left in the log.
        """
        self._usable()
        if tree_id in self._trees:
            self._later(done)
            return
        if self._parts.dropped.get(tree_id, 0) > self._tables.version.flushed_lsn:
            raise StorageError(f"tree {tree_id} was dropped and its records are not yet out of the log")
        self._tables.submit(VersionEdit(created_trees=(tree_id,)), self._committer.precede(done))
        self._memtable.add(tree_id)

    def drop_tree(self, tree_id: TreeId, done: Callback | None = None) -> None:
        """Forget a tree and all in it, at once; its files go with the manifest. No-op when it is not there."""
        self._usable()
        if tree_id not in self._trees:
            self._later(done)
            return
        self._memtable.drop(tree_id)
        for memtable in self._maintenance.frozen:
            memtable.drop(tree_id)
        self._parts.dropped[tree_id] = self._committer.next_lsn - 1
        self._tables.submit(VersionEdit(dropped_trees=(tree_id,)), done)

    # -- reading

    def get_now(self, tree_id: TreeId, key: bytes) -> Slot | None:
        """(value or None, sequence) if that takes no waiting for the disk, else None. Sequence 0: long committed."""
        if self._failure is not None:
            raise self._failure_now()
        try:
            slot = self._trees[tree_id].entries.get(key)
        except KeyError:
            raise no_such_tree(tree_id) from None
        if slot is not None:
            return slot
        maintenance = self._maintenance
        if maintenance.frozen:
            slot = find_frozen(maintenance.frozen, tree_id, key)
            if slot is not None:
                return slot
        tables = self._tables
        return find_now(tables.version, tables.readers, tree_id, key)

    def get_soon(self, tree_id: TreeId, key: bytes, done: GetDone) -> None:
        """As `get_now`, waiting for the disk; `done` comes later, with the state of now. Raises ReadsOverloaded."""
        slot = self.get_now(tree_id, key)
        if slot is not None:
            self._reads.answer_soon(slot, done)
        else:
            self._reads.get(tree_id, key, done)

    def scan_soon(
        self,
        tree_id: TreeId,
        start: bytes,
        stop: bytes | None,
        *,
        limit: int,
        bytes_max: int,
        reverse: bool = False,
        done: ScanDone,
    ) -> None:
        """One page of start <= key < stop as of now; `done` comes later. Raises ReadsOverloaded.

        The page ends after `limit` items, or the item that reaches `bytes_max`, or earlier; `next_key` says where to
        go on. It may be shown once its `sequence` is safe.
        """
        self._usable()
        if tree_id not in self._trees:
            raise no_such_tree(tree_id)
        memtables = (self._memtable, *self._maintenance.frozen)
        scan = Scan(memtables, tree_id, start, stop, limit=limit, bytes_max=bytes_max, reverse=reverse)
        self._reads.scan(scan, done)

    # -- writing

    def admit(self) -> float:
        """0.0: go on and write. Else refuse, and say to come back after so many seconds. DiskFull: no room.

        Writes that must happen whatever the state (leases, promises) need not ask.
        """
        if self._failure is not None:
            raise self._failure_now()
        pressure = self._pressure
        return 0.0 if pressure.calm else pressure.admit(self._now_s())

    def write(
        self, writes: Sequence[WalEntry], durability: Durability = Durability.ALWAYS, done: Waiter | None = None
    ) -> int:
        """Apply all of `writes` or, after a crash, none; in memory at once. `done(error | None)` when it is durable.

        A value of None deletes. Answers the sequence number.
        """
        if self._failure is not None:
            raise self._failure_now()
        trees, memtable = self._trees, self._memtable
        for tree_id, _, _ in writes:
            if tree_id not in trees:
                raise no_such_tree(tree_id)
        lsn = self._committer.append(writes, durability, done)
        grown = 0
        for tree_id, key, value in writes:  # Memtable.put, inlined
            entries = trees[tree_id].entries
            old = entries.get(key)
            entries[key] = (value, lsn)
            if old is None:
                grown += len(key) + ENTRY_OVERHEAD_BYTES
            elif old[0] is not None:
                grown -= len(old[0])
            if value is not None:
                grown += len(value)
        memtable.bytes_used += grown
        config = self.config
        if memtable.bytes_used >= config.memtable_bytes or self._committer.segment_bytes >= config.wal_segment_bytes:
            self._freeze()
        return lsn

    def flush_batch(self) -> None:
        """Hand what was written to the log thread, if it is idle. For the end of a burst of requests."""
        self._committer.flush_batch()

    def safe_sequence(self, durability: Durability) -> int:
        """Up to here writes are written (PERIODIC) or synced (ALWAYS)."""
        return self._committer.safe_lsn(durability)

    def when_safe(self, sequence: int, durability: Durability, done: Waiter) -> None:
        """`done(error | None)` once the commit has passed `sequence`; at once, inside the call, if it has."""
        self._committer.when_safe(sequence, durability, done)

    def flush_soon(self, done: Callback | None = None) -> None:
        """Bring everything written so far into tables; `done` when it is."""
        self._usable()
        if self._committer.next_lsn > self._memtable.first_lsn:
            self._freeze()
        if done is not None and self._maintenance.frozen:
            self._maintenance.when_flushed(self._maintenance.frozen[0].last_lsn, done)
        else:
            self._later(done)

    # -- time

    def on_time(self, now_s: float) -> None:
        """Do what is due: the periodic sync, the look at the disk's room, jobs to be given again."""
        if self._failure is None:
            try:
                self._timing.on_time(now_s)
            except OSError as error:
                self._part_failed(error, "the disk's room cannot be known")
                return
            self._changed()

    def deadline(self) -> float:
        """When `on_time` is wanted next; calling it earlier, or every few milliseconds, does no harm."""
        return self._timing.deadline(self._now_s())

    # -- the end

    def close(self) -> None:
        """Sync everything, answer everyone who waits, leave the clean mark, unlock. Waits for the disk. Idempotent.

        The executors stay open and the job runner, which may still run a job, is its owner's to close.
        """
        self._end(StoreFailed("the store is closed"), clean=not self._broken)

    def abandon(self) -> None:
        """End as a killed process would, without the clean mark: for an owner that has met a bug of its own and may not
        vouch for what it wrote last. Idempotent."""
        self._end(StoreFailed("the store was abandoned"), clean=False)

    def _end(self, failure: StoreFailed, *, clean: bool) -> None:
        if self._closed:
            return
        self._closed = True
        self._maintenance.stop()
        self._failure = self._failure or failure  # callbacks from here on find it so
        if clean:
            self._committer.finish()
        else:
            self._log_executor.drain()
        self._reads.fail(self._failure)
        self._reads.drain()
        self._committer.fail(self._failure)
        if clean and not self._broken:
            try:
                leave_clean_mark(self._parts, self._committer.next_lsn - 1, self.identity.boot)
            except OSError as error:
                self._part_failed(error, "the store cannot be closed cleanly")
        self._tables.close()
        self._parts.lock.release()

    def stats(self) -> EngineStats:
        return collect(
            self._committer,
            self._memtable,
            self._maintenance,
            self._tables,
            self._reads,
            self._pressure,
            block_cache_bytes=self._parts.cache.bytes_used,
        )

    def check(self) -> None:
        """Everything that must hold between and inside the parts; costly."""
        self._committer.check()
        self._tables.check()
        self._maintenance.check()
        self._memtable.check()
        assert set(self._trees) == set(self._tables.head.trees)
        lsn = self._tables.version.flushed_lsn
        for memtable in (*reversed(self._maintenance.frozen), self._memtable):
            assert memtable.first_lsn == lsn + 1, f"a generation begins at {memtable.first_lsn} after {lsn}"
            lsn = memtable.last_lsn

    # -- inside

    def _freeze(self) -> None:
        """End the generation: seal its segment, begin another; the flush follows when the seal is durable."""
        memtable = self._memtable
        memtable.last_lsn = self._committer.next_lsn - 1
        self._segment += 1
        self._memtable = Memtable(self._trees, segments=[self._segment], first_lsn=self._committer.next_lsn)
        self._trees = self._memtable.trees
        self._maintenance.freeze(memtable)
        self._committer.seal(self._segment)
        self._changed()

    def _later(self, done: Callback | None) -> None:
        """Call after what the log has been given so far; never inside this call."""
        if done is not None:
            callback = done
            self._log_executor.submit(lambda: None, lambda _: callback())

    def _changed(self) -> None:
        """Judge the pressure anew: something it looks at may have changed."""
        self._pressure.update(
            frozen_memtables=len(self._maintenance.frozen),
            level0_tables=self._tables.level0_most,
            backlog_bytes=self._committer.backlog_bytes,
        )

    def _part_failed(self, error: BaseException, what: str) -> None:
        path = str(getattr(error, "filename", None) or getattr(error, "path", ""))
        failure = StoreFailed(f"{what}: {error}", path=path)
        failure.__cause__ = error
        self._fail(failure)

    def _fail(self, failure: StoreFailed) -> None:
        """The end of service. Idempotent; the first failure is the one reported."""
        if self._broken:
            return
        self._broken = True
        self._failure = self._failure or failure
        self._maintenance.stop()
        self._reads.fail(failure)
        self._committer.fail(failure)
        self._on_failure(failure)

    def _failure_now(self) -> StoreFailed:
        """A fresh error each time: one shared instance would collect tracebacks for ever."""
        assert self._failure is not None
        return StoreFailed(self._failure.message, path=self._failure.path)

    def _usable(self) -> None:
        if self._failure is not None:
            raise self._failure_now()


def no_such_tree(tree_id: TreeId) -> StorageError:
    return StorageError(f"there is no tree {tree_id}")
