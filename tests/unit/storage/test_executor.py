"""Executors report results and errors on the loop, in order, and never inside submit."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial

import pytest

from leafdb.storage.executor import REST_FACTOR, REST_S_MAX, QueuedExecutor, Resting, ThreadExecutor


def test_queued_work_runs_when_asked_and_reports_errors_as_results() -> None:
    executor = QueuedExecutor()
    seen: list[object] = []
    executor.submit(lambda: 1 + 1, seen.append)
    executor.submit(lambda: 1 // 0, seen.append)
    executor.call_soon(lambda: executor.submit(lambda: "later", seen.append))
    assert seen == []
    assert executor.run_pending(1) == 1
    assert seen == [2]
    executor.close()
    assert isinstance(seen[1], ZeroDivisionError)
    assert seen[2:] == ["later"]
    with pytest.raises(AssertionError):
        executor.submit(lambda: 1, seen.append)


def test_one_thread_keeps_order_and_done_runs_on_the_loop() -> None:
    loop: deque[Callable[[], object]] = deque()
    executor = ThreadExecutor(1, loop.append)
    ran: list[str] = []
    results: list[object] = []

    def work(index: int) -> int:
        ran.append(threading.current_thread().name)
        return index

    for index in range(50):
        executor.submit(partial(work, index), results.append)
    executor.submit(lambda: 1 // 0, results.append)
    executor.drain()
    assert results == []
    assert set(ran) == {"leafdb-0"}
    while loop:
        loop.popleft()()
    assert results[:50] == list(range(50))
    assert isinstance(results[50], ZeroDivisionError)
    executor.close()
    executor.close()


def test_a_loop_that_has_ended_does_not_kill_the_thread() -> None:
    def ended(callback: Callable[[], None]) -> None:
        raise RuntimeError("the loop has ended")

    executor = ThreadExecutor(2, ended)
    for _ in range(5):
        executor.submit(lambda: None, lambda result: None)
    executor.drain()
    executor.close()


def test_a_thread_rests_for_many_times_as_long_as_its_step_took_and_not_for_what_came_before() -> None:
    clock = [5.0]
    rests: list[float] = []
    executor = ThreadExecutor(1, lambda callback: None, resting=Resting(rests.append, lambda: clock[0]))

    def step(seconds: float) -> None:
        clock[0] += seconds
        executor.rest()

    def opens_tables() -> None:
        for seconds in (0.001, 0.0005, 1.0):
            step(seconds)
        clock[0] += 0.7  # after the last rest

    executor.submit(opens_tables, lambda result: None)
    executor.submit(partial(step, 0.001), lambda result: None)
    executor.drain()
    executor.close()
    assert rests == pytest.approx([0.001 * REST_FACTOR, 0.0005 * REST_FACTOR, REST_S_MAX, 0.001 * REST_FACTOR])
