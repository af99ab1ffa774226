"""The cuts of a plan: every state of every node that matters, in every phase, against the rule in so many words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product

import pytest

from leafdb.node.plan_progress import Progress
from leafdb.node.plan_rules import LET_IN, Action, asked, decide, driver_of
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.plan import Phase
from leafdb.ring.staging import ForceRemove, Join, Leave, Replace
from leafdb.ring.transitions import abort
from leafdb.types import NodeId
from support.clusters import cluster, proposed
from support.ring_changes import advanced, committed, plan_of

ONE, TWO, THREE, FOUR, FIVE, SIX = map(NodeId, range(1, 7))

DEAD, SILENT, BEHIND, OWING, SETTLED, AHEAD = "dead", "silent", "behind", "owing", "settled", "ahead"
"""What a node may be to the driver. Ahead: it knows an epoch without this plan."""
STATES = (DEAD, SILENT, BEHIND, OWING, SETTLED, AHEAD)
HEARD = (OWING, SETTLED)


def answer(metadata: ClusterMetadata, state: str) -> Progress | None:
    """What a node in this state answers."""
    plan = plan_of(metadata)
    match state:
        case "behind":
            return Progress(epoch=metadata.epoch - 1, plan_id=plan.id, settled=True)
        case "owing":
            return Progress(epoch=metadata.epoch, plan_id=plan.id, settled=False, left=2, total=9, waiting_for=(ONE,))
        case "settled":
            return Progress(epoch=metadata.epoch + 3, plan_id=plan.id, settled=True)
        case "ahead":
            return Progress(epoch=metadata.epoch + 1, plan_id=b"", settled=True)
    return None


def decided(metadata: ClusterMetadata, states: Mapping[NodeId, str]) -> tuple[Action, tuple[str, ...]]:
    """What the driver does when everybody is as `states` says."""
    answers = {node: made for node, state in states.items() if (made := answer(metadata, state)) is not None}
    alive = {node for node, state in states.items() if state != DEAD}
    decision = decide(metadata, alive=alive, answers=answers, problems={})
    return decision.action, decision.waiting


def plans(phase: Phase) -> Iterator[ClusterMetadata]:
    """Plans in which each kind of node takes part, whose control set has nobody that goes."""
    for changes in (
        (Join(proposed(7)), Leave(FIVE)),
        (ForceRemove(FOUR), Join(proposed(7))),
        (Replace(FOUR, proposed(7)),),
    ):
        start = cluster(5, partitions=8)
        match phase:
            case Phase.WRITE_BOTH_READ_OLD:
                yield committed(start, *changes)
            case Phase.WRITE_BOTH_READ_NEW:
                yield advanced(start, *changes)
            case Phase.RETREAT:
                made = advanced(start, *changes)
                yield abort(made, plan_of(made).id)


def allowed(metadata: ClusterMetadata, states: Mapping[NodeId, str]) -> bool:
    """Decision 0007, "The cuts", word for word."""
    plan = plan_of(metadata)
    for node, state in states.items():
        old, new = node in metadata.owners, node in plan.owners
        match plan.phase:
            case Phase.WRITE_BOTH_READ_OLD:
                owes = old and node not in plan.given_up
                if (new or owes or node in plan.joining) and state != SETTLED:
                    return False
            case Phase.WRITE_BOTH_READ_NEW:
                excused = node in plan.given_up and state == DEAD
                if old and not excused and state != SETTLED:
                    return False
            case Phase.RETREAT:
                excused = node in plan.joining and state == DEAD
                if new and not excused and state not in HEARD:
                    return False
    return True


@pytest.mark.parametrize("phase", list(Phase))
def test_a_step_is_taken_exactly_when_the_rule_allows_it(phase: Phase) -> None:
    steps = {
        Phase.WRITE_BOTH_READ_OLD: Action.ADVANCE,
        Phase.WRITE_BOTH_READ_NEW: Action.FINISH,
        Phase.RETREAT: Action.FINISH_ABORT,
    }
    taken = 0
    for metadata in plans(phase):
        nodes = sorted(metadata.members)
        everybody_settled = dict.fromkeys(nodes, SETTLED)
        # Any two nodes in any states, and all five of the old ones in the states that matter most.
        cases = [
            {**everybody_settled, one: first, two: second}
            for one in nodes
            for two in nodes
            for first, second in product(STATES, STATES)
        ]
        cases += [
            {**everybody_settled, **dict(zip(nodes, states, strict=True))}
            for states in product((DEAD, BEHIND, SETTLED), repeat=len(nodes))
        ]
        for states in cases:
            action, waiting = decided(metadata, states)
            if allowed(metadata, states):
                taken += 1
                assert (action, waiting) == (steps[phase], ()), (metadata.plan, states)
            else:
                assert action is Action.WAIT, (metadata.plan, states)
                assert waiting
    assert taken > 10


def test_without_a_plan_there_is_nothing_to_do() -> None:
    metadata = cluster(3)
    assert not asked(metadata, metadata.members)
    assert decide(metadata, alive=metadata.members, answers={}, problems={}).action is Action.NOTHING


def test_newcomers_that_have_not_come_are_called_in_the_first_phase_only() -> None:
    start = cluster(3, partitions=8)
    metadata = committed(start, Join(proposed(7)), Join(proposed(8)))
    there = {node: made for node in (ONE, TWO, THREE, FIVE) if (made := answer(metadata, SETTLED))}
    decision = decide(metadata, alive=metadata.members, answers=there, problems={FOUR: "no route"})
    assert decision.admit == (FOUR,)
    assert decision.waiting == ("node-7 has not come yet (no route)",)
    later = advanced(start, Join(proposed(7)), Join(proposed(8)))
    assert not decide(later, alive=later.members, answers={}, problems={}).admit


def test_a_plan_is_stuck_on_who_is_away_and_not_on_work_or_news_under_way() -> None:
    metadata = committed(cluster(5, partitions=8), Join(proposed(7)), ForceRemove(FIVE))
    heard: dict[NodeId, Progress] = {node: made for node in metadata.members if (made := answer(metadata, SETTLED))}
    everybody = frozenset(metadata.members)

    def stuck(node: NodeId, said: Progress | None, *, alive: bool = True, problem: str = "") -> tuple[str, ...]:
        answers = {**heard, node: said} if said is not None else {one: heard[one] for one in heard if one != node}
        present = everybody if alive else everybody - {node}
        decision = decide(metadata, alive=present, answers=answers, problems={node: problem} if problem else {})
        assert decision.waiting
        assert set(decision.stuck) <= set(decision.waiting)
        return decision.stuck

    copying = Progress(epoch=metadata.epoch, plan_id=plan_of(metadata).id, settled=False, left=2, total=9)
    assert stuck(TWO, copying) == ()
    assert stuck(TWO, replace(copying, keeps=("node-1 has 3 requests under way",))) == ()
    assert stuck(TWO, answer(metadata, BEHIND)) == ()
    assert stuck(SIX, None, problem=LET_IN) == ()
    assert stuck(SIX, None, problem="no route") == ("node-7 has not come yet (no route)",)
    assert stuck(TWO, replace(copying, waiting_for=(ONE,))) == (
        "node-1 has 2 of 9 exchanges to do; it cannot reach node-0",
    )
    assert stuck(TWO, None) == (), "once too late is nothing to worry about; who stays away is dead soon"
    assert stuck(TWO, None, alive=False) == ("node-1 is down",)


def test_a_newcomer_that_will_own_nothing_is_waited_for_all_the_same() -> None:
    metadata = committed(cluster(3, partitions=4), Join(proposed(7, weight=1)), Join(proposed(8, weight=1)))
    idle = set(plan_of(metadata).joining) - set(plan_of(metadata).owners)
    assert idle
    states = {node: SETTLED for node in metadata.members if node not in idle}
    assert decided(metadata, states)[0] is Action.WAIT


@pytest.mark.parametrize("state", [OWING, BEHIND, DEAD])
def test_reads_do_not_move_before_an_old_owner_has_given_on_what_came_late_unless_it_is_given_up(state: str) -> None:
    start = cluster(5, partitions=8)
    for going, action in ((Leave(FIVE), Action.WAIT), (ForceRemove(FIVE), Action.ADVANCE)):
        metadata = committed(start, going)
        assert FIVE not in plan_of(metadata).owners
        assert decided(metadata, dict.fromkeys(metadata.members, SETTLED) | {FIVE: state})[0] is action


def test_a_member_of_the_control_set_that_goes_holds_the_end_up() -> None:
    metadata = advanced(cluster(4, partitions=8), Leave(ONE))
    action, waiting = decided(metadata, dict.fromkeys(metadata.members, SETTLED))
    assert action is Action.WAIT
    assert waiting == ("the control set changes first: node-0 will go",)
    exchanged = replace(metadata, control=(TWO, THREE, FOUR))
    assert decided(exchanged, dict.fromkeys(metadata.members, SETTLED)) == (Action.FINISH, ())


def test_each_reason_names_the_node_and_what_it_lacks() -> None:
    metadata = committed(cluster(5, partitions=8), ForceRemove(FIVE))
    states = {ONE: DEAD, TWO: SILENT, THREE: BEHIND, FOUR: OWING, FIVE: SILENT}
    assert decided(metadata, states)[1] == (
        "node-0 is down",
        "node-1 does not answer",
        f"node-2 has not heard of it yet: it is at epoch {metadata.epoch - 1}, not {metadata.epoch}",
        "node-3 has 2 of 9 exchanges to do; it cannot reach node-0",
    )
    late = advanced(cluster(5, partitions=8), ForceRemove(FIVE))
    assert decided(late, dict.fromkeys(late.members, SETTLED) | {FIVE: SILENT})[1] == (
        "node-4 goes as dead but is alive, and does not answer: stop it",
    )


def test_the_live_control_member_with_the_lowest_number_drives() -> None:
    assert driver_of((THREE, ONE, TWO), {ONE, TWO, FOUR}) == ONE
    assert driver_of((THREE, ONE, TWO), {THREE, FOUR, TWO}) == TWO
    assert driver_of((ONE,), {TWO}) is None


def test_an_answer_survives_its_travel_and_nonsense_is_refused() -> None:
    made = Progress(
        epoch=7, plan_id=b"p" * 16, settled=False, left=1, total=2, bytes_done=3, bytes_left=4, waiting_for=(SIX,)
    )
    assert Progress.from_wire(made.to_wire()) == made
    for wrong in ({"settled": 1}, {"epoch": -1}, {"waiting_for": [0]}, {"plan_id": b"p" * 17}):
        with pytest.raises(ValueError):
            Progress.from_wire({**made.to_wire(), **wrong})
