"""Plans: what was shown is what is committed, one step at a time, and going back leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from leafdb.errors import NotApplied, Reason
from leafdb.ring.metadata import ClusterMetadata, decode
from leafdb.ring.placement import loads_of, moves
from leafdb.ring.plan import Phase, Plan
from leafdb.ring.proposal import future, propose
from leafdb.ring.staging import ForceRemove, Join, Leave, Replace
from leafdb.ring.transitions import abort, advance, awaited, changing_partitions, commit, finish, finish_abort, stage
from leafdb.types import Epoch, NodeId
from support.clusters import bucket, cluster, proposed
from support.ring_changes import advanced, committed, finished, plan_of, staged

ONE, TWO, THREE, FOUR, FIVE = map(NodeId, range(1, 6))
Step = Callable[[ClusterMetadata, bytes], ClusterMetadata]


def reason_of(call: Callable[[], object]) -> Reason:
    with pytest.raises(NotApplied) as raised:
        call()
    return raised.value.reason


def test_a_join_is_a_member_from_the_commit_and_an_owner_from_the_end() -> None:
    before = cluster(3)
    under_way = committed(before, Join(proposed(7), b"s" * 16))
    plan = plan_of(under_way)
    assert under_way.members[FOUR].name == "node-7"
    assert (under_way.owners, under_way.staged, under_way.next_node_id) == (before.owners, (), 5)
    assert (plan.phase, plan.joining, plan.epoch) == (Phase.WRITE_BOTH_READ_OLD, (FOUR,), under_way.epoch)
    assert plan.store_of(FOUR) == b"s" * 16
    done = finish(advance(under_way, plan.id), plan.id)
    assert (done.owners, done.plan, done.bans) == (plan.owners, None, ())
    assert loads_of(done.owners, done.members) == {1: 16, 2: 16, 3: 16, 4: 16}


def test_who_goes_is_a_member_to_the_end_and_banned_after() -> None:
    made = cluster(5)
    under_way = advanced(made, Leave(FOUR), ForceRemove(FIVE))
    assert set(under_way.members) == {1, 2, 3, 4, 5}
    assert (plan_of(under_way).leaving, plan_of(under_way).removed) == ((FOUR,), (FIVE,))
    done = finish(under_way, plan_of(under_way).id)
    assert set(done.members) == {1, 2, 3}
    assert done.bans == (FOUR, FIVE)
    assert not {FOUR, FIVE} & set(done.owners)


def test_a_replacement_gets_exactly_what_the_replaced_one_had() -> None:
    made = cluster(5)
    done = finished(made, Replace(FOUR, proposed(7)))
    assert done.owners == tuple(NodeId(6) if owner == FOUR else owner for owner in made.owners)
    assert done.bans == (FOUR,)


def test_a_heavier_replacement_gets_its_share() -> None:
    done = finished(cluster(4), Replace(FOUR, proposed(7, weight=5)))
    assert loads_of(done.owners, done.members) == {1: 8, 2: 8, 3: 8, 5: 40}


def test_replacing_beside_a_join_moves_only_what_both_need() -> None:
    made = cluster(4)
    done = finished(made, Replace(FOUR, proposed(7)), Join(proposed(8)))
    others = [p for p in range(64) if made.owners[p] != FOUR]
    assert all(done.owners[p] in (made.owners[p], 6) for p in others)
    assert moves([made.owners[p] for p in others], [done.owners[p] for p in others]) <= 13


def test_numbers_are_given_in_the_order_of_staging() -> None:
    under_way = committed(cluster(3), Join(proposed(9)), Replace(TWO, proposed(8)), Join(proposed(7)))
    assert [under_way.members[NodeId(node)].name for node in (4, 5, 6)] == ["node-9", "node-8", "node-7"]
    assert plan_of(under_way).replaced == ((TWO, FIVE),)


def test_two_plans_at_once_one_wins_and_the_other_is_stale() -> None:
    base = cluster(4)
    first = staged(base, Join(proposed(7)))
    ours = propose(first).id
    second = stage(first, Leave(FOUR))
    theirs = propose(second).id
    assert ours != theirs
    assert reason_of(lambda: commit(second, ours)) is Reason.PLAN_STALE
    won = commit(second, theirs)
    assert reason_of(lambda: commit(won, ours)) is Reason.PLAN_STALE
    assert commit(won, theirs) is won, "asked for twice, it is in progress"
    over = finish(advance(won, theirs), theirs)
    assert reason_of(lambda: commit(over, theirs)) is Reason.PLAN_STALE


def test_a_plan_is_stale_when_what_it_starts_from_has_changed() -> None:
    ready = staged(cluster(4), Join(proposed(7)))
    shown = propose(ready).id
    aborted = abort(commit(ready, shown), shown)
    again = staged(aborted, Join(proposed(7)))
    assert reason_of(lambda: commit(again, shown)) is Reason.PLAN_STALE


def test_the_id_tells_apart_what_comes_to_the_same_owners() -> None:
    made = cluster(4)
    leave, remove = propose(staged(made, Leave(FOUR))), propose(staged(made, ForceRemove(FOUR)))
    assert leave.owners == remove.owners
    assert leave.id != remove.id
    here, there = (propose(staged(made, Join(proposed(7), store))) for store in (b"a" * 16, b"b" * 16))
    assert here.id != there.id


def test_a_bucket_made_meanwhile_makes_no_plan_stale() -> None:
    ready = staged(cluster(3), Join(proposed(7)))
    shown = propose(ready).id
    later = ready.create_bucket(bucket())
    assert plan_of(commit(later, shown)).epoch == later.epoch + 1


def test_there_is_something_to_propose_or_a_reason() -> None:
    assert reason_of(lambda: propose(cluster(3))) is Reason.NOTHING_STAGED
    assert reason_of(lambda: propose(committed(cluster(3), Join(proposed(7))))) is Reason.PLAN_IN_PROGRESS


@pytest.mark.parametrize("step", [advance, finish, abort, finish_abort])
def test_steps_name_their_plan(step: Step) -> None:
    assert reason_of(lambda: step(cluster(3), b"p" * 16)) is Reason.NO_PLAN
    assert reason_of(lambda: step(committed(cluster(3), Join(proposed(7))), b"p" * 16)) is Reason.PLAN_STALE


def test_a_step_is_taken_from_its_phase_and_once() -> None:
    first = committed(cluster(3), Join(proposed(7)))
    plan = plan_of(first).id
    assert reason_of(lambda: finish(first, plan)) is Reason.WRONG_PHASE
    assert reason_of(lambda: finish_abort(first, plan)) is Reason.WRONG_PHASE
    second = advance(first, plan)
    assert advance(second, plan) is second
    assert reason_of(lambda: finish_abort(second, plan)) is Reason.WRONG_PHASE
    back = abort(second, plan)
    assert plan_of(back).phase is Phase.RETREAT
    assert abort(back, plan) is back
    assert reason_of(lambda: advance(back, plan)) is Reason.WRONG_PHASE
    assert reason_of(lambda: finish(back, plan)) is Reason.WRONG_PHASE


def test_retried_changes_are_recognised_after_the_plan_is_gone() -> None:
    ids = [bytes([at]) * 16 for at in range(6)]
    ready = staged(cluster(3), Join(proposed(7)))
    plan = propose(ready).id
    made = commit(ready, plan, change_id=ids[0])
    made = advance(made, plan, change_id=ids[1])
    made = finish(made, plan, change_id=ids[2])
    assert commit(made, plan, change_id=ids[0]) is made
    assert advance(made, plan, change_id=ids[1]) is made
    assert finish(made, plan, change_id=ids[2]) is made


@pytest.mark.parametrize("phase", [Phase.WRITE_BOTH_READ_OLD, Phase.WRITE_BOTH_READ_NEW])
def test_an_abort_leaves_the_ring_as_it_was_and_uses_numbers_up(phase: Phase) -> None:
    before = cluster(4)
    made = committed(before, Join(proposed(7)), Leave(FOUR), Replace(THREE, proposed(8)))
    plan = plan_of(made).id
    if phase is Phase.WRITE_BOTH_READ_NEW:
        made = finish_abort(abort(advance(made, plan), plan), plan)
    else:
        made = abort(made, plan)
    assert (made.owners, made.members, made.plan) == (before.owners, before.members, None)
    assert (made.bans, made.next_node_id) == ((FIVE, NodeId(6)), 7)
    again = committed(made, Join(proposed(7)))
    assert plan_of(again).joining == (NodeId(7),)


def test_a_step_waits_for_those_who_would_read_what_is_no_longer_written() -> None:
    made = cluster(5)
    assert awaited(made) == frozenset()
    first = committed(made, Join(proposed(7)), Leave(FOUR), ForceRemove(FIVE))
    assert awaited(first) == {1, 2, 3, 4, 6}, "who takes, and who gives; the dead one not"
    second = advance(first, plan_of(first).id)
    assert awaited(second) == {1, 2, 3, 4}, "the leaving one too, the dead one not"
    assert awaited(abort(second, plan_of(second).id)) == {1, 2, 3}


def test_each_step_stamps_the_ranges_it_touches_and_no_others() -> None:
    start = replace(cluster(20, partitions=64), epoch=Epoch(5))
    made = committed(start, Replace(TWO, proposed(70)))
    touched = changing_partitions(made)
    assert 0 < len(touched) < 64, "of 20 nodes, 16 are in a list at most"
    for following in (made, advance(made, plan_of(made).id), abort(made, plan_of(made).id)):
        for p, epoch in enumerate(following.range_epochs):
            assert epoch == (following.epoch if p in touched else 1)


def test_an_acceptor_does_not_go_before_the_control_set_has_changed() -> None:
    made = advanced(cluster(4), Leave(ONE))
    assert reason_of(lambda: finish(made, plan_of(made).id)) is Reason.CONTROL_SET


def test_a_value_in_every_phase_comes_back_from_its_bytes() -> None:
    first = committed(cluster(4), Join(proposed(7), b"s" * 16), Leave(FOUR), Replace(THREE, proposed(8)))
    plan = plan_of(first).id
    second = advance(first, plan)
    for made in (first, second, abort(second, plan)):
        assert decode(made.encode()) == made
        assert "plan" in made.describe()


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": b"short"},
        {"joining": (FIVE, FOUR)},
        {"joining": ()},
        {"stores": ()},
        {"stores": (b"x", b"")},
        {"leaving": (NodeId(9),)},
        {"leaving": (FOUR,)},
        {"replaced": ((THREE, ONE),)},
        {"removed": (ONE,)},
        {"owners": (ONE,)},
        {"epoch": Epoch(99)},
    ],
)
def test_an_unsound_plan_is_noticed(wrong: dict[str, object]) -> None:
    made = committed(cluster(3), Join(proposed(7)), Join(proposed(8)))
    plan: Plan = replace(plan_of(made), **wrong)  # type: ignore[arg-type]
    assert replace(made, plan=plan).check()


def test_a_plan_fits_its_metadata() -> None:
    made = committed(cluster(3), Join(proposed(7)))
    assert replace(made, owners=plan_of(made).owners).check()
    assert replace(made, staged=(Leave(ONE),)).check()
    assert replace(made, control=(FOUR,)).check()


def test_the_future_is_what_the_plan_would_come_to() -> None:
    made = cluster(4)
    changes = (Join(proposed(7)), Leave(FOUR))
    seen = future(made, changes)
    done = finished(made, *changes)
    assert (seen.owners, seen.members) == (done.owners, done.members)
    assert future(made, ()).owners == made.owners
    beside = future(committed(made, Join(proposed(9))), changes)
    assert {member.name for member in beside.members.values()} == {"node-0", "node-1", "node-2", "node-7"}
    assert loads_of(beside.owners, beside.members) == {1: 16, 2: 16, 3: 16, 6: 16}, "what is in progress is left aside"
    assert future(made, (Leave(ONE), Leave(TWO))).control == (THREE,)
    assert reason_of(lambda: future(made, (Leave(NodeId(9)),))) is Reason.NO_SUCH_MEMBER
