"""What the machines ask of their driver, in the order in which it must be done, and how a proposal ends."""

from __future__ import annotations

from dataclasses import dataclass

from leafdb.consensus.acceptor_state import AcceptorState
from leafdb.consensus.ballot import Ballot
from leafdb.consensus.messages import Message
from leafdb.types import NodeId


@dataclass(frozen=True, slots=True)
class Persist:
    """Make this the durable state of the acceptor before doing what follows. Later states supersede earlier ones.

    The machine already acts on the new state; only what it says must wait. A driver that groups commits therefore
    holds back the sends that follow and keeps the order of the states.
    """

    state: AcceptorState


@dataclass(frozen=True, slots=True)
class Send:
    """Put `message` on the control lane to `to`, which may be this node itself. Lost, late and doubled is all right."""

    to: NodeId
    message: Message


@dataclass(frozen=True, slots=True)
class Chosen:
    """A majority holds `value`: the change is in, and every later round builds on it."""

    value: bytes | None
    ballot: Ballot


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was changed, provably. `current` is the value the change was refused on, itself confirmed by a majority;
    None also when no majority answered (`reason` says so)."""

    reason: str
    current: bytes | None


@dataclass(frozen=True, slots=True)
class Unknown:
    """The change may be in, or get in later, or never."""

    reason: str


Outcome = Chosen | Refused | Unknown


@dataclass(frozen=True, slots=True)
class Decided:
    """The proposal has ended; the proposer is free for the next."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a change function answers instead of a new value."""

    reason: str


AcceptorEffect = Persist | Send
ProposerEffect = Send | Decided

NO_QUORUM = "no_quorum"
STALE_CONFIG = "stale_config"
NO_STEP = "no_step"
"""Reasons of the machine's own; all others are the change function's."""
