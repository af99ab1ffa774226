"""What the engine owes: frozen memtables to flush, levels to compact. Decides when; the job runner executes.

The order of publishing, each step only after the one before it:
 job writes, syncs and names its tables -> of a flush: whoever follows the log has what it needs of it -> their readers
 are opened -> the manifest has the edit, synced -> reads use the new version, and the memtable is let go -> the
 segment, or the merged tables, are unlinked.

A failed job costs nothing but time: its files are discarded and it is given again, with new file numbers, after a wait
that doubles. Two failures are final: the store's own (an I/O error) and a sealed segment found damaged, since what it
holds is then only in memory.

A table that is found damaged, by a read, a compaction, the scrub or at the open, is salvaged before anything is
compacted (`salvage`): its edit names the ranges that are lost, and the file goes to quarantine. Damage that nobody may
salvage (`EngineConfig.salvages`), or that names no input, is left alone: reads of the damaged part say so, the rest is
served. Now and then it is tried again, since what could not be read once may be readable later, and without it level 0
fills up until no write is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

from leafdb.errors import CorruptionError, StoreFailed
from leafdb.storage.compaction_picker import fullness
from leafdb.storage.descents import Descents
from leafdb.storage.executor import Callback
from leafdb.storage.flushed import Flushed
from leafdb.storage.job_runner import JobRunner
from leafdb.storage.jobs import CompactionJob, CompactionResult, FlushJob, FlushResult, JobResult
from leafdb.storage.memtable import Memtable
from leafdb.storage.salvages import Salvages
from leafdb.storage.settings import EngineConfig
from leafdb.storage.sstable_reader import TableReader
from leafdb.storage.tables import Pin, Tables
from leafdb.storage.value_files import ValueMeta
from leafdb.storage.version import TableMeta, VersionEdit
from leafdb.storage.wal import segment_path
from leafdb.storage.windows import Windows
from leafdb.types import TreeId

RETRY_FIRST_S: Final = 0.5
RETRY_LAST_S: Final = 30.0
DAMAGED_RETRY_S: Final = 60.0

BeforeFlush = Callable[[int, Callback], None]
"""(lsn, go on): the log is about to forget everything up to here. Called once or more for a generation."""


def no_gate(lsn: int, go_on: Callback) -> None:
    """Nobody wants the log for longer than the tables do."""
    go_on()


@dataclass(frozen=True, slots=True)
class Compacting:
    """A compaction under way."""

    job: CompactionJob
    asked: bool
    """Somebody wants it; else it is due."""
    since_s: float


class Maintenance:
    """Lives on the loop. At most one flush and one compaction at a time."""

    def __init__(
        self,
        tables: Tables,
        jobs: JobRunner,
        *,
        frozen: Iterable[Memtable],
        sealed_lsn: int,
        config: EngineConfig,
        now_s: Callable[[], float],
        before_flush: BeforeFlush,
        on_failure: Callable[[BaseException, str], None],
        on_change: Callback,
        on_damage: Callable[[CorruptionError], None],
        windows: Windows,
        damaged: Iterable[int] = (),
    ) -> None:
        self.windows = windows
        self._on_damage = on_damage
        self._before_flush = before_flush
        self._tables = tables
        self._jobs = jobs
        self._config = config
        self._now_s = now_s
        self._on_failure = on_failure
        self._on_change = on_change
        self._sealed_lsn = sealed_lsn
        self._flushing = False
        self._asked_next = False
        self._avoided: set[int] = set()
        self._avoided_retry_s: float | None = None
        self._busy: set[int] = set()
        self._waiters: list[tuple[int, Callback]] = []
        self._failures = 0
        self._retry_s: float | None = None
        self._stopped = False
        self.frozen: tuple[Memtable, ...] = tuple(frozen)
        """Newest first."""
        self.flushed: Flushed = Flushed(config.flushed_bytes_max)
        self.salvages: Salvages = Salvages(tables, jobs, damaged=damaged, failed=self._job_failed, over=self._salvaged)
        self.compacting: Compacting | None = None
        """The compaction under way."""
        self.descents: Descents = Descents()
        """Compactions that somebody asks for: they take turns with those that are due."""
        self.flushes: int = 0
        self.flushed_bytes: int = 0
        self.compactions: int = 0
        self.compaction_bytes_read: int = 0
        self.compaction_bytes_written: int = 0
        self.failed_jobs: int = 0

    # -- what the engine tells

    def freeze(self, memtable: Memtable) -> None:
        """Take over a memtable that gains nothing more; its segment may still be on its way to the disk."""
        self.frozen = (memtable, *self.frozen)

    def sealed(self, lsn: int) -> None:
        """The segments that hold everything up to `lsn` are sealed."""
        self._sealed_lsn = lsn
        self.pump()

    def found_damaged(self, number: int) -> None:
        """A table cannot be read somewhere: it is to be salvaged."""
        if self.salvages.found(number):
            self.pump()

    def sealed_memtables(self) -> list[Memtable]:
        """Those that wait for their flush while nothing is appended to their segments any more; oldest first."""
        return [memtable for memtable in reversed(self.frozen) if memtable.last_lsn <= self._sealed_lsn]

    def when_flushed(self, lsn: int, done: Callback) -> None:
        """Call once every write up to `lsn` is in tables; never inside this call when it already is."""
        self._waiters.append((lsn, done))

    def stop(self) -> None:
        """Start and publish nothing more."""
        self._stopped = True
        self.salvages.stop()
        self._waiters.clear()

    def on_time(self, now_s: float) -> None:
        if self.windows.forgotten.flushed(self._tables.head.flushed_lsn):
            self.pump()
        if self._avoided_retry_s is not None and now_s >= self._avoided_retry_s:
            self._avoided_retry_s = None
            self._avoided.clear()
            self.pump()
        if self._retry_s is not None and now_s >= self._retry_s:
            self._retry_s = None
            self.pump()

    def deadline(self) -> float | None:
        return min((due for due in (self._retry_s, self._avoided_retry_s) if due is not None), default=None)

    def pump(self) -> None:
        """Start what is due and not running."""
        if self._stopped or self._retry_s is not None:
            return
        if not self._flushing and self.frozen and self.frozen[-1].last_lsn <= self._sealed_lsn:
            self._start_flush(self.frozen[-1])
        self._drop_dead()
        if self.compacting is None and not self.salvages.start(self._busy, self.pump):
            self._start_compaction()

    @property
    def fullness(self) -> float | None:
        """While a compaction is under way: of the levels it may be too slow for, how full the fullest is, as a multiple
        of its measure. None: there is none."""
        if self.compacting is None:
            return None
        limits, version, number = self._config.compaction, self._tables.version, self.compacting.job.tree_id
        most = self.windows.level0_tables(version) / limits.level0_tables
        tree = version.trees.get(number)
        return most if tree is None else max(most, fullness(tree, limits, by_time=number in self.windows.trees))

    # -- flush

    def _start_flush(self, memtable: Memtable) -> None:
        trees = [tree_id for tree_id in memtable.tree_ids() if tree_id in self._tables.head.trees]
        if not trees:
            self._flushing = True
            self._before_flush(memtable.last_lsn, partial(self._publish_flush, memtable, [], ()))
            return
        numbers = self._tables.allot(2 * len(trees), self.pump)
        if numbers is None:
            return
        self._flushing = True
        job = FlushJob(
            segments=tuple(segment_path(number) for number in memtable.segments),
            outputs=tuple(zip(trees, numbers[: len(trees)], strict=True)),
            upto_lsn=memtable.last_lsn,
            after_lsn=memtable.first_lsn - 1,
            values=tuple(zip(trees, numbers[len(trees) :], strict=True)),
            inline_bytes_max=self._config.value_inline_bytes_max,
            expiring=tuple(tree_id for tree_id in trees if tree_id in self.windows.trees),
            expiry=self.windows.expiry,
        )
        self._jobs.submit(job, partial(self._flushed, memtable, numbers))

    def _flushed(self, memtable: Memtable, numbers: tuple[int, ...], result: JobResult | BaseException) -> None:
        if self._stopped:
            return
        if isinstance(result, BaseException):
            self._flushing = False
            if isinstance(result, CorruptionError):
                self._on_failure(result, "a log segment that was not yet flushed is damaged")
            else:
                self._job_failed(numbers, result)
            return
        assert isinstance(result, FlushResult), "a flush answers its result"
        # Before they are opened: from there to the edit nothing may come between, such as a tree that is dropped.
        self._before_flush(memtable.last_lsn, partial(self._open_flushed, memtable, numbers, result))

    def _open_flushed(self, memtable: Memtable, numbers: tuple[int, ...], flushed: FlushResult) -> None:
        if not self._stopped:
            self._tables.open_soon(flushed.added, partial(self._flush_opened, memtable, numbers, flushed))

    def _flush_opened(
        self,
        memtable: Memtable,
        numbers: tuple[int, ...],
        flushed: FlushResult,
        result: list[TableReader] | BaseException,
    ) -> None:
        if self._stopped:
            return
        if isinstance(result, BaseException):
            self._flushing = False
            self._job_failed(numbers, result)
            return
        self._failures = 0
        trees = {meta.tree_id for meta in flushed.added} & self._tables.head.trees.keys()
        keep = self._adopt(flushed.added, result, trees)
        values = tuple(meta for meta in flushed.values if meta.tree_id in trees)
        used = {meta.file_number for meta in flushed.added} | {meta.file_number for meta in values}
        self._tables.discard(set(numbers) - used)
        self._publish_flush(memtable, keep, values)

    def _publish_flush(self, memtable: Memtable, metas: list[TableMeta], values: tuple[ValueMeta, ...]) -> None:
        if self._stopped:
            return
        edit = VersionEdit(added=tuple(metas), flushed_lsn=memtable.last_lsn, values=values)
        size = sum(meta.size for metas in (metas, values) for meta in metas)
        self._tables.submit(edit, partial(self._flush_published, memtable, size))

    def _flush_published(self, memtable: Memtable, size: int) -> None:
        if self._stopped:
            return
        assert self.frozen[-1] is memtable, "memtables are flushed oldest first"
        self.frozen = self.frozen[:-1]
        self.flushed.add(memtable)
        self._flushing = False
        self.flushes += 1
        self.flushed_bytes += size
        self._tables.remove_soon([segment_path(number) for number in memtable.segments])
        self._on_change()
        self.pump()
        due = [done for lsn, done in self._waiters if lsn <= memtable.last_lsn]
        self._waiters = [(lsn, done) for lsn, done in self._waiters if lsn > memtable.last_lsn]
        for done in due:
            done()

    # -- compaction

    def _start_compaction(self) -> None:
        busy = self.salvages.damaged | self._avoided | self._busy
        job = self.windows.pick(self._tables.head, busy)
        asked = (
            self.descents.pick(self._tables.head, busy, self._config.compaction)
            if job is None or self._asked_next
            else None
        )
        job = asked or job
        if job is None:
            return
        numbers = self._tables.allot(job.numbers_wanted, self.pump)
        if numbers is None:
            return
        self._asked_next = asked is None
        self._busy.update(job.input_numbers)
        job = self.windows.with_forgotten(job.with_outputs(numbers))
        self.compacting = Compacting(job, asked is not None, self._now_s())
        self._jobs.submit(job, partial(self._compacted, job, self._tables.pin()))

    def _compacted(self, job: CompactionJob, pin: Pin, result: JobResult | BaseException) -> None:
        if self._stopped:
            return
        self._tables.release(pin)
        if isinstance(result, BaseException):
            self._end_compaction(job)
            if isinstance(result, CorruptionError):
                self.failed_jobs += 1
                self._tables.discard(job.outputs)
                self._on_damage(result)
                # The error names the file where it can; without a name all inputs are suspect.
                # A value file that is named is not moved out of any more; its places are carried as they are.
                named = {meta.file_number for meta in job.inputs if meta.path == result.path}
                named |= {meta.file_number for meta in job.move_from if meta.path == result.path}
                if not named & self.salvages.damaged:
                    self._avoided.update(named or job.input_numbers)
                    self._avoided_retry_s = self._now_s() + DAMAGED_RETRY_S
                self.pump()
            else:
                self._job_failed(job.numbers, result)
            return
        assert isinstance(result, CompactionResult), "a compaction answers its result"
        self._tables.open_soon(result.added, partial(self._compaction_opened, job, result))

    def _compaction_opened(
        self, job: CompactionJob, compacted: CompactionResult, result: list[TableReader] | BaseException
    ) -> None:
        if self._stopped:
            return
        if isinstance(result, BaseException):
            self._end_compaction(job)
            self._job_failed(job.numbers, result)
            return
        self._failures = 0
        # Its tree may have been dropped, and made again even: the inputs say whether this is still the same one.
        stale = not self._tables.head.tables.keys() >= set(job.input_numbers)
        values = set() if stale else {meta.file_number for meta in compacted.values}
        self._tables.discard(set(job.numbers) - {meta.file_number for meta in compacted.added} - values)
        keep = self._adopt(compacted.added, result, () if stale else (job.tree_id,))
        if stale:
            self._end_compaction(job)
            self.pump()
            return
        edit = VersionEdit(added=tuple(keep), removed=compacted.removed, values=compacted.values)
        size = sum(meta.size for metas in (keep, compacted.values) for meta in metas)
        self._tables.submit(edit, partial(self._compaction_published, job, size))

    def _compaction_published(self, job: CompactionJob, size: int) -> None:
        if self._stopped:
            return
        self._end_compaction(job)
        self.descents.published(job, size)
        self.compactions += 1
        self.windows.merged += job.output_level == 0
        self.compaction_bytes_read += sum(meta.size for meta in job.inputs)
        self.compaction_bytes_written += size
        self._on_change()
        self.pump()

    def _end_compaction(self, job: CompactionJob) -> None:
        self.compacting = None
        self._busy.difference_update(job.input_numbers)

    # -- tables that hold nothing any more

    def _drop_dead(self) -> None:
        """Drop whole what its owner has forgotten: an edit, and no job."""
        dead = self.windows.dead(self._tables.head, self.salvages.damaged | self._busy)
        if dead:
            edit = VersionEdit(removed=tuple(meta.file_number for meta in dead))
            self._tables.submit(edit, partial(self._dropped, dead))

    def _dropped(self, dead: list[TableMeta]) -> None:
        if not self._stopped:
            self.windows.dropped(dead)
            self._on_change()
            self.pump()

    def _salvaged(self) -> None:
        self._failures = 0
        self._on_change()
        self.pump()

    # -- both

    def _adopt(
        self, metas: Iterable[TableMeta], readers: list[TableReader], trees: Collection[TreeId]
    ) -> list[TableMeta]:
        """Take the readers of tables of these trees; discard the others. Answers the tables kept."""
        self._tables.adopt(reader for reader in readers if reader.meta.tree_id in trees)
        gone = [reader for reader in readers if reader.meta.tree_id not in trees]
        self._tables.discard([reader.meta.file_number for reader in gone], gone)
        return [meta for meta in metas if meta.tree_id in trees]

    def _job_failed(self, numbers: Iterable[int], error: BaseException) -> None:
        """Discard what the job wrote; fail the store if the error says so, else try again after a wait."""
        self.failed_jobs += 1
        if isinstance(error, StoreFailed):
            self._on_failure(error, "a flush or compaction met an I/O error")
            return
        self._tables.discard(numbers)
        wait_s = min(RETRY_LAST_S, RETRY_FIRST_S * 2**self._failures)
        self._failures += 1
        self._retry_s = self._now_s() + wait_s

    def check(self) -> None:
        self.flushed.check()
        self.descents.check()
        self.windows.check()
        lsns = [memtable.last_lsn for memtable in self.frozen]
        assert lsns == sorted(lsns, reverse=True), "frozen memtables are not newest first"
        for memtable in self.frozen:
            memtable.check()
            assert memtable.last_lsn > self._tables.version.flushed_lsn
