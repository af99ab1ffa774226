"""Samples of the three campaigns of one store: power cuts at every call, a failure of every call, damage of every kind.

Promises: prefix durability (I29), crash idempotence (I30), no phantoms (I31), corruption detected (I32). In earnest:
`leafdb sim run --tier crash|failing|damage --seeds N`, whose results are in bench/results.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from leafdb.sim import crash_run, damage_run, failing_run
from leafdb.sim.outcome import Outcome, Runner
from leafdb.vfs.memory_faults import LOSE, MISDIRECT

PROGRAM = """
from leafdb.sim.museum import BY_NAME
from leafdb.sim.mutation import activate
activate(BY_NAME["{name}"])
from leafdb.sim.outcome import Tier
from leafdb.sim.tiers import runner
run = runner(Tier("{tier}"))
print(next(broken.invariant for seed in range(1, 9) if (broken := run(seed, operations=30).broken)))
"""


def sums(outcomes: list[Outcome]) -> tuple[Counter[str], Counter[str]]:
    """All probes and all faults; every run held."""
    probes: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    for outcome in outcomes:
        assert outcome.broken is None, f"seed {outcome.seed}, {outcome.operations} operations: {outcome.broken}"
        probes.update(outcome.probes)
        faults.update(outcome.faults)
    return probes, faults


def test_no_power_cut_at_any_call_takes_what_was_acknowledged() -> None:
    probes, _ = sums([crash_run.run(seed, operations=32) for seed in (3, 19, 25, 62)])
    assert probes["an image"] > 1_500
    rare = ("a tree dropped", "a tree made again", "a snapshot dropped", "a clean reopening")
    assert [name for name in crash_run.PROBES if not probes[name] and name not in rare] == []


def test_whichever_call_fails_the_store_serves_on_or_stops_and_loses_nothing() -> None:
    probes, faults = sums([failing_run.run(seed, operations=25) for seed in (5, 14)])
    assert faults["EIO"] == probes["a call"] > 150
    assert faults["ENOSPC"] > 100
    for ending in (failing_run.SERVING, failing_run.STOPPED, failing_run.NOT_OPENED):
        assert probes[ending] > 10, ending
    assert sum(probes[ending] for ending in failing_run.ENDINGS) == faults["EIO"] + faults["ENOSPC"]


def test_damage_of_any_file_is_never_a_wrong_answer() -> None:
    probes, faults = sums([damage_run.run(seed, operations=60) for seed in (1, 2, 3, 4)])
    assert probes["a corruption"] > 600
    assert [name for name in damage_run.PROBES if not probes[name]] == []
    assert faults.total() == probes["a corruption"]
    for name in damage_run.FILES:
        assert any(fault.endswith(f" in {name}") for fault in faults), name
    for kind in ("flip", "zeros", "cut", "swapped", "misdirected", LOSE, MISDIRECT):
        assert any(fault.startswith(f"{kind} in ") for fault in faults), kind


@pytest.mark.parametrize("run", [crash_run.run, failing_run.run, damage_run.run])
def test_a_seed_of_a_matrix_is_one_run(run: Runner) -> None:
    first = run(6, operations=12, keep=True)
    again = run(6, operations=12)
    assert first.trace == again.trace
    assert first.trace != run(7, operations=12).trace
    assert first.lines
    assert again.lines == ()


@pytest.mark.parametrize(
    ("tier", "name", "invariant"),
    [
        ("crash", "current-before-manifest-sync", "I29"),
        ("crash", "acknowledged-before-sync", "I29"),
        ("failing", "manifest-used-after-error", "I29"),
        ("damage", "log-checksum-not-checked", "I32"),
        ("damage", "damage-not-salvaged", "I32"),
    ],
)
def test_a_known_bug_is_seen_by_a_matrix(tier: str, name: str, invariant: str) -> None:
    program = PROGRAM.format(tier=tier, name=name)
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert told.stdout.strip() == invariant, told.stderr[-2000:]
