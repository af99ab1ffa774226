"""What came of one seed, and how one is run: the seam between the tiers and whoever runs campaigns of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from leafdb.sim.trace import Line

NODES: Final = 5
OPERATIONS: Final = 1_000


class Tier(StrEnum):
    """What is simulated."""

    CLUSTER = "cluster"
    """Whole nodes and clients in one loop under virtual time."""
    RING = "ring"
    """The same, small and slow, in every seed with a ring that changes."""
    HUNT = "hunt"
    """The same as the first, in every seed made for deleted values that come back."""
    ROT = "rot"
    """The same as the first, in every seed with tables that rot, and replicas to heal them."""
    STORE = "store"
    """One storage engine under crashes and faults of its disk."""
    CRASH = "crash"
    """One storage engine; at every call of its history power cuts, and more of them while it recovers."""
    FAILING = "failing"
    """One storage engine; its history once for every call of it, which fails."""
    DAMAGE = "damage"
    """One storage engine; after each operation copies of its disk, each with something damaged."""
    RECORD = "record"
    """Records, minting and merging, with stores that forget: an event heap without a network."""
    MEMBERSHIP = "membership"
    """The failure detectors of many nodes in an event heap."""
    PURGE = "purge"
    """One partition whose dead records are forgotten by proof, with stores that forget more than that."""
    REGISTER = "register"
    """Proposers and acceptors of the metadata register in an event heap."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A violation as a value: it travels between processes and into JSON."""

    invariant: str
    message: str
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run of one seed. `trace` is its fingerprint; `lines` its story, empty unless it was asked for."""

    tier: Tier
    seed: int
    nodes: int
    operations: int
    """Client operations (or steps of the tier) that were done."""
    virtual_s: float
    trace: str
    broken: Broken | None = None
    faults: Mapping[str, int] = field(default_factory=dict)
    probes: Mapping[str, int] = field(default_factory=dict)
    """Every probe of the tier, those that were not hit with 0."""
    lines: tuple[Line, ...] = ()


class Runner(Protocol):
    """Runs one seed of one tier, deterministically. A violation is an outcome, not an exception.

    `operations` bounds what is done: a run with fewer is a prefix of one with more, which is what shrinking relies on.
    """

    def __call__(self, seed: int, *, nodes: int = NODES, operations: int = OPERATIONS, keep: bool = False) -> Outcome:
        """Run it; `keep` keeps the story."""
