"""The register under everything at once: agreement (I24), linearizability (I25), durable promises (I26), honesty (I10).

The histories are those of leafdb.sim.register_run. The broken rules below are the register's part of the bug museum:
each breaks one rule from outside the machines, and the judgement must notice.
"""

from __future__ import annotations

from random import SystemRandom

import pytest

from leafdb.sim.register_run import PROBES, run
from leafdb.sim.register_world import Rules

OPERATIONS = 1_000


def test_agreement_and_linearizability_under_every_fault() -> None:
    first = SystemRandom().randrange(1 << 32)
    print(f"seeds from {first}")
    hit = dict.fromkeys(PROBES, 0)
    for seed in range(first, first + 3):
        outcome = run(seed, operations=OPERATIONS)
        assert outcome.broken is None, f"seed {seed}: {outcome.broken}"
        assert outcome.operations == OPERATIONS
        for name, count in outcome.probes.items():
            hit[name] += count
    # The faults must bite, and the register must get work done all the same.
    assert all(hit.values()), hit


def test_the_same_seed_goes_the_same_way_and_fewer_operations_are_a_prefix() -> None:
    long = run(7, operations=200, keep=True)
    assert run(7, operations=200).trace == long.trace
    assert run(8, operations=200).trace != long.trace
    short = run(7, operations=100, keep=True)
    last_history = max(at for at, line in enumerate(short.lines) if line.who == "runner")
    assert short.lines[:last_history] == long.lines[:last_history]


@pytest.mark.parametrize(
    ("rules", "invariants"),
    [
        pytest.param(Rules(remember=False), {"I24", "I25", "I26", "I10"}, id="wiped acceptor votes"),
        pytest.param(Rules(persist_first=False), {"I24", "I25", "I26", "I10"}, id="promise sent before it is durable"),
        pytest.param(Rules(fresh_ballots=False), {"I24", "I25", "I10", "A"}, id="ballot reused after a restart"),
        pytest.param(Rules(finish_reads=False), {"I25", "I10"}, id="read without accept (12126)"),
        pytest.param(Rules(ask_again_carefully=False), {"I10", "I25"}, id="retry applies twice"),
    ],
)
def test_a_broken_rule_is_noticed(rules: Rules, invariants: set[str]) -> None:
    for seed in range(18, 58):
        outcome = run(seed, operations=OPERATIONS, rules=rules)
        if outcome.broken is not None:
            assert outcome.broken.invariant in invariants, f"seed {seed}: {outcome.broken}"
            return
    pytest.fail("no history showed the broken rule")
