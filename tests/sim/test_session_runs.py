"""I9 for sessions that go from node to node at r=1 and w=1, with their token as bytes, under whatever breaks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from leafdb.sim import cluster_run
from leafdb.sim.plan import SESSIONS, Plan


@pytest.mark.parametrize("seed", range(100, 104))
def test_sessions_keep_their_guarantees_under_every_fault(seed: int) -> None:
    plan = replace(Plan.draw(seed, 5), sessions=SESSIONS)
    outcome = cluster_run.run_plan(plan, operations=120)
    assert outcome.broken is None, f"seed {seed}: {outcome.broken}"


def test_some_runs_have_sessions_and_others_are_as_they_were() -> None:
    drawn = [Plan.draw(seed, 5) for seed in range(100)]
    assert 20 < sum(1 for plan in drawn if plan.sessions) < 60
