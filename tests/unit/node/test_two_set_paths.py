"""A request in the middle of a plan, on its coordinator: to whom it goes, what is enough, who stands in for whom.

The key's old owners are a, b and c, the new ones b, c and d; d copies in the first phase. See lone_coordinator.
"""

from __future__ import annotations

import pytest

from leafdb.errors import LeafdbError, NotApplied, NotEnoughReplicas, OutcomeUnknown, Reason
from leafdb.node.coordinator import Place
from leafdb.node.put_targets import anew
from leafdb.quorum.messages import (
    ReplicaStatus,
    decode_replica_put,
)
from leafdb.types import NodeId
from leafdb.wire.registry import MessageType
from leafdb.wire.requests import FLAG_LOCAL, FLAG_STRICT, GetReply, PutReply, PutRequest
from support.lone_coordinator import RECORD, Key, Lone, Phase, changing_key

K = changing_key()
A, B, C, D, E, F = K[1:]
IN_PLAN = (Phase.READ_OLD, Phase.READ_NEW, Phase.RETREAT)


def place_of(lone: Lone, key: Key = K) -> Place:
    assert lone.view.ring is not None
    return Place(lone.bucket, key.encoded, lone.view.ring)


def raised(lone: Lone) -> LeafdbError:
    reply = lone.reply()
    assert isinstance(reply, LeafdbError)
    return reply


# -- places


@pytest.mark.parametrize(
    ("phase", "read", "holders", "copying"),
    [
        (Phase.BEFORE, {A, B, C}, {A, B, C}, None),
        (Phase.READ_OLD, {A, B, C}, {A, B, C, D}, (D,)),
        (Phase.READ_NEW, {B, C, D}, {A, B, C, D}, ()),
        (Phase.RETREAT, {A, B, C}, {A, B, C, D}, ()),
        (Phase.DONE, {B, C, D}, {B, C, D}, None),
    ],
)
def test_a_place_knows_whom_reads_ask_and_who_takes_writes(
    phase: Phase, read: set[NodeId], holders: set[NodeId], copying: tuple[NodeId, ...] | None
) -> None:
    place = place_of(Lone(E if phase is not Phase.DONE else B, phase))
    assert (set(place.primaries), set(place.holders)) == (read, holders)
    assert (None if place.joint is None else place.joint.copying) == copying


# -- puts


@pytest.mark.parametrize("phase", IN_PLAN)
@pytest.mark.parametrize(("own", "enough"), [(A, [{B, D}, {C, D}, {B, C}]), (B, [{C}, {A, D}]), (C, [{B}, {A, D}])])
def test_a_put_goes_to_all_holders_and_needs_its_count_in_both_sets(
    phase: Phase, own: NodeId, enough: list[set[NodeId]]
) -> None:
    for acked in enough:
        lone = Lone(own, phase)
        lone.put(K)
        assert lone.sent(MessageType.REPLICA_PUT) == sorted({A, B, C, D} - {own})
        assert not lone.stand_ins()
        for node in sorted(acked):
            assert lone.reply() is None
            lone.answer(node)
        reply = lone.reply()
        assert isinstance(reply, PutReply)
        assert reply.acks == 1 + len(acked)


def test_acks_of_one_set_alone_decide_nothing() -> None:
    lone = Lone(A)
    lone.put(K, strict=True)
    lone.answer(B)
    assert lone.reply() is None, "two old owners, one new"
    lone.answer(C, D, status=ReplicaStatus.REFUSED_OVERLOADED)
    unknown = raised(lone)
    assert isinstance(unknown, OutcomeUnknown)
    assert (unknown.acks, unknown.required) == (1, 2)
    assert sorted(unknown.replicas) == sorted(lone.view.name_of(node) for node in (A, B, C, D))
    assert sorted(lone.hints.owed) == sorted((C, D))


@pytest.mark.parametrize("phase", IN_PLAN)
def test_a_put_is_forwarded_to_who_is_in_both_sets_and_never_to_who_copies(phase: Phase) -> None:
    for away, chosen in (((), B), ((B,), C), ((B, C), A if phase is not Phase.READ_NEW else D)):
        lone = Lone(E, phase, away=away)
        lone.put(K)
        first = place_of(lone).holders
        expected = next(node for node in first if node in (B, C)) if chosen == B else chosen
        assert lone.sent(MessageType.FORWARD_PUT) == [expected]
        assert lone.reply() is None


def test_who_copies_forwards_too_and_coordinates_only_when_nobody_else_is_there() -> None:
    lone = Lone(D)
    lone.put(K)
    assert set(lone.sent(MessageType.FORWARD_PUT)) < {B, C}
    assert lone.coordinated == 0
    alone = Lone(D, away=(A, B, C))
    alone.put(K)
    assert (alone.coordinated, alone.hints.coordinated) == (1, [])
    assert sorted(alone.stand_ins()) == sorted((E, F)), "for two of the three old owners"
    alone.answer(E, F)
    assert isinstance(alone.reply(), PutReply)
    strict = Lone(D, away=(A, B, C))
    strict.put(K, strict=True)
    assert isinstance(raised(strict), NotEnoughReplicas)
    assert strict.coordinated == 0


def test_a_put_forwarded_to_who_copies_is_refused_as_a_disagreement() -> None:
    for own in (D, E):
        lone = Lone(own)
        lone.put(K, forwarded=True)
        refused = raised(lone)
        assert isinstance(refused, NotApplied)
        assert (refused.reason, refused.retryable) == (Reason.STALE_EPOCH, True)
    done = Lone(D, Phase.READ_NEW)
    done.put(K, forwarded=True)
    assert done.coordinated == 1


def test_a_coordinator_that_holds_nothing_stands_for_the_owner_who_helps_most() -> None:
    """All four are away: the first stand-in, the coordinator, is for an owner of both sets."""
    lone = Lone(E, away=(A, B, C, D))
    lone.put(K)
    (stands_for,) = lone.hints.coordinated
    assert stands_for in (B, C)
    assert lone.stand_ins() == {F: C if stands_for == B else B}
    lone.answer(F)
    reply = lone.reply()
    assert isinstance(reply, PutReply)
    assert (reply.acks, reply.primaries) == (2, 0)
    refused = Lone(E, away=(A, B, C, D))
    refused.put(K, strict=True)
    assert isinstance(raised(refused), NotEnoughReplicas)


def test_a_put_is_not_passed_on_to_who_copies_though_nobody_else_is_there() -> None:
    lone = Lone(E, away=(A, B, C))
    lone.put(K)
    assert lone.sent(MessageType.FORWARD_PUT) == []
    assert lone.hints.coordinated in ([A], [B], [C])
    assert D in lone.sent(MessageType.REPLICA_PUT)
    assert D not in lone.stand_ins()


def test_who_is_away_of_either_set_gets_a_stand_in_beyond_both() -> None:
    for away in (A, B, D):
        lone = Lone(C, away=(away,))
        lone.put(K, w=3)
        (stand_in,) = lone.stand_ins()
        assert stand_in in (E, F)
        assert lone.stand_ins()[stand_in] == away
        lone.answer(*sorted({A, B, D} - {away}))
        assert lone.reply() is None
        lone.answer(stand_in)
        assert isinstance(lone.reply(), PutReply)
        strict = Lone(C, away=(away,))
        strict.put(K, w=3, strict=True)
        refused = raised(strict)
        assert isinstance(refused, NotEnoughReplicas)
        assert (refused.alive, refused.required) == (2, 3)
        assert strict.coordinated == 0


def test_an_owner_lost_under_way_is_replaced_by_who_holds_nothing_of_the_key() -> None:
    lone = Lone(B)
    lone.put(K, w=3)
    lone.lanes[D].full = lone.lanes[A].full = True
    lone.coordinator.on_peer_lost(D)
    lone.coordinator.on_peer_lost(A)
    assert {*lone.stand_ins()} == {E, F}
    assert {*lone.stand_ins().values()} == {A, D}
    lone.answer(C, E, F)
    reply = lone.reply()
    assert isinstance(reply, PutReply)
    assert reply.acks == 4


def test_a_full_disk_passes_the_put_on_only_where_the_others_are_enough_for_both_sets() -> None:
    lone = Lone(A)
    lone.disk_full = True
    lone.put(K)
    assert {*lone.sent(MessageType.FORWARD_PUT)} < {B, C}
    short = Lone(A, away=(C, D, E, F))
    short.disk_full = True
    short.put(K, w=1)
    assert short.sent(MessageType.FORWARD_PUT) == [B], "b alone is one of either set"
    two = Lone(B, away=(D, E, F))
    two.disk_full = True
    two.put(K)
    refused = raised(two)
    assert isinstance(refused, NotApplied)
    assert refused.reason is Reason.DISK_FULL, "without b the new owners have c alone"


# -- a ring that changes under way


def test_a_put_refused_by_who_knows_more_goes_on_under_the_newer_ring() -> None:
    lone = Lone(B, Phase.BEFORE)
    lone.put(K)
    assert lone.sent(MessageType.REPLICA_PUT) == sorted((A, C))
    late = lone.lanes[C].frames[-1]
    lone.answer(A, status=ReplicaStatus.REFUSED_STALE_EPOCH)
    assert lone.reply() is None
    lone.forget_frames()
    lone.learns(Phase.READ_OLD)
    assert lone.sent(MessageType.REPLICA_PUT) == sorted((A, C, D))
    assert decode_replica_put(lone.lanes[D].frames[-1].body).range_epoch == place_of(lone).range_epoch
    lone.coordinator.on_replica_put_reply(C, late.request_id, bytes([ReplicaStatus.APPLIED]))
    assert lone.reply() is None, "what was acknowledged before does not count now"
    lone.answer(A)
    assert lone.reply() is None, "with b two old owners and one new"
    lone.answer(D)
    reply = lone.reply()
    assert isinstance(reply, PutReply)
    assert (reply.acks, lone.coordinated) == (3, 1)
    lone.answer(C)
    assert not lone.coordinator.operations


def test_who_is_no_owner_any_more_brings_its_put_to_the_end_without_its_own_copy() -> None:
    lone = Lone(A, Phase.READ_NEW)
    lone.put(K)
    lone.answer(B, status=ReplicaStatus.REFUSED_STALE_EPOCH)
    lone.forget_frames()
    lone.learns(Phase.DONE)
    lone.answer(B)
    assert lone.reply() is None
    lone.answer(D)
    reply = lone.reply()
    assert isinstance(reply, PutReply)
    assert (reply.acks, reply.primaries) == (2, 2)


def test_under_the_newer_ring_the_own_copy_counts_when_it_is_safe_and_not_before() -> None:
    lone = Lone(B, Phase.BEFORE)
    lone.slow = True
    lone.put(K)
    lone.answer(A, status=ReplicaStatus.REFUSED_STALE_EPOCH)
    lone.learns(Phase.READ_OLD)
    lone.answer(A, D)
    assert lone.reply() is None
    lone.uncommitted.committed(None)
    assert isinstance(lone.reply(), PutReply)


def test_a_put_that_goes_on_has_no_stand_in_that_is_its_own_coordinator() -> None:
    for phase in (Phase.READ_NEW, Phase.DONE):
        lone = Lone(E, phase, away=(C,))
        request = PutRequest(int(lone.bucket.id), lone.bucket.generation, 0, 5_000, 1, 2, 0, 0, 0, b"", b"", b"", b"")
        machine = anew(lone.coordinator, place_of(lone), request)
        assert E not in machine.waiting
        assert machine.waiting[F] == C
        assert E not in machine.spares


def test_a_put_refused_by_who_knows_no_more_is_in_doubt() -> None:
    lone = Lone(B, Phase.READ_OLD, away=(E, F))
    lone.put(K)
    lone.answer(A, C, D, status=ReplicaStatus.REFUSED_STALE_EPOCH)
    assert lone.reply() is None
    assert len(lone.fetches) == 1
    lone.fetches.pop()()
    assert isinstance(raised(lone), OutcomeUnknown)
    assert not lone.coordinator.operations
    assert sorted(lone.hints.owed) == sorted((A, C, D))


# -- gets


@pytest.mark.parametrize(("phase", "read"), [(Phase.READ_OLD, {A, B, C}), (Phase.READ_NEW, {B, C, D})])
def test_a_get_asks_the_set_of_the_phase_and_of_it_those_in_both_first(phase: Phase, read: set[NodeId]) -> None:
    for own in sorted(read):
        lone = Lone(own, phase)
        lone.get(K)
        assert {*lone.sent(MessageType.REPLICA_GET), own} & {B, C} == {B, C}
        assert {*lone.sent(MessageType.REPLICA_GET)} <= {B, C}
    outside = Lone(D if phase is Phase.READ_OLD else A, phase)
    outside.get(K)
    assert {*outside.sent(MessageType.FORWARD_GET)} < {B, C}
    beyond = Lone(E, phase, away=(B, C))
    beyond.get(K)
    assert beyond.sent(MessageType.FORWARD_GET) == sorted(read - {B, C})


def test_what_both_sets_hold_is_shown_at_once() -> None:
    lone = Lone(B)
    lone.stored = RECORD
    lone.get(K)
    lone.answer(C, status=ReplicaStatus.FOUND, record=RECORD)
    reply = lone.reply()
    assert isinstance(reply, GetReply)
    assert reply.siblings
    assert lone.sent(MessageType.REPLICA_PUT) == []


def test_what_only_old_owners_hold_is_written_to_a_new_one_before_it_is_shown() -> None:
    lone = Lone(B, away=(C,))
    lone.stored = RECORD
    lone.get(K, flags=FLAG_STRICT)
    lone.answer(A, status=ReplicaStatus.FOUND, record=RECORD)
    assert lone.reply() is None
    assert lone.sent(MessageType.REPLICA_PUT) == [D]
    assert lone.stand_ins() == {}
    lone.answer(D)
    assert isinstance(lone.reply(), GetReply)


def test_who_stands_in_for_the_other_set_keeps_the_write_back_for_its_owner() -> None:
    lone = Lone(B, away=(C, D))
    lone.stored = RECORD
    lone.get(K)
    lone.answer(A, status=ReplicaStatus.FOUND, record=RECORD)
    assert lone.reply() is None
    stand_ins = lone.stand_ins()
    assert {*stand_ins} == {E, F}
    assert {*stand_ins.values()} == {C, D}
    lone.answer(E)
    assert isinstance(lone.reply(), GetReply)


def test_a_write_back_that_falls_short_says_of_which_count() -> None:
    lone = Lone(B, away=(C,))
    lone.stored = RECORD
    lone.get(K, flags=FLAG_STRICT)
    lone.answer(A, status=ReplicaStatus.FOUND, record=RECORD)
    lone.answer(D, status=ReplicaStatus.REFUSED_OVERLOADED)
    failed = raised(lone)
    assert isinstance(failed, NotEnoughReplicas)
    assert (failed.alive, failed.required) == (1, 2)


def test_missing_is_said_by_the_set_that_is_asked() -> None:
    lone = Lone(B, away=(C, D))
    lone.get(K, flags=FLAG_STRICT)
    lone.answer(A, status=ReplicaStatus.ABSENT)
    reply = lone.reply()
    assert isinstance(reply, GetReply)
    assert reply.siblings == ()


def test_a_local_read_is_for_owners_that_reads_ask() -> None:
    for phase, holds, not_yet in ((Phase.READ_OLD, A, D), (Phase.READ_NEW, D, A)):
        lone = Lone(holds, phase)
        lone.get(K, flags=FLAG_LOCAL)
        assert isinstance(lone.reply(), GetReply)
        other = Lone(not_yet, phase)
        other.get(K, flags=FLAG_LOCAL)
        assert isinstance(raised(other), NotEnoughReplicas)
