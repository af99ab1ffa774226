"""The salvages of a store: which tables wait for theirs, and the way of one from job to published edit.

As with every table: the job writes, syncs and names its output -> its reader is opened -> the manifest has the edit,
which names what is lost -> whoever follows the store is told, and reads use the new version -> the damaged file goes to
quarantine. One at a time, and no compaction beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import partial

from leafdb.storage.compaction_picker import pick_salvage
from leafdb.storage.executor import Callback
from leafdb.storage.job_runner import JobRunner
from leafdb.storage.jobs import JobResult, SalvageJob, SalvageResult
from leafdb.storage.sstable_reader import TableReader
from leafdb.storage.tables import Pin, Tables


class Salvages:
    """Lives on the loop. `failed` is told of a job that is to be given again later, with the file number it was
    allotted; `over` when one is published, or came to nothing."""

    def __init__(
        self,
        tables: Tables,
        jobs: JobRunner,
        *,
        damaged: Iterable[int],
        failed: Callable[[Iterable[int], BaseException], None],
        over: Callback,
    ) -> None:
        self._tables = tables
        self._jobs = jobs
        self._failed = failed
        self._over = over
        self._stopped = False
        self.damaged: set[int] = set(damaged)
        """Tables that wait for their salvage, or that were replaced meanwhile."""
        self.doubted_values: set[int] = set()
        """Value files in which something could not be read: what their tables have there is read before it is kept."""
        self.running: int | None = None
        """The table that is being salvaged."""
        self.done: int = 0

    def found(self, number: int) -> bool:
        """A table cannot be read somewhere. False: that is known, or it is no table any more."""
        if number in self.damaged or number not in self._tables.head.tables:
            return False
        self.damaged.add(number)
        return True

    def stop(self) -> None:
        """Publish nothing more."""
        self._stopped = True

    def start(self, busy: Collection[int], ready: Callback) -> bool:
        """Whether one is under way now, or only waits for a file number: then `ready`."""
        if self.running is not None:
            return True
        head = self._tables.head
        self.damaged &= head.tables.keys()
        table = pick_salvage(head, self.damaged, busy)
        if table is None:
            return False
        numbers = self._tables.allot(1, ready)
        if numbers is not None:
            self.running = table.file_number
            self.doubted_values &= head.values.metas.keys()
            doubted = tuple(
                head.values.metas[number] for number, _ in table.references if number in self.doubted_values
            )
            job = SalvageJob(table, numbers[0], doubted)
            self._jobs.submit(job, partial(self._salvaged, job, self._tables.pin()))
        return True

    def _salvaged(self, job: SalvageJob, pin: Pin, result: JobResult | BaseException) -> None:
        if self._stopped:
            return
        self._tables.release(pin)
        if isinstance(result, BaseException):
            self._give_up(job, result)
            return
        assert isinstance(result, SalvageResult), "a salvage answers its result"
        added = () if result.added is None else (result.added,)
        self._tables.open_soon(added, partial(self._opened, job, result))

    def _opened(self, job: SalvageJob, salvaged: SalvageResult, result: list[TableReader] | BaseException) -> None:
        if self._stopped:
            return
        if isinstance(result, BaseException):
            self._give_up(job, result)
            return
        if salvaged.added is None:
            self._tables.discard((job.output,))
        if job.table.file_number not in self._tables.head.tables:  # its tree was dropped
            if salvaged.added is not None:
                self._tables.discard((job.output,), result)
            self._end()
            return
        self._tables.adopt(result)
        self._tables.quarantine(job.table.file_number)
        self._tables.submit(salvaged.edit(job.table), self._published)

    def _published(self) -> None:
        if not self._stopped:
            self.done += 1
            self._end()

    def _give_up(self, job: SalvageJob, error: BaseException) -> None:
        self.running = None
        self._failed((job.output,), error)

    def _end(self) -> None:
        self.running = None
        self._over()
