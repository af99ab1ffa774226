"""The worker keeps off the loop's core while there is another, and not when that starves it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from leafdb.storage import worker_cores
from leafdb.storage.worker_cores import ANYWHERE_S, JUDGED_S, LOOK_S, Cores, LinuxScheduler

STEP_S = LOOK_S / 4
"""A slice of work."""


class Machine:
    """A scheduler for the tests."""

    def __init__(self, cores: int = 3) -> None:
        self.all = frozenset(range(cores))
        self.kept = self.all
        self.loop_is_on = 0
        self.waited = 0.0
        self.asked = 0
        self.moves = 0
        self.fails: type[Exception] | None = None

    def cores(self) -> frozenset[int]:
        return self.all

    def loop_core(self) -> int:
        self.asked += 1
        if self.fails is not None:
            raise self.fails("as the test has it")
        return self.loop_is_on

    def waited_s(self) -> float:
        return self.waited

    def keep_to(self, cores: frozenset[int]) -> None:
        assert cores, "nowhere to run"
        self.moves += 1
        self.kept = cores


def work(cores: Cores, machine: Machine, since_s: float, seconds: float, *, waiting: float = 0.0) -> float:
    """Slices for so long, ready and kept waiting for a share of the time; answers when they end."""
    now_s = since_s
    while now_s < since_s + seconds:
        now_s += STEP_S
        machine.waited += STEP_S * waiting
        cores.look(now_s)
    return now_s


def test_it_follows_the_loop_and_asks_seldom() -> None:
    machine = Machine()
    cores = Cores(machine)
    now_s = work(cores, machine, 100.0, 1.0)
    assert machine.kept == {1, 2}
    assert machine.moves == 1, "told of nothing new"
    assert machine.asked <= 1.0 / LOOK_S + 1
    machine.loop_is_on = 2
    work(cores, machine, now_s, 2 * LOOK_S)
    assert machine.kept == {0, 1}


def test_one_core_is_no_choice() -> None:
    machine = Machine(cores=1)
    work(Cores(machine), machine, 100.0, 1.0)
    assert machine.moves == machine.asked == 0


def test_who_is_starved_may_run_anywhere_for_a_while_and_tries_again() -> None:
    machine = Machine(cores=2)
    cores = Cores(machine)
    now_s = work(cores, machine, 100.0, 1.0)
    assert machine.kept == {1}
    now_s = work(cores, machine, now_s, 2 * JUDGED_S + 2 * LOOK_S, waiting=0.9)
    assert machine.kept == {0, 1}
    now_s = work(cores, machine, now_s, ANYWHERE_S - 2 * JUDGED_S)
    assert machine.kept == {0, 1}, "back at once"
    work(cores, machine, now_s, 3 * JUDGED_S)
    assert machine.kept == {1}


def test_a_wait_now_and_then_is_no_starving() -> None:
    machine = Machine(cores=2)
    work(Cores(machine), machine, 100.0, 3.0, waiting=0.4)
    assert machine.kept == {1}


def test_what_lies_between_two_jobs_is_not_held_against_the_cores() -> None:
    machine = Machine(cores=2)
    cores = Cores(machine)
    now_s = work(cores, machine, 100.0, 1.0)
    machine.waited += 10.0
    work(cores, machine, now_s + 60.0, 1.0)
    assert machine.kept == {1}


@pytest.mark.parametrize("said", [b"", b"12\n", b"0 0 0\n", b"a b c\n"])
def test_a_kernel_that_does_not_count_waiting_leaves_the_worker_where_it_is_put(
    said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ "0 0 0" is what it says where that is switched off: who believed it would starve without knowing."""
    monkeypatch.setattr(worker_cores, "_read", lambda path: said)
    moved: list[object] = []
    monkeypatch.setattr(LinuxScheduler, "keep_to", lambda self, cores: moved.append(cores))
    cores = Cores(LinuxScheduler(1))
    cores.look(100.0)
    assert moved == []


@pytest.mark.parametrize("error", [OSError, ValueError])
def test_what_the_system_does_not_tell_leaves_the_worker_where_it_is_put(error: type[Exception]) -> None:
    machine = Machine(cores=2)
    cores = Cores(machine)
    now_s = work(cores, machine, 100.0, 1.0)
    machine.fails = error
    work(cores, machine, now_s, 1.0)
    assert machine.kept == {0, 1}
    assert machine.asked <= 1.0 / LOOK_S + 2, "asks again and again"


def test_the_kernel_is_understood() -> None:
    """In a process of its own, since it moves itself; the loop is this thread."""
    scheduler = LinuxScheduler(threading.get_native_id())
    try:
        cores, waited_s = scheduler.cores(), scheduler.waited_s()
    except OSError as error:
        pytest.skip(f"this system does not tell: {error}")
    assert cores == os.sched_getaffinity(0)
    assert scheduler.loop_core() in cores
    assert waited_s >= 0.0
    if len(cores) == 1:
        pytest.skip("there is one core")
    code = (
        "import os, sys\n"
        "from leafdb.storage.worker_cores import Cores, LinuxScheduler\n"
        "scheduler = LinuxScheduler(int(sys.argv[1]))\n"
        "before = os.sched_getaffinity(0)\n"
        "Cores(scheduler).look(1.0)\n"
        "print(len(before - os.sched_getaffinity(0)))\n"
    )
    argv = [sys.executable, "-c", code, str(threading.get_native_id())]
    assert subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout == "1\n"
