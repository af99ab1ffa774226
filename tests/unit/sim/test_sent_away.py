"""A newcomer whose join was given up is blank and runs, unless its machine was lost."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest

from leafdb.ring.member import ProposedMember
from leafdb.ring.metadata import ClusterMetadata, found
from leafdb.ring.staging import Join
from leafdb.sim.convergence import check_sent_away
from leafdb.sim.ring_watch import RingWatch, Step
from leafdb.testing.violation import Violation
from leafdb.types import NodeId
from support.ring_changes import committed, staged


class Watch:
    """Node 4, on machine 4, was let in; all it ever heard of is the plan that did, which was given up."""

    def __init__(self) -> None:
        members = [_member(number) for number in range(1, 4)]
        self.joining = committed(staged(found("test", bytes(16), members, partitions=16), Join(_member(4))))
        self.steps = [Step(self.joining, replace(self.joining, plan=None))]
        self.machines = {NodeId(number): NodeId(number) for number in range(1, 5)}

    def last_belief(self, machine: NodeId) -> ClusterMetadata:
        return self.joining


def _member(number: int) -> ProposedMember:
    return ProposedMember(
        name=f"n{number}", host=f"host-{number}", client_address=f"h{number}:1", peer_address=f"h{number}:2"
    )


def test_who_was_sent_away_runs() -> None:
    watch = cast(RingWatch, Watch())
    check_sent_away(watch, {NodeId(4)}, lost=())
    with pytest.raises(Violation, match="n4 was sent away while it joined, and is not blank again"):
        check_sent_away(watch, (), lost=())


def test_a_machine_that_was_lost_while_it_joined_is_excused() -> None:
    """Tier ring, seed 366568343, 150 operations: its disk still believes in a plan of which nobody is left."""
    check_sent_away(cast(RingWatch, Watch()), (), lost={NodeId(4): None})
