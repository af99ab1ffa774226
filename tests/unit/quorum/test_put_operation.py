"""A write is answered when W and PW are met, fails when they cannot be, and nobody is forgotten (I7, I10)."""

from __future__ import annotations

import random

import pytest

from leafdb.quorum.put_operation import PutOperation, Step
from leafdb.types import NodeId

A, B, C, D, E = (NodeId(number) for number in range(1, 6))


def operation(
    *, w: int = 2, pw: int = 0, nodes: tuple[NodeId, ...] = (A, B, C), spares: tuple[NodeId, ...] = ()
) -> PutOperation:
    return PutOperation(w=w, pw=pw, targets={node: node for node in nodes}, spares=list(spares))


def test_decides_once_at_w_and_finishes_when_all_have_answered() -> None:
    put = operation()
    assert put.acked(A) is Step.NOTHING
    assert put.acked(B) is Step.DECIDED
    assert put.waiting == {C: C}
    assert put.acked(C) is Step.NOTHING
    assert put.finished
    assert put.owed == []
    assert (put.acks, put.primary_acks) == (3, 3)


def test_one_node_is_counted_once() -> None:
    put = operation()
    put.acked(A)
    assert put.acked(A) is Step.NOTHING
    assert put.acks == 1


def test_a_lost_primary_is_owed_a_hint_that_does_not_count() -> None:
    put = operation()
    put.acked(A)
    assert put.lost(B) is Step.NOTHING
    assert put.owed == [B]
    assert put.acks == 1
    assert put.acked(C) is Step.DECIDED


def test_a_spare_stands_for_the_lost_primary_and_counts_to_w_but_not_to_pw() -> None:
    put = operation(w=3, spares=(D,))
    assert put.lost(B) is Step.NOTHING
    assert put.asks == [(D, B)]
    assert put.owed == []
    put.acked(A)
    put.acked(C)
    assert put.acked(D) is Step.DECIDED
    assert put.primary_acks == 2


def test_pw_is_not_met_by_fallbacks() -> None:
    put = PutOperation(w=2, pw=2, targets={A: A, D: B}, spares=[])
    assert put.acked(A) is Step.FAILED
    assert put.acked(D) is Step.NOTHING


def test_fails_as_soon_as_w_is_out_of_reach() -> None:
    put = operation()
    assert put.refused(B) is Step.NOTHING
    assert put.lost(C) is Step.FAILED
    assert put.acked(A) is Step.NOTHING


def test_the_deadline_owes_hints_to_the_silent() -> None:
    put = operation()
    put.acked(A)
    put.acked(B)
    assert put.expired() is Step.NOTHING
    assert put.owed == [C]
    late = operation()
    assert late.expired() is Step.FAILED
    assert late.owed == [A, B, C]


@pytest.mark.parametrize("seed", range(200))
def test_random_histories_conserve_copies(seed: int) -> None:
    """At the end every primary has acknowledged, has an acknowledged fallback copy, or was owed exactly once."""
    rng = random.Random(seed)
    n = rng.randint(1, 5)
    primaries = [NodeId(number) for number in range(1, n + 1)]
    spares = [NodeId(number) for number in range(10, 10 + rng.randint(0, 3))]
    w = rng.randint(1, n)
    put = PutOperation(w=w, pw=rng.randint(0, w), targets={node: node for node in primaries}, spares=list(spares))
    held: set[NodeId] = set()
    owed: list[NodeId] = []
    ends = 0
    while not put.finished:
        put.check()
        if rng.random() < 0.05:
            step = put.expired()
        else:
            node = rng.choice(sorted(put.waiting))
            stands_for = put.waiting[node]
            event = rng.choice(("acked", "acked", "refused", "lost"))
            step = getattr(put, event)(node)
            if event == "acked":
                held.add(stands_for)
        ends += step is not Step.NOTHING
        owed.extend(put.owed)
        put.owed.clear()
        put.asks.clear()
    assert ends == 1
    assert sorted([*held, *owed]) == primaries
