"""Whole clusters from one seed (I39): runs that end clean, that can be repeated, that are beginnings of others."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from leafdb.sim import cluster_run
from leafdb.sim.outcome import Outcome
from leafdb.sim.plan import DESTROYERS, Plan, Trouble
from leafdb.sim.probes import PROBES
from leafdb.testing.violation import Invariant, Violation
from leafdb.types import Durability

ASK = "from leafdb.sim import cluster_run; print(cluster_run.run({seed}, nodes=3, operations={operations}).trace)"


def told(outcome: Outcome) -> list[tuple[float, str, str | None, str]]:
    return [(line.at_s, line.who, line.key, line.text) for line in outcome.lines]


@pytest.mark.parametrize("seed", range(6))
def test_a_seed_keeps_every_promise(seed: int) -> None:
    outcome = cluster_run.run(seed, operations=120)
    assert outcome.broken is None, f"seed {seed}: {outcome.broken}"
    assert set(outcome.probes) == {probe.name for probe in PROBES}


def test_the_same_seed_runs_the_same_way_in_another_process() -> None:
    here = cluster_run.run(3, nodes=3, operations=60).trace
    for hash_seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed}
        ask = ASK.format(seed=3, operations=60)
        answer = subprocess.run([sys.executable, "-c", ask], env=env, capture_output=True, text=True, timeout=120)
        assert answer.stdout.strip() == here, answer.stderr


def test_keeping_the_story_changes_nothing() -> None:
    short = cluster_run.run(4, nodes=3, operations=40)
    kept = cluster_run.run(4, nodes=3, operations=40, keep=True)
    assert short.trace == kept.trace
    assert not short.lines
    assert len(kept.lines) > 40


def test_a_run_with_fewer_operations_is_the_beginning_of_one_with_more() -> None:
    few = told(cluster_run.run(5, nodes=3, operations=40, keep=True))
    many = told(cluster_run.run(5, nodes=3, operations=80, keep=True))
    common = next(number for number, pair in enumerate(zip(few, many, strict=False)) if pair[0] != pair[1])
    client = [line for line in few if line[1].startswith("client")]
    assert len([line for line in few[:common] if line[1].startswith("client")]) >= len(client) // 2


def test_plans_are_drawn_from_the_seed_alone() -> None:
    assert Plan.draw(9, 5) == Plan.draw(9, 5)
    plans = [Plan.draw(seed, 5) for seed in range(400)]
    assert len({plan.describe() for plan in plans}) == 400
    seen = set().union(*(plan.kinds for plan in plans))
    assert seen == set(Trouble), "some trouble is never drawn"


def test_a_copy_of_a_disk_that_runs_beside_its_node_is_let_in_by_nobody() -> None:
    seed = next(seed for seed in range(28, 400) if Trouble.CLONE in Plan.draw(seed, 5).kinds)
    outcome = cluster_run.run(seed, operations=300)
    assert outcome.broken is None, f"seed {seed}: {outcome.broken}"
    assert outcome.faults["cloned_disk"] > 0


def test_a_copy_that_was_refused_where_it_could_not_hear_it_has_not_been_let_in() -> None:
    outcome = cluster_run.run(231384560, operations=150)
    assert outcome.broken is None, f"the way was cut between the handshake and the refusal: {outcome.broken}"
    assert {"cloned_disk", "rolled_back_disk"} & outcome.faults.keys()


def test_no_plan_destroys_more_than_was_promised() -> None:
    for plan in (Plan.draw(seed, 5) for seed in range(400)):
        assert len(plan.kinds & set(DESTROYERS)) <= 1
        if plan.bucket.durability is Durability.PERIODIC:
            assert Trouble.POWER_CUT_ALL not in plan.kinds


def test_of_a_group_of_errors_the_most_telling_is_reported() -> None:
    violation = Violation(Invariant.DOTS_UNIQUE, "a dot names two writes, <object at 0x7f00deadbeef>", "k")
    group = BaseExceptionGroup("", [ValueError("x"), BaseExceptionGroup("", [AssertionError("y"), violation])])
    broken = cluster_run.broken_by(group)
    assert (broken.invariant, broken.key) == ("I1", "k")
    assert "deadbeef" not in broken.message
    assert cluster_run.broken_by(BaseExceptionGroup("", [ValueError("x"), AssertionError("y")])).invariant == "A"
