"""Staging refuses at once what could never be planned, and names the reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from leafdb.errors import NotApplied, Reason
from leafdb.ring import staging
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.staging import ForceRemove, Join, Leave, Replace, StagedChange
from leafdb.ring.transitions import clear_staged, stage
from leafdb.types import NodeId
from support.clusters import cluster, proposed
from support.ring_changes import committed, finished, staged

ONE, TWO, THREE = NodeId(1), NodeId(2), NodeId(3)
STORE = b"s" * 16


def reason_of(call: Callable[[], object]) -> Reason:
    with pytest.raises(NotApplied) as raised:
        call()
    return raised.value.reason


def refused(metadata: ClusterMetadata, change: StagedChange) -> Reason:
    return reason_of(lambda: stage(metadata, change))


def test_staged_changes_keep_their_order_and_move_nothing() -> None:
    before = cluster(3)
    after = staged(before, Join(proposed(7)), Leave(TWO))
    assert after.staged == (Join(proposed(7)), Leave(TWO))
    assert (after.owners, after.members, after.range_epochs) == (before.owners, before.members, before.range_epochs)
    assert after.epoch == before.epoch + 2


def test_a_node_goes_once() -> None:
    made = staged(cluster(4), Leave(ONE))
    for change in (Leave(ONE), ForceRemove(ONE), Replace(ONE, proposed(8))):
        assert refused(made, change) is Reason.BAD_REQUEST


def test_who_is_no_member_cannot_go_and_the_banned_are_told_so() -> None:
    made = finished(cluster(4), Leave(NodeId(4)))
    assert refused(made, ForceRemove(NodeId(4))) is Reason.BANNED
    assert refused(made, Leave(NodeId(9))) is Reason.NO_SUCH_MEMBER


@pytest.mark.parametrize("field", ["name", "client_address", "peer_address"])
def test_names_and_addresses_are_taken_by_members_and_by_newcomers(field: str) -> None:
    made = staged(cluster(3), Join(proposed(7)))
    for taken in (proposed(1), proposed(7)):
        wanted = replace(proposed(8), **{field: getattr(taken, field)})
        assert refused(made, Join(wanted)) is Reason.NAME_TAKEN
        assert refused(made, Replace(ONE, wanted)) is Reason.NAME_TAKEN


def test_one_store_joins_once() -> None:
    made = staged(cluster(3), Join(proposed(7), STORE))
    assert refused(made, Join(proposed(8), STORE)) is Reason.NAME_TAKEN
    assert refused(made, Join(proposed(8), b"short")) is Reason.BAD_REQUEST
    assert len(staged(made, Join(proposed(8)), Join(proposed(9))).staged) == 3, "unnamed stores are nobody's"


def test_one_present_member_stays() -> None:
    made = staged(cluster(3), Join(proposed(7)), Leave(ONE), ForceRemove(TWO))
    for change in (Leave(THREE), ForceRemove(THREE), Replace(THREE, proposed(8))):
        assert refused(made, change) is Reason.BAD_REQUEST


def test_one_present_member_that_owns_something_stays() -> None:
    made = staged(finished(cluster(2), Join(proposed(7, weight=0))), Leave(ONE))
    assert refused(made, Leave(TWO)) is Reason.BAD_REQUEST
    assert refused(made, Replace(TWO, proposed(8))) is Reason.BAD_REQUEST
    assert len(staged(made, Leave(THREE)).staged) == 2, "the one that owns nothing may go"


def test_a_newcomer_is_sound() -> None:
    assert refused(cluster(3), Join(proposed(7, weight=-1))) is Reason.BAD_REQUEST
    assert refused(cluster(3), Join(replace(proposed(7), name=""))) is Reason.BAD_REQUEST


def test_nothing_is_staged_beside_a_plan() -> None:
    assert refused(committed(cluster(3), Join(proposed(7))), Leave(ONE)) is Reason.PLAN_IN_PROGRESS


def test_numbers_run_out() -> None:
    last = replace(cluster(3), next_node_id=NodeId(65_535))
    made = staged(last, Join(proposed(7)))
    assert refused(made, Join(proposed(8))) is Reason.TOO_LARGE


def test_clearing_takes_all_of_it_back_and_is_done_once() -> None:
    cleared = clear_staged(staged(cluster(3), Leave(ONE), Leave(TWO)))
    assert cleared.staged == ()
    assert clear_staged(cleared) is cleared


def test_a_change_staged_again_is_in_already() -> None:
    once = stage(cluster(3), Leave(ONE), change_id=b"a" * 16)
    assert stage(once, Leave(ONE), change_id=b"a" * 16) is once
    gone = clear_staged(once, change_id=b"b" * 16)
    assert clear_staged(stage(gone, Leave(TWO)), change_id=b"b" * 16).staged == (Leave(TWO),)


@pytest.mark.parametrize(
    "change",
    [Join(proposed(7)), Join(proposed(7), STORE), Leave(ONE), ForceRemove(TWO), Replace(ONE, proposed(7), STORE)],
)
def test_changes_come_back_from_their_bytes(change: StagedChange) -> None:
    assert staging.from_wire(staging.to_wire(change)) == change


@pytest.mark.parametrize(
    "value",
    [
        5,
        {},
        {"kind": "explode"},
        {"kind": ["join"]},
        {"kind": "leave"},
        {"kind": "leave", "node": 0},
        {"kind": "leave", "node": 1, "store": b""},
        {"kind": "join", "member": {"id": 1}, "store": b""},
        {"kind": "join", "member": proposed(7).numbered(ONE).to_wire(), "store": b""},
        {"kind": "join", "member": proposed(7).to_wire(), "store": b"x" * 17},
        {"kind": "replace", "member": proposed(7).to_wire(), "store": b""},
    ],
)
def test_malformed_changes_are_refused(value: object) -> None:
    with pytest.raises(ValueError):
        staging.from_wire(value)
