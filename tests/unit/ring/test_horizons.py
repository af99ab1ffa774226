"""Promises: a horizon only rises; a proof raises those of ranges that are still as they were, all at once, and nothing
when others are members than were asked; values without one have the bytes they always had; history is not full of
them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from leafdb.codec import cbor
from leafdb.errors import NotApplied, Reason
from leafdb.model.hlc import STAMP_MAX
from leafdb.ring.difference import apply, difference
from leafdb.ring.history import what_changed, worth_telling
from leafdb.ring.horizon_change import Proof, raise_horizons
from leafdb.ring.horizons import UNPROVED, Horizon, pack_horizons, unpack_horizons
from leafdb.ring.metadata import ClusterMetadata, MetadataError, decode
from leafdb.ring.staging import Join
from leafdb.types import Epoch, NodeId, PartitionId
from support.clusters import cluster, proposed
from support.ring_changes import committed, finished

CHANGE = b"c" * 16


def proof(metadata: ClusterMetadata, stamp: int, *partitions: int) -> Proof:
    epochs = {PartitionId(each): metadata.range_epochs[each] for each in partitions or range(metadata.partitions)}
    members = {node: member.incarnation for node, member in metadata.members.items()}
    return Proof(stamp, epochs, members, metadata.generation)


def test_a_proof_raises_its_partitions_at_once_and_is_of_format_3() -> None:
    before = cluster(3)
    after = raise_horizons(before, proof(before, 500, 1, 2), change_id=CHANGE)
    assert after.epoch == before.epoch + 1
    assert after.range_epochs == before.range_epochs
    assert after.horizons[:4] == (UNPROVED, Horizon(500, Epoch(1)), Horizon(500, Epoch(1)), UNPROVED)
    assert (before.format, after.format) == (1, 3)
    assert decode(after.encode()) == after
    assert apply(before, difference(before, after)) == after


def test_a_horizon_only_rises() -> None:
    made = cluster(3)
    high = raise_horizons(made, proof(made, 500))
    assert raise_horizons(high, proof(high, 400)) is high
    assert raise_horizons(high, proof(high, 500)) is high
    mixed = raise_horizons(high, proof(high, 600, 0))
    assert [each.stamp for each in mixed.horizons[:2]] == [600, 500]


def test_a_proof_that_is_run_again_counts_once() -> None:
    made = cluster(3)
    once = raise_horizons(made, proof(made, 500), change_id=CHANGE)
    assert raise_horizons(once, proof(made, 900), change_id=CHANGE) is once


def test_ranges_that_changed_hands_meanwhile_are_left_alone() -> None:
    made = cluster(3)
    moved = replace(made, epoch=Epoch(5), range_epochs=(Epoch(4), *made.range_epochs[1:]))
    after = raise_horizons(moved, proof(made, 500))
    assert after.horizons[0] == UNPROVED
    assert after.horizons[1] == Horizon(500, Epoch(1))


def test_a_member_that_was_not_asked_stops_the_proof() -> None:
    made = cluster(4)
    asked = proof(made, 500)
    grown = finished(made, Join(proposed(7)))
    with pytest.raises(NotApplied) as joined:
        raise_horizons(grown, asked)
    assert joined.value.reason is Reason.STALE_EPOCH
    node = NodeId(2)
    other = replace(made, members={**made.members, node: replace(made.members[node], incarnation=2)})
    with pytest.raises(NotApplied, match="asked"):
        raise_horizons(other, asked)
    with pytest.raises(NotApplied, match="asked"):
        raise_horizons(replace(made, generation=2), asked)


def test_a_plan_in_progress_stops_the_proof() -> None:
    made = committed(cluster(4), Join(proposed(7)))
    with pytest.raises(NotApplied) as refused:
        raise_horizons(made, proof(made, 500))
    assert refused.value.reason is Reason.PLAN_IN_PROGRESS


def test_horizons_stay_when_owners_change() -> None:
    made = cluster(4)
    high = raise_horizons(made, proof(made, 500))
    grown = finished(high, Join(proposed(7)))
    assert grown.range_epochs != high.range_epochs
    assert grown.horizons == high.horizons
    assert decode(grown.encode()) == grown


def test_packing_is_short_and_comes_back() -> None:
    horizons = (Horizon(STAMP_MAX, Epoch(7)),) * 100 + (UNPROVED,) * 28
    packed = pack_horizons(horizons)
    assert len(packed) <= 16
    assert unpack_horizons(packed, 128) == horizons
    for wrong in (64, 129):
        with pytest.raises(ValueError, match="horizons"):
            unpack_horizons(packed, wrong)


@pytest.mark.parametrize(
    "horizons",
    [
        {},
        b"",
        pack_horizons([UNPROVED] * 64),
        pack_horizons([Horizon(5, Epoch(1))] * 63),
        pack_horizons([Horizon(5, Epoch(9))] * 64),
        pack_horizons([Horizon(5, Epoch(0))] * 64),
        pack_horizons([Horizon(0, Epoch(1))] * 64),
        pack_horizons([Horizon(STAMP_MAX + 1, Epoch(1))] * 64),
        pack_horizons([Horizon(5, Epoch(1))] * 32) * 2,
    ],
)
def test_unsound_horizons_are_refused(horizons: object) -> None:
    made = cluster(3)
    assert made.partitions == 64
    wire = raise_horizons(made, proof(made, 5)).to_wire()
    assert decode(cbor.dumps(wire)).horizons
    with pytest.raises(MetadataError):
        decode(cbor.dumps({**wire, "horizons": horizons}))


def test_history_does_not_tell_of_horizons_alone() -> None:
    made = cluster(4)
    high = raise_horizons(made, proof(made, 500), change_id=CHANGE)
    assert not worth_telling(made, high)
    assert what_changed(made, high) == f"purge horizons of {made.partitions} partitions"
    assert worth_telling(None, high)
    assert worth_telling(high, committed(high, Join(proposed(7))))
    assert worth_telling(made, committed(high, Join(proposed(7))))
