"""Whole clusters whose ring changes (I18 to I22): seeds that end clean, can be repeated, and see what they ought."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from leafdb.sim import cluster_run, ring_run
from leafdb.sim.outcome import Tier
from leafdb.sim.plan import Plan

ASK = "from leafdb.sim import ring_run; print(ring_run.run({seed}, operations={operations}).trace)"


@pytest.mark.parametrize("seed", [45, 48, 54, 61, 70])
def test_a_seed_keeps_every_promise(seed: int) -> None:
    outcome = ring_run.run(seed, operations=100)
    assert outcome.broken is None, f"seed {seed}: {outcome.broken}"
    assert outcome.tier is Tier.RING
    assert outcome.probes["plan_committed"], "a seed in which nothing happens says nothing"


def test_a_new_machine_whose_disk_fails_at_once_is_mended_and_started_again() -> None:
    """It used to end the run, as if a node had broken something."""
    for seed in range(69, 109):
        outcome = ring_run.run(seed, operations=60)
        assert outcome.broken is None, f"seed {seed}: {outcome.broken}"
        if outcome.probes["start_failed"]:
            return
    raise AssertionError("in none of 40 seeds does a new machine's disk fail")


def test_a_newcomer_that_is_cut_off_as_reads_move_misses_what_others_acknowledge() -> None:
    outcome = ring_run.run(12, operations=100)
    assert outcome.broken is None
    assert outcome.faults["cut_off_at_a_step"]
    assert outcome.probes["newcomer_missed_a_write"]
    assert outcome.probes["plan_ended_unheard"]


def test_a_session_is_one_before_it_leaves_its_first_node() -> None:
    """Seed 422504403: two calls of a client whose token nobody had asked for were judged as those of a session."""
    outcome = ring_run.run(422504403, operations=1)
    assert outcome.broken is None, outcome.broken


def test_who_starts_may_be_behind_until_it_has_read_its_store() -> None:
    """Seed 943633423: a write that began while its coordinator started was judged as if that one knew the new ring."""
    outcome = ring_run.run(943633423, operations=12)
    assert outcome.broken is None, outcome.broken


def test_the_same_seed_runs_the_same_way_in_another_process() -> None:
    here = ring_run.run(45, operations=60)
    assert here.probes["plan_committed"]
    env = {**os.environ, "PYTHONHASHSEED": "1"}
    ask = ASK.format(seed=45, operations=60)
    answer = subprocess.run([sys.executable, "-c", ask], env=env, capture_output=True, text=True, timeout=120)
    assert answer.stdout.strip() == here.trace, answer.stderr


def test_whole_clusters_have_rings_that_change_now_and_then() -> None:
    seed = next(seed for seed in range(100) if Plan.draw(seed, 4).rings is not None)
    outcome = cluster_run.run(seed, nodes=4, operations=60)
    assert outcome.broken is None, f"seed {seed}: {outcome.broken}"
    assert outcome.probes["read_after_a_step"] or not outcome.probes["plan_committed"]


def test_who_is_down_may_start_again_with_an_epoch_of_before() -> None:
    """A node's disk fails as it writes epoch 9. It starts again in epoch 8 and takes a write by that, alone, which
    whoever copies the range waits for. The judge had taken it for a member of epoch 9."""
    assert cluster_run.run(37, nodes=5, operations=52).broken is None
