"""Which changes of the ring one seed has: drawn apart from everything else, so that the rest of a seed stays as it was.

Plans take seconds, so clients take their time in such a seed (`pace`), and its cluster is small.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

RING_N: Final = 3
"""Copies of everything. There are never fewer members than that: what fewer copies promise is for others to test."""
FOUNDERS: Final = (3, 3, 4, 4, 5)


@dataclass(frozen=True, slots=True)
class RingPlan:
    """What operators do to the ring in one run."""

    founders: int
    """Nodes at the beginning."""
    machines_max: int
    """That ever run."""
    operators: int
    """People who change the ring, and do not talk to each other."""
    gap_s: float
    """Between what one of them does and what it does next, in the mean."""
    aborts: float
    """How readily they give a plan up; 1 is how readily they wait for it."""
    losses: bool
    """Machines are lost for good."""
    crowding: float
    """Chance of a new machine to be a shard of a host that has one already."""
    aborts_last: bool
    """A plan that is in progress when everything was mended is given up, and does not come to its end."""
    pace: float
    """So many times slower than otherwise do clients work."""
    stories: bool = False
    """Somebody is cut off at the moment of a step, and takes or misses writes of what moves."""

    @classmethod
    def draw(cls, seed: int, nodes: int) -> RingPlan:
        """Of this seed; `nodes` is the most that a cluster is founded with."""
        assert nodes >= RING_N, f"a ring to change takes {RING_N} nodes"
        rng = Random(f"{seed}/rings")
        founders = min(nodes, rng.choice(FOUNDERS))
        return cls(
            founders=founders,
            machines_max=founders + rng.randint(1, 4),
            operators=rng.choice((1, 1, 2, 2, 3)),
            gap_s=log_uniform(rng, 0.5, 4.0),
            aborts=rng.choice((0.0, 0.03, 0.1, 0.3)),
            losses=rng.random() < 0.5,
            crowding=rng.choice((0.0, 0.0, 0.0, 0.3)),
            aborts_last=rng.random() < 0.25,
            pace=log_uniform(rng, 3.0, 8.0),
        )

    def describe(self) -> str:
        """In words, on one line."""
        last = " and at last" if self.aborts_last else ""
        stories = "; some hear late of steps" if self.stories else ""
        losses = ", machines are lost" if self.losses else ""
        return (
            f"{self.founders} nodes at first and {self.machines_max} machines at last; {self.operators} operators act "
            f"every {self.gap_s:.1f} s, abort {self.aborts:g}{last}{losses}; "
            f"a shared host {self.crowding:g}; clients {self.pace:.1f} times slower{stories}"
        )


def log_uniform(rng: Random, low: float, high: float) -> float:
    """A number between these, as likely to be in one octave as in another."""
    return float(low * (high / low) ** rng.random())
