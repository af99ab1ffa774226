"""The report of a plan: what it moves, what it costs, and the ranges it could lose."""

from __future__ import annotations

import pytest

from leafdb.errors import NotApplied, Reason
from leafdb.model.bucket import BucketProperties
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.plan_report import PlanReport, report
from leafdb.ring.plan_safety import StepName, ranges_text
from leafdb.ring.ring import Ring
from leafdb.ring.staging import ForceRemove, Join, Leave, Replace
from leafdb.types import NodeId, PartitionId
from support.clusters import bucket, cluster, proposed
from support.ring_changes import advanced, committed, finished, staged

ONE, TWO, THREE, FOUR, FIVE = map(NodeId, range(1, 6))


def told(metadata: ClusterMetadata, *, dead: tuple[NodeId, ...] = (), weight: int = 10) -> PlanReport:
    return report(metadata, live=set(metadata.members) - set(dead), bytes_of=lambda partition, bucket_id: weight)


def with_bucket(metadata: ClusterMetadata, n: int = 3) -> ClusterMetadata:
    return metadata.create_bucket(BucketProperties(id=bucket().id, name=f"n{n}", generation=0, n=n, r=1, w=1))


def texts(found: PlanReport) -> str:
    return "\n".join(finding.describe() for finding in (*found.warnings, *found.refusals))


def test_growing_tells_ownership_copies_and_bytes() -> None:
    ready = staged(with_bucket(cluster(3)), Join(proposed(7)))
    found = told(ready)
    joiner = found.ownership[-1]
    assert (joiner.node, joiner.before, joiner.after, joiner.share_after) == (FOUR, 0, 16, 0.25)
    assert [each.after for each in found.ownership] == [16, 16, 16, 16]
    assert {copy.target for copy in found.copies} == {FOUR}
    assert all(set(copy.sources) == {1, 2, 3} for copy in found.copies)
    assert dict(found.bytes_to) == {FOUR: 10 * len(found.copies)}
    assert found.bytes_total == 10 * len(found.copies)
    assert (found.moved, found.moved_least, found.moved_ratio) == (16, 16, 1.0)
    assert 1.0 <= found.copies_ratio <= 1.1
    assert not found.refusals
    assert not found.warnings


def test_copies_are_what_the_ring_says_is_pending() -> None:
    ready = staged(with_bucket(cluster(5)), Leave(FOUR), Replace(TWO, proposed(7)))
    ring = Ring(committed(with_bucket(cluster(5)), Leave(FOUR), Replace(TWO, proposed(7))))
    pending = {(p, node) for p in map(PartitionId, range(64)) for node in ring.pending(p, 3)}
    assert {(copy.partition, copy.target) for copy in told(ready).copies} == pending


def test_a_plan_in_progress_is_told_as_it_was_proposed() -> None:
    made = with_bucket(cluster(3))
    shown = told(staged(made, Join(proposed(7))))
    for under_way in (committed(made, Join(proposed(7))), advanced(made, Join(proposed(7)))):
        again = told(under_way)
        assert (again.plan.id, set(again.copies)) == (shown.plan.id, set(shown.copies))
        assert again.steps == shown.steps


def test_each_n_of_a_bucket_is_told_apart() -> None:
    ready = staged(with_bucket(with_bucket(cluster(4), n=1), n=3), Join(proposed(7)))
    found = told(ready)
    assert {copy.n for copy in found.copies} == {1, 3}
    assert found.moved == sum(copy.n == 1 for copy in found.copies)
    assert found.n == 3


def test_nothing_to_report_has_a_reason() -> None:
    with pytest.raises(NotApplied) as raised:
        told(cluster(3))
    assert raised.value.reason is Reason.NOTHING_STAGED


def test_steps_count_live_replicas_that_reads_can_ask() -> None:
    found = told(staged(with_bucket(cluster(3)), Join(proposed(7)), ForceRemove(THREE)), dead=(THREE,))
    assert [(step.name, step.least_live) for step in found.steps] == [
        (StepName.BEFORE, 2),
        (StepName.READ_OLD, 2),
        (StepName.READ_NEW, 3),
        (StepName.DONE, 3),
    ]


def test_removing_the_dead_past_a_majority_is_refused_and_names_the_ranges() -> None:
    made = with_bucket(cluster(5))
    found = told(staged(made, ForceRemove(FOUR), ForceRemove(FIVE)), dead=(FOUR, FIVE))
    ring = Ring(made)
    doubtful = tuple(p for p in map(PartitionId, range(64)) if {4, 5} <= set(ring.primaries(p, 3)))
    (refusal,) = found.refusals
    assert refusal.partitions == doubtful
    assert "may be lost" in refusal.message
    assert ranges_text(doubtful) in refusal.describe()
    assert not told(staged(made, ForceRemove(FOUR)), dead=(FOUR,)).refusals


def test_ranges_without_a_living_copy_are_lost() -> None:
    made = with_bucket(cluster(3), n=1)
    found = told(staged(made, ForceRemove(THREE)), dead=(THREE,))
    owned = tuple(p for p in map(PartitionId, range(64)) if made.owners[p] == THREE)
    (refusal,) = found.refusals
    assert (refusal.partitions, "is lost" in refusal.message) == (owned, True)


def test_who_is_removed_by_force_is_no_source_though_alive_and_who_is_replaced_is() -> None:
    made = with_bucket(cluster(4), n=1)
    assert told(staged(made, ForceRemove(FOUR))).refusals
    assert not told(staged(made, Replace(FOUR, proposed(7)))).refusals
    assert told(staged(made, Replace(FOUR, proposed(7))), dead=(FOUR,)).refusals


def test_the_least_is_known_where_it_can_be_counted_by_hand() -> None:
    grown = told(staged(with_bucket(cluster(1)), Join(proposed(7)), Join(proposed(8))))
    assert (grown.copies_least, len(grown.copies), grown.copies_ratio) == (128, 128, 1.0)
    shrunk = told(staged(with_bucket(cluster(3)), Leave(THREE)))
    assert (shrunk.copies_least, len(shrunk.copies), shrunk.copies_ratio) == (0, 0, 1.0)
    made = with_bucket(cluster(5))
    held = len(Ring(made).partitions_held(FIVE, 3))
    assert told(staged(made, Leave(FIVE))).copies_least == held, "each copy it held, once more"


@pytest.mark.parametrize("partitions", [64, 256])
def test_a_small_cluster_grows_heals_and_shrinks_with_hardly_a_copy_too_many(partitions: int) -> None:
    made = with_bucket(cluster(1, partitions=partitions))
    for changes in (
        (Join(proposed(7)), Join(proposed(8))),
        (Join(proposed(9)), Join(proposed(10))),
        (Replace(FIVE, proposed(11)),),
        (Leave(FOUR),),
        (Join(proposed(12)),),
        (ForceRemove(THREE),),
    ):
        found = told(staged(made, *changes))
        assert found.moved_ratio == 1.0
        assert found.copies_ratio <= 1.1
        assert (found.spread_after.least_hosts, found.refusals) == (3, ())
        made = finished(made, *changes)


def test_a_majority_that_is_down_is_a_refusal_even_when_nobody_is_removed() -> None:
    found = told(staged(with_bucket(cluster(3)), Join(proposed(7))), dead=(ONE, TWO))
    assert found.refusals
    assert "a quorum is 2" in texts(found)


def test_odd_wishes_are_warned_of() -> None:
    made = with_bucket(cluster(4))
    assert "the plan waits for it" in texts(told(staged(made, Leave(FOUR)), dead=(FOUR,)))
    assert "let it leave" in texts(told(staged(made, ForceRemove(FOUR))))
    assert "control set" in texts(told(staged(made, Leave(ONE))))
    assert "n = 3 will mean 2 copies" in texts(told(staged(made, Leave(THREE), Leave(FOUR))))


def test_hosts_and_zones_are_told_before_and_after() -> None:
    made = with_bucket(cluster(3))
    crowded = told(staged(made, Leave(THREE), Join(proposed(7, host="host-0"))))
    assert (crowded.spread_before.hosts, crowded.spread_before.least_hosts) == (3, 3)
    assert (crowded.spread_after.hosts, crowded.spread_after.least_hosts) == (2, 2)
    assert "will share a host, which they do not today" in texts(crowded)
    zoned = told(staged(made, Join(proposed(7, zone="far"))))
    assert (zoned.spread_before.zones, zoned.spread_after.zones) == (1, 2)


def test_more_members_than_partitions_leave_some_without() -> None:
    ready = staged(with_bucket(cluster(2, partitions=2), n=2), Join(proposed(7)))
    assert "will own nothing" in texts(told(ready))


def test_ranges_read_as_runs() -> None:
    assert ranges_text([PartitionId(p) for p in (3, 1, 2, 9)]) == "1-3, 9"
    assert ranges_text([PartitionId(p) for p in range(0, 40, 2)]) == "0, 2, 4, 6, 8, 10, 12, 14 and 12 more"
