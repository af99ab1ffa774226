"""A node that stops for seconds, as under a frozen disk or a paused machine, and goes on: requests keep being answered,
nobody stays dead who lives, and all replicas are equal in the end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from leafdb import BLIND, Conflict, Found, LeafdbError
from support.processes import Cluster, Load, eventually

pytestmark = pytest.mark.system

KEYS = 2_000
STALLED = 2


def alive_everywhere(cluster: Cluster) -> bool:
    """Every node takes every other for alive, and sends it requests."""
    for node in cluster.nodes:
        shown, status = cluster.ask(node.index, "ring.show"), cluster.ask(node.index, "status")
        if shown is None or status is None or status["nodes_up"] != len(cluster.nodes):
            return False
        if any(member["state"] != "alive" for member in shown["members"]):
            return False
    return True


def believed_by(cluster: Cluster, observer: int, member: int) -> str:
    """What one node believes of another."""
    shown = cluster.ask(observer, "ring.show")
    assert shown is not None
    (state,) = [entry["state"] for entry in shown["members"] if entry["name"] == cluster.nodes[member].name]
    return str(state)


def test_a_node_that_stalls_costs_time_and_nothing_else(cluster: Cluster) -> None:
    # A request that is under way to the stalled node is answered when it goes on: the deadline leaves time for that.
    with cluster.connect(timeout=60.0) as db:
        db.create_bucket("stalled")
        with Load(cluster, ["stalled"], keys=KEYS, timeout_s=60.0) as load:
            load.allow(KEYS // 4)
            load.await_begun(KEYS // 8)
            cluster.stall(STALLED)
            load.allow(KEYS // 2)
            eventually("its stall is noticed", lambda: believed_by(cluster, 0, STALLED) != "alive")
            # Those who ask the others are served meanwhile.
            with cluster.connect_to(0, timeout=30.0) as one, cluster.connect_to(1, timeout=30.0) as other:
                for number in range(50):
                    one.bucket("stalled").put(f"meanwhile-{number}", b"value", after=BLIND)
                    answer = other.bucket("stalled").get(f"meanwhile-{number}")
                    assert isinstance(answer, Found)
            eventually("it is given up", lambda: believed_by(cluster, 0, STALLED) == "dead")
            load.await_begun(KEYS // 4)
            cluster.resume(STALLED)
            load.allow(KEYS)
            load.await_done(KEYS)
            load.check()
            # All that may be unknown is what the stalled node had taken on when its peers gave it up: one of each
            # writer.
            assert len(load.unknown) <= load.threads, load.unknown
            assert not load.refused, next(iter(load.refused.values()))

            eventually("nobody is dead any more", lambda: alive_everywhere(cluster))
            cluster.await_settled()
            expected = {key: value for (_, key), value in load.acknowledged.items()}
            for node in cluster.nodes:
                with cluster.connect_to(node.index) as own:
                    answers = own.bucket("stalled").get_many(expected, local=True, timeout=60.0)
                wrong = [
                    f"{key}: {answer}"
                    for key, answer in zip(expected, answers, strict=True)
                    if not isinstance(answer, Found) or answer.value != expected[key]
                ]
                assert not wrong, (node.name, wrong[:3])


def test_all_but_one_stall_and_it_says_what_it_cannot_do(cluster: Cluster) -> None:
    with cluster.connect_to(0, timeout=20.0) as one:
        one.create_bucket("alone")
        bucket = one.bucket("alone")
        for number in range(20):
            bucket.put(f"key-{number}", b"before", after=BLIND, w=3)
        cluster.stall(1)
        cluster.stall(2)
        outcomes: list[str] = []

        def attempt(call: Callable[[], object]) -> None:
            try:
                call()
                outcomes.append("answered")
            except LeafdbError as error:
                outcomes.append(f"{type(error).__name__} {error.outcome}")

        calls: list[Callable[[], object]] = [
            lambda: bucket.put("new", b"value", after=BLIND, w=2, timeout=3.0),
            lambda: bucket.get("key-1", r=2, timeout=3.0),
            lambda: bucket.get("key-2", r=1, timeout=3.0),
            lambda: bucket.put("own", b"value", after=BLIND, w=1, timeout=3.0),
        ]
        threads = [threading.Thread(target=attempt, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60.0)
            assert not thread.is_alive(), "a call outlived its deadline"
        assert sorted(outcomes) == ["DeadlineExceeded none", "OutcomeUnknown unknown", "answered", "answered"]
        eventually("both are given up", lambda: believed_by(cluster, 0, 1) == believed_by(cluster, 0, 2) == "dead")
        with pytest.raises(LeafdbError) as caught:
            bucket.put("late", b"value", after=BLIND, w=2, timeout=3.0)
        assert caught.value.outcome == "not_applied"
        assert caught.value.retryable
        cluster.resume(1)
        cluster.resume(2)
        eventually("nobody is dead any more", lambda: alive_everywhere(cluster))
        bucket.put("late", b"value", after=BLIND, w=3)
        cluster.await_settled()
        for key in ("own", "late", "new"):
            assert not isinstance(bucket.get(key, r=3), Conflict)
        assert isinstance(bucket.get("own", r=3), Found)
