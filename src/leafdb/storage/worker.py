"""The worker process and both ends of its pipes: it flushes and compacts where no request waits for it.

`python -m leafdb.storage.worker ROOT LOOP` is the child (`Worker`), `ProcessJobRunner` its parent. It is a process and
not a thread because merging holds the interpreter lock, and it is started anew and not forked because a fork of a
process with threads and an event loop is a copy of nobody knows what.

The child:
- It writes only file names a job allots and unlinks nothing, so that one that outlived its parent can do no harm.
- It exits as soon as stdin ends, even in the middle of a job: its parent is gone, nobody would trust the result.
- Jobs run in slices and flushes go before compactions, because a waiting flush holds memory and at last stops writes.
- Compactions and salvages rest after each slice, as the parent's pace has it (`compaction_pace`); flushes never do.
  After each slice of any job the core is offered to whoever waits for it: niceness alone leaves a process that runs
  where it is until the scheduler's next tick, 4 ms on some kernels, and a request waits. So slices are short. And it
  keeps off the core of the node's loop, thread LOOP, as long as there is another (`worker_cores`).
- Of a job that fails only the error is told. An error of ours, not of the world, ends the process.
- It imports no event loop: it starts in a fraction of a second and stays small.
- Cycles are collected between jobs only: a flush makes an object per entry and none of them is in a cycle.

The parent never blocks the loop: one thread starts the child and writes to it, one thread per child reads from it and
sees it end. A child that dies fails the jobs it had with `WorkerLost`; the next job starts another.
"""

from __future__ import annotations

import gc
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from queue import SimpleQueue
from threading import Lock, Thread, get_native_id
from typing import Final

from leafdb.errors import StorageError
from leafdb.limits import WORKER_NICE
from leafdb.storage.compaction_pace import Rests
from leafdb.storage.job_slices import job_slices
from leafdb.storage.jobs import Done, FlushJob, Job, JobResult, Outcome, ToLoop
from leafdb.storage.worker_cores import Cores, LinuxScheduler
from leafdb.storage.worker_protocol import (
    FrameBuffer,
    WorkerLost,
    decode_answer,
    decode_request,
    encode_answer,
    encode_pace,
    encode_request,
)
from leafdb.vfs.base import FileSystem
from leafdb.vfs.disk import DiskFileSystem

_READ_BYTES: Final = 65_536
_STOP_S: Final = 5.0
"""How long a child that lost its stdin may take to exit; it looks at it after every slice of a job."""

AUTOGROUP_PATH: Final = "/proc/self/autogroup"

_Running = tuple[int, Generator[None, None, JobResult]]


def readable(descriptor: int, wait_s: float | None) -> bool:
    """Whether there is something to read, or the other end is gone, after waiting so long for it (None: for ever)."""
    return bool(select.select([descriptor], [], [], wait_s)[0])


class Worker:
    """Serves the jobs that come in on one descriptor and answers on another, until the first one ends."""

    def __init__(
        self,
        fs: FileSystem,
        *,
        requests: int,
        answers: int,
        now_s: Callable[[], float] = time.monotonic,
        readable: Callable[[int, float | None], bool] = readable,
        give_way: Callable[[], None] = os.sched_yield,
    ) -> None:
        self._fs = fs
        self._now_s = now_s
        self._readable = readable
        self._give_way = give_way
        self._rests = Rests()
        self._requests = requests
        self._answers = answers
        self._buffer = FrameBuffer()
        self._flushes: list[_Running] = []
        self._compactions: list[_Running] = []

    def serve(self) -> None:
        while self._receive():
            if self._flushes:
                self._step(self._flushes)
                self._give_way()
            elif self._compactions and not self._wait_s():
                began_s = self._now_s()
                self._step(self._compactions)
                self._rests.worked(began_s, self._now_s())
                self._give_way()

    def _wait_s(self) -> float | None:
        """How long nothing is to be done unless a request comes; None: for ever."""
        if self._flushes:
            return 0.0
        return self._rests.left_s(self._now_s()) if self._compactions else None

    def _receive(self) -> bool:
        """Take the requests that have come, waiting for one as long as there is nothing to do; False when the parent
        left."""
        if not self._readable(self._requests, self._wait_s()):
            return True
        data = os.read(self._requests, _READ_BYTES)
        for message in self._buffer.feed(data):
            request = decode_request(message)
            if isinstance(request, float):
                self._rests.share = request
                continue
            number, job = request
            queue = self._flushes if isinstance(job, FlushJob) else self._compactions
            queue.append((number, job_slices(self._fs, job)))
        return bool(data)

    def _step(self, queue: list[_Running]) -> None:
        """One slice of the queue's first job."""
        number, slices = queue[0]
        try:
            next(slices)
            return
        except StopIteration as end:
            answer = encode_answer(number, end.value)
        except StorageError as error:
            answer = encode_answer(number, error)
        del queue[0]
        gc.collect()
        rest = memoryview(answer)
        while rest:
            rest = rest[os.write(self._answers, rest) :]


class _Child:
    """One worker process and the jobs it holds. `jobs` and `lost` belong to the runner's lock."""

    __slots__ = ("jobs", "lost", "process", "reader")

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.jobs: set[int] = set()
        self.lost = False
        self.reader: Thread | None = None


class ProcessJobRunner:
    """Runs jobs in a worker process of its own, started with the first job or by `start`. Made on the thread of the
    loop, whose core the worker keeps off."""

    def __init__(self, root: str, to_loop: ToLoop) -> None:
        self._command = [sys.executable, "-m", "leafdb.storage.worker", root, str(get_native_id())]
        self._to_loop = to_loop
        self._waiting: dict[int, Done] = {}  # touched on the loop alone
        self._next_number = 1
        self._lock = Lock()
        self._child: _Child | None = None
        self._closed = False
        self._outbox: SimpleQueue[tuple[int, bytes] | None] = SimpleQueue()
        self._writer = Thread(target=self._write_loop, name="leafdb-jobs", daemon=True)
        self.starts: int = 0
        """How many children were started; every one after the first stands for one that died."""
        self._writer.start()

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

    def pace(self, share: float) -> None:
        if not self._closed:
            self._outbox.put((0, encode_pace(share)))

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
        self.starts += 1
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


def be_nice() -> None:
    """Give way to the node. Where the kernel shares time out between sessions first (sched_autogroup), the niceness of
    a process weighs only inside its own, and the worker has one to itself: there the session is made as nice."""
    try:
        niceness = os.nice(WORKER_NICE)
    except PermissionError:
        return  # a sandbox forbids it, as a unit without @resources does: node and worker are equals then
    if os.getsid(0) == os.getpid():
        with suppress(OSError), open(AUTOGROUP_PATH, "w", encoding="ascii") as group:  # other kernels have none
            group.write(str(niceness))


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or not arguments[1].isdigit():
        sys.stderr.write("usage: python -m leafdb.storage.worker ROOT LOOP\n")
        return 2
    root, loop_thread = arguments
    be_nice()
    cores = Cores(LinuxScheduler(int(loop_thread)))

    def give_way() -> None:
        os.sched_yield()
        cores.look(time.monotonic())

    gc.freeze()
    gc.disable()
    # The answer pipe gets a number of its own, so that a stray print cannot break the protocol.
    answers = os.dup(1)
    os.dup2(2, 1)
    try:
        Worker(DiskFileSystem(root), requests=0, answers=answers, give_way=give_way).serve()
    except BrokenPipeError:
        return 0  # the parent left without closing stdin first
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
