"""Who runs the engine's jobs: a worker process, or the caller's own thread in slices.

Both keep the engine's rule for callbacks: `done` is called on the loop, later, never inside `submit`, exactly once, and
not at all after `close`.

`ProcessJobRunner` never blocks the loop: one thread starts the worker and writes to it, one thread per worker reads
from it and sees it end. A worker that dies fails the jobs it had with `WorkerLost`; the next job starts another. The
files of a failed job are the engine's to unlink; giving the job again takes new file numbers.
"""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Final, Protocol

from leafdb.errors import StorageError
from leafdb.storage.job_slices import job_slices
from leafdb.storage.jobs import Job, JobResult
from leafdb.storage.worker_protocol import FrameBuffer, WorkerLost, decode_answer, encode_request
from leafdb.vfs.base import FileSystem

Outcome = JobResult | StorageError
Done = Callable[[Outcome], None]
ToLoop = Callable[[Callable[[], None]], None]
"""Runs a callback on the loop's thread, soon; may be called from any thread (trio's `run_sync_soon`)."""

_READ_BYTES: Final = 65_536
_STOP_S: Final = 5.0
"""How long a worker that lost its stdin may take to exit; it looks at it after every slice of a job."""


class JobRunner(Protocol):
    """Runs jobs for an engine."""

    def submit(self, job: Job, done: Done) -> None:
        """Start the job; `done` gets its result or the error it met."""

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


class _Child:
    """One worker process and the jobs it holds. `jobs` and `lost` belong to the runner's lock."""

    __slots__ = ("jobs", "lost", "process", "reader")

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.jobs: set[int] = set()
        self.lost = False
        self.reader: Thread | None = None


class ProcessJobRunner:
    """Runs jobs in a worker process of its own, started with the first job or by `start`."""

    def __init__(self, root: str, to_loop: ToLoop) -> None:
        self._command = [sys.executable, "-m", "leafdb.storage.worker", root]
        self._to_loop = to_loop
        self._waiting: dict[int, Done] = {}  # touched on the loop alone
        self._next_number = 1
        self._lock = Lock()
        self._child: _Child | None = None
        self._closed = False
        self._outbox: SimpleQueue[tuple[int, bytes] | None] = SimpleQueue()
        self._writer = Thread(target=self._write_loop, name="leafdb-jobs", daemon=True)
        self._writer.start()
        self.restarts = -1
        """How many workers were started after the first."""

    @property
    def pid(self) -> int | None:
        """The living worker's process id, for whoever accounts for its CPU and memory."""
        child = self._child
        return None if child is None or child.lost else child.process.pid

    def start(self) -> None:
        """Have a worker ready before the first job."""
        self._outbox.put((0, b""))

    def submit(self, job: Job, done: Done) -> None:
        assert not self._closed, "the job runner is closed"
        number = self._next_number
        self._next_number += 1
        self._waiting[number] = done
        self._outbox.put((number, encode_request(number, job)))

    def close(self) -> None:
        """End the worker and both threads; waits for it at most a few seconds, then kills it."""
        if self._closed:
            return
        self._closed = True
        self._waiting.clear()
        self._outbox.put(None)
        self._writer.join()

    # -- the writing thread

    def _write_loop(self) -> None:
        while (item := self._outbox.get()) is not None:
            number, frame = item
            try:
                child = self._living_child()
            except OSError as error:
                self._deliver(number, WorkerLost(f"no storage worker could be started: {error}"))
                continue
            with self._lock:
                lost = child.lost
                if not lost and number:
                    child.jobs.add(number)
            if lost:
                self._deliver(number, WorkerLost("the storage worker ended at once"))
                continue
            try:
                assert child.process.stdin is not None
                rest = memoryview(frame)
                while rest:
                    rest = rest[child.process.stdin.write(rest) :]
            except OSError:
                continue  # it is ending; the reading thread fails the job with all others it had
        if self._child is not None:
            self._stop(self._child)

    def _living_child(self) -> _Child:
        child = self._child
        if child is not None and not child.lost:
            return child
        # A session of its own: an interrupt at the terminal is for the node, which then ends its worker in order.
        process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
        )
        child = _Child(process)
        child.reader = Thread(target=self._read_loop, args=(child,), name="leafdb-job-answers", daemon=True)
        self._child = child
        self.restarts += 1
        child.reader.start()
        return child

    def _stop(self, child: _Child) -> None:
        assert child.process.stdin is not None
        assert child.reader is not None
        child.process.stdin.close()
        try:
            child.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            child.process.kill()
        child.reader.join()

    # -- the reading thread of one child

    def _read_loop(self, child: _Child) -> None:
        assert child.process.stdout is not None
        buffer = FrameBuffer()
        try:
            while data := child.process.stdout.read(_READ_BYTES):
                for message in buffer.feed(data):
                    number, outcome = decode_answer(message)
                    with self._lock:
                        child.jobs.discard(number)
                    self._deliver(number, outcome)
        except ValueError:
            child.process.kill()  # it does not speak the protocol; it gets no second chance
        status = child.process.wait()
        child.process.stdout.close()
        with self._lock:
            child.lost = True
            numbers = sorted(child.jobs)
        for number in numbers:
            self._deliver(number, WorkerLost(f"the storage worker ended with status {status}"))

    def _deliver(self, number: int, outcome: Outcome) -> None:
        """Have `done` called on the loop, if anybody still waits for it."""

        def deliver() -> None:
            done = self._waiting.pop(number, None)
            if done is not None:
                done(outcome)

        try:
            self._to_loop(deliver)
        except RuntimeError:
            return  # the loop has ended, and with it whoever waited
