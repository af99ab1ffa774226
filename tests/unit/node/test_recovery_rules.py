"""Recovery takes the newest that anybody knows, names what may be lost, and keeps clear of what the lost ones know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from leafdb.consensus.ballot import Ballot
from leafdb.errors import NotApplied
from leafdb.limits import NODE_ID_MAX
from leafdb.node.recovery_rules import recovery_of
from leafdb.node.register import Standing
from leafdb.ring.control_set import begin_control
from leafdb.ring.horizons import UNPROVED, Horizon
from leafdb.ring.metadata import ClusterMetadata, decode
from leafdb.ring.recovery import BUCKETS_SKIPPED, EPOCHS_SKIPPED, NODES_SKIPPED, recovered
from leafdb.ring.staging import Join, Leave
from leafdb.types import Epoch, NodeId
from support.clusters import bucket, cluster, proposed
from support.ring_changes import committed

ONE, TWO, THREE, FOUR, FIVE = map(NodeId, range(1, 6))

FOUNDED = cluster(5)
SECOND = FOUNDED.create_bucket(bucket("second", n=3))
THIRD = SECOND.create_bucket(bucket("third", n=2))


def ballot(counter: int, node: NodeId = ONE) -> Ballot:
    return Ballot(counter, node, 7)


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(NotApplied) as raised:
        call()
    return str(raised.value)


def test_the_newest_that_is_believed_is_the_base() -> None:
    standings = {ONE: Standing(FOUNDED), FOUR: Standing(SECOND), FIVE: Standing(FOUNDED)}
    recovery = recovery_of(standings, {TWO, THREE})
    assert recovery.base == SECOND
    assert recovery.made.buckets == SECOND.buckets
    assert recovery.made.control == (ONE, FOUR, FIVE)
    assert recovery.losses == (
        "changes of buckets and of the ring after epoch 2, if there were any, are lost: only node-1, node-2 can have "
        "known of them",
        *[line for line in recovery.losses if line.startswith("n = 3: no majority")],
    )
    assert len(recovery.losses) == 2


def test_what_the_acceptor_of_the_highest_ballot_holds_may_have_been_chosen_and_is_kept() -> None:
    standings = {ONE: Standing(FOUNDED, ballot(5), SECOND), FOUR: Standing(FOUNDED), FIVE: Standing(FOUNDED)}
    recovery = recovery_of(standings, {TWO, THREE})
    assert recovery.base == SECOND
    assert "a change that may never have been confirmed comes true: bucket second created" in recovery.losses


def test_a_higher_ballot_shows_that_a_later_epoch_was_never_chosen() -> None:
    standings = {
        ONE: Standing(FOUNDED, ballot(5), THIRD),
        TWO: Standing(FOUNDED, ballot(9, TWO), SECOND),
        FOUR: Standing(FOUNDED),
    }
    assert recovery_of(standings, {THREE, FIVE}).base == SECOND


def test_what_is_believed_outweighs_an_older_value_that_was_accepted() -> None:
    standings = {ONE: Standing(FOUNDED, ballot(99), FOUNDED), FOUR: Standing(THIRD)}
    recovery = recovery_of(standings, {TWO, THREE, FIVE})
    assert recovery.base == THIRD
    assert not [line for line in recovery.losses if "comes true" in line]


def test_values_accepted_in_a_former_generation_do_not_count() -> None:
    again = recovered(SECOND, (ONE,), 2)
    standings = {ONE: Standing(again), FOUR: Standing(FOUNDED, ballot(99), THIRD)}
    assert recovery_of(standings, {TWO, THREE, FIVE}).base == again
    later = again.create_bucket(bucket("later"))
    standings[ONE] = Standing(again, ballot(3), later)
    assert recovery_of(standings, {TWO, THREE, FIVE}).base == later, "whatever ballots the former one came to"


def test_everybody_is_either_reachable_or_named_as_lost() -> None:
    standings = {ONE: Standing(FOUNDED), FOUR: Standing(FOUNDED)}
    assert "node-4 cannot be reached and is not named as lost" in refused(lambda: recovery_of(standings, {TWO, THREE}))
    assert "node-3 can be reached" in refused(lambda: recovery_of(standings, {TWO, THREE, FOUR, FIVE}))


def test_nobody_that_may_be_gone_keeps_the_register_unless_there_is_nobody_else() -> None:
    plan = committed(FOUNDED, Join(proposed(9)), Leave(ONE))
    six = NodeId(6)
    everybody = {ONE: Standing(plan), FOUR: Standing(plan), six: Standing(plan)}
    assert recovery_of(everybody, {TWO, THREE, FIVE}).made.control == (FOUR,)
    assert recovery_of({ONE: Standing(plan), six: Standing(plan)}, {TWO, THREE, FOUR, FIVE}).made.control == (ONE,)
    assert "can keep the register" in refused(lambda: recovery_of({six: Standing(plan)}, {ONE, TWO, THREE, FOUR, FIVE}))


def test_a_new_generation_keeps_clear_of_all_numbers_the_old_one_can_have_given() -> None:
    joint = begin_control(THIRD, [ONE, TWO, FOUR])
    made = recovered(joint, (FIVE,), 3)
    assert decode(made.encode()) == made
    assert made.generation == 5
    assert made.version > joint.version
    assert made.epoch == joint.epoch + EPOCHS_SKIPPED
    assert set(made.range_epochs) == {made.epoch} == {made.control_epoch}
    assert made.next_node_id == joint.next_node_id + NODES_SKIPPED
    assert made.next_bucket_id == joint.next_bucket_id + BUCKETS_SKIPPED
    assert (made.control, made.control_next) == ((FIVE,), ())
    assert (made.owners, made.members, made.buckets) == (joint.owners, joint.members, joint.buckets)


def test_recoveries_go_on_when_numbers_are_used_up() -> None:
    made: ClusterMetadata = FOUNDED
    for _ in range(NODE_ID_MAX // NODES_SKIPPED + 3):
        made = recovered(made, (ONE,), 1)
    assert made.next_node_id == NODE_ID_MAX + 1


def test_of_two_recoveries_the_one_that_counts_more_as_lost_is_the_later_one() -> None:
    """The keystone of the first was lost before anybody heard of it; when it returns, it follows."""
    first = recovered(FOUNDED, (ONE, FOUR, FIVE), 2)
    second = recovered(FOUNDED, (FOUR,), 3)
    assert second.version > first.version


def test_no_horizon_is_lower_than_one_by_which_a_store_that_is_left_may_have_forgotten() -> None:
    at, older, newer = (Horizon(stamp, Epoch(1)) for stamp in (20, 10, 30))
    rest = (UNPROVED,) * (FOUNDED.partitions - 2)
    base = replace(SECOND, horizons=(at, at, *rest))
    # It was away when this generation was made, and had learned of a later horizon in the one before.
    other = replace(FOUNDED, horizons=(older, newer, *rest))
    standings = {ONE: Standing(base), FOUR: Standing(other), FIVE: Standing(FOUNDED)}
    recovery = recovery_of(standings, {TWO, THREE})
    assert recovery.base == base
    assert recovery.made.horizons == (at, newer, *rest)
    assert recovered(FOUNDED, (ONE,), 0).horizons == ()
