"""Who runs the engine's jobs: a worker process (`worker`), or the caller's own thread in slices.

Both keep the engine's rule for callbacks: `done` is called on the loop, later, never inside `submit`, exactly once, and
not at all after `close`. The files of a failed job are the engine's to unlink; giving the job again takes new numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import Protocol

from leafdb.errors import StorageError
from leafdb.storage.job_slices import job_slices
from leafdb.storage.jobs import Done, Job, JobResult, Outcome, ToLoop
from leafdb.storage.worker import ProcessJobRunner
from leafdb.vfs.base import FileSystem

__all__ = ["Done", "InlineJobRunner", "JobRunner", "Outcome", "ProcessJobRunner", "ToLoop"]


class JobRunner(Protocol):
    """Runs jobs for an engine."""

    def submit(self, job: Job, done: Done) -> None:
        """Start the job; `done` gets its result or the error it met."""

    def pace(self, share: float) -> None:
        """Compact and salvage in so much of the time from now on, 0.0 < share <= 1.0; flush in all of it."""

    def close(self) -> None:
        """Stop; unfinished jobs are dropped unanswered. Idempotent."""


class InlineJobRunner:
    """Runs jobs on the caller's thread, a slice at a time: for tests, simulation and stores in memory.

    With `to_loop` the slices schedule themselves, one per turn of the loop; without it the owner calls `step`.
    """

    def __init__(self, fs: FileSystem, to_loop: ToLoop | None = None) -> None:
        self._fs = fs
        self._to_loop = to_loop
        self._jobs: deque[tuple[Generator[None, None, JobResult], Done]] = deque()

    def submit(self, job: Job, done: Done) -> None:
        self._jobs.append((job_slices(self._fs, job), done))
        if self._to_loop is not None and len(self._jobs) == 1:
            self._to_loop(self._turn)

    def step(self) -> bool:
        """One slice of the oldest job; False when there is none left to do."""
        if not self._jobs:
            return False
        slices, done = self._jobs[0]
        outcome: Outcome
        try:
            next(slices)
            return True
        except StopIteration as end:
            outcome = end.value
        except StorageError as error:
            outcome = error
        self._jobs.popleft()
        done(outcome)
        return bool(self._jobs)

    def pace(self, share: float) -> None:
        """Nothing: whoever gives the slices their turns has the pace in hand."""

    def run_pending(self) -> None:
        """All slices of all jobs, those included that the callbacks submit."""
        while self.step():
            pass

    def _turn(self) -> None:
        assert self._to_loop is not None
        if self.step():
            self._to_loop(self._turn)

    def close(self) -> None:
        while self._jobs:
            self._jobs.popleft()[0].close()
