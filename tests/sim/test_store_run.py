"""The store tier: seeds hold, a seed is one run, a shorter run is a prefix, and the rare things are met."""

from __future__ import annotations

from collections import Counter

import pytest

from leafdb.sim.outcome import Tier
from leafdb.sim.store_run import PROBES, run

SEEDS = (*range(1, 40), 61)
"""The last makes a tree again, which few do."""


def test_the_store_keeps_its_promises_under_forty_programs() -> None:
    probes: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    for seed in SEEDS:
        outcome = run(seed, operations=500)
        assert outcome.broken is None, f"seed {seed}: {outcome.broken}"
        assert outcome.operations == 500
        assert outcome.tier is Tier.STORE
        assert set(outcome.probes) == set(PROBES)
        probes.update(outcome.probes)
        faults.update(outcome.faults)
    assert [name for name in PROBES if not probes[name]] == []
    assert {"kill", "power cut", "sync fails", "disk full", "damage on a copy"} <= set(faults)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_seed_is_one_run_and_a_shorter_one_its_prefix(seed: int) -> None:
    first = run(seed, operations=300, keep=True)
    again = run(seed, operations=300)
    assert first.trace == again.trace
    assert again.lines == ()
    shorter = run(seed, operations=150, keep=True)
    alike = [line for line in shorter.lines if line.who == "program"]
    assert alike == [line for line in first.lines if line.who == "program"][: len(alike)]
    assert shorter.trace != first.trace
