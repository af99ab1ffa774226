"""Reads that must wait for the disk: a bounded queue in front of the reader threads, several reads a hop.

A hop to a thread and back costs more than a read, so a job takes up to READS_PER_JOB queued keys. Each read holds a pin
on the version of its submission. Scans are jobs of their own and count against the same bound.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from leafdb.errors import CorruptionError, StorageError, StoreFailed
from leafdb.storage.executor import Executor
from leafdb.storage.lsm_tree import NOTHING, Page, Scan, find
from leafdb.storage.memtable import Slot
from leafdb.storage.tables import Pin, Tables
from leafdb.types import TreeId

READS_PER_JOB: Final = 16

GetDone = Callable[[Slot | StorageError], None]
ScanDone = Callable[[Page | StorageError], None]


class ReadsOverloaded(StorageError):
    """So many reads wait for the disk that this one was refused; nothing was read."""


class _Get:
    """One queued read."""

    __slots__ = ("done", "key", "pin", "result", "tree_id")

    def __init__(self, pin: Pin, tree_id: TreeId, key: bytes, done: GetDone) -> None:
        self.pin = pin
        self.tree_id = tree_id
        self.key = key
        self.done = done
        self.result: Slot | StorageError = StoreFailed("the read was not carried out")


class Reads:
    """The queue; on the loop, except for the jobs themselves."""

    def __init__(
        self,
        executor: Executor,
        tables: Tables,
        *,
        queued_max: int,
        jobs_max: int,
        on_damage: Callable[[CorruptionError], None],
    ) -> None:
        self._on_damage = on_damage
        self._executor = executor
        self._tables = tables
        self._queued_max = queued_max
        self._jobs_max = jobs_max
        self._queue: deque[_Get] = deque()
        self._jobs = 0
        self._failure: StoreFailed | None = None
        self.pending: int = 0
        self.refused: int = 0
        self.served: int = 0

    def get(self, tree_id: TreeId, key: bytes, done: GetDone) -> None:
        """Look `key` up in the tables, beside the loop. Raises ReadsOverloaded."""
        self._take_place()
        self._queue.append(_Get(self._tables.pin(), tree_id, key, done))
        self._start_job()

    def answer_soon(self, slot: Slot, done: GetDone) -> None:
        """An answer that is known already, given later all the same: `done` never runs inside a call."""
        self._executor.call_soon(partial(done, slot))

    def scan(self, scan: Scan, done: ScanDone) -> None:
        """Read one page, beside the loop. Raises ReadsOverloaded."""
        self._take_place()
        pin = self._tables.pin()
        tables = self._tables
        page = partial(scan.run, pin.version, tables.readers, tables.values)
        self._executor.submit(page, partial(self._scanned, pin, done))

    def fail(self, failure: StoreFailed) -> None:
        """Every read from now on, and every one under way, is answered with `failure`."""
        self._failure = failure

    def drain(self) -> None:
        """Return when no read is under way any more."""
        self._executor.drain()

    def _take_place(self) -> None:
        if self.pending >= self._queued_max:
            self.refused += 1
            raise ReadsOverloaded(f"{self.pending} reads wait for the disk already")
        self.pending += 1

    def _start_job(self) -> None:
        if self._queue and self._jobs < self._jobs_max:
            self._jobs += 1
            self._executor.submit(self._job, self._job_done)

    def _job(self) -> list[_Get]:
        """On a reader thread: take reads off the queue and carry them out."""
        taken: list[_Get] = []
        values = self._tables.values
        while len(taken) < READS_PER_JOB:
            try:
                get = self._queue.popleft()
            except IndexError:
                break
            taken.append(get)
            try:
                search = get.pin.searches.get(get.tree_id)
                get.result = NOTHING if search is None else find(search, values, get.key)
            except StorageError as error:
                get.result = error
        return taken

    def _job_done(self, result: list[_Get] | BaseException) -> None:
        self._jobs -= 1
        if isinstance(result, BaseException):
            raise result  # a bug: what the world does to a read comes as StorageError
        self.pending -= len(result)
        self.served += len(result)
        self._start_job()
        for get in result:
            self._tables.release(get.pin)
        for get in result:
            if isinstance(get.result, CorruptionError):
                self._on_damage(get.result)
        for get in result:
            get.done(get.result if self._failure is None else self._failure)

    def _scanned(self, pin: Pin, done: ScanDone, result: Page | BaseException) -> None:
        self.pending -= 1
        self.served += 1
        self._tables.release(pin)
        if self._failure is not None:
            done(self._failure)
        elif isinstance(result, BaseException) and not isinstance(result, CorruptionError):
            raise result  # a bug, as above
        else:
            if isinstance(result, CorruptionError):
                self._on_damage(result)
            done(result)
