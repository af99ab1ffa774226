"""Promise: a clock is a set of dots, whatever order they came in, and equal sets have equal bytes."""

from __future__ import annotations

import itertools
import random

import pytest

from leafdb.model.actor import Actor, ActorIdentity
from leafdb.model.clock import COUNTS, DOT, EMPTY, CausalClock, ClockError, Dot
from leafdb.types import NodeId

A, B, C = (ActorIdentity(1, NodeId(node), 1).actor(1) for node in (1, 2, 3))


def dots_of(clock: CausalClock) -> set[Dot]:
    return {(actor, n) for actor, top in clock.vector.items() for n in range(top + 1)} | set(clock.cloud)


def random_dots(rng: random.Random) -> list[Dot]:
    return [(rng.choice((A, B, C)), rng.randint(1, 7)) for _ in range(rng.randrange(9))]


def raw(vector: list[tuple[Actor, int]], cloud: list[Dot]) -> bytes:
    return COUNTS.pack(len(vector), len(cloud)) + b"".join(DOT.pack(*dot) for dot in (*vector, *cloud))


def test_contiguous_dots_are_absorbed_in_any_order() -> None:
    for order in itertools.permutations([(A, 1), (A, 2), (A, 3), (B, 1)]):
        clock = EMPTY
        for dot in order:
            clock = clock.add(dot)
            clock.check()
        assert clock.vector == {A: 3, B: 1}
        assert not clock.cloud


def test_a_single_dot_covers_itself_alone() -> None:
    clock = EMPTY.add((A, 5))
    assert clock.covers((A, 5))
    assert not any(clock.covers((A, n)) for n in (1, 2, 3, 4, 6))
    assert not clock.covers((B, 5))
    assert clock.knows_of(A) == 5
    assert clock.knows_of(B) == -1


def test_methods_agree_with_sets() -> None:
    rng = random.Random(7)
    for _ in range(1_500):
        left, right = random_dots(rng), random_dots(rng)
        a, b = CausalClock.from_dots(left), CausalClock.from_dots(right)
        union = a.merge(b)
        union.check()
        assert union == b.merge(a) == CausalClock.from_dots([*right, *left])
        assert union.encode() == b.merge(a).encode()
        assert a.descends(b) == (set(right) <= set(left))
        assert {dot for dot in itertools.product((A, B, C), range(1, 8)) if union.covers(dot)} == {*left, *right}
        stepwise = a
        for dot in right:
            stepwise = stepwise.add(dot)
        assert stepwise == union
        assert CausalClock.decode(union.encode()) == union
        assert hash(CausalClock.decode(union.encode())) == hash(union)


def test_merge_returns_the_covering_clock_itself() -> None:
    small, large = CausalClock({A: 1}), CausalClock({A: 2, B: 1})
    assert large.merge(small) is large
    assert small.merge(large) is large
    assert large.merge(CausalClock({A: 2, B: 1})) is large
    assert large.add((A, 2)) is large


def test_no_method_changes_a_clock() -> None:
    clock = CausalClock({A: 2}, frozenset({(B, 4)}))
    before = clock.encode()
    clock.add((A, 3))
    clock.add((C, 9))
    clock.add_entry(C)
    clock.merge(CausalClock({B: 3}))
    assert clock == CausalClock({A: 2}, frozenset({(B, 4)}))
    assert clock.encode() == before


def test_an_empty_entry_is_knowledge() -> None:
    plain, announced = CausalClock({A: 2}), CausalClock({A: 2}).add_entry(B)
    assert announced.descends(plain)
    assert not plain.descends(announced)
    assert plain.merge(announced) == announced
    assert announced.merge(CausalClock({B: 1})) == CausalClock({A: 2, B: 1})
    assert CausalClock.decode(announced.encode()) == announced
    assert announced.knows_of(B) == 0
    assert not announced.covers((B, 1))
    assert announced.add_entry(B) is announced


def test_empty_is_false() -> None:
    assert not EMPTY
    assert CausalClock({A: 0})
    assert CausalClock({}, frozenset({(A, 2)}))
    assert EMPTY.encode() == bytes(6)


def test_described_for_people() -> None:
    assert repr(CausalClock({A: 2}, frozenset({(B, 4)}))) == "<clock 1:1.1/1:2 +1:2.1/1:4>"
    assert repr(EMPTY) == "<clock empty>"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(5),
        bytes(7),
        raw([(A, 1)], [])[:-1],
        raw([(A, 1)], []) + b"\x00",
        raw([(B, 1), (A, 1)], []),
        raw([(A, 1), (A, 2)], []),
        raw([], [(A, 1)]),
        raw([(A, 1)], [(A, 1)]),
        raw([(A, 1)], [(A, 2)]),
        raw([(A, 5)], [(A, 3)]),
        raw([], [(B, 2), (A, 2)]),
        raw([], [(A, 2), (A, 2)]),
        COUNTS.pack(0xFFFF, 0xFFFFFFFF),
    ],
    ids=lambda data: data.hex()[:24],
)
def test_what_is_not_in_normal_form_is_refused(data: bytes) -> None:
    with pytest.raises(ClockError):
        CausalClock.decode(data)


def test_mutated_bytes_are_refused_or_canonical() -> None:
    rng = random.Random(8)
    for _ in range(3_000):
        data = bytearray(CausalClock.from_dots(random_dots(rng)).encode())
        for _ in range(rng.randrange(3)):
            data[rng.randrange(len(data))] = rng.choice((0, 1, 2, 255, rng.randrange(256)))
        try:
            clock = CausalClock.decode(bytes(data))
        except ClockError:
            continue
        clock.check()
        assert CausalClock(clock.vector, clock.cloud).encode() == bytes(data)
