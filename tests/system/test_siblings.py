"""Concurrent writes over real processes: what two writers do without knowing of each other is kept, what one writer
does after having seen something replaces exactly that, and a deletion stays.

Every write of these tests goes to a node of the test's choosing: a client that speaks to one node only has it as its
coordinator, whichever nodes hold the key.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from leafdb import BLIND, Answer, Blind, Conflict, Context, Found, Missing, NotApplied, Reason, SiblingBucket
from leafdb.limits import SIBLINGS_MAX
from support.processes import Cluster, eventually

pytestmark = pytest.mark.system

BUCKET = "siblings"
Buckets = list[SiblingBucket[bytes]]


@pytest.fixture
def by_node(cluster: Cluster) -> Iterator[Buckets]:
    """The bucket as each of the three nodes serves it."""
    with ExitStack() as stack:
        clients = [stack.enter_context(cluster.connect_to(node.index)) for node in cluster.nodes]
        clients[0].create_bucket(BUCKET, exist_ok=True)
        yield [client.bucket(BUCKET) for client in clients]


def values_of(answer: Answer[bytes]) -> list[bytes]:
    match answer:
        case Missing():
            return []
        case Found(value):
            return [value]
        case Conflict(siblings):
            return sorted(sibling.value for sibling in siblings)


def test_two_writers_with_one_context_leave_two_siblings_and_a_writer_who_saw_both_leaves_one(by_node: Buckets) -> None:
    for number in range(20):
        key = f"pair-{number}"
        seen = by_node[number % 3].put(key, b"before", after=BLIND).context
        barrier = threading.Barrier(2)

        def write(
            bucket: SiblingBucket[bytes], value: bytes, key: str = key, seen: Context = seen,
            barrier: threading.Barrier = barrier,
        ) -> None:  # fmt: skip
            barrier.wait(30.0)
            bucket.put(key, value, after=seen)

        one, other = by_node[number % 3], by_node[(number + number // 3) % 3]  # the same node, or two
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(write, (one, other), (b"one", b"other")))
        for bucket in by_node:
            answer = bucket.get(key)
            assert values_of(answer) == [b"one", b"other"]
        by_node[(number + 1) % 3].put(key, b"both", after=answer.context)
        for bucket in by_node:
            assert values_of(bucket.get(key)) == [b"both"]


def test_a_chain_of_contexts_does_not_cover_what_its_writer_never_saw(by_node: Buckets) -> None:
    for number in range(12):
        a, b = by_node[number % 3], by_node[(number + 1 + number // 6) % 3]
        key = f"three-{number}"
        seen = a.get(key).context
        b.put(key, b"of B", after=BLIND)
        first = a.put(key, b"first of A", after=seen)
        a.put(key, b"second of A", after=first.context)
        for bucket in by_node:
            assert values_of(bucket.get(key, r=3)) == [b"of B", b"second of A"]


def test_a_sequential_writer_that_chains_contexts_through_different_nodes_never_makes_a_sibling(
    by_node: Buckets,
) -> None:
    for w in (1, 2, 3):
        after: Context | Blind = BLIND
        for number in range(60):
            after = by_node[(number * 7 + number // 5) % 3].put(f"chain-{w}", b"%d" % number, after=after, w=w).context
        for bucket in by_node:
            assert values_of(bucket.get(f"chain-{w}", r=3)) == [b"59"]
        after = by_node[0].delete(f"chain-{w}", after=after, w=w).context
        by_node[1].put(f"chain-{w}", b"again", after=after, w=w)
        for bucket in by_node:
            assert values_of(bucket.get(f"chain-{w}", r=3)) == [b"again"]


def test_deletions_are_hidden_and_concurrent_writes_outlive_them(by_node: Buckets) -> None:
    seen = by_node[0].put("deleted", b"tea", after=BLIND).context
    by_node[1].delete("deleted", after=seen)
    assert isinstance(by_node[2].get("deleted"), Missing)
    by_node[2].put("deleted", b"milk", after=seen)  # had not seen the deletion
    assert values_of(by_node[0].get("deleted")) == [b"milk"]
    by_node[1].delete("deleted", after=by_node[1].get("deleted").context)
    assert [values_of(bucket.get("deleted")) for bucket in by_node] == [[], [], []]
    assert "deleted" not in {str(item.key, "utf-8") for item in by_node[0].scan() if isinstance(item.key, bytes)}


def test_what_was_deleted_stays_deleted_when_the_node_that_missed_it_returns(
    cluster: Cluster, by_node: Buckets
) -> None:
    keys = [f"gone-{number}" for number in range(60)]
    contexts = {key: by_node[0].put(key, b"to be deleted", after=BLIND, w=3).context for key in keys}
    cluster.kill(2)
    for number, key in enumerate(keys):
        by_node[number % 2].delete(key, after=contexts[key])
    assert all(isinstance(by_node[0].get(key, r=2), Missing) for key in keys)
    cluster.start(2)
    for key in keys:  # from the first moment on
        assert isinstance(by_node[2].get(key, r=2), Missing)
    cluster.await_settled()
    for bucket in by_node:
        assert all(isinstance(bucket.get(key, local=True), Missing) for key in keys)
    for key in keys:
        assert isinstance(by_node[0].get(key, r=3), Missing)


def blind_writes(by_node: Buckets, key: str, *, at_once: int, w: int) -> list[bytes]:
    """100 blind writes of one key, rotated over the nodes; the values that were accepted."""

    def write(number: int) -> bytes | None:
        value = b"writer %d" % number
        try:
            by_node[number % 3].put(key, value, after=BLIND, w=w)
        except NotApplied as error:
            if error.reason is not Reason.CONFLICT_LIMIT or error.retryable:
                raise
            return None
        return value

    with ThreadPoolExecutor(at_once) as pool:
        return [value for value in pool.map(write, range(100)) if value is not None]


@pytest.mark.parametrize(("at_once", "w"), [(1, 3), (1, 2), (8, 2)])
def test_blind_writes_are_refused_past_the_limit_and_every_accepted_one_is_shown(
    by_node: Buckets, at_once: int, w: int
) -> None:
    key = f"blind-{at_once}-{w}"
    accepted = blind_writes(by_node, key, at_once=at_once, w=w)
    # A copy that has not arrived at the next coordinator yet is in flight, too.
    in_flight = 0 if w == 3 and at_once == 1 else at_once + 2
    assert SIBLINGS_MAX <= len(accepted) <= SIBLINGS_MAX + in_flight
    for bucket in by_node:
        answer = bucket.get(key, r=3)
        assert Counter(values_of(answer)) == Counter(accepted)

    written = by_node[1].put(key, b"resolved", after=answer.context)
    for bucket in by_node:
        assert values_of(bucket.get(key, r=3)) == [b"resolved"]
    by_node[2].delete(key, after=written.context)
    eventually("deleted everywhere", lambda: all(isinstance(b.get(key, local=True), Missing) for b in by_node))


def test_a_full_record_can_be_read_resolved_in_part_and_deleted(by_node: Buckets) -> None:
    """A put that lowers the number of siblings is always admitted."""
    accepted = blind_writes(by_node, "full", at_once=4, w=2)
    answer = by_node[0].get("full", r=3)
    by_node[0].delete("full", after=answer.context, w=3)
    assert isinstance(by_node[1].get("full", r=3), Missing)
    again = blind_writes(by_node, "full", at_once=1, w=3)
    assert len(again) == SIBLINGS_MAX
    assert set(again) <= {b"writer %d" % number for number in range(100)}
    assert len(accepted) >= SIBLINGS_MAX
