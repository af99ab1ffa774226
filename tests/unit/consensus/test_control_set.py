"""The control set: which votes are enough, which steps there are, and whom it ought to hold."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leafdb.consensus.ballot import AcceptorId
from leafdb.consensus.control_set import ControlSet
from leafdb.consensus.desired_control import Candidate, desired_control, next_step
from leafdb.types import NodeId


def ids(*nodes: int) -> tuple[AcceptorId, ...]:
    return tuple(AcceptorId(NodeId(node), 1) for node in nodes)


def nodes(*numbers: int) -> tuple[NodeId, ...]:
    return tuple(NodeId(number) for number in numbers)


def members(text: str) -> list[Candidate]:
    """`a a b`: members numbered from 1, each in the zone of that name, on a host of its own."""
    return [Candidate(NodeId(at), f"h{at}", zone) for at, zone in enumerate(text.split(), 1)]


some_ids = st.sets(st.integers(1, 6), min_size=1, max_size=5).map(lambda numbers: ids(*sorted(numbers)))


def quorums(control: ControlSet) -> list[set[AcceptorId]]:
    everyone = control.everyone
    subsets = (set(some) for size in range(len(everyone) + 1) for some in combinations(everyone, size))
    return [some for some in subsets if control.has_majority(some)]


@given(some_ids, some_ids, some_ids)
def test_majorities_of_all_that_can_follow_one_value_meet(
    old: tuple[AcceptorId, ...], first: tuple[AcceptorId, ...], second: tuple[AcceptorId, ...]
) -> None:
    """The lemma of the proof: of a control set and all those one step on from it, any two majorities meet."""
    start = ControlSet(old)
    followers = [start, *(start.begin(following) for following in (first, second) if following != old)]
    families = [followers] + [[each, each.finish()] for each in followers if each.joint]
    for family in families:
        for one, other in combinations(family, 2):
            assert all(a & b for a in quorums(one) for b in quorums(other)), (one, other)


def test_a_joint_set_needs_both_majorities() -> None:
    control = ControlSet(ids(1, 2, 3), ids(3, 4, 5))
    assert control.has_majority(set(ids(1, 3, 4)))
    assert not control.has_majority(set(ids(1, 2, 3)))
    assert not control.has_majority(set(ids(3, 4, 5)))
    assert not control.is_lost(set(ids(1, 4)))
    assert control.is_lost(set(ids(4, 5)))
    assert control.describe() == "1/1 2/1 3/1 -> 3/1 4/1 5/1"
    control.check()


def test_there_are_two_steps_and_no_way_back() -> None:
    one, joint, other = ControlSet(ids(1)), ControlSet(ids(1), ids(2)), ControlSet(ids(2))
    assert one.begin(ids(2)) == joint
    assert joint.finish() == other
    steps = {
        (before, after) for before in (one, joint, other) for after in (one, joint, other) if after.follows(before)
    }
    assert steps == {(one, one), (joint, joint), (other, other), (one, joint), (joint, other)}
    assert not ControlSet(ids(1), ids(3)).follows(joint)


def test_another_store_is_another_acceptor() -> None:
    wiped = AcceptorId(NodeId(1), 2)
    assert not ControlSet((wiped,)).follows(ControlSet(ids(1)))
    assert ControlSet(ids(1, 2, 3), (*ids(2, 3), wiped)).follows(ControlSet(ids(1, 2, 3)))
    assert ControlSet.of([wiped, *ids(2, 1, 2)]).old == (ids(1)[0], wiped, ids(2)[0])


@pytest.mark.parametrize(
    ("zones", "current", "dead", "desired"),
    [
        ("a", (1,), (), (1,)),
        ("a a", (1,), (), (1,)),
        ("a a a", (1,), (), (1, 2, 3)),
        ("a a b b c c", (1,), (), (1, 3, 5)),
        ("a a b b c c d", (1, 3, 5), (), (1, 2, 3, 5, 7)),
        ("a a b b c c", (1, 2, 3), (), (1, 2, 3)),
        ("a a b b c c", (1, 3, 5), (3,), (1, 4, 5)),
        ("a a b b c c", (1, 3, 5), (2, 4), (1, 3, 5)),
        ("a a a", (1, 2, 3), (2,), (1, 2, 3)),
        ("a a a", (1, 2, 3), (2, 3), (1, 2, 3)),
        ("a a a", (1, 2, 3), (1, 2, 3), (1, 2, 3)),
        ("a a a a", (1, 2, 3), (2,), (1, 3, 4)),
        ("a a a", (1,), (3,), (1,)),
        ("a a", (1, 2, 3), (), (1,)),
        ("a b c d e f", (1, 2, 3, 4, 5), (), (1, 2, 3)),
        ("a b", (7,), (), (1,)),
    ],
)
def test_the_desired_set_has_the_right_size_spreads_and_keeps(
    zones: str, current: tuple[int, ...], dead: tuple[int, ...], desired: tuple[int, ...]
) -> None:
    assert desired_control(members(zones), nodes(*current), frozenset(nodes(*dead))) == desired


def test_hosts_and_weights_decide_where_zones_do_not() -> None:
    shards = [Candidate(NodeId(at), host, "", weight) for at, (host, weight) in enumerate(
        [("x", 1), ("x", 1), ("y", 1), ("z", 0), ("v", 3)], 1)]  # fmt: skip
    assert desired_control(shards, nodes(1)) == (1, 3, 5)


@pytest.mark.parametrize(
    ("current", "desired", "steps"),
    [
        ((1, 2, 3), (1, 2, 3), []),
        ((1,), (1, 2, 3), [(1, 2, 3)]),
        ((1,), (2, 3, 4), [(1, 2, 3), (2, 3, 4)]),
        ((1,), (2,), [(2,)]),
        ((1, 2, 3), (3, 4, 5), [(2, 3, 4), (3, 4, 5)]),
        ((1, 2, 3), (1, 2, 3, 4, 5), [(1, 2, 3, 4, 5)]),
        ((1, 2, 3), (2, 3, 4, 5, 6), [(2, 3, 4), (2, 3, 4, 5, 6)]),
        ((1, 2, 3, 4, 5), (1, 3, 6), [(1, 3, 4, 5, 6), (1, 3, 6)]),
        ((1, 2, 3), (3,), [(3,)]),
        ((1, 2, 3, 4, 5), (5,), [(3, 4, 5), (5,)]),
    ],
)
def test_steps_replace_one_and_grow_and_shrink_by_two(
    current: tuple[int, ...], desired: tuple[int, ...], steps: list[tuple[int, ...]]
) -> None:
    now, made = nodes(*current), []
    while (following := next_step(now, nodes(*desired))) != tuple(sorted(now)):
        made.append(following)
        now = following
    assert made == steps


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(0, 2)), min_size=1, max_size=9),
    st.sets(st.integers(1, 9)),
    st.data(),
)
def test_the_desired_set_is_odd_reachable_and_desired_again(
    places: list[tuple[str, str, int]], dead: set[int], data: st.DataObject
) -> None:
    candidates = [Candidate(NodeId(at), host, zone, weight) for at, (zone, host, weight) in enumerate(places, 1)]
    current = tuple(sorted(data.draw(st.sets(st.integers(1, len(places)), min_size=1, max_size=5))))
    gone = frozenset(NodeId(node) for node in dead)
    desired = desired_control(candidates, nodes(*current), gone)
    kept = set(current) - gone
    if set(nodes(*range(1, len(places) + 1))) - gone:
        assert len(desired) in (1, 3, 5)
        assert len(kept - set(desired)) <= max(0, len(kept) - len(desired)), "nobody goes without need"
    assert desired_control(candidates, desired, gone) == desired
    now = nodes(*current)
    for _ in range(10):
        now = next_step(now, desired)
    assert now == desired
