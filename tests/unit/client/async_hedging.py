"""What both clients promise when a node is slow: a read is asked of a second one, and the first answer counts.

A hedge is told from a retry by its bytes: it is the same request, with the same time to live. How stories are run:
`async_values.py`.
"""

from __future__ import annotations

import threading

import pytest

import leafdb
from leafdb import BLIND, Found, Missing, NotApplied, Reason
from leafdb.client.hedging import HEDGES_SAVED_MAX
from leafdb.errors import DeadlineExceeded, LeafdbError
from leafdb.wire.frame import Frame
from leafdb.wire.registry import MessageType
from leafdb.wire.requests import decode_get
from unit.client.fake_node import Action, FakeCluster, Session, refuse, silence, when

NO = NotApplied("no", reason=Reason.UNAUTHORIZED)
NEVER = NotApplied("never", reason=Reason.BANNED)


def in_turn(*actions: Action) -> Action:
    """The first request that meets it, on whatever node, meets the first action; the last one stays."""
    left = list(actions)

    def act(session: Session, frame: Frame) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(session, frame)

    return act


def answer(session: Session, frame: Frame) -> None:
    """As usual."""
    session.node.answer(session, frame)


def refuse_when(event: threading.Event, error: LeafdbError) -> Action:
    """Refuse, once `event` is set."""

    def act(session: Session, frame: Frame) -> None:
        def wait() -> None:
            event.wait(10.0)
            session.refuse(frame.request_id, error)

        threading.Thread(target=wait, daemon=True).start()

    return act


def then(event: threading.Event, action: Action) -> Action:
    """An action, and the event set after it."""

    def act(session: Session, frame: Frame) -> None:
        action(session, frame)
        event.set()

    return act


def asked_since(fake: FakeCluster, counts: list[int]) -> list[tuple[int, Frame]]:
    """The reads that came after `counts` were taken: the number of the node, the frame."""
    return [
        (node.id, frame)
        for node, count in zip(fake.nodes, counts, strict=True)
        for frame in node.asked(MessageType.GET)[count:]
    ]


def counts_of(fake: FakeCluster) -> list[int]:
    return [len(node.asked(MessageType.GET)) for node in fake.nodes]


def script_all(fake: FakeCluster, action: Action) -> None:
    for node in fake.nodes:
        node.script(MessageType.GET, *[action] * 200)


async def acquainted(db: leafdb.AsyncClient, fake: FakeCluster) -> leafdb.AsyncSiblingBucket[bytes]:
    """A bucket of a client that has a connection to each of three nodes, with a value under k."""
    raw = db.bucket("b")
    await raw.put("k", b"1", after=BLIND)
    await raw.get_many([f"other-{number}" for number in range(60)])
    assert all(node.sessions for node in fake.nodes)
    return raw


async def a_read_of_a_slow_node_is_answered_by_another(cluster: FakeCluster) -> None:
    cluster.grow(3)
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        raw = await acquainted(db, cluster)
        before = counts_of(cluster)
        script_all(cluster, in_turn(silence, answer))
        found = await raw.get("k")
        assert isinstance(found, Found)
        assert found.value == b"1"
        asked = asked_since(cluster, before)
        assert len(asked) == 2
        assert asked[0][0] != asked[1][0], "not the same node twice"
        assert asked[0][1].body == asked[1][1].body, "a hedge, and not a try after half of the time"


async def the_answer_of_the_slow_node_counts_if_it_comes_first(cluster: FakeCluster) -> None:
    cluster.grow(3)
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        raw = await acquainted(db, cluster)
        before = counts_of(cluster)
        hedged = threading.Event()
        script_all(cluster, in_turn(when(hedged), then(hedged, silence), answer))
        assert isinstance(await raw.get("k"), Found)
        assert len(asked_since(cluster, before)) == 2


async def a_refused_hedge_leaves_it_to_the_first(cluster: FakeCluster) -> None:
    cluster.grow(3)
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        raw = await acquainted(db, cluster)
        hedged = threading.Event()
        script_all(cluster, in_turn(when(hedged), then(hedged, refuse(NO)), answer))
        assert isinstance(await raw.get("k"), Found)


async def a_hedge_outlives_the_connection_of_the_first(cluster: FakeCluster) -> None:
    cluster.grow(3)
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        raw = await acquainted(db, cluster)
        hedged = threading.Event()

        def hang_up_when_hedged(session: Session, frame: Frame) -> None:
            def wait() -> None:
                hedged.wait(10.0)
                session.hang_up()
                released.set()

            threading.Thread(target=wait, daemon=True).start()

        released = threading.Event()
        before = counts_of(cluster)
        script_all(cluster, in_turn(hang_up_when_hedged, then(hedged, when(released)), answer))
        assert isinstance(await raw.get("k"), Found)
        assert len(asked_since(cluster, before)) == 2


async def of_two_refusals_the_first_node_s_is_shown(cluster: FakeCluster) -> None:
    cluster.grow(3)
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        raw = await acquainted(db, cluster)
        hedged = threading.Event()
        script_all(cluster, in_turn(refuse_when(hedged, NO), then(hedged, refuse(NEVER)), answer))
        with pytest.raises(NotApplied) as refused:
            await raw.get("k")
        assert refused.value.reason is Reason.UNAUTHORIZED


async def two_slow_nodes_cost_the_deadline_and_no_more(cluster: FakeCluster) -> None:
    cluster.grow(3)
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        raw = await acquainted(db, cluster)
        script_all(cluster, silence)
        with pytest.raises(DeadlineExceeded) as late:
            await raw.get("k", timeout=0.4)
        assert late.value.stage == "wait"


async def late_answers_of_a_race_reach_nobody(cluster: FakeCluster) -> None:
    cluster.grow(3)
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        raw = await acquainted(db, cluster)
        await raw.put("other", b"2", after=BLIND)
        release = threading.Event()
        script_all(cluster, in_turn(when(release), answer))
        assert isinstance(await raw.get("k"), Found)
        release.set()
        for _ in range(30):
            found = await raw.get("other")
            assert isinstance(found, Found)
            assert found.value == b"2"
        assert [len(node.sessions) for node in cluster.nodes] == [1, 1, 1], "the connections go on"


async def hedges_are_bounded_when_everything_is_slow(cluster: FakeCluster) -> None:
    cluster.grow(3)
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        raw = await acquainted(db, cluster)
        before = counts_of(cluster)
        reads = 14
        script_all(cluster, silence)
        for read in range(reads):
            with pytest.raises(DeadlineExceeded):
                await raw.get(f"k-{read}", timeout=0.35)
        bodies = [frame.body for _, frame in asked_since(cluster, before)]
        hedges = len(bodies) - len(set(bodies))
        assert 0 < hedges <= HEDGES_SAVED_MAX


async def only_plain_reads_are_hedged(cluster: FakeCluster) -> None:
    """A local read asks one node, a write is sent once, and a node that was never met is not asked in a hurry."""
    cluster.grow(3)
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        raw = await acquainted(db, cluster)
        before = counts_of(cluster)
        script_all(cluster, silence)
        with pytest.raises(DeadlineExceeded):
            await raw.get("k", local=True, timeout=0.3)
        bodies = [frame.body for _, frame in asked_since(cluster, before)]
        assert len(bodies) == len(set(bodies))
        for node in cluster.nodes:
            node.script(MessageType.PUT, silence)
        with pytest.raises(leafdb.OutcomeUnknown):
            await raw.put("k", b"2", after=BLIND, timeout=0.3)
        assert len(cluster.asked(MessageType.PUT)) == 2
    async with leafdb.connect_async(cluster.url, routing="listed") as stranger:
        for node in cluster.nodes:
            node.script(MessageType.GET, *[silence] * 2)
        await stranger.ping()
        before = counts_of(cluster)
        with pytest.raises(DeadlineExceeded):
            await stranger.bucket("b").get("k", timeout=0.15)
        bodies = [frame.body for _, frame in asked_since(cluster, before)]
        assert len(bodies) == len(set(bodies))
        assert all(decode_get(body).deadline_ms for body in bodies)


async def an_answer_in_time_is_asked_for_once(cluster: FakeCluster) -> None:
    cluster.grow(3)
    cluster.create("b")
    async with leafdb.connect_async(cluster.url) as db:
        raw = await acquainted(db, cluster)
        before = counts_of(cluster)
        for _ in range(50):
            assert isinstance(await raw.get("nothing"), Missing)
        assert len(asked_since(cluster, before)) == 50
