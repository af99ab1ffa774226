"""The shortest run that still fails: fewer operations of the same seed.

A run with fewer operations is a prefix of one with more, but failing is not monotone: what comes after the last
operation (healing, settling, the final checks) falls elsewhere. So bisection finds a short failing run, not the
shortest; below it a few lengths that bisection never asked are tried, and a hit starts it again. Every answer is a run
that was made and failed, and the last one is made again with its story: a fingerprint that differs then means that the
run itself is not deterministic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from leafdb.sim.outcome import Outcome, Runner

RUNS_MAX: Final = 30
NINTHS: Final = (1, 2, 4, 8)
"""Of the shortest failing length: what is tried when bisection is through, since it asked for halves."""

Tell = Callable[[int, int, int], None]
"""Called before each run with its number, its operations, and the shortest failing length so far."""


@dataclass(frozen=True, slots=True)
class Shrunk:
    """The shortest failing run that was found, with its story, and how many runs that took."""

    asked: int
    """The operations to ask for: with `outcome.seed` and `outcome.nodes` this is the replay."""
    outcome: Outcome
    runs: int
    same: bool
    """The last run had the fingerprint of the one before it with the same operations."""


class _Lengths:
    """Runs by their operations, each made once."""

    def __init__(self, runner: Runner, failing: Outcome, runs_max: int, tell: Tell) -> None:
        self._runner = runner
        self._failing = failing
        self._runs_max = runs_max
        self._tell = tell
        self.known: dict[int, Outcome] = {}
        self.runs = 0
        self.best = 0

    @property
    def spent(self) -> bool:
        return self.runs >= self._runs_max

    def run(self, operations: int, *, keep: bool = False) -> Outcome:
        self.runs += 1
        self._tell(self.runs, operations, self.best)
        return self._runner(self._failing.seed, nodes=self._failing.nodes, operations=operations, keep=keep)

    def fails(self, operations: int) -> bool:
        """Whether a run of so many operations breaks the same invariant."""
        found = self.known.get(operations)
        if found is None:
            found = self.known[operations] = self.run(operations)
        assert self._failing.broken is not None, "only a failing run is shrunk"
        return found.broken is not None and found.broken.invariant == self._failing.broken.invariant


def shrink(
    runner: Runner,
    failing: Outcome,
    asked: int,
    *,
    runs_max: int = RUNS_MAX,
    tell: Tell = lambda run, operations, best: None,
) -> Shrunk:
    """Shorten `failing`, a run that was asked for `asked` operations, and run the shortest again with its story."""
    lengths = _Lengths(runner, failing, runs_max - 1, tell)
    lengths.known[asked] = failing
    lengths.best = asked
    # The violation was seen when so many operations were done: usually no more are needed.
    if 0 < failing.operations < asked and not lengths.spent and lengths.fails(failing.operations):
        lengths.best = failing.operations
    _bisect(lengths)
    while not lengths.spent and (shorter := _any_below(lengths)) is not None:
        lengths.best = shorter
        _bisect(lengths)
    again = lengths.run(lengths.best, keep=True)
    same = again.trace == lengths.known[lengths.best].trace
    return Shrunk(lengths.best, again if again.broken is not None else failing, lengths.runs, same)


def _bisect(lengths: _Lengths) -> None:
    passing = 0
    while lengths.best - passing > 1 and not lengths.spent:
        middle = (passing + lengths.best) // 2
        if lengths.fails(middle):
            lengths.best = middle
        else:
            passing = middle


def _any_below(lengths: _Lengths) -> int | None:
    """A failing length among a few below the best that were not asked yet, the shortest first."""
    for part in NINTHS:
        operations = lengths.best * part // 9
        if operations > 0 and operations not in lengths.known and not lengths.spent and lengths.fails(operations):
            return operations
    return None
