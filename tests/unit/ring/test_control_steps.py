"""The control set changes one step at a time, in two epochs, and never to members that may be gone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from leafdb.errors import NotApplied, Reason
from leafdb.ring.control_set import begin_control, finish_control
from leafdb.ring.metadata import ClusterMetadata, decode
from leafdb.ring.metadata_rules import is_control_step
from leafdb.ring.staging import Join, Leave
from leafdb.ring.transitions import finish
from leafdb.types import Epoch, NodeId
from support.clusters import cluster, proposed
from support.ring_changes import advanced, committed, plan_of

ONE, TWO, THREE, FOUR, FIVE = map(NodeId, range(1, 6))


def reason_of(call: Callable[[], object]) -> Reason:
    with pytest.raises(NotApplied) as raised:
        call()
    return raised.value.reason


def test_a_change_takes_two_epochs_and_each_is_the_control_epoch() -> None:
    before = cluster(5)
    assert (before.control_epoch, before.next_acceptors()) == (1, ())
    joint = begin_control(before, [FOUR, TWO, THREE])
    assert (joint.control, joint.control_next, joint.control_epoch) == ((1, 2, 3), (2, 3, 4), 2)
    assert joint.next_acceptors() == ((2, 1), (3, 1), (4, 1))
    done = finish_control(joint)
    assert (done.control, done.control_next, done.control_epoch) == ((2, 3, 4), (), 3)
    for made in (joint, done):
        assert decode(made.encode()) == made


@pytest.mark.parametrize(
    ("control", "following", "allowed"),
    [
        ((1,), (2,), True),
        ((1,), (1, 2, 3), True),
        ((1,), (2, 3, 4), False),
        ((1,), (1, 2), False),
        ((1, 2, 3), (1, 2, 4), True),
        ((1, 2, 3), (1, 4, 5), False),
        ((1, 2, 3), (1, 2, 3, 4, 5), True),
        ((1, 2, 3), (2,), True),
        ((1, 2, 3), (4,), False),
        ((1, 2, 3, 4, 5), (1, 2, 3), True),
        ((1, 2, 3, 4, 5), (1,), False),
        ((1, 2, 3), (1, 2, 3), False),
    ],
)
def test_one_member_is_exchanged_or_two_come_or_two_go(
    control: Sequence[int], following: Sequence[int], allowed: bool
) -> None:
    old, new = tuple(map(NodeId, control)), tuple(map(NodeId, following))
    assert is_control_step(old, new) is allowed
    made = replace(cluster(5), control=old)
    if allowed:
        assert finish_control(begin_control(made, new)).control == new
    elif set(old) != set(new):
        assert reason_of(lambda: begin_control(made, new)) is Reason.BAD_REQUEST


def test_changes_run_again_are_in_already() -> None:
    made = cluster(5)
    assert begin_control(made, [THREE, TWO, ONE]) is made
    joint = begin_control(made, [ONE, TWO, FOUR], change_id=b"a" * 16)
    assert begin_control(joint, [ONE, TWO, FOUR]) is joint
    assert reason_of(lambda: begin_control(joint, [ONE, TWO, FIVE])) is Reason.CONTROL_SET
    done = finish_control(joint)
    assert finish_control(done) is done
    assert begin_control(done, [ONE, TWO, FOUR], change_id=b"a" * 16) is done


def test_only_members_that_stay_become_acceptors() -> None:
    assert reason_of(lambda: begin_control(cluster(3), [ONE, TWO, NodeId(9)])) is Reason.NO_SUCH_MEMBER
    made = committed(cluster(4), Join(proposed(7)), Leave(FOUR))
    for passing in (FOUR, FIVE):
        assert reason_of(lambda node=passing: begin_control(made, [ONE, TWO, node])) is Reason.PLAN_IN_PROGRESS  # type: ignore[misc]


def test_an_acceptor_that_goes_is_exchanged_while_the_plan_runs() -> None:
    made = advanced(cluster(4), Leave(ONE))
    joint = begin_control(made, [TWO, THREE, FOUR])
    assert reason_of(lambda: finish(joint, plan_of(made).id)) is Reason.CONTROL_SET
    done = finish(finish_control(joint), plan_of(made).id)
    assert done.control == (2, 3, 4)
    assert ONE in done.bans


def test_an_acceptor_to_be_that_goes_holds_the_plan_up_as_well() -> None:
    joint = begin_control(cluster(5), [ONE, TWO, FOUR])
    made = advanced(joint, Leave(FOUR))
    assert reason_of(lambda: finish(made, plan_of(made).id)) is Reason.CONTROL_SET


@pytest.mark.parametrize(
    "wrong",
    [
        {"control_next": (FOUR, TWO, THREE)},
        {"control_next": (ONE, TWO, NodeId(9))},
        {"control_next": (THREE, FOUR, FIVE)},
        {"control_next": (ONE, TWO)},
        {"control_epoch": Epoch(9)},
        {"control_epoch": Epoch(0)},
    ],
)
def test_an_unsound_control_set_is_noticed(wrong: dict[str, tuple[NodeId, ...]]) -> None:
    made: ClusterMetadata = replace(cluster(5), **wrong)  # type: ignore[arg-type]
    assert made.check()


def test_no_change_but_one_of_the_control_set_makes_another_acceptor_of_a_member() -> None:
    made = cluster(4)
    for node, allowed in ((TWO, False), (FOUR, True)):
        member = replace(made.members[node], incarnation=2)
        members = {**made.members, node: member}
        if allowed:
            assert made.next_epoch(b"", members=members).members[node].incarnation == 2
        else:
            with pytest.raises(AssertionError, match="becomes another one"):
                made.next_epoch(b"", members=members)
