"""What a hint may say, after deaths of the node that keeps it."""

from __future__ import annotations

from typing import cast

from leafdb.model.actor import Actor
from leafdb.model.clock import CausalClock
from leafdb.sim.copies import Said
from leafdb.testing.cluster_process import Process

FIRST_RUN, SECOND_RUN = (cast(Process, object()) for _ in range(2))


def clock(counter: int) -> CausalClock:
    return CausalClock({Actor(bytes(14)): counter})


def test_a_run_of_a_node_knows_what_it_wrote_last() -> None:
    said = Said()
    said.write(FIRST_RUN, clock(1))
    said.write(FIRST_RUN, clock(2))
    assert said.now(FIRST_RUN) == [clock(2)]


def test_after_a_death_a_hint_says_what_any_write_before_said() -> None:
    """Seed 466157980: killed before its second write was synced, a node came back with the first one, delivered that,
    and was accused of having thrown the second away."""
    said = Said()
    said.write(FIRST_RUN, clock(1))
    said.write(FIRST_RUN, clock(2))
    assert said.now(SECOND_RUN) == [clock(1), clock(2)]
    said.write(SECOND_RUN, clock(3))
    assert said.now(SECOND_RUN) == [clock(3)]
