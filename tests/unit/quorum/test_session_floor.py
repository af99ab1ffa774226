"""A reader that has seen something is answered with no less, or not at all."""

from __future__ import annotations

import random

import pytest

from leafdb.model.actor import ActorIdentity
from leafdb.model.clock import CausalClock
from leafdb.model.context import Past
from leafdb.model.record_format import Record, Sibling, encode
from leafdb.quorum.get_operation import Floor, GetOperation, GetStep
from leafdb.quorum.joint_get_operation import JointGetOperation
from leafdb.quorum.owner_set import OwnerSet
from leafdb.quorum.session_floor import SessionFloor
from leafdb.types import NodeId

A, B, C, D = (NodeId(number) for number in range(1, 5))
ONE, TWO = (ActorIdentity(1, NodeId(number), 1).actor(1) for number in (1, 2))


def union(one: bytes, other: bytes) -> bytes:
    return bytes(sorted({*one, *other}))


class Letters:
    """Met by whoever has these letters; forgotten by right below `horizon`, if there is one."""

    def __init__(self, letters: bytes, horizon: int = 0) -> None:
        self._letters = set(letters)
        self.horizon = horizon

    def met_by(self, record: bytes | None, *, vouched: bool) -> bool:
        return vouched or self._letters <= set(record or b"")

    def under(self, horizon: int) -> Letters:
        return Letters(bytes(sorted(self._letters)), horizon)


def floor(letters: bytes, horizon: int = 0) -> Floor:
    return Letters(letters, horizon)


def operation(seen: bytes, *, r: int = 1, pr: int = 0, horizon: int = 0) -> GetOperation:
    return GetOperation(
        r=r, pr=pr, asked={A}, spares=[B, C], primaries=(A, B, C), merge=union, floor=floor(seen, horizon)
    )  # fmt: skip


def test_an_answer_that_meets_the_floor_asks_nobody_else() -> None:
    get = operation(b"x")
    assert get.answered(A, b"xy") is GetStep.DECIDED
    assert get.asks == []


def test_an_answer_below_the_floor_asks_everybody_else_and_the_first_that_has_it_decides() -> None:
    get = operation(b"x")
    assert get.answered(A, b"w") is GetStep.NOTHING
    assert get.below
    assert get.asks == [B, C]
    assert get.answered(B, None) is GetStep.NOTHING
    get.check()
    # R = 1: one that holds the merge is enough. Here none does, so one is brought to hold it first.
    assert get.answered(C, b"x") is GetStep.NOTHING
    assert get.merged == b"wx"
    assert get.written_back(C) is GetStep.DECIDED
    assert not get.below


def test_absence_is_below_a_floor() -> None:
    get = operation(b"x", r=2)
    get.answered(A, None)
    get.answered(B, None)
    assert get.answered(C, None) is GetStep.NOTHING
    assert get.below
    assert get.expired() is GetStep.FAILED
    assert get.finished


def test_who_has_been_asked_is_asked_again_and_counts_once() -> None:
    get = operation(b"x", r=2)
    get.hedge()
    get.answered(A, b"w")
    get.answered(B, b"w")
    get.lost(C)
    assert get.below
    get.asks.clear()
    get.ask_again([A, B, C])
    assert get.asks == [A, B, C]
    get.ask_again([A, B, C])
    assert get.asks == [A, B, C]
    assert get.answered(A, b"w") is GetStep.NOTHING
    assert get.answered(B, b"wx") is GetStep.NOTHING
    assert get.definitive == 2
    assert get.writing_back == {A}
    assert get.written_back(A) is GetStep.DECIDED
    assert get.waiting == {C}  # for a repair; who was asked twice is not waited for twice


def test_losing_everybody_below_the_floor_waits_for_the_deadline() -> None:
    get = operation(b"x")
    get.answered(A, b"")
    assert get.lost(B) is GetStep.NOTHING
    assert get.lost(C) is GetStep.NOTHING
    assert get.expired() is GetStep.FAILED


def test_what_an_incomplete_replica_has_may_meet_the_floor() -> None:
    get = operation(b"x")
    get.answered(A, b"w")
    assert get.unknown(B, b"wx") is GetStep.DECIDED
    assert get.merged == b"wx"
    assert get.repairs == [A]


def test_a_floor_counts_nobody_who_may_not_count() -> None:
    get = operation(b"x", r=2)
    assert get.unknown(A, b"x") is GetStep.NOTHING
    assert get.answered(B, b"x") is GetStep.NOTHING
    assert not get.below
    assert get.answered(C, b"x") is GetStep.DECIDED


def test_primaries_asked_for_are_heard_before_the_floor_is_looked_at() -> None:
    get = GetOperation(r=1, pr=1, asked={D}, spares=[A], primaries=(A, B, C), merge=union, floor=floor(b"x"))
    assert get.answered(D, b"x") is GetStep.NOTHING
    assert get.asks == [A]
    assert get.answered(A, b"x") is GetStep.DECIDED


def test_in_a_plan_what_meets_the_floor_is_held_by_both_sets_before_it_is_shown() -> None:
    get = JointGetOperation(
        r=1, pr=0, asked={A}, spares=[B], primaries=(A, B), merge=union,
        other=OwnerSet((C, D), w=1, pw=0), others={C: C, D: D}, floor=floor(b"x"),
    )  # fmt: skip
    assert get.answered(A, b"w") is GetStep.NOTHING
    get.check()
    assert get.answered(B, b"wx") is GetStep.NOTHING
    assert not get.below
    assert get.written_back(C) is GetStep.DECIDED
    get.check()


def test_decided_reads_meet_their_floor_whatever_the_order_of_events() -> None:
    decided = 0
    for seed in range(2_000):
        rng = random.Random(seed)
        nodes = [A, B, C]
        held = {node: bytes(rng.sample(b"abc", rng.randint(0, 3))) or None for node in nodes}
        held = {node: None if record is None else bytes(sorted(record)) for node, record in held.items()}
        seen = bytes(rng.sample(b"abc", rng.randint(1, 2)))
        r = rng.randint(1, 3)
        get = GetOperation(
            r=r, pr=0, asked=set(nodes[:r]), spares=nodes[r:], primaries=(A, B, C), merge=union, floor=floor(seen)
        )
        step = GetStep.NOTHING
        for _ in range(40):
            get.check()
            if get.ended:
                break
            chance = rng.random()
            if get.writing_back and chance < 0.5:
                node = rng.choice(sorted(get.writing_back))
                step = get.written_back(node)
                held[node] = get.best
            elif get.below and chance < 0.2:
                get.ask_again(nodes)
            elif get.waiting and chance < 0.9:
                node = rng.choice(sorted(get.waiting))
                step = get.lost(node) if rng.random() < 0.2 else get.answered(node, held[node])
            elif chance > 0.97:
                node = rng.choice(nodes)
                held[node] = union(held[node] or b"", b"abc")
        if step is GetStep.DECIDED:
            decided += 1
            assert set(seen) <= set(get.merged or b"")
            assert sum(1 for record in held.values() if record and set(get.merged or b"") <= set(record)) >= r
    assert decided > 500


def record(*dots: tuple[bytes, int]) -> bytes:
    clock = CausalClock.from_dots(dots)  # type: ignore[arg-type]
    return encode(Record(clock, {dots[-1]: Sibling(1, 0, bytes(16), None)}))  # type: ignore[dict-item]


def test_a_tombstone_meets_the_floor_of_what_it_deleted_and_nothing_at_all_does_not() -> None:
    seen = SessionFloor([Past(CausalClock({ONE: 1}), 5), Past(CausalClock.from_dots([(TWO, 2)]), 4)])
    assert seen.met_by(record((ONE, 1), (TWO, 1), (TWO, 2)), vouched=False)
    assert not seen.met_by(record((ONE, 1), (TWO, 1)), vouched=False)
    assert not seen.met_by(None, vouched=False)
    assert SessionFloor([]).met_by(None, vouched=False)


def test_what_lies_below_the_horizon_with_all_it_names_may_have_been_forgotten() -> None:
    pasts = [Past(CausalClock({ONE: 1}), 50), Past(CausalClock({TWO: 1}), 70)]
    assert SessionFloor(pasts).stamp == 70
    assert [SessionFloor(pasts, horizon).horizon for horizon in (0, 50, 51, 70, 71)] == [0, 0, 51, 70, 71]
    assert not SessionFloor(pasts, 90).met_by(None, vouched=False), "nobody says so: by its clock, as ever"
    assert SessionFloor(pasts, 71).met_by(None, vouched=True)


def test_of_several_contexts_each_is_forgotten_or_covered() -> None:
    """As of a session that saw a deletion which has been forgotten since, and wrote the key anew."""
    seen = SessionFloor([Past(CausalClock({ONE: 2}), 50), Past(CausalClock({TWO: 1}), 70)], 60)
    assert seen.met_by(record((TWO, 1)), vouched=True)
    assert not seen.met_by(record((TWO, 1)), vouched=False)
    assert not seen.met_by(None, vouched=True)
    assert not seen.met_by(record((ONE, 1), (ONE, 2)), vouched=True)
    assert seen.met_by(record((ONE, 1), (ONE, 2), (TWO, 1)), vouched=False)


@pytest.mark.parametrize("record", [None, b"new"])
def test_an_owner_that_vouches_meets_a_forgotten_floor_with_whatever_it_has(record: bytes | None) -> None:
    get = operation(b"x", horizon=9)
    assert get.answered(A, record, vouches=True) is GetStep.DECIDED
    assert get.merged == record
    get.check()


def test_an_owner_that_vouches_beside_others_that_do_not_is_enough() -> None:
    get = operation(b"x", r=2, horizon=9)
    get.hedge()
    get.answered(A, None)
    assert get.answered(B, None, vouches=True) is GetStep.DECIDED
    late = operation(b"x", horizon=9)
    assert late.answered(A, b"w") is GetStep.NOTHING
    assert late.below
    assert late.answered(B, b"w", vouches=True) is GetStep.DECIDED


def test_who_does_not_own_the_key_vouches_for_nothing_and_so_does_who_is_incomplete() -> None:
    get = GetOperation(r=1, pr=0, asked={A, D}, spares=[], primaries=(A, B, C), merge=union, floor=floor(b"x", 9))
    assert get.answered(D, None, vouches=True) is GetStep.NOTHING
    assert get.below
    get.unknown(A, b"w")
    assert get.below


def test_a_floor_above_the_horizon_is_vouched_for_by_nobody() -> None:
    get = operation(b"x")
    assert get.answered(A, None, vouches=True) is GetStep.NOTHING
    assert get.below
    get.check()


def test_an_actor_that_has_written_nothing_is_asked_of_nobody() -> None:
    assert CausalClock({ONE: 1}).covers_writes(CausalClock({ONE: 1, TWO: 0}))
    assert not CausalClock({ONE: 1}).covers_writes(CausalClock({ONE: 1, TWO: 1}))


def test_a_floor_is_compared_with_the_horizon_that_a_read_comes_to_know() -> None:
    get = operation(b"x")
    assert get.answered(A, None, vouches=True) is GetStep.NOTHING
    assert get.below
    get.anew(9)
    get.check()
    assert {*get.asks} == {A, B, C}
    assert get.answered(B, b"w", vouches=True) is GetStep.DECIDED
    seen = SessionFloor([Past(CausalClock({ONE: 2}), 10)])
    assert not seen.met_by(None, vouched=True)
    assert seen.under(11).met_by(None, vouched=True)
    assert seen.under(11).horizon == 11
    assert seen.under(10).horizon == 0
