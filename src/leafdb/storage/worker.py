"""The worker process: `python -m leafdb.storage.worker ROOT`. Flushes and compacts where no request waits for it.

Started by a node with a pipe on stdin and one on stdout, it takes jobs and answers them (`worker_protocol`). It is a
process and not a thread because merging holds the interpreter lock, and it is started anew and not forked because a
fork of a process with threads and an event loop is a copy of nobody knows what.

- It writes only file names a job allots and unlinks nothing, so that one that outlived its parent can do no harm.
- It exits as soon as stdin ends, even in the middle of a job: its parent is gone, nobody would trust the result.
- Jobs run in slices and flushes go before compactions, because a waiting flush holds memory and at last stops writes.
- Of a job that fails only the error is told. An error of ours, not of the world, ends the process.

It imports no trio: it starts in a fraction of a second and stays small.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Generator
from typing import Final

from leafdb.errors import StorageError
from leafdb.limits import WORKER_NICE
from leafdb.storage.job_slices import job_slices
from leafdb.storage.jobs import FlushJob, JobResult
from leafdb.storage.worker_protocol import FrameBuffer, decode_request, encode_answer
from leafdb.vfs.base import FileSystem
from leafdb.vfs.disk import DiskFileSystem

_READ_BYTES: Final = 65_536

_Running = tuple[int, Generator[None, None, JobResult]]


class Worker:
    """Serves the jobs that come in on one descriptor and answers on another, until the first one ends."""

    def __init__(self, fs: FileSystem, *, requests: int, answers: int) -> None:
        self._fs = fs
        self._requests = requests
        self._answers = answers
        self._buffer = FrameBuffer()
        self._flushes: list[_Running] = []
        self._compactions: list[_Running] = []

    def serve(self) -> None:
        while self._receive():
            queue = self._flushes or self._compactions
            if queue:
                self._step(queue)

    def _receive(self) -> bool:
        """Take the requests that have come, waiting for one when there is nothing to do; False when the parent left."""
        idle = not (self._flushes or self._compactions)
        if not idle and not select.select([self._requests], [], [], 0)[0]:
            return True
        data = os.read(self._requests, _READ_BYTES)
        for message in self._buffer.feed(data):
            number, job = decode_request(message)
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
        rest = memoryview(answer)
        while rest:
            rest = rest[os.write(self._answers, rest) :]


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m leafdb.storage.worker ROOT\n")
        return 2
    os.nice(WORKER_NICE)
    # The answer pipe gets a number of its own, so that a stray print cannot break the protocol.
    answers = os.dup(1)
    os.dup2(2, 1)
    try:
        Worker(DiskFileSystem(arguments[0]), requests=0, answers=answers).serve()
    except BrokenPipeError:
        return 0  # the parent left without closing stdin first
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
