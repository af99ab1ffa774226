"""Promises: a seed that kills its worker or hangs it is known by name and the others go on; processes are used again
only for their own kind; none is left behind."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from leafdb_cli.sim_pool import Job, Pool, Result, results

DIES, HANGS, PRINTS = 13, 14, 15

WORKER = f"""
import os, sys, time
from leafdb.sim.outcome import Broken, Outcome
from leafdb_cli.sim_worker import answers_to_stdout, jobs_from, serve
import faulthandler

def runner(tier):
    def run(seed, *, nodes, operations):
        if seed == {DIES}:
            print("about to die", file=sys.stderr, flush=True)
            os._exit(3)
        while seed == {HANGS}:
            time.sleep(0.01)
        if seed == {PRINTS}:
            print("not an answer")
        trace = f"{{os.getpid()}} {{os.environ.get('PYTHONHASHSEED')}} {{sys.argv[1:]}}"
        broken = Broken("I2", "gone", "k") if seed == 2 else None
        return Outcome(tier, seed, nodes, operations, 1.5, trace, broken, {{"kill": 1}})
    return run

faulthandler.enable()
answers = answers_to_stdout()
serve(runner, jobs_from(sys.stdin), answers)
"""


@pytest.fixture
def command(tmp_path: Path) -> tuple[str, str]:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    return sys.executable, str(script)


def job(seed: int, **fields: object) -> Job:
    return Job("record", seed, 3, 10, **fields)  # type: ignore[arg-type]  # fields of a Job


def run_all(pool: Pool, jobs: Sequence[Job]) -> dict[int, Result]:
    waiting = list(jobs)
    found = list(results(pool, lambda: waiting.pop(0) if waiting else None, lambda: None))
    assert len(found) == len(jobs)
    return {result.job.seed: result for result in found}


def traces(found: dict[int, Result]) -> list[str]:
    return [result.outcome.trace for result in found.values() if result.outcome is not None]


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_outcomes_come_back_whole_and_a_printed_line_is_no_answer(command: tuple[str, str]) -> None:
    with Pool(1, 30.0, command) as pool:
        found = run_all(pool, [job(1), job(2), job(PRINTS)])
    assert all(result.outcome is not None for result in found.values())
    outcome = found[2].outcome
    assert outcome is not None
    assert outcome.broken is not None
    assert (outcome.tier.value, outcome.seed, outcome.nodes, outcome.operations) == ("record", 2, 3, 10)
    assert (outcome.broken.invariant, outcome.broken.key, outcome.virtual_s) == ("I2", "k", 1.5)
    assert outcome.faults == {"kill": 1}
    pids = {int(trace.split()[0]) for trace in traces(found)}
    assert len(pids) == 1, "one process ran all three"
    assert gone(pids.pop())


def test_a_worker_that_dies_is_reported_with_its_seed_and_its_last_words(command: tuple[str, str]) -> None:
    with Pool(1, 30.0, command) as pool:
        found = run_all(pool, [job(DIES), job(1)])
    assert found[DIES].outcome is None
    assert "died with code 3" in found[DIES].trouble
    assert "about to die" in found[DIES].trouble
    assert found[1].outcome is not None


def test_a_run_without_end_is_ended_and_says_where_it_was(command: tuple[str, str]) -> None:
    with Pool(1, 5.0, command) as pool:
        found = run_all(pool, [job(1), job(HANGS)])  # after one that ends, so that no slow start is what is ended
    assert found[1].outcome is not None
    assert found[HANGS].outcome is None
    assert "no end after" in found[HANGS].trouble
    assert "worker.py" in found[HANGS].trouble


def test_a_process_is_used_again_only_for_its_own_kind(command: tuple[str, str]) -> None:
    kinds = [job(1), job(2, hash_seed=7), job(3, hash_seed=7), job(4, hash_seed=7, fresh=True), job(5, mutation="toy")]
    with Pool(1, 30.0, command) as pool:
        one, two, three, four, five = (trace.split(maxsplit=2) for trace in traces(run_all(pool, kinds)))
    assert two[0] == three[0]
    assert len({one[0], two[0], four[0], five[0]}) == 4
    assert [two[1], three[1], four[1]] == ["7", "7", "7"]
    assert (one[2], five[2]) == ("[]", "['toy']")


def test_the_end_of_a_pool_is_the_end_of_its_processes(command: tuple[str, str]) -> None:
    with Pool(2, 30.0, command) as pool:
        pid = int(traces(run_all(pool, [job(1)]))[0].split()[0])
        pool.submit(job(HANGS))
        assert pool.free == 1
    assert gone(pid)


def test_the_replay_names_everything_that_matters() -> None:
    assert job(7).replay == "leafdb sim run --seed 7 --nodes 3 --ops 10 --tier record"
    assert job(7, mutation="toy").replay.endswith("--tier record --mutation toy")
