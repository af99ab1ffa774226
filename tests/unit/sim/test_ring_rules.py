"""The rules by which the simulation judges one version of the metadata after another: they bless what transitions make,
and know what they must not make."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from leafdb.ring.control_set import begin_control, finish_control
from leafdb.ring.member import ProposedMember
from leafdb.ring.metadata import ClusterMetadata, found
from leafdb.ring.plan import Phase
from leafdb.ring.staging import Join, Leave
from leafdb.ring.transitions import abort, advance, clear_staged, commit, finish, finish_abort
from leafdb.sim.ring_rules import lasting_problems, may_be_gone, rest_problems, step_problems
from leafdb.testing.violation import Invariant
from leafdb.types import Epoch, NodeId
from support.ring_changes import committed, plan_of, staged


def member(number: int, host: str = "") -> ProposedMember:
    return ProposedMember(
        name=f"n{number}", host=host or f"host-{number}", client_address=f"h{number}:1", peer_address=f"h{number}:2"
    )


def founded() -> ClusterMetadata:
    return found("test", bytes(16), [member(number) for number in range(1, 5)], partitions=16)


def history() -> list[ClusterMetadata]:
    """A join and a leave, given up from each phase, then done; the control set with them."""
    versions = [founded()]

    def then(made: ClusterMetadata) -> ClusterMetadata:
        versions.append(made)
        return made

    for number, ends in enumerate(((abort,), (advance, abort, finish_abort), (advance, finish))):
        for change in (Join(member(5 + number)), Leave(NodeId(4))):
            then(staged(versions[-1], change))
        then(clear_staged(versions[-1]))
        for change in (Join(member(5 + number)), Leave(NodeId(4))):
            then(staged(versions[-1], change))
        under_way = then(commit(versions[-1], plan_of(committed(versions[-3], *versions[-1].staged)).id))
        for step in ends:
            then(step(versions[-1], plan_of(under_way).id))
    then(begin_control(versions[-1], (NodeId(1), NodeId(2), NodeId(7))))
    then(finish_control(versions[-1]))
    return versions


def test_whatever_transitions_make_is_lawful_and_at_rest_in_the_end() -> None:
    versions = history()
    assert {version.plan.phase for version in versions if version.plan} == set(Phase)
    for before, after in itertools.pairwise(versions):
        assert not list(step_problems(before, after)), after.epoch
        assert not list(step_problems(after, replace(after, epoch=Epoch(after.epoch + 1)))), "a change of buckets"
    assert not list(rest_problems(versions[-1], 3))
    first, given_up = versions[0], next(version for version in versions if version.bans)
    assert not list(lasting_problems(first, given_up))


def under_way(phase: Phase) -> ClusterMetadata:
    return next(version for version in history() if version.plan is not None and version.plan.phase is phase)


def following(before: ClusterMetadata, **changed: Any) -> ClusterMetadata:
    return replace(before, epoch=Epoch(before.epoch + 1), **changed)


COPYING, READ_NEW, RETREAT = (under_way(phase) for phase in Phase)


@pytest.mark.parametrize(
    ("before", "changed", "broken"),
    [
        (founded(), {"owners": (NodeId(1),) * 16}, Invariant.ONE_HISTORY),
        (founded(), {"control": (NodeId(1), NodeId(2), NodeId(4))}, Invariant.ONE_HISTORY),
        (founded(), {"range_epochs": (Epoch(7),) * 16}, Invariant.ONE_HISTORY),
        (history()[-1], {"bans": ()}, Invariant.BANS_FINAL),
        (COPYING, {"plan": replace(plan_of(COPYING), phase=Phase.RETREAT)}, Invariant.ONE_HISTORY),
        (COPYING, {"plan": replace(plan_of(COPYING), id=bytes(16))}, Invariant.ONE_HISTORY),
        (COPYING, {"plan": None, "owners": plan_of(COPYING).owners}, Invariant.BANS_FINAL),
        (READ_NEW, {"plan": None}, Invariant.BANS_FINAL),
        (RETREAT, {"plan": None}, Invariant.BANS_FINAL),
        (RETREAT, {"plan": replace(plan_of(RETREAT), phase=Phase.WRITE_BOTH_READ_NEW)}, Invariant.ONE_HISTORY),
    ],
)
def test_what_must_not_be_is_known(before: ClusterMetadata, changed: dict[str, Any], broken: Invariant) -> None:
    assert broken in {invariant for invariant, _ in step_problems(before, following(before, **changed))}


def test_a_ring_that_is_not_fair_is_not_at_rest() -> None:
    metadata = founded()
    crowded = replace(metadata, owners=(NodeId(1),) * 13 + (NodeId(2), NodeId(3), NodeId(4)))
    assert {invariant for invariant, _ in rest_problems(crowded, 3)} == {Invariant.OWNERSHIP_FAIR}


def test_whoever_may_say_that_it_is_gone_is_banned_at_once_or_by_the_next_step() -> None:
    for before, after in itertools.pairwise(history()):
        numbers = [NodeId(number) for number in range(1, 9)]
        sent_away = {number for number in numbers if number in after.bans}
        assert {number for number in numbers if may_be_gone(after, number)} >= sent_away
        assert {number for number in numbers if may_be_gone(before, number)} >= sent_away
    made = founded()
    assert not any(may_be_gone(made, number) for number in made.members)
    under_way = committed(made, Join(member(5)), Leave(NodeId(4)))
    joining, leaving = NodeId(5), NodeId(4)
    assert (may_be_gone(under_way, joining), may_be_gone(under_way, leaving)) == (True, False)
    reading_new = advance(under_way, plan_of(under_way).id)
    assert (may_be_gone(reading_new, joining), may_be_gone(reading_new, leaving)) == (False, True)
