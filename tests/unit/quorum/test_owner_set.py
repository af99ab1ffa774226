"""A confirmation counts once in each set its primary is in, and scarce stand-ins go where they are needed."""

from __future__ import annotations

import random
from itertools import permutations

import pytest

from leafdb.quorum.owner_set import OwnerSet, Short, appoint
from leafdb.types import NodeId

A, B, C, D, E, F = (NodeId(number) for number in range(1, 7))


def test_a_fallback_counts_for_its_primary_and_not_in_person() -> None:
    owners = OwnerSet((A, B, C), w=2, pw=1)
    owners.count(D, B)
    owners.count(E, F)
    assert (owners.acks, owners.primary_acks, owners.met) == (1, 0, False)
    owners.count(A, A)
    assert owners.met
    owners.check()


def test_what_is_out_of_reach_is_named() -> None:
    owners = OwnerSet((A, B, C), w=2, pw=2)
    assert owners.short({A: A, B: B}) is None
    assert owners.short({A: A, D: D}) == Short(1, 2, "replicas")
    assert owners.short({A: A, E: B}) == Short(1, 2, "primaries")
    owners.count(A, A)
    owners.count(D, B)
    assert owners.progress == (1, 2)


def test_the_primary_of_both_sets_gets_the_only_stand_in() -> None:
    sets = (OwnerSet((A, B, C), w=2), OwnerSet((B, C, D), w=2))
    targets = {C: C}
    spares = [E]
    assert appoint(targets, (A, B, D), spares, sets) == [A, D]
    assert targets == {C: C, E: B}
    assert spares == []


def test_where_nothing_falls_short_the_primary_of_both_sets_comes_first() -> None:
    sets = (OwnerSet((A, B, C), w=1), OwnerSet((B, C, D), w=1))
    targets = {C: C}
    assert appoint(targets, (A, B), [E], sets) == [A]
    assert targets[E] == B


def test_the_set_that_falls_short_gets_the_only_stand_in() -> None:
    sets = (OwnerSet((A, B, C), w=2), OwnerSet((C, D, E), w=2))
    targets = {B: B, C: C}
    assert appoint(targets, (A, D, E), [F], sets) == [A, E]
    assert targets[F] == D


@pytest.mark.parametrize("seed", range(100))
def test_if_any_choice_of_stand_ins_meets_both_sets_so_does_this_one(seed: int) -> None:
    rng = random.Random(seed)
    nodes = [NodeId(number) for number in range(1, 7)]
    old, new = (rng.sample(nodes, rng.randint(1, 4)) for _ in range(2))
    sets = (OwnerSet(old, w=rng.randint(1, len(old))), OwnerSet(new, w=rng.randint(1, len(new))))
    union = list(dict.fromkeys((*old, *new)))
    absent = [node for node in union if rng.random() < 0.6]
    spares = [NodeId(number) for number in range(20, 20 + rng.randint(0, 3))]

    def reached(chosen: tuple[NodeId, ...]) -> bool:
        targets = {node: node for node in union if node not in absent}
        targets |= dict(zip(spares, chosen, strict=False))
        return all(each.short(targets) is None for each in sets)

    possible = any(reached(chosen) for chosen in permutations(absent, min(len(spares), len(absent))))
    targets = {node: node for node in union if node not in absent}
    left = appoint(targets, absent, list(spares), sets)
    assert all(each.short(targets) is None for each in sets) == possible
    assert sorted([*targets.values(), *left]) == sorted(union), "everybody is stood for or owed, once"
    assert len(left) == max(0, len(absent) - len(spares))
