"""Promises: every tier has a runner, which needs nothing but the base install and never raises."""

from __future__ import annotations

import subprocess
import sys

from leafdb.sim.outcome import Outcome, Tier
from leafdb.sim.tiers import MODULES, guarded

PROGRAM = """
import sys
for extra in ("pydantic", "structlog", "prometheus_client", "typer", "rich", "pytest", "hypothesis"):
    sys.modules[extra] = None
from leafdb.sim.outcome import Tier
from leafdb.sim.tiers import runner
for tier in Tier:
    assert callable(runner(tier))
"""


def test_every_tier_runs_on_the_base_install() -> None:
    assert set(MODULES) == set(Tier)
    subprocess.run([sys.executable, "-c", PROGRAM], timeout=60, check=True)


def test_what_a_run_raises_is_an_outcome() -> None:
    def raises(seed: int, *, nodes: int = 5, operations: int = 1, keep: bool = False) -> Outcome:
        raise ExceptionGroup("several", [ValueError("no such thing")])

    outcome = guarded(Tier.STORE, raises)(7, nodes=3, operations=9)
    assert (outcome.tier, outcome.seed, outcome.nodes, outcome.operations) == (Tier.STORE, 7, 3, 9)
    assert outcome.broken is not None
    assert outcome.broken.invariant == "A"
    assert "ValueError: no such thing" in outcome.broken.message
