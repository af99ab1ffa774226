"""Any cluster of 1 to 12 nodes, any host and zone labels, any weights, any change: the promises of placement and walk.

Guards: distinct hosts in every preference list while there are hosts enough (the wrap included), loads within one
partition of the weighted fair share, the fewest moves.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from leafdb.limits import REPLICAS_MAX
from leafdb.ring.member import Member, ProposedMember
from leafdb.ring.metadata import MetadataError, decode, found
from leafdb.ring.placement import claim, loads_of, moves, target_loads
from leafdb.ring.preference_list import Place, orders, walk
from leafdb.ring.ring import Ring
from leafdb.types import Epoch, NodeId
from support.clusters import CLUSTER_ID, bucket, cluster, proposed

PARTITIONS = st.sampled_from((64, 128, 256, 512))
LABELS = st.tuples(st.integers(0, 7), st.integers(0, 3), st.integers(1, 4))
CASES = settings(max_examples=40, derandomize=True, deadline=None)


def member(number: int, label: tuple[int, int, int]) -> ProposedMember:
    host, zone, weight = label
    return proposed(number, host=f"h{host}", zone=f"z{zone}", weight=weight)


def numbered(labels: dict[int, tuple[int, int, int]]) -> list[Member]:
    return [member(number, label).numbered(NodeId(number)) for number, label in labels.items()]


CLUSTERS = st.dictionaries(st.integers(1, 40), LABELS, min_size=1, max_size=12).map(numbered)


def assert_fair(owners: tuple[NodeId, ...], members: list[Member]) -> None:
    total = sum(each.weight for each in members)
    loads = loads_of(owners, [each.id for each in members])
    assert sum(loads.values()) == len(owners), "nobody else owns anything"
    for each in members:
        assert abs(loads[each.id] - Fraction(len(owners) * each.weight, total)) < 1


def assert_distinct_hosts(owners: tuple[NodeId, ...], members: list[Member], n: int) -> None:
    places = {each.id: Place(each.host, each.zone) for each in members}
    hosts = len({places[owner].host for owner in owners})
    for _, order in orders(owners):
        listed = walk(order, places, n)
        assert len(listed) == min(n, len(set(owners)))
        assert len({places[node].host for node in listed}) == min(n, hosts)


@CASES
@given(members=CLUSTERS, partitions=PARTITIONS)
def test_a_new_ring_is_fair_and_apart(members: list[Member], partitions: int) -> None:
    owners = claim(members, partitions)
    assert_fair(owners, members)
    assert_distinct_hosts(owners, members, 3)


@CASES
@given(before=CLUSTERS, after=CLUSTERS, partitions=st.sampled_from((64, 256)))
def test_a_changed_ring_is_fair_and_apart_and_moves_the_least(
    before: list[Member], after: list[Member], partitions: int
) -> None:
    old = claim(before, partitions)
    new = claim(after, partitions, old)
    assert_fair(new, after)
    assert_distinct_hosts(new, after, 3)
    had = loads_of(old, [each.id for each in after])
    targets = target_loads({each.id: each.weight for each in after}, partitions, had)
    least = sum(max(0, targets[node] - had[node]) for node in targets)
    assert moves(old, new) == least, "only what somebody is short of moves"
    floors = {each.id: partitions * each.weight // sum(m.weight for m in after) for each in after}
    must_leave = sum(max(0, had[node] - floors[node] - 1) for node in floors)
    gone = partitions - sum(had.values())
    assert least >= max(must_leave, gone)


@CASES
@given(labels=st.lists(LABELS, min_size=1, max_size=12), partitions=st.sampled_from((1, 2, 64)))
def test_every_ring_meets_its_definition(labels: list[tuple[int, int, int]], partitions: int) -> None:
    made = found("c", CLUSTER_ID, [member(at, label) for at, label in enumerate(labels)], partitions=partitions)
    assert not made.check()
    Ring(made).check()
    assert decode(made.encode()) == made


@CASES
@given(data=st.data(), partitions=st.sampled_from((4, 64)))
def test_walks_hold_for_any_owner_table_at_all(data: st.DataObject, partitions: int) -> None:
    labels = data.draw(st.lists(LABELS, min_size=1, max_size=9))
    made = found("c", CLUSTER_ID, [member(at, label) for at, label in enumerate(labels)], partitions=partitions)
    node = st.sampled_from(sorted(made.members))
    owners = data.draw(st.lists(node, min_size=partitions, max_size=partitions))
    epochs = data.draw(st.lists(st.integers(1, 9), min_size=partitions, max_size=partitions))
    wild = replace(made, owners=tuple(owners), epoch=Epoch(9), range_epochs=tuple(map(Epoch, epochs)))
    Ring(wild).check()
    assert decode(wild.encode()) == wild
    assert REPLICAS_MAX >= 9


@settings(max_examples=150, derandomize=True, deadline=None)
@given(data=st.data())
def test_damaged_metadata_is_refused_or_the_same(data: st.DataObject) -> None:
    good = cluster(3, partitions=8).create_bucket(bucket(), change_id=b"c" * 16).encode()
    at = data.draw(st.integers(0, len(good) - 1))
    cut = data.draw(st.integers(0, 3))
    damaged = good[:at] + data.draw(st.binary(max_size=3)) + good[at + cut :]
    try:
        made = decode(damaged)
    except MetadataError:
        return
    assert made.encode() == damaged
    assert not made.check()
