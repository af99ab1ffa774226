"""The control set changes for three reasons, one step at a time, and never to somebody who may be gone."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from itertools import combinations

import pytest

from leafdb.node.control_rules import next_control, waited_for
from leafdb.ring.control_set import begin_control, finish_control
from leafdb.ring.metadata import ClusterMetadata, found
from leafdb.ring.staging import ForceRemove, Join, Leave, Replace
from leafdb.ring.transitions import finish
from leafdb.types import NodeId
from support.clusters import CLUSTER_ID, cluster, proposed
from support.ring_changes import advanced, committed, plan_of

ONE, TWO, THREE, FOUR, FIVE, SIX, SEVEN = map(NodeId, range(1, 8))


def settled(
    metadata: ClusterMetadata, *, dead: Collection[NodeId] = (), alive: Collection[NodeId] | None = None
) -> ClusterMetadata:
    """With every step made that there is; each is one that the register takes."""
    for _ in range(10):
        there = metadata.members.keys() - set(dead) if alive is None else alive
        following = next_control(metadata, alive=there, dead=dead)
        if following is None:
            return metadata
        metadata = finish_control(begin_control(metadata, following))
    raise AssertionError("it never comes to rest")


@pytest.mark.parametrize("count", range(1, 10))
def test_a_cluster_as_founded_comes_to_the_size_it_ought_to_have(count: int) -> None:
    assert len(settled(cluster(count)).control) == (5 if count >= 7 else 3 if count >= 3 else 1)


def test_while_a_plan_runs_only_who_goes_is_exchanged() -> None:
    grown = committed(cluster(6), Join(proposed(7)))
    assert settled(grown).control == (ONE, TWO, THREE), "a seventh member may be gone again"
    assert settled(committed(cluster(6), Leave(SIX))).control == (ONE, TWO, THREE)
    assert settled(committed(cluster(6), Leave(TWO))).control == (ONE, THREE, FOUR)
    assert settled(committed(cluster(6), Replace(TWO, proposed(7)))).control == (ONE, THREE, FOUR)


def test_growth_follows_the_plan() -> None:
    assert settled(committed(cluster(8), Leave(NodeId(8)))).control == (ONE, TWO, THREE)
    made = advanced(cluster(6), Join(proposed(7)))
    done = finish(made, plan_of(made).id)
    assert settled(done).control == (ONE, TWO, THREE, FOUR, FIVE)
    assert settled(done, alive={ONE, TWO, THREE, SEVEN}).control == (ONE, TWO, THREE), "two come, or none"


@pytest.mark.parametrize("count", range(2, 8))
def test_a_plan_can_end_whoever_goes_by_it(count: int) -> None:
    """The control set gets rid of all of them, step by step, as long as one member stays."""
    start = settled(cluster(count))
    for going in range(1, count):
        for who in combinations(sorted(start.members), going):
            changes = [Leave(node) if node % 2 else ForceRemove(node) for node in who]
            made = advanced(start, *changes)
            ready = settled(made, dead=[node for node in who if not node % 2])
            assert not set(ready.control) & set(who)
            finish(ready, plan_of(ready).id)


def test_the_set_does_not_shrink_because_somebody_cannot_be_reached_at_the_moment() -> None:
    """Tier ring, seed 2663339947, 150 operations: 3 leaves, and 1 has no session with 4 for a second. One acceptor was
    left of three, and a moment later its machine was lost: with it the whole control set."""
    leaving = committed(cluster(4), Leave(THREE))
    assert next_control(leaving, alive={ONE, TWO, THREE}, dead=()) is None
    assert waited_for(leaving, alive={ONE, TWO, THREE}, dead=()) == (FOUR,)
    assert settled(leaving, alive={ONE, TWO, FOUR}).control == (ONE, TWO, FOUR)
    assert waited_for(leaving, alive={ONE, TWO, FOUR}, dead=()) == ()
    assert waited_for(cluster(4), alive={ONE, TWO, THREE}, dead=()) == (), "nobody is wanted"


def test_who_is_certainly_dead_is_exchanged_for_somebody_who_is_there() -> None:
    metadata = cluster(5)
    assert settled(metadata, alive={ONE, TWO, FOUR, FIVE}).control == (ONE, TWO, THREE), "not answering is not death"
    assert settled(metadata, dead={THREE}).control == (ONE, TWO, FOUR)
    assert settled(metadata, dead={THREE}, alive={ONE, TWO, FIVE}).control == (ONE, TWO, FIVE)
    assert settled(metadata, dead={THREE}, alive={ONE, TWO}).control == (ONE, TWO, THREE), "nobody to take the seat"
    assert settled(metadata, dead={TWO, THREE}).control == (ONE, FOUR, FIVE)


def test_a_dead_acceptor_is_exchanged_also_while_a_plan_runs() -> None:
    made = committed(cluster(5), Leave(FIVE))
    assert settled(made, dead={THREE}).control == (ONE, TWO, FOUR)


def test_the_seat_of_the_dead_goes_to_the_zone_with_the_fewest() -> None:
    zones = ("a", "b", "c", "a", "b", "c")
    members = [proposed(at, zone=zone) for at, zone in enumerate(zones)]
    metadata = found("tests", CLUSTER_ID, members, partitions=8)
    assert settled(metadata, dead={THREE}).control == (ONE, TWO, SIX)
    assert settled(metadata, dead={ONE}).control == (TWO, THREE, FOUR)


def test_a_set_that_is_as_it_ought_to_be_is_left_alone() -> None:
    for metadata in (cluster(3), cluster(5), replace(cluster(5), control=(FIVE, TWO, FOUR))):
        assert next_control(metadata, alive=metadata.members, dead=()) is None
