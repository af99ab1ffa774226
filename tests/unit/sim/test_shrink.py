"""Promises: shrinking ends within its bound, answers only what it has seen fail in the same way, and tells when a run
does not repeat itself."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest

from leafdb.sim.outcome import Broken, Outcome, Tier
from leafdb.sim.shrink import Shrunk, shrink
from leafdb.sim.trace import Line

ASKED = 1_000


class Toy:
    """A runner that breaks what `verdict` says for a number of operations."""

    def __init__(self, verdict: Callable[[int], str | None], *, stable: bool = True) -> None:
        self._verdict = verdict
        self._numbers = None if stable else count()
        self.runs: list[int] = []

    def __call__(self, seed: int, *, nodes: int = 5, operations: int = ASKED, keep: bool = False) -> Outcome:
        self.runs.append(operations)
        invariant = self._verdict(operations)
        return Outcome(
            Tier.RECORD,
            seed,
            nodes,
            operations,
            1.0,
            f"{operations}/{next(self._numbers) if self._numbers else 0}",
            Broken(invariant, "lost", "k1") if invariant else None,
            lines=(Line(0.5, "n1", "k1", "stored"),) if keep else (),
        )


def shrunk(toy: Toy, *, runs_max: int = 30) -> Shrunk:
    return shrink(toy, toy(7, nodes=3), ASKED, runs_max=runs_max)


@pytest.mark.parametrize("shortest", [1, 2, 3, 17, 500, 999, 1_000])
def test_a_monotone_failure_shrinks_to_its_shortest_run(shortest: int) -> None:
    toy = Toy(lambda operations: "I2" if operations >= shortest else None)
    result = shrunk(toy)
    assert result.asked == result.outcome.operations == shortest
    assert result.outcome.lines, "the story of the shortest run comes with it"
    assert (result.outcome.seed, result.outcome.nodes, result.same) == (7, 3, True)
    assert result.runs == len(toy.runs) - 1 <= 30
    assert len(set(toy.runs[:-1])) == len(toy.runs) - 1, "no length is run twice but the last"


def test_another_invariant_is_another_failure() -> None:
    result = shrunk(Toy(lambda operations: "I2" if operations >= 100 else "I8" if operations > 3 else None))
    assert result.asked == 100
    assert result.outcome.broken is not None
    assert result.outcome.broken.invariant == "I2"


@pytest.mark.parametrize("modulus", [2, 3, 7])
def test_a_failure_that_is_not_monotone_still_ends_in_a_run_that_fails(modulus: int) -> None:
    result = shrunk(Toy(lambda operations: "I2" if operations % modulus == ASKED % modulus else None))
    assert result.outcome.broken is not None
    assert result.asked % modulus == ASKED % modulus
    assert result.runs <= 30


def test_what_bisection_passes_over_is_looked_at_again() -> None:
    result = shrunk(Toy(lambda operations: "I2" if operations > 900 or 95 <= operations <= 110 else None))
    assert result.asked < 120


@pytest.mark.parametrize("runs_max", [1, 2, 5])
def test_the_number_of_runs_is_bounded(runs_max: int) -> None:
    result = shrunk(Toy(lambda operations: "I2" if operations >= 3 else None), runs_max=runs_max)
    assert result.runs == runs_max
    assert result.outcome.broken is not None


def test_a_run_that_ended_early_is_asked_for_no_more_than_it_did() -> None:
    toy = Toy(lambda operations: "I2" if operations >= 40 else None)
    early = Outcome(Tier.RECORD, 7, 3, 44, 1.0, "x", Broken("I2", "lost", "k1"))
    told: list[tuple[int, int, int]] = []
    result = shrink(toy, early, ASKED, tell=lambda run, operations, best: told.append((run, operations, best)))
    assert toy.runs[0] == 44
    assert result.asked == 40
    assert [run for run, _, _ in told] == list(range(1, result.runs + 1))


def test_a_run_that_does_not_repeat_itself_is_told() -> None:
    assert not shrunk(Toy(lambda operations: "I2" if operations >= 40 else None, stable=False)).same
