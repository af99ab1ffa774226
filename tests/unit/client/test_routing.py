"""The router: own zone first, the less loaded of two, the disgraced last, and one fetch of the ring at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from leafdb.client.retry import RETRIES_AT_FIRST, RETRIES_SAVED_MAX, RETRY_SHARE, pause_s
from leafdb.client.routing import DISGRACE_S_MAX, NodeState, Place, Router
from leafdb.client.token_bucket import TokenBucket
from leafdb.client.url import Address
from leafdb.types import NodeId, PartitionId, Token

ADDRESSES = [Address("n", port) for port in range(1, 7)]


class FixedRing:
    """Partition p is owned by nodes p, p+1, ... of five."""

    def partition_of(self, token: Token) -> PartitionId:
        return PartitionId(token % 5)

    def primaries(self, partition: PartitionId, n: int) -> Sequence[NodeId]:
        return [NodeId((partition + step) % 5 + 1) for step in range(n)]


def router(zone: str | None = None, *, ring: bool = True, seed: int = 1) -> Router:
    made = Router(ADDRESSES[:2], zone=zone, use_ring=True, rng=Random(seed))
    if ring:
        zones = ["a", "b", "c", "a", "b"]
        made.adopt(3, FixedRing(), {NodeId(node): (ADDRESSES[node - 1], zones[node - 1]) for node in range(1, 6)})
    return made


def port(node: NodeState | None) -> int:
    assert node is not None
    return node.address.port


def picks(made: Router, place: Place, count: int = 200) -> Counter[int]:
    return Counter(port(made.pick(place, 0.0, ())) for _ in range(count))


PLACE = Place(Token(0), 3)


def test_all_primaries_are_used_and_nobody_else() -> None:
    assert set(picks(router(), PLACE)) == {1, 2, 3}


def test_the_own_zone_is_enough_when_it_has_a_primary() -> None:
    assert set(picks(router("b"), PLACE)) == {2}
    assert set(picks(router("nowhere"), PLACE)) == {1, 2, 3}


def test_the_less_loaded_of_two() -> None:
    made = router()
    node = made.pick(PLACE, 0.0, ())
    assert node is not None
    node.waiting = [None] * 10
    assert node.address.port not in picks(made, PLACE)


def test_who_failed_is_asked_last_and_forgiven_when_it_answers() -> None:
    made = router("b")
    second = made.pick(PLACE, 0.0, ())
    assert second is not None
    second.failed(0.0)
    assert set(picks(made, PLACE)) == {1, 3}
    tried: list[NodeState] = []
    while (node := made.pick(PLACE, 0.0, tried)) is not None:
        tried.append(node)
    assert [node.address.port for node in tried][-1] == 2
    assert len(tried) == 5
    assert port(made.pick(PLACE, 1.0, ())) == 2
    for _ in range(80):
        second.failed(10.0)
    assert second.disgraced_until <= 10.0 + DISGRACE_S_MAX
    second.answered()
    assert port(made.pick(PLACE, 10.0, ())) == 2


def test_listed_keeps_to_the_first_that_lives() -> None:
    made = Router(ADDRESSES[:3], zone=None, use_ring=False, rng=Random(1))
    assert not made.claim_refresh(0.0)
    assert picks(made, PLACE) == {1: 200}
    first = made.pick(None, 0.0, ())
    assert first is not None
    first.failed(0.0)
    assert picks(made, PLACE) == {2: 200}
    assert port(made.pick(None, 60.0, ())) == 1


def test_the_ring_is_fetched_by_one_caller_and_again_when_it_is_old() -> None:
    made = router(ring=False)
    assert made.claim_refresh(0.0)
    assert not made.claim_refresh(0.5)
    assert made.claim_refresh(1.5)
    made.adopt(3, FixedRing(), {NodeId(1): (ADDRESSES[0], "")})
    assert not made.claim_refresh(9.0)
    made.saw_epoch(2)
    assert not made.claim_refresh(9.0)
    made.saw_epoch(4)
    assert made.claim_refresh(9.0)
    made.adopt(3, FixedRing(), {})
    assert not made.claim_refresh(9.1), "a node that is behind is not asked again at once"
    made.check()


def test_a_new_ring_keeps_what_is_known_of_nodes() -> None:
    made = router()
    node = made.pick(Place(Token(3), 1), 0.0, ())
    assert node is not None
    assert port(node) == 4
    node.failed(0.0)
    made.saw_epoch(9)
    made.adopt(9, FixedRing(), {NodeId(4): (ADDRESSES[3], "z"), NodeId(6): (ADDRESSES[5], "z")})
    assert made.pick(Place(Token(3), 1), 1.0, ()) is node
    assert {known.address.port for known in made.nodes()} == {1, 2, 4, 6}
    made.check()


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    st.integers(0, 2**64 - 1), st.integers(1, 5), st.sampled_from([None, "a", "b"]), st.integers(0, 1000),
    st.sets(st.integers(1, 6)),
)  # fmt: skip
def test_every_node_is_offered_once_before_none_is(
    token: int, n: int, zone: str | None, seed: int, down: set[int]
) -> None:
    made = router(zone, seed=seed)
    for node in made.nodes():
        if node.address.port in down:
            node.failed(0.0)
    tried: list[NodeState] = []
    while (node_next := made.pick(Place(Token(token), n), 0.05, tried)) is not None:
        assert node_next not in tried
        tried.append(node_next)
    assert len(tried) == 5
    willing = [node.address.port for node in tried if node.address.port not in down]
    assert [node.address.port for node in tried][: len(willing)] == willing, "the disgraced come last"
    owners = {port + 1 for port in ((token % 5 + step) % 5 for step in range(n))} - down
    assert set(willing[: len(owners)]) == owners, "primaries come first"


def test_the_budget_is_a_tenth_of_the_calls_and_never_overdrawn() -> None:
    budget = TokenBucket(RETRY_SHARE, RETRIES_SAVED_MAX, RETRIES_AT_FIRST)
    assert sum(budget.take() for _ in range(100)) == int(RETRIES_AT_FIRST)
    for _ in range(1_000):
        budget.earn()
        budget.check()
    assert 99 <= sum(budget.take() for _ in range(1_000)) <= 101
    for _ in range(10_000):
        budget.earn()
        budget.check()


def test_pauses_are_drawn_from_a_growing_range() -> None:
    rng = Random(5)
    for attempt, most in ((0, 0.025), (1, 0.05), (2, 0.1), (20, 1.0)):
        drawn = [pause_s(attempt, rng) for _ in range(300)]
        assert min(drawn) < most / 10
        assert most * 0.9 < max(drawn) <= most
    assert pause_s(0, rng, at_least=2.0) >= 2.0
