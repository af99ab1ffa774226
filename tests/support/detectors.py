"""A failure detector stepped by hand, and what it said."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from random import Random

from leafdb.membership.config import SMALL, MembershipConfig
from leafdb.membership.effects import Effect, MemberChanged, Send
from leafdb.membership.failure_detector import FailureDetector
from leafdb.membership.member import Claim, first_incarnation
from leafdb.membership.messages import AnyMessage, Gossip, Standing
from leafdb.types import Epoch, Liveness, NodeId

ME, PEER, OTHER = NodeId(1), NodeId(2), NodeId(3)
QUIET = replace(SMALL, sync_interval_s=1e6)


def detector(nodes: Iterable[int] = (1, 2, 3), *, config: MembershipConfig = QUIET, boot: int = 1) -> FailureDetector:
    machine = FailureDetector(config, ME, boot=boot, now=0.0, rng=Random(5))
    machine.set_members([NodeId(node) for node in nodes], 0.0)
    return machine


def standing(incarnation: int = first_incarnation(1), epoch: int = 0, digest: bytes = b"") -> Standing:
    return Standing(incarnation, Epoch(epoch), digest)


def sent(effects: Iterable[Effect], kind: type[AnyMessage]) -> list[tuple[NodeId, AnyMessage]]:
    return [(each.to, each.message) for each in effects if isinstance(each, Send) and isinstance(each.message, kind)]


def changes(effects: Iterable[Effect]) -> list[tuple[NodeId, Liveness]]:
    return [(each.node, each.liveness) for each in effects if isinstance(each, MemberChanged)]


def run(machine: FailureDetector, until: float) -> list[tuple[float, Effect]]:
    """Let time pass and nobody answer."""
    happened: list[tuple[float, Effect]] = []
    while machine.deadline() <= until:
        now = machine.deadline()
        happened += [(now, effect) for effect in machine.on_time(now)]
        machine.check()
    return happened


def suspected(machine: FailureDetector, node: NodeId = PEER, *, accuser: int = 3, now: float = 0.1) -> Claim:
    claim = Claim(node, Liveness.SUSPECT, first_incarnation(1), NodeId(accuser))
    machine.on_message(OTHER, Gossip(standing(), (claim,)), now)
    assert machine.liveness(node) is Liveness.SUSPECT
    return claim
