"""Both runners answer every job once, on the loop and never inside `submit`; a dead worker costs its jobs, no more."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from random import Random

import pytest

from leafdb.errors import CorruptionError, DiskFull, StoreFailed
from leafdb.storage.job_runner import InlineJobRunner, Outcome, ProcessJobRunner
from leafdb.storage.jobs import CompactionJob, CompactionResult, FlushJob, FlushResult, Job
from leafdb.storage.sstable_reader import verify
from leafdb.storage.version import TableMeta, table_path
from leafdb.storage.worker_protocol import WorkerLost
from leafdb.vfs.disk import DiskFileSystem
from leafdb.vfs.memory import Fault
from support.tables import TREE, Model, prepare, read_table, store, write_segment, write_table

WAIT_S = 60.0


class Loop:
    """A stand-in for the event loop: callbacks queue up and run when the test says so."""

    def __init__(self) -> None:
        self.callbacks: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def soon(self, callback: Callable[[], None]) -> None:
        self.callbacks.put(callback)

    def until(self, outcomes: list[Outcome], count: int) -> None:
        while len(outcomes) < count:
            self.callbacks.get(timeout=WAIT_S)()


def tables_of(outcome: Outcome) -> list[TableMeta]:
    assert isinstance(outcome, FlushResult), outcome
    return list(outcome.added)


def flush_job(fs: DiskFileSystem, number: int) -> FlushJob:
    path = write_segment(fs, number, 1, [(TREE, b"k%d" % n, b"v%d" % n) for n in range(100)])
    return FlushJob(segments=(path,), outputs=((TREE, number),), upto_lsn=100)


def long_job(fs: DiskFileSystem, number: int) -> CompactionJob:
    """A merge of some seconds: one table against itself, many times."""
    rng = Random(number)
    model: Model = {rng.randbytes(8): (n, rng.randbytes(20)) for n in range(20_000)}
    meta = write_table(fs, model, file_number=number, run=2000)
    return CompactionJob(
        tree_id=TREE, inputs=(meta,) * 100, output_level=1, outputs=tuple(range(number + 1, number + 9))
    )


def begun(fs: DiskFileSystem, number: int) -> None:
    """Wait until a job has begun to write the table: one that its worker never saw would be given to the next."""
    deadline = time.monotonic() + WAIT_S
    while not fs.exists(table_path(number)):
        assert time.monotonic() < deadline, f"table {number} was never begun"
        time.sleep(0.005)


# -- inline


def test_inline_jobs_run_in_order_and_never_inside_submit() -> None:
    fs, outcomes = store(), list[Outcome]()
    path = write_segment(fs, 1, 1, [(TREE, b"a", b"1")])
    runner = InlineJobRunner(fs)
    runner.submit(FlushJob(segments=(path,), outputs=((TREE, 1),), upto_lsn=1), outcomes.append)
    runner.submit(FlushJob(segments=(path,), outputs=((TREE, 2),), upto_lsn=1), outcomes.append)
    assert not outcomes
    runner.run_pending()
    assert [tables_of(outcome)[0].file_number for outcome in outcomes] == [1, 2]
    assert not runner.step()


def test_inline_jobs_run_a_slice_a_turn_of_the_loop() -> None:
    fs, loop, outcomes = store(), Loop(), list[Outcome]()
    path = write_segment(fs, 1, 1, [(TREE, b"%d" % n, b"1") for n in range(5000)])
    runner = InlineJobRunner(fs, loop.soon)
    runner.submit(FlushJob(segments=(path,), outputs=((TREE, 1),), upto_lsn=5000), outcomes.append)
    turns = 0
    while not outcomes:
        loop.callbacks.get_nowait()()
        turns += 1
    assert turns >= 5
    assert loop.callbacks.empty()
    runner.submit(FlushJob(segments=(path,), outputs=((TREE, 2),), upto_lsn=5000), outcomes.append)
    loop.until(outcomes, 2)
    runner.close()


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault("sync", error=5), StoreFailed),
        (Fault("append", error=28), DiskFull),
        (Fault("create", error=17), StoreFailed),
    ],
)
def test_faults_of_the_disk_are_typed_answers(fault: Fault, kind: type[Exception]) -> None:
    fs, outcomes = store(), list[Outcome]()
    path = write_segment(fs, 1, 1, [(TREE, b"a", b"1")])
    fs.faults.append(fault)
    runner = InlineJobRunner(fs)
    runner.submit(FlushJob(segments=(path,), outputs=((TREE, 1),), upto_lsn=1), outcomes.append)
    runner.run_pending()
    assert isinstance(outcomes[0], kind)


def test_closing_inline_drops_jobs_and_closes_their_files() -> None:
    fs, outcomes = store(), list[Outcome]()
    path = write_segment(fs, 1, 1, [(TREE, b"%d" % n, b"1") for n in range(5000)])
    runner = InlineJobRunner(fs)
    before = fs.open_files
    runner.submit(FlushJob(segments=(path,), outputs=((TREE, 1),), upto_lsn=5000), outcomes.append)
    for _ in range(4):
        runner.step()
    runner.close()
    assert not outcomes
    assert fs.open_files == before


# -- in a process


@pytest.fixture
def disk(tmp_path: Path) -> DiskFileSystem:
    fs = DiskFileSystem(str(tmp_path))
    prepare(fs)
    return fs


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def runner(tmp_path: Path, loop: Loop) -> Iterator[ProcessJobRunner]:
    runner = ProcessJobRunner(str(tmp_path), loop.soon)
    yield runner
    runner.close()


def test_jobs_run_in_the_worker_and_its_tables_are_sound(
    disk: DiskFileSystem, loop: Loop, runner: ProcessJobRunner
) -> None:
    outcomes: list[Outcome] = []
    runner.submit(flush_job(disk, 1), outcomes.append)
    runner.submit(flush_job(disk, 2), outcomes.append)
    assert not outcomes
    loop.until(outcomes, 2)
    (old,), (new,) = map(tables_of, outcomes)
    job: Job = CompactionJob(tree_id=TREE, inputs=(new, old), output_level=1, outputs=(3,))
    runner.submit(job, outcomes.append)
    loop.until(outcomes, 3)
    result = outcomes[2]
    assert isinstance(result, CompactionResult)
    verify(disk, result.added[0])
    assert read_table(disk, result.added[0]) == read_table(disk, new)
    assert runner.pid not in (None, os.getpid())
    assert runner.starts == 1


def test_a_flush_overtakes_a_long_compaction(disk: DiskFileSystem, loop: Loop, runner: ProcessJobRunner) -> None:
    outcomes: list[Outcome] = []
    runner.submit(long_job(disk, 10), outcomes.append)
    runner.submit(flush_job(disk, 1), outcomes.append)
    loop.until(outcomes, 1)
    assert tables_of(outcomes[0])[0].file_number == 1


def test_a_pace_reaches_the_worker_is_no_job_and_stops_none(
    disk: DiskFileSystem, loop: Loop, runner: ProcessJobRunner
) -> None:
    outcomes: list[Outcome] = []
    old = write_table(disk, {b"a": (1, b"x")}, file_number=5)
    runner.pace(0.1)
    runner.submit(CompactionJob(tree_id=TREE, inputs=(old,), output_level=1, outputs=(6,)), outcomes.append)
    runner.pace(1.0)
    runner.submit(flush_job(disk, 1), outcomes.append)
    loop.until(outcomes, 2)
    assert {type(outcome) for outcome in outcomes} == {CompactionResult, FlushResult}
    assert runner.starts == 1
    runner.close()
    runner.pace(0.5)
    assert loop.callbacks.empty()


def test_a_killed_worker_fails_its_jobs_and_the_next_job_gets_another(
    disk: DiskFileSystem, loop: Loop, runner: ProcessJobRunner
) -> None:
    outcomes: list[Outcome] = []
    runner.submit(flush_job(disk, 1), outcomes.append)
    loop.until(outcomes, 1)
    first = runner.pid
    assert first is not None
    runner.submit(long_job(disk, 10), outcomes.append)
    begun(disk, 11)
    os.kill(first, signal.SIGKILL)
    loop.until(outcomes, 2)
    assert isinstance(outcomes[1], WorkerLost)
    assert outcomes[1].retryable
    runner.submit(flush_job(disk, 2), outcomes.append)
    loop.until(outcomes, 3)
    verify(disk, tables_of(outcomes[2])[0])
    assert runner.pid not in (None, first)
    assert runner.starts == 2


def test_errors_come_back_typed_and_the_worker_lives(
    disk: DiskFileSystem, loop: Loop, runner: ProcessJobRunner
) -> None:
    outcomes: list[Outcome] = []
    meta = write_table(disk, {b"a": (1, b"x"), b"b": (2, b"y")}, file_number=5)
    file = disk.open_append(meta.path)
    file.write_at(3, b"\xff\xff")
    file.close()
    runner.submit(CompactionJob(tree_id=TREE, inputs=(meta,), output_level=1, outputs=(6,)), outcomes.append)
    runner.submit(FlushJob(segments=("wal/none.log",), outputs=((TREE, 7),), upto_lsn=1), outcomes.append)
    runner.submit(flush_job(disk, 5), outcomes.append)  # its name is taken
    runner.submit(flush_job(disk, 8), outcomes.append)
    loop.until(outcomes, 4)
    kinds = {type(outcome) for outcome in outcomes}
    assert kinds == {CorruptionError, StoreFailed, FlushResult}
    assert runner.starts == 1


def test_closing_ends_the_worker_in_the_middle_of_a_job(
    disk: DiskFileSystem, loop: Loop, runner: ProcessJobRunner
) -> None:
    outcomes: list[Outcome] = []
    runner.submit(flush_job(disk, 1), outcomes.append)
    loop.until(outcomes, 1)
    pid = runner.pid
    assert pid is not None
    runner.submit(long_job(disk, 10), outcomes.append)
    runner.close()
    runner.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert runner.pid is None
    while not loop.callbacks.empty():
        loop.callbacks.get_nowait()()
    assert len(outcomes) == 1, "nobody is called after close"


def test_a_worker_that_cannot_start_is_an_answer(loop: Loop, tmp_path: Path) -> None:
    runner = ProcessJobRunner(str(tmp_path), loop.soon)
    runner._command = ["/nonexistent/python"]
    outcomes: list[Outcome] = []
    runner.submit(FlushJob(segments=(), outputs=(), upto_lsn=0), outcomes.append)
    loop.until(outcomes, 1)
    assert isinstance(outcomes[0], WorkerLost)
    runner.close()
