"""The parts of the failure detector: the order of claims, the timers, the queue, the rotation, the messages."""

from __future__ import annotations

import itertools
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leafdb.membership.dissemination import ClaimQueue, tellings_max
from leafdb.membership.member import INCARNATION_MAX, Claim, Member, first_incarnation
from leafdb.membership.messages import Ack, AnyMessage, Ask, Gossip, Nack, Ping, Standing, Sync, from_wire
from leafdb.membership.probes import Rotation
from leafdb.membership.suspicion import LocalHealth, Suspicion
from leafdb.membership.view import View
from leafdb.types import Epoch, Liveness, NodeId

ALIVE, SUSPECT, DEAD = Liveness.ALIVE, Liveness.SUSPECT, Liveness.DEAD
CLAIMS = st.builds(
    Claim,
    node=st.integers(1, 4).map(NodeId),
    liveness=st.sampled_from(Liveness),
    incarnation=st.integers(0, 3),
    accuser=st.just(NodeId(9)),
)


def claim(liveness: Liveness, incarnation: int, node: int = 2) -> Claim:
    return Claim(NodeId(node), liveness, incarnation, NodeId(3))


def test_within_an_incarnation_bad_news_wins_and_a_new_one_beats_all() -> None:
    ordered = [claim(liveness, incarnation) for incarnation in (0, 1) for liveness in (ALIVE, SUSPECT, DEAD)]
    for weaker, stronger in itertools.pairwise(ordered):
        assert weaker.order < stronger.order
        member = Member(NodeId(2), 0.0)
        if stronger.order > member.order:
            member.believe(stronger, 1.0)
        with pytest.raises(AssertionError):
            member.believe(weaker, 2.0)


def test_a_boot_outranks_every_refutation_of_the_boot_before() -> None:
    assert first_incarnation(2) > first_incarnation(1) + 1_000_000
    assert first_incarnation((1 << 29) - 1) <= INCARNATION_MAX


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(CLAIMS, max_size=12), st.randoms(use_true_random=False))
def test_views_that_heard_the_same_believe_the_same_whatever_the_order(heard: list[Claim], rng: Random) -> None:
    views = [View(NodeId(1)), View(NodeId(1))]
    shuffled = heard + heard[:3]
    rng.shuffle(shuffled)
    for view, claims in zip(views, (heard, shuffled), strict=True):
        view.set_members([NodeId(node) for node in (1, 2, 3, 4)], 0.0)
        for each in claims:
            view.believe(each, 1.0)
        view.check()
    assert [each.order for each in views[0].claims()] == [each.order for each in views[1].claims()]


def test_view_tells_what_was_added_and_removed_and_never_holds_itself() -> None:
    view = View(NodeId(1))
    assert view.set_members([NodeId(3), NodeId(1), NodeId(2)], 0.0) == ([2, 3], [])
    assert view.set_members([NodeId(1), NodeId(3), NodeId(4)], 0.0) == ([4], [2])
    assert not view.believe(claim(DEAD, 5, node=1), 1.0)
    assert not view.believe(claim(DEAD, 5, node=2), 1.0)
    view.check()


def test_suspicion_runs_from_max_to_min_by_logarithm() -> None:
    timer = Suspicion(NodeId(1), now=10.0, min_s=2.0, max_s=12.0, confirmations_wanted=2)
    seen = [timer.timeout_s]
    for accuser in (1, 2, 2, 3, 4):
        timer.confirm(NodeId(accuser))
        seen.append(timer.timeout_s)
    assert seen[0] == seen[1] == 12.0
    assert seen[2] == seen[3] == pytest.approx(12.0 - 10.0 * 0.6309, abs=0.001)
    assert seen[4] == seen[5] == 2.0
    assert timer.expires == 12.0


def test_local_health_stays_within_its_bounds() -> None:
    health = LocalHealth(7)
    health.better()
    assert health.scale(0.5) == 0.5
    health.worse(50)
    assert health.scale(0.5) == 4.0


def test_queue_tells_each_claim_so_often_and_no_more_least_told_first() -> None:
    queue = ClaimQueue()
    for node in range(1, 6):
        queue.put(claim(DEAD, 1, node=node))
    told = [each.node for _ in range(10) for each in queue.take(count_max=2, tellings=3)]
    assert sorted(told) == sorted(list(range(1, 6)) * 3)
    assert sorted(told[:5]) == [1, 2, 3, 4, 5], "everybody once before anybody twice"
    assert len(queue) == 0
    queue.check()


def test_newer_claim_replaces_the_older_and_starts_over() -> None:
    queue = ClaimQueue()
    queue.put(claim(SUSPECT, 1))
    queue.take(count_max=5, tellings=2)
    queue.put(claim(DEAD, 1))
    assert [each.liveness for _ in range(3) for each in queue.take(count_max=5, tellings=2)] == [DEAD, DEAD]
    assert [tellings_max(4, nodes) for nodes in (3, 9, 10, 1000)] == [4, 4, 8, 16]


def test_rotation_visits_all_before_any_twice_while_members_change() -> None:
    rotation = Rotation(Random(1))
    assert rotation.next([]) is None
    first = {rotation.next([NodeId(node) for node in range(10)]) for _ in range(10)}
    assert first == set(range(10))
    rotation.next([NodeId(node) for node in range(10)])
    rest = [rotation.next([NodeId(5), NodeId(6)]) for _ in range(4)]
    assert set(rest) == {5, 6}


STANDING = Standing(first_incarnation(3) + 2, Epoch(9), b"\x01" * 8)
MESSAGES: list[AnyMessage] = [
    Ping(STANDING, (claim(SUSPECT, 4), claim(ALIVE, 0, node=65_535)), number=7),
    Ack(STANDING, number=0),
    Nack(STANDING, number=(1 << 64) - 1),
    Ask(STANDING, (claim(DEAD, INCARNATION_MAX),), number=1, target=NodeId(4)),
    Gossip(STANDING, (claim(ALIVE, 1),)),
    Sync(Standing(0, Epoch(0), b""), answer=True),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.kind)
def test_messages_survive_the_wire(message: AnyMessage) -> None:
    assert from_wire(message.to_wire()) == message
    assert type(message).from_wire(message.to_wire()) == message
    assert from_wire({**message.to_wire(), "later": 1}) == message, "a newer peer may add fields"


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.kind)
def test_malformed_messages_are_value_errors(message: AnyMessage) -> None:
    good = message.to_wire()
    bad: list[Any] = [None, 5, [], {}, {**good, "kind": "other"}, {**good, "kind": []}]
    bad += [{name: value for name, value in good.items() if name != missing} for missing in good]
    for name in good:
        bad += [{**good, name: wrong} for wrong in (None, "x", -1, 1 << 64, 1.5, [1], {"a": 1}, b"x" * 40)]
    for part in range(4):
        broken: list[object] = [2, 1, 1, 3]
        broken[part] = "x"
        bad.append({**good, "claims": [broken]})
    bad += [{**good, "claims": [wrong]} for wrong in ([], [1, 1, 1], [0, 1, 1, 1], [1, 3, 1, 1], [1, 1, 1, 70_000])]
    bad.append({**good, "claims": [[1, 1, 1, 1]] * 1025})
    for value in bad:
        with pytest.raises(ValueError):
            from_wire(value)
