"""Worker processes that run seeds, and what came of each: also of one whose worker died or does not come to an end.

Worker processes rather than threads, since a run is one busy loop; our own rather than a pool of the library's, since
which seed killed a worker is the very thing to know. A worker is used again for jobs that want the same process (the
same mutation, the same hash seed) until it has run RUNS_PER_WORKER of them.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from leafdb_cli.sim_worker import outcome_from

if TYPE_CHECKING:
    from leafdb.sim.outcome import Outcome

COMMAND: Final = (sys.executable, "-m", "leafdb_cli.sim_worker")
RUNS_PER_WORKER: Final = 100
POLL_S: Final = 0.5
GRACE_S: Final = 2.0
TAIL_BYTES: Final = 4_000


@dataclass(frozen=True, slots=True)
class Job:
    """One seed to run, and in what kind of process."""

    tier: str
    seed: int
    nodes: int
    operations: int
    mutation: str = ""
    hash_seed: int | None = None
    """PYTHONHASHSEED of the process; None: whatever it is here."""
    fresh: bool = False
    """In a process that has run nothing before."""

    @property
    def replay(self) -> str:
        """The command that runs it again."""
        line = f"leafdb sim run --seed {self.seed} --nodes {self.nodes} --ops {self.operations} --tier {self.tier}"
        return f"{line} --mutation {self.mutation}" if self.mutation else line


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a job: an outcome, or why there is none."""

    job: Job
    outcome: Outcome | None
    wall_s: float
    trouble: str = ""


class Runs(Protocol):
    """What runs jobs: a Pool, or whatever stands for one in a test."""

    @property
    def free(self) -> int:
        """How many jobs may be submitted now."""

    def submit(self, job: Job) -> None:
        """Begin it."""

    def wait(self, timeout_s: float) -> list[Result]:
        """What has ended; waits for something to, at most so long."""


def results(pool: Runs, take: Callable[[], Job | None], tick: Callable[[], None]) -> Iterator[Result]:
    """Run what `take` gives until it gives nothing and all has ended; `tick` is called about twice a second.

    `take` is asked again after every result, so what it gives may depend on them.
    """
    pending = 0
    while True:
        while pool.free and (job := take()) is not None:
            pool.submit(job)
            pending += 1
        if not pending:
            return
        ended = pool.wait(POLL_S)
        pending -= len(ended)
        tick()
        yield from ended


class _Worker:
    """One process. It runs a job while `job` is set."""

    def __init__(self, command: Sequence[str], job: Job) -> None:
        environment = dict(os.environ)
        if job.hash_seed is not None:
            environment["PYTHONHASHSEED"] = str(job.hash_seed)
        self.kind = (job.mutation, job.hash_seed)
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the worker
        self.process = subprocess.Popen(
            [*command, *([job.mutation] if job.mutation else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=environment,
        )
        self.job: Job | None = None
        self.begun = 0.0
        self.runs = 0
        self.buffer = b""

    @property
    def out(self) -> int:
        assert self.process.stdout is not None, "opened as a pipe"
        return self.process.stdout.fileno()

    def begin(self, job: Job) -> None:
        assert self.process.stdin is not None, "opened as a pipe"
        self.job, self.begun = job, time.monotonic()
        self.runs += 1
        fields = {"tier": job.tier, "seed": job.seed, "nodes": job.nodes, "operations": job.operations}
        try:
            self.process.stdin.write(json.dumps(fields).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return  # it died: its stdout ends, which is where that is noticed

    def read(self) -> dict[str, Any] | None:
        """An answer, when a whole one is there. EOFError when the process is gone."""
        data = os.read(self.out, 1 << 20)
        if not data:
            raise EOFError
        self.buffer += data
        line, newline, rest = self.buffer.partition(b"\n")
        if not newline:
            return None
        self.buffer = rest
        answer: dict[str, Any] = json.loads(line)
        return answer

    def said(self) -> str:
        """The end of what it wrote to stderr."""
        size = self.errors.seek(0, os.SEEK_END)
        self.errors.seek(max(0, size - TAIL_BYTES))
        return self.errors.read().decode("utf-8", "replace").strip()

    def end(self, number: int = signal.SIGKILL) -> None:
        """Have it gone; a signal it may survive is followed by one it may not."""
        self.process.send_signal(number)
        self._gone()

    def ended(self) -> str:
        """How it went by itself."""
        code = self._gone()
        return f"signal {-code}" if code < 0 else f"code {code}"

    def _gone(self) -> int:
        try:
            return self.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def close(self) -> None:
        """Close our ends."""
        for file in (self.process.stdin, self.process.stdout, self.errors):
            assert file is not None, "opened as a pipe"
            with suppress(BrokenPipeError):  # a job that was never read
                file.close()


class Pool:
    """At most `size` workers; a job that takes longer than `limit_s` ends with its worker."""

    def __init__(self, size: int, limit_s: float, command: Sequence[str] = COMMAND) -> None:
        self._size = size
        self._limit_s = limit_s
        self._command = command
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in list(self._workers):
            self._end(worker)
        self._selector.close()

    @property
    def free(self) -> int:
        """How many jobs may be submitted now."""
        return self._size - sum(worker.job is not None for worker in self._workers)

    def submit(self, job: Job) -> None:
        """Begin it, in a worker of its kind."""
        assert self.free > 0, "submit follows a look at `free`"
        self._worker_for(job).begin(job)

    def wait(self, timeout_s: float) -> list[Result]:
        """What has ended; waits for something to, at most so long."""
        ended = []
        for key, _ in self._selector.select(timeout_s):
            worker: _Worker = key.data
            try:
                answer = worker.read()
            except EOFError:
                ended += self._died(worker)
                continue
            if answer is not None:
                assert worker.job is not None, "a worker answers what it was asked"
                ended.append(Result(worker.job, outcome_from(answer["outcome"]), answer["wall_s"]))
                worker.job = None
        now = time.monotonic()
        for worker in [worker for worker in self._workers if worker.job and now - worker.begun > self._limit_s]:
            ended.append(self._hung(worker, now))
        return ended

    def _worker_for(self, job: Job) -> _Worker:
        idle = [worker for worker in self._workers if worker.job is None]
        for worker in idle:
            if worker.kind == (job.mutation, job.hash_seed) and not job.fresh and worker.runs < RUNS_PER_WORKER:
                return worker
        if len(self._workers) == self._size:
            self._end(idle[0])
        worker = _Worker(self._command, job)
        self._workers.append(worker)
        self._selector.register(worker.out, selectors.EVENT_READ, worker)
        return worker

    def _end(self, worker: _Worker) -> None:
        worker.end()
        self._forget(worker)

    def _forget(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        self._selector.unregister(worker.out)
        worker.close()

    def _died(self, worker: _Worker) -> list[Result]:
        trouble = f"its worker died with {worker.ended()}\n{worker.said()}".rstrip()
        self._forget(worker)
        if worker.job is None:
            return []  # it was idle: nothing is lost
        return [Result(worker.job, None, time.monotonic() - worker.begun, trouble)]

    def _hung(self, worker: _Worker, now: float) -> Result:
        assert worker.job is not None, "chosen for it"
        worker.end(signal.SIGABRT)
        trouble = f"no end after {now - worker.begun:.0f} s; it was here:\n{worker.said()}".rstrip()
        self._forget(worker)
        return Result(worker.job, None, now - worker.begun, trouble)
