"""Promises: a campaign runs fresh seeds within its bounds, tells every problem with its replay, names the probes that
were never hit, keeps its record, prints what there is when it is interrupted; seeds that do not repeat are found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from leafdb.errors import ConfigError
from leafdb.sim.outcome import Outcome
from leafdb_cli.exits import Quit
from leafdb_cli.options import Format
from leafdb_cli.sim_campaign import HASH_SEEDS, Bounds, fresh_seed, run_campaign, run_determinism
from leafdb_cli.sim_pool import Job
from leafdb_cli.sim_report import check_record
from support.simulations import FakePool, Screen, broke, held

FIRST = Job("record", 100, 3, 50)


def well(job: Job) -> Outcome:
    return held(job, faults={"kill": 2, "cut": 0}, probes={"met": 1, "unmet": 0})


def mixed(job: Job) -> Outcome | str:
    if job.seed == 101:
        return broke(job, "I2")
    return "its worker died with signal 9" if job.seed == 102 else well(job)


def test_a_campaign_runs_its_seeds_and_sums_them_up() -> None:
    screen, pool = Screen(), FakePool(well)
    assert run_campaign(screen.session, pool, FIRST, Bounds(None, 5), jobs=2)
    assert [job.seed for job in pool.jobs] == [100, 101, 102, 103, 104]
    text = screen.out.getvalue()
    assert "5 seeds 100 to 104, 0 violations" in text
    assert "250 operations, 0.05 virtual hours, 10 faults" in text
    assert "never hit: unmet" in text
    assert ["met", "5", "5"] in [line.split() for line in text.splitlines()]
    assert "seeds from 100" in screen.err.getvalue()


def test_no_seed_is_begun_when_the_time_is_up() -> None:
    screen, pool = Screen(), FakePool(well)
    assert run_campaign(screen.session, pool, FIRST, Bounds(0.0, None), jobs=2)
    assert pool.jobs == []
    assert "0 seeds, 0 violations" in screen.out.getvalue()


def test_every_problem_is_told_with_its_replay() -> None:
    screen = Screen()
    assert not run_campaign(screen.session, FakePool(mixed), FIRST, Bounds(None, 4), jobs=2)
    for text in (screen.out.getvalue(), screen.err.getvalue()):
        assert "seed 101 broke I2: it is gone (key k1)\n  again: leafdb sim run --seed 101 --nodes 3" in text
        assert "seed 102 has no verdict: its worker died with signal 9" in text
    assert "1 violations, 1 without a verdict" in screen.out.getvalue()


def test_as_json_it_is_one_document() -> None:
    screen = Screen(Format.JSON)
    run_campaign(screen.session, FakePool(mixed), FIRST, Bounds(None, 4), jobs=2)
    document = json.loads(screen.out.getvalue())
    assert document["kind"] == "SimCampaign"
    (item,) = document["items"]
    assert (item["seeds"], item["violations"], item["without_verdict"]) == (3, 1, 1)
    assert item["never_hit"] == ["unmet"]
    assert item["faults"][0] == {"name": "kill", "count": 4, "seeds": 2}
    assert [problem["seed"] for problem in item["problems"]] == [101, 102]


@pytest.mark.parametrize("name", ["campaign.md", "campaign.json"])
def test_the_record_holds_the_figures_and_what_they_belong_to(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    check_record(file)
    run_campaign(Screen().session, FakePool(mixed), FIRST, Bounds(None, 4), jobs=2, record=file)
    text = file.read_text()
    for what in ("unmet", "kill", "CPython", "commit", "--seed 101", "100"):
        assert what in text


@pytest.mark.parametrize("name", ["campaign.txt", "no/such/folder/campaign.md"])
def test_a_record_that_cannot_be_kept_is_refused_before_the_campaign(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        check_record(tmp_path / name)


def test_a_campaign_whose_workers_all_die_ends() -> None:
    screen, pool = Screen(), FakePool(lambda job: "its worker died with code 1")
    assert not run_campaign(screen.session, pool, FIRST, Bounds(None, 10_000), jobs=2)
    assert len(pool.jobs) < 20
    assert "ended early" in screen.err.getvalue()


def test_control_c_prints_what_there_is() -> None:
    def interrupted(job: Job) -> Outcome:
        if job.seed == 103:
            raise KeyboardInterrupt
        return well(job)

    screen = Screen()
    with pytest.raises(Quit) as quit_:
        run_campaign(screen.session, FakePool(interrupted, size=1), FIRST, Bounds(None, 9), jobs=1)
    assert quit_.value.code == 130
    assert "3 seeds 100 to 102, 0 violations" in screen.out.getvalue()


def test_campaigns_begin_anywhere() -> None:
    assert len({fresh_seed() for _ in range(20)}) > 15


def test_every_seed_is_run_in_two_fresh_processes_and_one_that_differs_is_found() -> None:
    def unstable(job: Job) -> Outcome:
        return held(job, trace=f"{job.seed}/{job.hash_seed if job.seed == 101 else 0}")

    screen, pool = Screen(), FakePool(unstable)
    assert not run_determinism(screen.session, pool, FIRST, 3)
    assert [(job.seed, job.hash_seed) for job in pool.jobs] == [
        (100 + i, seed) for i in range(3) for seed in HASH_SEEDS
    ]
    assert all(job.fresh for job in pool.jobs)
    assert "101  no" in screen.out.getvalue()
    assert "2 of 3 seeds gave the same trace in two processes" in screen.err.getvalue()
    assert run_determinism(Screen().session, FakePool(well), FIRST, 3)


def test_two_equal_troubles_are_no_proof() -> None:
    assert not run_determinism(Screen().session, FakePool(lambda job: "died"), FIRST, 1)
