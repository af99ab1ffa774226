"""A promise that was broken, by its number.

The numbers are those of the invariants of the semantics page. A checker raises `Violation`; whoever runs it reports the
number, the sentence and the key, so that a person knows what to look for before knowing where.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NoReturn


class Invariant(StrEnum):
    """What a checker outside the system may find broken."""

    DOTS_UNIQUE = "I1"
    """No dot is ever attached to two values."""
    NOTHING_LOST = "I2"
    """Every acknowledged write is live or covered by a write that saw it."""
    NO_FALSE_SIBLINGS = "I5"
    """A quiescent sequential writer leaves one sibling."""
    DELETIONS_STAY = "I6"
    """What a write has covered does not come back."""
    SURVIVES_STORES = "I7"
    """An acknowledged write survives faults that touch fewer than W of its stores."""
    READS_MONOTONIC = "I8"
    """A quorum read covers every earlier quorum read and every write that overlaps with it."""
    SESSIONS = "I9"
    """Read your writes, monotonic reads, writes follow reads, monotonic writes."""
    HONEST_OUTCOMES = "I10"
    """Nothing of a refused write is seen, nothing is seen that nobody wrote."""
    HINTS_CONSERVED = "I11"
    """A hint is delivered, or superseded, or has marked its range; it is never just gone, and one that counted is never
    given up."""
    HINTS_BOUNDED = "I12"
    TREES_TRUE = "I14"
    """A Merkle tree equals its rebuild."""
    REPLICAS_EQUAL = "I15"
    """After healing the replicas of a key are equal, and a quiescent cluster repairs nothing."""
    ONE_HISTORY = "I18"
    """All nodes go through the same sequence of metadata epochs, and of concurrent changes one wins."""
    QUORUMS_MEET = "I19"
    """What an epoch of a range acknowledges is in the hands of whoever reads by the epochs beside it."""
    OWNERSHIP_FAIR = "I20"
    """At rest everybody owns its fair share, within one partition, and copies are on distinct hosts where there are."""
    NOTHING_LEFT_BEHIND = "I21"
    """When reads move, those who are read have what was acknowledged; a copy goes only when the owners have it."""
    BANS_FINAL = "I22"
    """Whom the cluster has refused for good, an old or second copy of a store among them, does not come back; and a
    plan that is given up leaves the ring as it was, and nothing behind."""
    AGREEMENT = "I24"
    """A register never holds two values under one ballot, and never forgets a chosen one."""
    LINEARIZABLE = "I25"
    """The history of a register is that of one copy."""
    PROMISES_DURABLE = "I26"
    PREFIX_DURABLE = "I29"
    """After a crash the store holds a prefix of what was written, with everything that was synced."""
    CRASH_IDEMPOTENT = "I30"
    """Recovering twice, or crashing in recovery, changes nothing."""
    NO_PHANTOMS = "I31"
    """The store shows nothing that was not written to it."""
    CORRUPTION_DETECTED = "I32"
    """A damaged byte is an error, never an answer."""
    SPACE_RECLAIMED = "I33"
    """What nothing refers to any more leaves the disk, tombstones with nothing under them included."""
    MEMORY_BOUNDED = "I35"
    NO_EXPIRED_WORK = "I37"
    """Nobody executes what its requester has given up."""
    DETERMINISTIC = "I39"
    """The same seed gives the same run."""
    CRASH_KNOWN = "I23"
    """A crash is known to all within bounds, and nobody is declared dead for long wrongly."""
    MERGE_IS_A_JOIN = "M"
    """Merging is commutative, associative, idempotent, and equal records have equal bytes."""
    CAUSAL_STAMPS = "C"
    """A write's stamp exceeds those of everything that its writer, and the record it was minted over, had seen."""
    EXPLAINED = "E"
    """What an explanation says of a request is what happened to it."""
    SELF_CHECK = "A"
    """An assertion or `check()` of the system itself failed, or it raised what it must not."""
    LIVENESS = "L"
    """After everything was mended the cluster is whole again in bounded time."""


class Violation(AssertionError):
    """A promise was broken. `key` is the one concerned, where there is one."""

    def __init__(self, invariant: Invariant, message: str, key: str | None = None) -> None:
        super().__init__(f"{invariant.value}: {message}")
        self.invariant = invariant
        self.message = message
        self.key = key


def require(condition: object, invariant: Invariant, message: str, key: str | None = None) -> None:
    """Raise Violation unless `condition` holds."""
    if not condition:
        violated(invariant, message, key)


def violated(invariant: Invariant, message: str, key: str | None = None) -> NoReturn:
    """Raise Violation."""
    raise Violation(invariant, message, key)
