"""A read shows the merge of R definitive answers, and R replicas hold it before it is shown (I8)."""

from __future__ import annotations

import random

import pytest

from leafdb.quorum.get_operation import GetOperation, GetStep
from leafdb.types import NodeId

A, B, C, D = (NodeId(number) for number in range(1, 5))


def union(one: bytes, other: bytes) -> bytes:
    """A merge that is a join: the sorted union of letters."""
    return bytes(sorted({*one, *other}))


def operation(
    *, r: int = 2, pr: int = 0, asked: tuple[NodeId, ...] = (A, B), spares: tuple[NodeId, ...] = (C,)
) -> GetOperation:
    return GetOperation(r=r, pr=pr, asked=set(asked), spares=list(spares), primaries=(A, B, C), merge=union)


def test_equal_answers_decide_without_repairs() -> None:
    get = operation()
    assert get.answered(A, b"x") is GetStep.NOTHING
    assert get.answered(B, b"x") is GetStep.DECIDED
    assert get.merged == b"x"
    assert get.repairs == []
    assert get.finished


def test_two_absent_answers_are_an_absence() -> None:
    get = operation()
    get.answered(A, None)
    assert get.answered(B, None) is GetStep.DECIDED
    assert get.merged is None


def test_a_stale_replica_is_written_back_before_the_answer() -> None:
    get = operation()
    get.answered(A, b"xy")
    assert get.answered(B, b"x") is GetStep.NOTHING
    assert get.repairs == [B]
    assert get.merged == b"xy"
    assert get.written_back(B) is GetStep.DECIDED


def test_an_absent_replica_beside_a_value_is_written_back() -> None:
    get = operation()
    get.answered(A, None)
    get.answered(B, b"x")
    assert get.repairs == [A]
    assert get.written_back(A) is GetStep.DECIDED


def test_what_an_incomplete_replica_has_is_merged_and_does_not_count() -> None:
    get = operation()
    assert get.unknown(A, b"y") is GetStep.NOTHING
    assert get.asks == [C]
    assert get.answered(B, b"x") is GetStep.NOTHING
    assert get.answered(C, b"x") is GetStep.NOTHING
    assert get.merged == b"xy"
    assert sorted(get.repairs) == [A, B, C]
    assert get.written_back(B) is GetStep.NOTHING
    assert get.written_back(C) is GetStep.DECIDED


def test_incomplete_replicas_alone_decide_nothing() -> None:
    get = operation()
    assert get.unknown(A, b"x") is GetStep.NOTHING
    assert get.unknown(B, b"x") is GetStep.FAILED


def test_an_incomplete_replica_that_comes_late_is_repaired() -> None:
    get = operation(asked=(A, B, C), spares=())
    get.answered(A, b"x")
    assert get.answered(B, b"x") is GetStep.DECIDED
    get.unknown(C, b"y")
    assert sorted(get.repairs) == [A, B, C]
    assert get.best == b"xy"


def test_concurrent_answers_write_back_to_both() -> None:
    get = operation()
    get.answered(A, b"x")
    get.answered(B, b"y")
    assert sorted(get.repairs) == [A, B]
    assert get.written_back(A) is GetStep.NOTHING
    assert get.written_back(B) is GetStep.DECIDED
    assert get.merged == b"xy"


def test_an_unconfirmed_write_back_fails_instead_of_answering() -> None:
    get = operation(spares=())
    get.answered(A, b"xy")
    get.answered(B, b"x")
    assert get.lost(B) is GetStep.FAILED
    assert get.written_back(B) is GetStep.NOTHING


def test_another_is_brought_up_for_one_that_answers_and_does_not_take_the_merge() -> None:
    """Its disk may be full, or it died in between."""
    get = operation()
    get.answered(A, b"xy")
    get.answered(B, b"x")
    assert get.lost(B) is GetStep.NOTHING
    assert get.repairs == [B, C]
    assert get.written_back(B) is GetStep.NOTHING
    assert get.written_back(C) is GetStep.DECIDED
    assert get.merged == b"xy"
    get.check()


def test_another_is_brought_up_beside_one_that_is_slow_to_take_the_merge() -> None:
    get = operation()
    get.answered(A, b"xy")
    get.answered(B, b"x")
    assert get.hedge()
    assert get.repairs == [B, C]
    assert not get.hedge()
    assert get.written_back(C) is GetStep.DECIDED
    assert not get.finished
    assert get.written_back(B) is GetStep.NOTHING
    assert get.finished


def test_a_late_answer_counts_as_a_holder_while_the_merge_is_written_back() -> None:
    get = operation()
    assert get.hedge()
    get.answered(A, b"xy")
    get.answered(B, b"x")
    assert get.answered(C, b"xy") is GetStep.DECIDED
    assert get.merged == b"xy"


def test_one_that_is_brought_up_late_counts_once_it_confirms() -> None:
    get = operation()
    assert get.hedge()
    get.answered(A, b"xy")
    get.answered(B, b"x")
    assert get.answered(C, None) is GetStep.NOTHING
    assert get.repairs == [B, C]
    assert get.lost(B) is GetStep.NOTHING
    assert get.written_back(C) is GetStep.DECIDED


def test_whoever_confirms_before_it_answers_counts_once() -> None:
    get = operation(r=3, asked=(A, B, C), spares=(D,))
    assert get.hedge()
    get.answered(A, b"xy")
    get.answered(B, b"x")
    get.answered(C, b"x")
    assert get.lost(B) is GetStep.NOTHING
    assert get.repairs == [B, C, D]
    assert get.written_back(D) is GetStep.NOTHING
    assert get.answered(D, b"xy") is GetStep.NOTHING
    assert get.written_back(C) is GetStep.DECIDED


def test_unknown_never_counts_and_asks_a_spare() -> None:
    get = operation()
    assert get.unknown(A) is GetStep.NOTHING
    assert get.asks == [C]
    get.answered(B, None)
    assert get.answered(C, None) is GetStep.DECIDED


def test_fails_when_nobody_is_left() -> None:
    get = operation(spares=())
    assert get.unknown(A) is GetStep.FAILED


def test_pr_counts_primaries_only() -> None:
    get = GetOperation(r=2, pr=2, asked={A, D}, spares=[B], primaries=(A, B, C), merge=union)
    get.answered(D, b"x")
    assert get.asks == [B]
    assert get.answered(A, b"x") is GetStep.NOTHING
    assert get.answered(B, b"x") is GetStep.DECIDED


def test_a_late_answer_is_only_repaired() -> None:
    get = operation(asked=(A, B, C), spares=())
    get.answered(A, b"xy")
    get.answered(B, b"xy")
    assert get.answered(C, b"x") is GetStep.NOTHING
    assert get.repairs == [C]
    assert get.merged == b"xy"


def test_a_late_answer_that_knows_more_repairs_the_others() -> None:
    get = operation(asked=(A, B, C), spares=())
    get.answered(A, b"x")
    get.answered(B, b"x")
    get.answered(C, b"xy")
    assert sorted(get.repairs) == [A, B]
    assert get.best == b"xy"
    assert get.merged == b"x"


@pytest.mark.parametrize("seed", range(200))
def test_a_decided_read_is_held_by_r_replicas(seed: int) -> None:
    rng = random.Random(seed)
    n = rng.randint(1, 5)
    nodes = [NodeId(number) for number in range(1, n + 1)]
    r = rng.randint(1, n)
    stores: dict[NodeId, bytes | None] = {
        node: bytes(sorted(rng.sample(b"abc", rng.randint(1, 3)))) if rng.random() < 0.7 else None for node in nodes
    }
    get = GetOperation(r=r, pr=0, asked=set(nodes[:r]), spares=nodes[r:], primaries=nodes, merge=union)
    todo: list[tuple[str, NodeId]] = [("answer", node) for node in nodes[:r]]
    ends: list[GetStep] = []
    gone: set[NodeId] = set()
    while todo:
        if rng.random() < 0.2:
            get.hedge()
        kind, node = todo.pop(rng.randrange(len(todo)))
        if node in gone or rng.random() < 0.15:
            gone.add(node)
            step = get.lost(node)
        elif kind == "answer":
            step = get.answered(node, stores[node])
        else:
            old = stores[node]
            assert get.best is not None
            stores[node] = get.best if old is None else union(old, get.best)
            step = get.written_back(node)
        todo += [("answer", node) for node in get.asks] + [("write", node) for node in get.repairs]
        get.asks.clear()
        get.repairs.clear()
        get.check()
        if step is not GetStep.NOTHING:
            ends.append(step)
            if step is GetStep.FAILED:
                assert n - len(gone) < r, "there were enough"
            if step is GetStep.DECIDED and get.merged is not None:
                holding = [one for one in stores.values() if one is not None and union(one, get.merged) == one]
                assert len(holding) >= r
    if not ends:
        ends.append(get.expired())
    assert len(ends) == 1


def test_a_write_back_that_meets_the_deadline_is_awaited_no_more() -> None:
    get = operation()
    get.answered(A, b"xy")
    get.answered(B, b"x")
    assert get.expired() is GetStep.FAILED
    assert get.finished
    assert get.writing_back is not None, "why it failed can still be told"
    assert get.written_back(B) is GetStep.NOTHING


def test_with_pr_so_many_primaries_hold_the_merge_before_it_is_shown() -> None:
    """A fallback that holds it is not enough: the next such read may ask two primaries that do not."""
    get = operation(r=2, pr=2, asked=(A, D), spares=(C,))
    assert get.answered(A, b"xy") is GetStep.NOTHING
    assert get.answered(D, b"xy") is GetStep.NOTHING
    assert get.answered(C, b"x") is GetStep.NOTHING
    assert get.repairs == [C]
    assert get.written_back(C) is GetStep.DECIDED

    failing = operation(r=2, pr=2, asked=(A, D), spares=(C,))
    failing.answered(A, b"xy")
    failing.answered(D, b"xy")
    failing.answered(C, b"x")
    assert failing.lost(C) is GetStep.FAILED


def test_under_a_newer_horizon_everybody_who_was_asked_is_asked_again_and_what_they_said_is_void() -> None:
    get = operation(r=3, asked=(A, B, C), spares=(D,))
    get.answered(A, b"forgotten")
    get.unknown(B, b"too")
    assert get.asks == [D]
    get.asks.clear()
    get.anew(9)
    assert get.waiting == {A, B, C, D} == {*get.asks}
    assert (get.merged, get.definitive, get.primary_answers, get.records) == (None, 0, 0, {})
    get.check()
    get.answered(A, None)
    get.answered(B, b"x")
    assert get.answered(C, b"x") is GetStep.NOTHING
    assert get.repairs == [A]
    assert get.written_back(A) is GetStep.DECIDED
    assert get.merged == b"x"
    get.check()


def test_who_could_not_be_had_before_is_not_asked_again() -> None:
    get = operation(asked=(A, B), spares=())
    get.answered(A, b"x")
    get.anew(9)
    get.lost(B)
    assert get.ended
    again = operation(r=1, asked=(A,), spares=(B, C))
    again.lost(A)
    again.anew(9)
    assert again.waiting == {B}
