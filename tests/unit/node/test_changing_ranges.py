"""Which copies a plan asks of whom: against the rings' own sets, for every node and partition."""

from __future__ import annotations

import pytest

from leafdb.node.changing_ranges import ChangingRanges
from leafdb.node.debts import bits
from leafdb.node.shared_ranges import SharedRanges
from leafdb.node.view import ClusterView
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.ring import Ring
from leafdb.ring.staging import Join, Leave, Replace, StagedChange
from leafdb.ring.transitions import abort, finish
from leafdb.types import BucketId, NodeId, PartitionId
from support.clusters import bucket, cluster, proposed
from support.ring_changes import advanced, committed, plan_of

BUCKET = BucketId(256)
CHANGES: tuple[tuple[int, tuple[StagedChange, ...]], ...] = (
    (1, (Join(proposed(7)), Join(proposed(8)))),
    (3, (Join(proposed(7)),)),
    (5, (Leave(NodeId(5)), Join(proposed(7)))),
    (4, (Replace(NodeId(2), proposed(7)),)),
)


def founded(nodes: int) -> ClusterMetadata:
    return cluster(nodes).create_bucket(bucket())


def view_of(node: int, metadata: ClusterMetadata) -> ClusterView:
    view = ClusterView()
    view.install(NodeId(node), metadata)
    return view


def partitions(ring: Ring) -> list[PartitionId]:
    return [PartitionId(partition) for partition in range(ring.partitions)]


@pytest.mark.parametrize(("nodes", "changes"), CHANGES)
def test_each_new_owner_is_to_copy_from_every_old_one(nodes: int, changes: tuple[StagedChange, ...]) -> None:
    made = committed(founded(nodes), *changes)
    ring = Ring(made)
    for node in made.members:
        ranges = ChangingRanges(view_of(node, made))
        asked = {(peer, p) for (peer, _), mask in ranges.to_copy().items() for p in bits(mask)}
        wanted = {
            (peer, int(p))
            for p in partitions(ring)
            if ring.is_changing(p, 3) and node in ring.write_sets(p, 3)[-1]
            for peer in ring.write_sets(p, 3)[0]
            if peer != node
        }
        assert asked == wanted
        pending = {int(p) for p in partitions(ring) if node in ring.pending(p, 3)}
        assert set(bits(ranges.arriving(BUCKET))) == pending
        for (peer, _), mask in ranges.to_copy().items():
            assert not mask & ~ranges.between(peer, BUCKET)


@pytest.mark.parametrize(("nodes", "changes"), CHANGES)
def test_what_two_nodes_share_is_what_both_are_written_to(nodes: int, changes: tuple[StagedChange, ...]) -> None:
    made = committed(founded(nodes), *changes)
    ring = Ring(made)
    shared = SharedRanges(view_of(1, made))
    for node in made.members:
        assert set(bits(shared.held(node, BUCKET))) == set(map(int, ring.partitions_held(node, 3)))


def test_in_a_retreat_and_after_the_plan_nothing_is_asked_and_only_owners_share() -> None:
    under_way = advanced(founded(3), Join(proposed(7)))
    retreat = abort(under_way, plan_of(under_way).id)
    done = finish(under_way, plan_of(under_way).id)
    for metadata in (retreat, done):
        ring = Ring(metadata)
        view = view_of(4, metadata)
        ranges, shared = ChangingRanges(view), SharedRanges(view)
        assert ranges.plan is None
        assert (ranges.to_copy(), ranges.arriving(BUCKET), ranges.changing(BUCKET)) == ({}, 0, 0)
        for node in metadata.members:
            held = {int(p) for p in partitions(ring) if node in ring.primaries(p, 3)}
            assert set(bits(shared.held(node, BUCKET))) == held


def test_answers_are_of_the_ring_of_the_moment() -> None:
    before = founded(3)
    view = view_of(1, before)
    ranges, shared = ChangingRanges(view), SharedRanges(view)
    assert (ranges.changing(BUCKET), shared.held(NodeId(4), BUCKET)) == (0, 0)
    view.install(NodeId(1), committed(before, Join(proposed(7))))
    assert ranges.changing(BUCKET)
    assert shared.held(NodeId(4), BUCKET)


def test_a_bucket_made_under_the_plan_is_not_to_be_copied() -> None:
    made = committed(founded(3), Join(proposed(7)))
    view = view_of(4, made)
    before = ChangingRanges(view).to_copy()
    view.install(NodeId(4), made.create_bucket(bucket("later")))
    ranges = ChangingRanges(view)
    assert ranges.to_copy() == before
    assert (ranges.is_older(BUCKET), ranges.is_older(BucketId(257))) == (True, False)
