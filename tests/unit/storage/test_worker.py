"""The worker as a process: light, obedient, gone when its parent is."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from leafdb.limits import WORKER_NICE
from leafdb.model.hlc import LOGICAL_BITS
from leafdb.node.engine_settings import EXPIRY
from leafdb.storage.forgotten import Told
from leafdb.storage.jobs import CompactionJob, CompactionResult, FlushJob, FlushResult
from leafdb.storage.worker import be_nice
from leafdb.storage.worker_protocol import FrameBuffer, decode_answer, encode_frame, encode_request
from leafdb.vfs.disk import DiskFileSystem
from support.sweeping import record
from support.tables import TREE, prepare, write_segment, write_table

COMMAND = [sys.executable, "-m", "leafdb.storage.worker"]
WAIT_S = 60


@pytest.fixture
def disk(tmp_path: Path) -> DiskFileSystem:
    fs = DiskFileSystem(str(tmp_path))
    prepare(fs)
    return fs


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [*COMMAND, str(tmp_path), str(threading.get_native_id())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    ) as process:
        yield process
        process.kill()


def send(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(data)


def answers(process: subprocess.Popen[bytes], count: int) -> list[tuple[int, object]]:
    assert process.stdout is not None
    buffer, found = FrameBuffer(), list[tuple[int, object]]()
    while len(found) < count:
        data = process.stdout.read(65_536)
        assert data, "the worker ended"
        found += [decode_answer(message) for message in buffer.feed(data)]
    return found


def test_it_imports_no_event_loop_and_no_command_line() -> None:
    code = (
        "import sys, leafdb.storage.worker, leafdb.model.purge\n"
        "print(sorted({'trio', 'anyio', 'asyncio', 'typer', 'pydantic', 'multiprocessing'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=WAIT_S, check=True)
    assert done.stdout == "[]\n"


def test_it_ends_with_its_input(worker: subprocess.Popen[bytes]) -> None:
    assert worker.stdin is not None
    worker.stdin.close()
    assert worker.wait(WAIT_S) == 0
    assert worker.stderr is not None
    assert worker.stderr.read() == b""


def test_it_ends_in_the_middle_of_a_job_and_touches_only_what_it_was_allotted(
    disk: DiskFileSystem, worker: subprocess.Popen[bytes]
) -> None:
    meta = write_table(disk, {b"%06d" % n: (n, b"x" * 20) for n in range(20_000)}, file_number=1, run=2000)
    path = write_segment(disk, 1, 1, [(TREE, b"a", b"1")])
    before = disk.list("tables") + disk.list("wal")
    send(worker, encode_request(2, CompactionJob(tree_id=TREE, inputs=(meta,) * 100, output_level=1, outputs=(2,))))
    send(worker, encode_request(1, FlushJob(segments=(path,), outputs=((TREE, 3),), upto_lsn=1)))
    assert answers(worker, 1)[0][0] == 1
    assert os.getpriority(os.PRIO_PROCESS, worker.pid) - os.getpriority(os.PRIO_PROCESS, 0) == WORKER_NICE
    assert worker.stdin is not None
    worker.stdin.close()
    assert worker.wait(WAIT_S) == 0
    after = disk.list("tables") + disk.list("wal")
    assert set(before) <= set(after) <= {*before, "0000000002.sst", "0000000003.sst"}


def autogroup(process: int | str) -> str:
    """What the kernel says of the session of a process: its name and its niceness."""
    path = Path(f"/proc/{process}/autogroup")
    if not path.exists():
        pytest.skip("this kernel does not share time out between sessions: there is no autogroup")
    return path.read_text()


def test_its_session_is_as_nice_as_it_is(tmp_path: Path) -> None:
    """A kernel that shares time out between sessions first would else count it for as much as the node."""
    ours = autogroup("self")
    with subprocess.Popen(
        [*COMMAND, str(tmp_path), str(threading.get_native_id())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
    ) as process:
        job = FlushJob(segments=("wal/none.log",), outputs=((TREE, 7),), upto_lsn=1)
        send(process, encode_request(1, job))
        answers(process, 1)
        assert f"nice {os.getpriority(os.PRIO_PROCESS, process.pid)}\n" in autogroup(process.pid)
        process.kill()
    assert autogroup("self") == ours


def test_in_the_session_of_another_it_leaves_that_as_it_is(worker: subprocess.Popen[bytes]) -> None:
    ours = autogroup("self")
    send(worker, encode_request(1, FlushJob(segments=("wal/none.log",), outputs=((TREE, 7),), upto_lsn=1)))
    answers(worker, 1)
    assert autogroup("self") == ours == autogroup(worker.pid)


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff\xff", b"\x01\0\0\0\xff", encode_frame({"id": 1, "job": 2})])
def test_garbage_on_its_input_ends_it_with_a_reason(worker: subprocess.Popen[bytes], garbage: bytes) -> None:
    send(worker, garbage)
    assert worker.wait(WAIT_S) == 1
    assert worker.stderr is not None
    complaint = worker.stderr.read()
    assert b"ValueError" in complaint or b"DecodeError" in complaint


def test_it_finds_the_filter_of_a_job_by_its_name(disk: DiskFileSystem, worker: subprocess.Popen[bytes]) -> None:
    records = [record(1 << LOGICAL_BITS, expires_ms=at) for at in (500, 700)]
    path = write_segment(disk, 1, 1, [(TREE, b"%d" % number, each) for number, each in enumerate(records)])
    job = FlushJob(segments=(path,), outputs=((TREE, 3),), upto_lsn=2, expiring=(TREE,), expiry=EXPIRY)
    send(worker, encode_request(1, job))
    ((_, result),) = answers(worker, 1)
    assert isinstance(result, FlushResult)
    assert result.added[0].newest_expiry_ms == 700
    told = (Told(b"", None, 600, 2),)
    job_of_all = CompactionJob(
        tree_id=TREE, inputs=result.added, output_level=1, outputs=(4, 5), forgotten=told, expiry=EXPIRY
    )
    send(worker, encode_request(2, job_of_all))
    ((_, merged),) = answers(worker, 1)
    assert isinstance(merged, CompactionResult)
    assert (merged.entries_written, merged.added[0].newest_expiry_ms) == (1, 700)


def test_without_a_root_it_says_how_it_is_called() -> None:
    done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 2
    assert "usage" in done.stderr


def test_a_sandbox_that_forbids_niceness_stops_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(increment: int) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "nice", refuse)
    be_nice()
