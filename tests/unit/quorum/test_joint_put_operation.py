"""A write in the middle of a ring change is answered when both sets of owners have enough of it (I7, I10, I19)."""

from __future__ import annotations

import random

import pytest

from leafdb.quorum.joint_put_operation import JointPutOperation
from leafdb.quorum.owner_set import OwnerSet, Short, appoint
from leafdb.quorum.put_operation import PutOperation, Step
from leafdb.types import NodeId

A, B, C, D, E, F = (NodeId(number) for number in range(1, 7))


def operation(
    old: tuple[NodeId, ...] = (A, B, C),
    new: tuple[NodeId, ...] = (B, C, D),
    *,
    w: tuple[int, int] = (2, 2),
    pw: tuple[int, int] = (0, 0),
    spares: tuple[NodeId, ...] = (),
    targets: dict[NodeId, NodeId] | None = None,
) -> JointPutOperation:
    put = JointPutOperation(
        old=OwnerSet(old, w=w[0], pw=pw[0]),
        new=OwnerSet(new, w=w[1], pw=pw[1]),
        targets=targets if targets is not None else {node: node for node in (*old, *new)},
        spares=list(spares),
    )
    if put.short() is None:
        put.check()
    return put


def test_one_acknowledgement_counts_in_both_sets() -> None:
    put = operation()
    assert put.acked(B) is Step.NOTHING
    assert put.acked(C) is Step.DECIDED
    assert (put.acks, put.primary_acks) == (2, 2)
    assert put.waiting == {A: A, D: D}


def test_w_of_one_set_is_not_enough() -> None:
    put = operation()
    assert put.acked(A) is Step.NOTHING
    assert put.acked(B) is Step.NOTHING
    assert put.acks == 2
    assert put.acked(D) is Step.DECIDED


def test_growing_from_one_to_three_needs_the_one_and_two_of_the_three() -> None:
    put = operation((A,), (A, B, C), w=(1, 2))
    put.acked(B)
    assert put.acked(C) is Step.NOTHING, "the one that is read has nothing yet"
    assert put.acked(A) is Step.DECIDED
    put = operation((A,), (A, B, C), w=(1, 2))
    assert put.acked(A) is Step.NOTHING
    assert put.acked(B) is Step.DECIDED


def test_it_fails_as_soon_as_one_set_is_out_of_reach_and_says_which_count() -> None:
    put = operation((A, B), (C, D), w=(1, 2))
    assert put.acked(A) is Step.NOTHING
    assert put.acked(B) is Step.NOTHING
    assert put.refused(C) is Step.FAILED
    assert put.progress == (0, 2)
    assert put.acked(D) is Step.NOTHING
    assert put.owed == [C]


def test_a_fallback_counts_where_its_primary_belongs_and_never_to_pw() -> None:
    put = operation(pw=(1, 2), spares=(E,))
    assert put.lost(B) is Step.NOTHING
    assert put.asks == [(E, B)]
    put.acked(E)
    assert (put.old.acks, put.new.acks, put.primary_acks) == (1, 1, 0)
    assert put.acked(C) is Step.NOTHING
    assert put.acked(D) is Step.DECIDED
    assert operation(pw=(0, 3), targets={A: A, B: B, C: C, E: D}).short() == Short(2, 3, "primaries")


def test_a_fallback_for_an_old_owner_does_not_count_for_the_new() -> None:
    put = operation((A, B), (B, C), targets={E: A, B: B, C: C})
    put.acked(E)
    assert put.acked(B) is Step.NOTHING
    assert put.lost(C) is Step.FAILED


def test_the_set_that_waits_for_a_primary_in_person_says_so() -> None:
    put = operation((A, B), (B, C), w=(1, 1), pw=(0, 1), targets={A: A, E: B, C: C})
    put.acked(A)
    put.acked(E)
    assert put.lost(C) is Step.FAILED
    assert put.progress == (0, 1)


def test_primary_acks_promise_no_more_than_either_set_can_keep() -> None:
    put = operation((A, B, C), (C, D, E))
    put.acked(A)
    put.acked(B)
    assert (put.acks, put.primary_acks) == (2, 0), "a reader of the new set would find nothing"
    put.acked(C)
    assert (put.acks, put.primary_acks) == (3, 1)
    put.acked(D)
    assert (put.acks, put.primary_acks) == (4, 2)
    grown = operation((A,), (A, B, C), w=(1, 2))
    grown.acked(A)
    grown.acked(B)
    assert grown.primary_acks == 2, "the old set has it whole, and sets no limit"


def test_with_two_equal_sets_it_is_the_machine_of_one() -> None:
    for seed in range(200):
        rng = random.Random(seed)
        nodes = [NodeId(number) for number in range(1, rng.randint(2, 6))]
        spares = [NodeId(number) for number in range(10, 10 + rng.randint(0, 2))]
        w = rng.randint(1, len(nodes))
        pw = rng.randint(0, w)
        targets = {node: node for node in nodes}
        one = PutOperation(w=w, pw=pw, targets=dict(targets), spares=spares)
        two = JointPutOperation(
            old=OwnerSet(nodes, w=w, pw=pw), new=OwnerSet(nodes, w=w, pw=pw), targets=dict(targets), spares=spares
        )
        while not one.finished:
            node = rng.choice(sorted(one.waiting))
            event = rng.choice(("acked", "refused", "lost"))
            assert getattr(one, event)(node) is getattr(two, event)(node)
            assert (one.waiting, one.asks, one.owed, one.ended) == (two.waiting, two.asks, two.owed, two.ended)
            assert (one.acks, one.primary_acks, one.maybe_applied) == (two.acks, two.primary_acks, two.maybe_applied)
            assert one.progress == two.progress


@pytest.mark.parametrize("seed", range(300))
def test_random_histories_conserve_copies_and_end_once(seed: int) -> None:
    """At the end every primary of either set has acknowledged, has an acknowledged fallback copy, or was owed once."""
    rng = random.Random(seed)
    nodes = [NodeId(number) for number in range(1, 8)]
    old, new = (tuple(rng.sample(nodes, rng.randint(1, 5))) for _ in range(2))
    union = dict.fromkeys((*old, *new))
    spares = [NodeId(number) for number in range(10, 10 + rng.randint(0, 3))]
    sets = [OwnerSet(each, w=rng.randint(1, len(each))) for each in (old, new)]
    for each in sets:
        each.pw = rng.randint(0, each.w)
    targets = {node: node for node in union if rng.random() < 0.8}
    owed = appoint(targets, [node for node in union if node not in targets], spares, sets)
    put = JointPutOperation(old=sets[0], new=sets[1], targets=targets, spares=spares)
    if put.short() is not None:
        return
    held: dict[NodeId, NodeId] = {}
    ends: list[Step] = []
    while not put.finished:
        put.check()
        if rng.random() < 0.03:
            step = put.expired()
        else:
            node = rng.choice(sorted(put.waiting))
            stands_for = put.waiting[node]
            event = rng.choice(("acked", "acked", "refused", "lost"))
            step = getattr(put, event)(node)
            if event == "acked":
                held[node] = stands_for
        reached = all(
            sum(primary in each.primaries for primary in held.values()) >= each.w
            and sum(node == primary in each.primaries for node, primary in held.items()) >= each.pw
            for each in sets
        )
        if step is Step.DECIDED:
            assert reached
        elif not ends:
            assert step is Step.FAILED or not reached
        if step is not Step.NOTHING:
            ends.append(step)
        owed.extend(put.owed)
        put.owed.clear()
        put.asks.clear()
    put.check()
    assert len(ends) == 1
    assert put.acks == len(held)
    assert sorted([*held.values(), *owed]) == sorted(union)
