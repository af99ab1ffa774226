"""A read on its coordinator, when somebody has heard of a newer horizon than it goes by. See lone_coordinator."""

from __future__ import annotations

import pytest

from leafdb.errors import NotEnoughReplicas, ProtocolError
from leafdb.model.actor import ActorIdentity
from leafdb.model.clock import CausalClock
from leafdb.node.get_driver import get
from leafdb.quorum.messages import FLAG_HORIZON, ReplicaStatus, decode_replica_get, encode_newer_horizon, encode_reply
from leafdb.types import NodeId
from leafdb.wire.registry import MessageType
from leafdb.wire.requests import FLAG_EXPLAIN, FLAG_STRICT, GetReply, GetRequest, encode_get
from support.lone_coordinator import RECORD, Lone, Phase, changing_key

K = changing_key()
A, B, C, D, E, F = K[1:]
OTHER = ActorIdentity(1, NodeId(900), 1).actor(1)


def asked(lone: Lone) -> dict[NodeId, int]:
    """Who has been asked since the frames were forgotten, by which horizon."""
    found = {}
    for node, lane in lone.lanes.items():
        for frame in lane.frames:
            if frame.type == MessageType.REPLICA_GET:
                found[node] = decode_replica_get(frame.body).horizon
    return found


def newer(lone: Lone, node: NodeId, stamp: int) -> None:
    lone.answer(node, status=ReplicaStatus.NEWER_HORIZON, record=encode_newer_horizon(stamp))


def values(lone: Lone) -> int:
    reply = lone.reply()
    assert isinstance(reply, GetReply)
    return len(reply.siblings)


@pytest.mark.parametrize("horizon", [0, 7])
def test_a_read_names_the_horizon_that_its_coordinator_knows_and_nothing_where_there_is_none(horizon: int) -> None:
    lone = Lone(A, Phase.BEFORE)
    lone.horizon = horizon
    lone.get(K)
    ((node, named),) = asked(lone).items()
    assert named == horizon
    assert bool(decode_replica_get(lone.lanes[node].frames[-1].body).flags & FLAG_HORIZON) == bool(horizon)


def test_it_begins_anew_by_a_newer_one_and_hears_nobody_who_was_asked_by_the_old_one() -> None:
    lone = Lone(E, Phase.BEFORE, away=(A,))
    lone.get(K, r=2, forwarded=True)
    assert asked(lone) == {B: 0, C: 0}
    stale = lone.lanes[B].frames[-1].request_id
    newer(lone, C, 9)
    assert asked(lone) == {B: 9, C: 9}
    assert len(lone.fetches) == 1, "this node is behind"
    lone.coordinator.on_replica_get_reply(B, stale, encode_reply(ReplicaStatus.FOUND, RECORD))
    lone.answer(C, B, status=ReplicaStatus.ABSENT)
    assert values(lone) == 0
    assert lone.coordinator.metrics.reads_anew_total == 1


def test_what_was_given_by_the_old_horizon_is_not_shown() -> None:
    lone = Lone(E, Phase.BEFORE, away=(A,))
    lone.get(K, r=2, forwarded=True, flags=FLAG_STRICT)
    lone.answer(B, status=ReplicaStatus.FOUND, record=RECORD)
    newer(lone, C, 9)
    lone.answer(B, status=ReplicaStatus.UNKNOWN)
    assert isinstance(lone.reply(), NotEnoughReplicas), "it does not vouch for what it showed"


def test_this_nodes_own_store_is_asked_again_as_well_and_its_earlier_word_is_not_heard() -> None:
    lone = Lone(A, Phase.BEFORE)
    reads = []
    lone.show = lambda *args: reads.append(args[-2:])  # type: ignore[method-assign]
    lone.get(K, r=2)
    (other,) = asked(lone)
    newer(lone, other, 9)
    (_, first), (by, second) = reads
    assert by == 9
    first(RECORD, None)
    lone.answer(other, status=ReplicaStatus.ABSENT)
    assert lone.session.frames == []
    second(None, None)
    assert values(lone) == 0


def test_a_horizon_that_this_node_hears_of_while_it_reads_counts_like_anybodys() -> None:
    lone = Lone(A, Phase.BEFORE)
    reads = []
    lone.show = lambda *args: reads.append(args[-1])  # type: ignore[method-assign]
    lone.get(K, r=1)
    lone.horizon = 9
    reads[0](None, None)
    assert len(reads) == 2
    reads[1](None, None)
    assert values(lone) == 0


def test_once_enough_have_answered_a_newer_horizon_changes_nothing() -> None:
    lone = Lone(E, Phase.BEFORE, away=(A,))
    lone.get(K, r=1, forwarded=True)
    ((first, _),) = asked(lone).items()
    second = B if first == C else C
    lone.now_s += 1
    lone.coordinator.wheel.turn()
    assert asked(lone).keys() == {first, second}, "hedged"
    lone.answer(first, status=ReplicaStatus.FOUND, record=RECORD)
    assert values(lone) == 1
    newer(lone, second, 9)
    assert not lone.coordinator.operations
    assert lone.sent(MessageType.REPLICA_PUT) == []


def test_an_explained_read_tells_of_it() -> None:
    lone = Lone(E, Phase.BEFORE, away=(A,))
    lone.get(K, r=2, forwarded=True, flags=FLAG_EXPLAIN)
    newer(lone, C, 9)
    lone.answer(B, C, status=ReplicaStatus.ABSENT)
    explanation = lone.explained()
    assert any("horizon" in note for note in explanation.notes)


@pytest.mark.parametrize("rest", [b"", bytes(8), b"123"])
def test_an_answer_that_names_no_horizon_is_a_broken_peer(rest: bytes) -> None:
    lone = Lone(E, Phase.BEFORE, away=(A,))
    lone.get(K, r=2, forwarded=True)
    with pytest.raises(ProtocolError):
        lone.answer(B, status=ReplicaStatus.NEWER_HORIZON, record=rest)
    assert lone.session.frames == []


def test_a_session_s_read_that_begins_anew_asks_again_as_long_as_it_is_below_its_floor() -> None:
    lone = Lone(E, Phase.BEFORE, away=(A,))
    context = lone.coordinator.sealer.seal(CausalClock({OTHER: 1}), 50, lone.bucket.id, K.encoded)
    head = int(lone.bucket.id), lone.bucket.generation, 0, 5_000, FLAG_STRICT, 1, 0
    body = encode_get(GetRequest(*head, K.encoded, (context,)))
    get(lone.coordinator, lone.session, MessageType.FORWARD_GET, 7, body)
    ((first, _),) = asked(lone).items()
    lone.answer(first, status=ReplicaStatus.ABSENT)
    assert asked(lone).keys() == {B, C}, "below the floor everybody is asked"
    newer(lone, B if first == C else C, 9)
    assert asked(lone) == {B: 9, C: 9}
    for _ in range(3):
        lone.answer(B, C, status=ReplicaStatus.ABSENT)
        lone.forget_frames()
        lone.now_s += 0.5
        lone.coordinator.wheel.turn()
        assert asked(lone) == {B: 9, C: 9}, "again and again"
