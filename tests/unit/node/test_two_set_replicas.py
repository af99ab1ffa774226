"""A replica in the middle of a plan: what it answers, what it takes, and what people are told of it.

The key's old owners are a, b and c, the new ones b, c and d; d copies in the first phase. See lone_coordinator.
"""

from __future__ import annotations

from typing import Any, cast

import pytest

from leafdb.node.coordinator import Place
from leafdb.node.hint_keeper import HintKeeper
from leafdb.node.replica import Found
from leafdb.node.replica_service import ReplicaService
from leafdb.node.roles import roles_of
from leafdb.node.view import BucketView
from leafdb.quorum.messages import ReplicaStatus, decode_reply, encode_replica_get, encode_replica_put
from leafdb.types import NodeId
from support.lone_coordinator import RECORD, Lone, Phase, changing_key

K = changing_key()
A, B, C, D, E, F = K[1:]
IN_PLAN = (Phase.READ_OLD, Phase.READ_NEW, Phase.RETREAT)


def place_of(lone: Lone) -> Place:
    assert lone.view.ring is not None
    return Place(lone.bucket, K.encoded, lone.view.ring)


@pytest.mark.parametrize(
    ("own", "phase", "empty", "full"),
    [
        (A, Phase.READ_OLD, ReplicaStatus.ABSENT, ReplicaStatus.FOUND),
        (D, Phase.READ_OLD, ReplicaStatus.UNKNOWN, ReplicaStatus.UNKNOWN),
        (D, Phase.READ_NEW, ReplicaStatus.ABSENT, ReplicaStatus.FOUND),
        (A, Phase.READ_NEW, ReplicaStatus.ABSENT, ReplicaStatus.FOUND),
        (E, Phase.READ_OLD, ReplicaStatus.UNKNOWN, ReplicaStatus.UNKNOWN),
    ],
)
def test_who_copies_answers_as_incomplete_with_what_it_has(
    own: NodeId, phase: Phase, empty: ReplicaStatus, full: ReplicaStatus
) -> None:
    lone = Lone(own, phase)
    service = service_of(lone)
    place = place_of(lone)
    body = encode_replica_get(lone.bucket.id, lone.bucket.generation, place.range_epoch, 1_000, 0, K.encoded)
    for stored, expected in ((None, empty), (RECORD, full)):
        lone.stored = stored
        lone.session.frames.clear()
        service.get(lone.session, 1, body)
        status, record = decode_reply(lone.session.frames[0].body)
        assert status is expected
        assert record == ((stored or b"") if own != E else b"")


@pytest.mark.parametrize("phase", IN_PLAN)
def test_every_holder_takes_copies_and_nobody_those_of_another_phase(phase: Phase) -> None:
    for own in (A, B, C, D, E):
        lone = Lone(own, phase)
        service = service_of(lone)
        now = place_of(lone).range_epoch
        for epoch, applied in ((now, own != E), (now - 1, False)):
            body = encode_replica_put(lone.bucket.id, lone.bucket.generation, epoch, 1_000, 0, 0, K.encoded, RECORD)
            lone.session.frames.clear()
            service.put(lone.session, 1, body)
            status = decode_reply(lone.session.frames[0].body)[0]
            refusal = ReplicaStatus.REFUSED_NOT_REPLICA if epoch == now else ReplicaStatus.REFUSED_STALE_EPOCH
            assert status is (ReplicaStatus.APPLIED if applied else refusal)
        assert lone.merged == (own != E)


def test_a_stand_in_shows_what_it_keeps_for_any_holder() -> None:
    lone = Lone(E)
    asked: list[NodeId] = []

    class Keeper(HintKeeper):
        def show(self, target: NodeId, bucket: BucketView, storage_key: bytes, done: Found) -> None:
            asked.append(target)
            done(None, None)

    nothing: Any = None
    keeper = Keeper(
        engine=nothing, view=lone.view, replica=nothing, ledger=nothing, metrics=nothing, now_ms=nothing,
        mark=nothing, kept=nothing,
    )  # fmt: skip
    place = place_of(lone)
    keeper.read_fallback(lone.bucket, place.partition, place.storage_key, 0, lambda *_: None)
    assert sorted(asked) == sorted((A, B, C, D))


def service_of(lone: Lone) -> ReplicaService:
    return ReplicaService(
        view=lone.view, replica=cast(Any, lone), hints=lone.hints, completeness=lone.completeness,
        catch_up=lone.coordinator.catch_up, now=lone.now,
    )  # fmt: skip


def test_where_a_key_lives_is_told_with_what_each_holder_is() -> None:
    for phase, expected in (
        (Phase.BEFORE, {A: "primary", B: "primary", C: "primary"}),
        (Phase.READ_OLD, {A: "old owner", B: "both", C: "both", D: "pending"}),
        (Phase.READ_NEW, {A: "old owner", B: "both", C: "both", D: "new owner"}),
        (Phase.RETREAT, {A: "old owner", B: "both", C: "both", D: "new owner"}),
    ):
        lone = Lone(E, phase)
        assert lone.view.ring is not None
        assert roles_of(lone.view.ring, place_of(lone).partition, 3) == expected
