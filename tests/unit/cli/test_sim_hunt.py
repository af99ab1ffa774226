"""Promises: the museum hunts each mutation with rising seeds until it is caught, tells an unexpected catch from an
expected one, never counts a seed that fails anyway, and fails when a bug gets away."""

from __future__ import annotations

import json
from collections.abc import Sequence

from leafdb.sim.mutation import Edit, Mutation
from leafdb.sim.outcome import Outcome, Tier
from leafdb.testing.violation import Invariant
from leafdb_cli.options import Format
from leafdb_cli.sim_museum import print_list, run_museum
from leafdb_cli.sim_pool import Job
from support.simulations import FakePool, Screen, Verdict, broke, held


def toy(name: str, *, compare: bool = False, edits: tuple[Edit, ...] = ()) -> Mutation:
    expected = (Invariant.DETERMINISTIC,) if compare else (Invariant.NOTHING_LOST,)
    return Mutation(name, f"a bug named {name}", edits, Tier.RECORD, expected, 4, 3, 50, compare)


def hunted(verdict: Verdict, *mutations: Mutation) -> tuple[bool, dict[str, dict[str, object]], FakePool]:
    screen, pool = Screen(Format.JSON), FakePool(verdict)
    fine = run_museum(screen.session, pool, mutations)
    items: Sequence[dict[str, object]] = json.loads(screen.out.getvalue())["items"]
    return fine, {str(item["mutation"]): item for item in items}, pool


def test_seeds_rise_until_one_catches_it_and_that_one_is_run_without_it() -> None:
    def verdict(job: Job) -> Outcome:
        return broke(job, "I2") if job.mutation and job.seed == 3 else held(job)

    fine, items, pool = hunted(verdict, toy("one"))
    assert fine
    assert [(job.seed, job.mutation) for job in pool.jobs] == [(1, "one"), (2, "one"), (3, "one"), (3, "")]
    item = items["one"]
    assert (item["verdict"], item["invariant"], item["seed"], item["runs"]) == ("caught", "I2", 3, 3)
    assert item["expected"] == ["I2"]
    assert str(item["replay"]).endswith("--seed 3 --nodes 3 --ops 50 --tier record --mutation one")


def test_an_unexpected_invariant_is_a_catch_and_marked() -> None:
    fine, items, _ = hunted(lambda job: broke(job, "L") if job.mutation else held(job), toy("one"))
    assert fine
    assert (items["one"]["verdict"], items["one"]["invariant"]) == ("caught otherwise", "L")


def test_a_bug_that_gets_away_fails_the_museum() -> None:
    fine, items, pool = hunted(held, toy("one"))
    assert not fine
    assert items["one"]["verdict"] == "NOT CAUGHT"
    assert len(pool.jobs) == 4


def test_a_seed_that_fails_without_the_bug_has_caught_nothing() -> None:
    fine, items, _ = hunted(lambda job: broke(job, "I2"), toy("one"))
    assert not fine
    assert items["one"]["verdict"] == "FAILS ANYWAY"


def test_a_run_without_a_verdict_is_no_catch() -> None:
    fine, items, _ = hunted(lambda job: "its worker died", toy("one"))
    assert not fine
    assert (items["one"]["verdict"], items["one"]["message"]) == ("TROUBLE", "its worker died")


def test_a_stale_mutation_is_told_and_not_run() -> None:
    stale = toy("old", edits=(Edit("leafdb.sim.trace", "no such line", "x"),))
    fine, items, pool = hunted(lambda job: broke(job, "I2") if job.mutation else held(job), stale, toy("one"))
    assert not fine
    assert items["old"]["verdict"] == "TROUBLE"
    assert "0 times" in str(items["old"]["message"])
    assert items["one"]["verdict"] == "caught"
    assert all(job.mutation != "old" for job in pool.jobs)


def test_an_order_that_differs_is_found_by_running_a_seed_twice() -> None:
    def verdict(job: Job) -> Outcome:
        return held(job, trace=f"{job.hash_seed if job.seed == 2 else 0}")

    fine, items, pool = hunted(verdict, toy("order", compare=True))
    assert fine
    assert (items["order"]["invariant"], items["order"]["seed"], items["order"]["runs"]) == ("I39", 2, 4)
    assert [job.seed for job in pool.jobs] == [1, 1, 2, 2, 2]
    assert len({job.hash_seed for job in pool.jobs[:2]}) == 2


def test_several_mutations_are_hunted_side_by_side() -> None:
    fine, items, pool = hunted(lambda job: broke(job, "I2") if job.mutation else held(job), toy("one"), toy("two"))
    assert fine
    assert {name: item["verdict"] for name, item in items.items()} == {"one": "caught", "two": "caught"}
    assert [job.mutation for job in pool.jobs] == ["one", "two", ""], "a control that two share is run once"


def test_the_list_shows_what_there_is() -> None:
    screen = Screen()
    print_list(screen.session, [toy("one")])
    assert "a bug named one" in screen.out.getvalue()
