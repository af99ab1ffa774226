"""The life of an engine: how its parts are put together, what drives them, how service fails, how it ends.

What callers ask of a store is in `engine`; here is what is true of every call. The first I/O error on the log, the
manifest or a flush is final: everyone who waits gets it, and every later call raises it. An end, clean or not, answers
everyone as well, and only then lets go of the lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Self

from leafdb.errors import CorruptionError, StorageError, StoreFailed
from leafdb.storage.committer import Committer
from leafdb.storage.compaction_pace import CompactionPace
from leafdb.storage.descents import Descents
from leafdb.storage.executor import Callback, Executor
from leafdb.storage.identity import Identity, write_identity
from leafdb.storage.job_runner import JobRunner
from leafdb.storage.lost_ranges import LostRange
from leafdb.storage.maintenance import BeforeFlush, Maintenance, no_gate
from leafdb.storage.memtable import Memtable
from leafdb.storage.pressure import Pressure
from leafdb.storage.reads import Reads
from leafdb.storage.recovery import Recovered, RecoveryReport, Replayed, leave_clean_mark, no_follower, recover
from leafdb.storage.settings import EngineConfig
from leafdb.storage.snapshots import Snapshots
from leafdb.storage.stats import EngineStats, Work, collect
from leafdb.storage.survey import Survey, survey
from leafdb.storage.tables import Tables
from leafdb.storage.timing import Timing
from leafdb.storage.verification import Verifier
from leafdb.storage.windows import Windows
from leafdb.types import Durability, TreeId
from leafdb.vfs.base import FileSystem


class EngineLife:
    """See the module. Engine builds on it."""

    def __init__(
        self,
        parts: Recovered,
        log_executor: Executor,
        read_executor: Executor,
        jobs: JobRunner,
        *,
        now_s: Callable[[], float],
        on_failure: Callable[[StorageError], None],
        before_flush: BeforeFlush,
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
        self.on_damage: Callable[[TreeId, bytes, bytes], None] = lambda tree, smallest, largest: None
        """Told each time that a table cannot be read, of its tree and of the range of its keys."""
        self.on_lost: Callable[[tuple[LostRange, ...]], None] = lambda lost: None
        """Told right before reads see that these ranges have lost something. They stand in `lost`, over restarts too,
        until `lost_noted`."""
        self._pace = CompactionPace(jobs.pace)
        self._committer = Committer(
            log_executor, parts.writer, next_lsn=parts.next_lsn, batch_bytes_max=config.wal_batch_bytes_max,
            auto_commit=config.auto_commit, lost_before=lambda: parts.manifest.lost,
            on_sealed=lambda lsn: self._maintenance.sealed(lsn), on_failure=self._fail,
            now_s=now_s, on_wait=self._pace.committed,
        )  # fmt: skip
        self._windows = Windows(config.compaction, config.expiry)
        self._tables = Tables(
            parts.fs, parts.version, parts.readers, parts.values, parts.open_files,
            cache=parts.cache, manifest=parts.manifest, log_executor=log_executor, read_executor=read_executor,
            next_number=parts.next_number, number_lease=config.file_number_lease, on_failure=self._part_failed,
            on_published=self._changed, on_lost=self._tell_lost, quarantined=parts.quarantined,
        )  # fmt: skip
        self._maintenance = Maintenance(
            self._tables, jobs, frozen=reversed(parts.frozen), sealed_lsn=parts.next_lsn - 1, config=config,
            now_s=now_s, windows=self._windows, before_flush=before_flush, on_failure=self._part_failed,
            on_change=self._changed, on_damage=self._damaged,
            damaged=[meta.file_number for meta in parts.damaged() if config.salvages(meta.tree_id)],
        )  # fmt: skip
        self._reads = Reads(
            read_executor, self._tables, queued_max=config.reads_queued_max, jobs_max=config.reader_jobs_max,
            on_damage=self._damaged,
        )  # fmt: skip
        self._snapshots = Snapshots(parts.fs, self._tables, read_executor, parts.snapshots)
        self.verifier: Verifier = Verifier(read_executor, self._tables, now_s=now_s, on_damage=self._damaged)
        """Reads files again; begun by `Engine.verify_soon`."""
        self.scrubber: Verifier = Verifier(read_executor, self._tables, now_s=now_s, on_damage=self._damaged)
        """The same, for `Engine.scrub_soon`: neither keeps the other waiting."""
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
        replayed: Replayed = no_follower,
        before_flush: BeforeFlush = no_gate,
    ) -> Self:
        """Lock and recover the store in `fs`, or make one. `log_executor` must keep order: one thread.

        `replayed` is told everything the log brings back, in order: sequence, tree, key, value, mark. `before_flush` is
        asked before the log may forget anything up to a sequence number, and calls back when it may: what follows from
        the log is then kept elsewhere, synced.

        Raises StoreLocked, CorruptionError, UnknownFormat, DiskFull or StoreFailed.
        """
        parts = recover(fs, config, replayed)
        return cls(
            parts, log_executor, read_executor, jobs, now_s=now_s, on_failure=on_failure, before_flush=before_flush
        )

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

    # -- time

    def on_time(self, now_s: float) -> None:
        """Do what is due: the periodic sync, the look at the disk's room, jobs to be given again."""
        if self._failure is None:
            try:
                self._timing.on_time(now_s)
            except OSError as error:
                self._part_failed(error, "the disk's room cannot be known")
                return
            self._pace.on_time(now_s, self._maintenance.fullness)
            self.verifier.on_time(now_s)
            self.scrubber.on_time(now_s)
            self._maintenance.flushed.on_time(self._memtable.bytes_used)
            self._changed()

    def deadline(self) -> float:
        """When `on_time` is wanted next; calling it earlier, or every few milliseconds, does no harm."""
        due = [self._timing.deadline(self._now_s()), self.verifier.deadline(), self.scrubber.deadline()]
        due.append(self._pace.deadline())
        return min(each for each in due if each is not None)

    def woken_late(self, late_s: float) -> None:
        """The owner's clock came by so much later than it wanted: requests have waited for the loop as long."""
        self._pace.woken(late_s)

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
        self.verifier.fail(self._failure)
        self.scrubber.fail(self._failure)
        self.descents.fail(self._failure)
        self._reads.drain()
        self._snapshots.fail(self._failure)
        self._committer.fail(self._failure)
        if clean and not self._broken:
            try:
                leave_clean_mark(self._parts, self._committer.next_lsn - 1, self.identity.boot)
            except OSError as error:
                self._part_failed(error, "the store cannot be closed cleanly")
        self._tables.close()
        self._parts.lock.release()

    # -- what was lost

    @property
    def lost(self) -> tuple[LostRange, ...]:
        """What was left out of damaged tables and is not noted yet: older data may show there, or nothing."""
        return self._tables.version.lost

    def lost_noted(self, lost: Iterable[LostRange]) -> None:
        """What the owner has written up to now says that these ranges are not to be believed: the store need not name
        them any more, once that is on the disk."""
        upto = self._committer.next_lsn - 1
        self._committer.when_safe(upto, Durability.ALWAYS, partial(self._noted, tuple(lost)))

    def _noted(self, lost: tuple[LostRange, ...], error: StorageError | None) -> None:
        if error is None and self._failure is None:
            self._tables.lost_noted({each.file_number for each in lost}, self._maintenance.pump)

    def _tell_lost(self, lost: tuple[LostRange, ...]) -> None:
        self._windows.forgotten.clear()  # what was deleted may show in the hole
        self._maintenance.flushed.clear()  # it is not in tables any more: whoever repairs must not find it here
        if self._failure is None:
            self.on_lost(lost)

    # -- looking inside

    @property
    def descents(self) -> Descents:
        """Compactions on demand; begun by `Engine.compact_soon`."""
        return self._maintenance.descents

    @property
    def work(self) -> Work:
        """What was flushed, compacted and read again since the start, for who counts."""
        verifiers = (self.verifier, self.scrubber)
        cache, reads, pressure = self._parts.cache, self._reads, self._pressure
        return Work(self._maintenance, verifiers, cache=cache, reads=reads, pressure=pressure)

    def follow_syncs(self, told: Callable[[float], None]) -> None:
        """Tell how many seconds each sync of the log took, on its thread, once that is known here."""
        self._committer.on_synced = told

    def stats(self) -> EngineStats:
        return collect(
            self._committer,
            self._memtable,
            self._maintenance,
            self._tables,
            self._reads,
            self._pressure,
            self._snapshots,
            self._pace,
            block_cache_bytes=self._parts.cache.bytes_used,
        )

    def survey(self) -> Survey:
        """Every tree by level, and what is being done; looks at every table there is."""
        parts = self._parts
        return survey(self._tables.version, self._committer, self._maintenance, parts.cache, self.config.compaction)

    def check(self) -> None:
        """Everything that must hold between and inside the parts; costly."""
        self._committer.check()
        self._pace.check()
        self._tables.check()
        self._maintenance.check()
        self.verifier.check()
        self.scrubber.check()
        self._memtable.check()
        self._snapshots.check()
        assert set(self._trees) == set(self._tables.head.trees)
        lsn = self._tables.version.flushed_lsn
        for memtable in (*reversed(self._maintenance.frozen), self._memtable):
            assert memtable.first_lsn == lsn + 1, f"a generation begins at {memtable.first_lsn} after {lsn}"
            lsn = memtable.last_lsn

    # -- for the engine

    def _later(self, done: Callback | None) -> None:
        """Call after what the log has been given so far; never inside this call."""
        if done is not None:
            callback = done
            self._log_executor.submit(lambda: None, lambda _: callback())

    def _changed(self) -> None:
        """Judge the pressure anew: something it looks at may have changed."""
        self._pressure.update(
            frozen_memtables=len(self._maintenance.frozen),
            level0_tables=self._windows.level0_tables(self._tables.version),
            backlog_bytes=self._committer.backlog_bytes,
        )

    def _damaged(self, error: CorruptionError) -> None:
        """Tell whose table it is, or which tables have values there, and have them salvaged; of what is in no tree any
        more nobody has to hear."""
        version = self._tables.version
        damaged = {meta.file_number for meta in version.values.metas.values() if meta.path == error.path}
        self._maintenance.salvages.doubted_values |= damaged
        for meta in version.tables.values():
            if meta.path == error.path or any(number in damaged for number, _ in meta.references):
                self.on_damage(meta.tree_id, meta.smallest, meta.largest)
                if self.config.salvages(meta.tree_id):
                    self._maintenance.found_damaged(meta.file_number)

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
        self._snapshots.fail(failure)
        self.verifier.fail(failure)
        self.scrubber.fail(failure)
        self.descents.fail(failure)
        self._committer.fail(failure)
        self._on_failure(failure)

    def _failure_now(self) -> StoreFailed:
        """A fresh error each time: one shared instance would collect tracebacks for ever."""
        assert self._failure is not None
        return StoreFailed(self._failure.message, path=self._failure.path)

    def _usable(self) -> None:
        if self._failure is not None:
            raise self._failure_now()
