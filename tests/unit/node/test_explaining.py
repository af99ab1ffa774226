"""An explained request on its coordinator: what the explanation says is what the node did, whatever becomes of it.

The key's old owners are a, b and c, the new ones b, c and d; before the plan a, b and c are all. See lone_coordinator.
"""

from __future__ import annotations

import pytest

from leafdb.errors import DeadlineExceeded, NotEnoughReplicas, OutcomeUnknown, ProtocolError
from leafdb.explanation import Explanation, Replica, Status
from leafdb.model.record import merge
from leafdb.node.explaining import Explaining
from leafdb.quorum.messages import ReplicaStatus
from leafdb.types import Conflict, NodeId
from leafdb.wire import explanations
from leafdb.wire.registry import MessageType
from leafdb.wire.requests import FLAG_EXPLAIN, FLAG_LOCAL, FLAG_STRICT, GetRequest, encode_get_reply
from support.lone_coordinator import RECORD, Lone, Phase, changing_key
from support.repairs import record_of

K = changing_key()
A, B, C, D, E, F = K[1:]
NEWER = merge(RECORD, record_of(2), Conflict.SIBLINGS)


def alone(own: NodeId = A, **other: tuple[NodeId, ...]) -> Lone:
    return Lone(own, Phase.BEFORE, **other)


def row(lone: Lone, node: NodeId) -> Replica:
    (found,) = [each for each in lone.explained().replicas if each.node == lone.view.name_of(node)]
    return found


def names(lone: Lone, *nodes: NodeId) -> set[str]:
    return {lone.view.name_of(node) for node in nodes}


def digest(explanation: Explanation) -> str:
    assert explanation.merged is not None
    return explanation.merged.digest


def test_who_is_asked_again_after_a_refusal_has_not_answered_yet() -> None:
    lone = alone()
    request = GetRequest(256, 1, 1, 1_000, FLAG_EXPLAIN, 1, 0, b"k")
    told = Explaining(lone.coordinator, lone.session, request)
    told.asked(B, "first")
    lone.now_s += 0.1
    told.answered(B, ReplicaStatus.REFUSED_OVERLOADED, None, counted=False)
    told.asked(B, "spare")
    assert told._parts[B].asked_s == lone.now_s
    assert told._parts[B].answered_s is None


def test_who_counted_and_is_asked_for_more_has_said_what_it_said() -> None:
    lone = alone()
    told = Explaining(lone.coordinator, lone.session, GetRequest(256, 1, 1, 1_000, FLAG_EXPLAIN, 1, 0, b"k"))
    told.asked(B, "first")
    told.answered(B, ReplicaStatus.FOUND, RECORD, counted=True)
    lone.now_s += 0.1
    told.asked(B, "spare")
    part = told._parts[B]
    assert (part.status, part.cause, part.answered_s) == (Status.FOUND, "first", part.asked_s)


# -- gets


def test_a_get_tells_who_showed_what_who_was_behind_and_who_was_written_back() -> None:
    lone = alone()
    lone.stored = RECORD
    lone.get(K, flags=FLAG_EXPLAIN)
    (asked,) = lone.sent(MessageType.REPLICA_GET)
    lone.now_s += 0.003
    lone.answer(asked, status=ReplicaStatus.FOUND, record=NEWER)
    told = lone.explained()
    assert (told.operation, told.answered, told.node) == ("get", True, lone.view.name_of(A))
    assert set(told.counted) == names(lone, A, asked)
    assert set(told.behind) == set(told.written_back) == names(lone, A)
    assert row(lone, A).write_back == "confirmed"
    other = row(lone, asked)
    assert (other.status, other.cause, other.asked_ms, other.answered_ms) == (Status.FOUND, "first", 0.0, 3.0)
    assert other.version is not None
    assert digest(told) == other.version.digest != getattr(row(lone, A).version, "digest", None)
    (third,) = {B, C} - {asked}
    assert row(lone, third).status is Status.NOT_ASKED
    assert told.policy is not None
    assert (told.policy.n, told.policy.r, told.policy.w, told.policy.sloppy) == (3, 2, 0, True)


def test_a_get_tells_why_others_were_asked_later() -> None:
    lone = alone()
    lone.get(K, flags=FLAG_EXPLAIN)
    (asked,) = lone.sent(MessageType.REPLICA_GET)
    (spare,) = {B, C} - {asked}
    lone.coordinator.on_peer_lost(asked)
    lone.answer(spare, status=ReplicaStatus.ABSENT)
    assert (row(lone, asked).status, row(lone, spare).cause) == (Status.LOST, "spare")
    assert lone.explained().merged is None

    hedging = alone()
    hedging.get(K, flags=FLAG_EXPLAIN)
    (asked,) = hedging.sent(MessageType.REPLICA_GET)
    (spare,) = {B, C} - {asked}
    (operation,) = hedging.coordinator.operations.values()
    hedging.now_s += 0.1
    operation.expired()
    hedging.answer(spare, status=ReplicaStatus.ABSENT)
    assert (row(hedging, asked).status, row(hedging, spare).cause) == (Status.UNANSWERED, "hedge")
    assert not row(hedging, asked).counted


def test_a_replica_that_nothing_could_be_sent_to_is_told_apart_from_one_that_is_silent() -> None:
    lone = alone()
    lone.lanes[B].full = lone.lanes[C].full = True
    lone.get(K, flags=FLAG_EXPLAIN | FLAG_STRICT)
    assert isinstance(lone.reply(), NotEnoughReplicas)
    assert {row(lone, node).status for node in (B, C)} == {Status.UNSENT}
    silent = alone()
    silent.get(K, flags=FLAG_EXPLAIN)
    (asked,) = silent.sent(MessageType.REPLICA_GET)
    (operation,) = silent.coordinator.operations.values()
    operation.expired()
    silent.now_s += 6.0
    operation.expired()
    assert isinstance(silent.reply(), DeadlineExceeded)
    assert row(silent, asked).status is Status.UNANSWERED
    told = silent.explained()
    assert not told.answered
    assert told.decided_ms == 6_000.0


def test_a_replica_that_may_have_forgotten_is_shown_and_does_not_count() -> None:
    lone = alone()
    lone.get(K, flags=FLAG_EXPLAIN)
    (asked,) = lone.sent(MessageType.REPLICA_GET)
    (spare,) = {B, C} - {asked}
    lone.answer(asked, status=ReplicaStatus.UNKNOWN, record=RECORD)
    lone.answer(spare, status=ReplicaStatus.ABSENT)
    told = lone.explained()
    unsure = row(lone, asked)
    assert (unsure.status, unsure.counted, unsure.behind) == (Status.UNKNOWN, False, False)
    assert set(told.counted) == names(lone, A, spare)
    assert set(told.behind) == names(lone, A, spare)


def settling() -> tuple[Lone, NodeId, NodeId]:
    """A get whose merge is being written back to one, while another has been asked as a hedge."""
    lone = alone()
    lone.stored = RECORD
    lone.get(K, flags=FLAG_EXPLAIN | FLAG_STRICT)
    (behind,) = lone.sent(MessageType.REPLICA_GET)
    (hedge,) = {B, C} - {behind}
    (operation,) = lone.coordinator.operations.values()
    lone.now_s += 0.1
    operation.expired()
    lone.answer(behind, status=ReplicaStatus.ABSENT)
    assert lone.reply() is None
    return lone, behind, hedge


def test_who_has_more_while_others_are_written_back_to_ends_the_wait_and_is_not_in_what_is_shown() -> None:
    lone, behind, hedge = settling()
    lone.answer(hedge, status=ReplicaStatus.FOUND, record=NEWER)
    told = lone.explained()
    assert set(told.counted) == names(lone, A, behind)
    assert set(told.behind) == names(lone, behind)
    assert row(lone, behind).write_back == "waiting"
    late = row(lone, hedge)
    assert (late.status, late.cause, late.counted) == (Status.FOUND, "hedge", False)
    assert digest(told) != getattr(late.version, "digest", None)


def test_a_write_back_that_fails_is_told() -> None:
    for refuses in (True, False):
        lone, behind, hedge = settling()
        for node in (behind, hedge):  # the other takes the place of the one
            assert lone.reply() is None
            if refuses:
                lone.answer(node, status=ReplicaStatus.REFUSED_OVERLOADED)
            else:
                lone.coordinator.on_peer_lost(node)
        error = lone.reply()
        assert isinstance(error, NotEnoughReplicas)
        assert (error.alive, error.required) == (1, 2)
        assert row(lone, behind).write_back == row(lone, hedge).write_back == "failed"
        assert set(lone.explained().counted) == names(lone, A, behind)


def test_a_write_back_to_another_than_those_who_answered_is_told() -> None:
    lone, behind, hedge = settling()
    lone.answer(behind, status=ReplicaStatus.REFUSED_OVERLOADED)
    lone.answer(hedge)
    assert row(lone, behind).write_back == "failed"
    assert row(lone, hedge).write_back == "confirmed"


def test_a_local_read_tells_of_one_store() -> None:
    lone = alone()
    lone.stored = RECORD
    lone.get(K, flags=FLAG_EXPLAIN | FLAG_LOCAL)
    told = lone.explained()
    assert ([each.node for each in told.replicas], told.policy) == ([lone.view.name_of(A)], None)
    assert told.counted == (lone.view.name_of(A),)


# -- puts


def test_a_put_tells_who_took_it_who_stands_in_and_who_is_owed() -> None:
    lone = alone(away=(C,))
    lone.put(K, w=3, flags=FLAG_EXPLAIN)
    ((stand_in, absent),) = lone.stand_ins().items()
    assert absent == C
    lone.answer(B, stand_in)
    told = lone.explained()
    assert (told.operation, set(told.counted)) == ("put", names(lone, A, B, stand_in))
    assert (row(lone, C).status, row(lone, stand_in).stands_for) == (Status.AWAY, lone.view.name_of(C))
    assert row(lone, stand_in).role == "fallback"
    strict = alone(away=(C,))
    strict.put(K, flags=FLAG_EXPLAIN, strict=True)
    strict.answer(B)
    assert row(strict, C).follows == "hint"
    assert strict.hints.owed == [C]


def test_a_put_that_fails_tells_who_refused_and_that_it_may_live_on() -> None:
    lone = alone()
    lone.put(K, flags=FLAG_EXPLAIN, strict=True)
    lone.answer(B, C, status=ReplicaStatus.REFUSED_DISK_FULL)
    unknown = lone.reply()
    assert isinstance(unknown, OutcomeUnknown)
    assert {row(lone, node).status for node in (B, C)} == {Status.DISK_FULL}
    assert lone.explained().counted == (lone.view.name_of(A),)
    assert {row(lone, node).follows for node in (B, C)} == {"hint"}


def test_a_request_that_is_refused_at_once_tells_who_is_away() -> None:
    lone = alone(away=(B, C))
    lone.put(K, flags=FLAG_EXPLAIN, strict=True)
    assert isinstance(lone.reply(), NotEnoughReplicas)
    told = lone.explained()
    assert (told.counted, told.partition is None) == ((), False)
    assert {each.node for each in told.replicas if each.status is Status.AWAY} == names(lone, B, C)


def test_in_a_plan_roles_and_both_policies_are_told_and_a_new_ring_asks_everybody_anew() -> None:
    lone = Lone(A)
    lone.put(K, flags=FLAG_EXPLAIN)
    lone.answer(B, status=ReplicaStatus.REFUSED_STALE_EPOCH)
    lone.forget_frames()
    lone.learns(Phase.READ_NEW)
    lone.answer(B, D)
    told = lone.explained()
    roles = {each.node: each.role for each in told.replicas}
    assert roles == {
        lone.view.name_of(node): role for node, role in ((A, "old owner"), (B, "both"), (C, "both"), (D, "new owner"))
    }
    assert set(told.counted) == names(lone, A, B, D)
    assert told.other_policy is not None
    assert "anew" in told.notes[0]


def test_answers_under_the_ring_that_is_gone_count_no_more() -> None:
    lone = Lone(A)
    lone.put(K, flags=FLAG_EXPLAIN)
    lone.answer(B)
    lone.answer(C, status=ReplicaStatus.REFUSED_STALE_EPOCH)
    lone.forget_frames()
    lone.learns(Phase.READ_NEW)
    lone.answer(C, D)
    assert set(lone.explained().counted) == names(lone, A, C, D)
    assert row(lone, B).status is Status.UNANSWERED


# -- handed on


def test_a_node_that_hands_a_request_on_puts_itself_into_the_answer() -> None:
    lone = Lone(E, Phase.BEFORE)
    lone.get(K, flags=FLAG_EXPLAIN)
    (chosen,) = lone.sent(MessageType.FORWARD_GET)
    number = lone.lanes[chosen].frames[-1].request_id
    there = Lone(chosen, Phase.BEFORE)
    there.get(K, r=1, flags=FLAG_EXPLAIN, forwarded=True)
    (frame,) = there.session.frames
    lone.now_s += 0.002
    lone.coordinator.on_forwarded_reply(frame.type, number, frame.body)
    told = lone.explained()
    assert [(hop.node, hop.waited_ms) for hop in told.forwarded_by] == [(lone.view.name_of(E), 2.0)]
    assert told.node == lone.view.name_of(chosen)
    (passed,) = lone.session.frames
    assert explanations.split(passed.body)[1] == explanations.split(frame.body)[1]


def test_an_error_of_the_node_it_was_handed_to_is_explained_by_both() -> None:
    lone = Lone(E, Phase.BEFORE)
    lone.get(K, r=3, flags=FLAG_EXPLAIN | FLAG_STRICT)
    (chosen,) = lone.sent(MessageType.FORWARD_GET)
    there = Lone(chosen, Phase.BEFORE, away=({A, B, C} - {chosen}))
    there.get(K, r=3, flags=FLAG_EXPLAIN | FLAG_STRICT, forwarded=True)
    (frame,) = there.session.frames
    lone.coordinator.on_forwarded_reply(frame.type, lone.lanes[chosen].frames[-1].request_id, frame.body)
    assert isinstance(lone.reply(), NotEnoughReplicas)
    told = lone.explained()
    assert [hop.node for hop in told.forwarded_by] == [lone.view.name_of(E)]
    assert (told.node, told.answered) == (lone.view.name_of(chosen), False)


def test_an_explanation_that_cannot_be_read_here_is_passed_on_as_it_came() -> None:
    lone = Lone(E, Phase.BEFORE)
    lone.get(K, flags=FLAG_EXPLAIN)
    (chosen,) = lone.sent(MessageType.FORWARD_GET)
    body = explanations.join(b"of a newer build", b"reply")
    lone.coordinator.on_forwarded_reply(MessageType.GET_EXPLAINED, lone.lanes[chosen].frames[-1].request_id, body)
    (passed,) = lone.session.frames
    assert (passed.type, passed.body) == (MessageType.GET_EXPLAINED, body)


def test_a_request_that_was_handed_on_and_never_answered_names_where_it_went() -> None:
    lone = Lone(E, Phase.BEFORE)
    lone.put(K, flags=FLAG_EXPLAIN)
    (chosen,) = lone.sent(MessageType.FORWARD_PUT)
    lone.coordinator.on_peer_lost(chosen)
    assert isinstance(lone.reply(), OutcomeUnknown)
    told = lone.explained()
    assert (told.node, told.forwarded_to) == (lone.view.name_of(E), lone.view.name_of(chosen))


def test_a_plain_request_is_answered_plainly() -> None:
    lone = alone()
    lone.get(K, r=1)
    (frame,) = lone.session.frames
    assert frame.type == MessageType.GET_REPLY
    explained = alone()
    explained.get(K, r=1, flags=FLAG_EXPLAIN)
    (other,) = explained.session.frames
    assert explanations.split(other.body)[1] == frame.body
    assert frame.body.startswith(encode_get_reply(lone.view.epoch, b"", [])[:4])


@pytest.mark.parametrize("bad", [b"", b"\x00\x00\x00\x09short", b"\xff\xff\xff\xff"])
def test_an_explained_reply_without_its_parts_is_refused(bad: bytes) -> None:
    with pytest.raises(ProtocolError):
        explanations.split(bad)
