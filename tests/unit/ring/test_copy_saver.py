"""Which partitions go to whom, where a list steps over hosts: as few copies as can be, nothing else changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest

from leafdb.ring.copy_saver import COPIES, save_copies
from leafdb.ring.member import ProposedMember
from leafdb.ring.metadata import ClusterMetadata, found
from leafdb.ring.plan_report import PlanReport, report
from leafdb.ring.preference_list import Place, order_from, walk
from leafdb.ring.proposal import propose
from leafdb.ring.staging import Join, Leave, StagedChange
from leafdb.ring.transitions import commit
from leafdb.types import NodeId, PartitionId
from support.clusters import CLUSTER_ID, proposed
from support.ring_changes import staged


def machine(number: int, shards: int) -> list[ProposedMember]:
    return [proposed(10 * number + shard, host=f"h{number}") for shard in range(shards)]


def machines(count: int, shards: int) -> ClusterMetadata:
    members = [each for number in range(count) for each in machine(number, shards)]
    return found("c", CLUSTER_ID, members, partitions=256)


def told(metadata: ClusterMetadata, *changes: StagedChange) -> PlanReport:
    ready = staged(metadata, *changes)
    under_way = commit(ready, propose(ready).id)
    return report(under_way, live=metadata.members, bytes_of=lambda partition, bucket: 1)


def new_copies(owners: Sequence[NodeId], previous: Sequence[NodeId], places: dict[NodeId, Place]) -> int:
    def lists(table: Sequence[NodeId]) -> list[set[NodeId]]:
        return [set(walk(order_from(table, PartitionId(p)), places, COPIES)) for p in range(len(table))]

    return sum(len(now - then) for now, then in zip(lists(owners), lists(previous), strict=True))


@pytest.mark.parametrize("shards", [2, 3, 4])
@pytest.mark.parametrize("count", [4, 5, 6])
def test_a_machine_that_goes_has_only_its_own_copies_made_again(count: int, shards: int) -> None:
    before = machines(count, shards)
    leaving = [node for node, member in before.members.items() if member.host == f"h{count - 1}"]
    plan = told(before, *map(Leave, leaving))
    assert plan.moved == plan.moved_least
    assert plan.copies_ratio <= 1.02


@pytest.mark.parametrize("shards", [2, 3, 4])
@pytest.mark.parametrize("count", [3, 4, 5])
def test_a_machine_that_comes_copies_its_share(count: int, shards: int) -> None:
    plan = told(machines(count, shards), *(Join(each) for each in machine(9, shards)))
    assert plan.moved == plan.moved_least
    assert plan.copies_ratio <= 1.05


@pytest.mark.parametrize("shards", [2, 4])
@pytest.mark.parametrize("count", [3, 4, 5])
def test_one_shard_that_goes_has_only_its_own_copies_made_again(count: int, shards: int) -> None:
    before = machines(count, shards)
    plan = told(before, Leave(max(before.members)))
    assert plan.moved == plan.moved_least
    assert plan.copies_ratio <= 1.05


def test_what_the_search_cannot_see_is_counted_in_the_end() -> None:
    """An exchange that is good for the partitions near by and worse for many far away."""
    one, other, b, c = map(NodeId, (1, 2, 3, 4))
    places = {one: Place("a", ""), other: Place("a", ""), b: Place("b", ""), c: Place("c", "")}
    previous = [b] * 40 + [one] + [b] * 8 + [other, c, c]
    owners = [b] * 40 + [b] + [b] * 8 + [one, c, other]
    before = list(owners)
    exchanged = [b] * 49 + [other, c, one]
    assert new_copies(exchanged[41:], previous[41:], places) < new_copies(before[41:], previous[41:], places)
    assert new_copies(exchanged, previous, places) > new_copies(before, previous, places)
    save_copies(owners, previous, {49, 51}, places)
    assert owners == before


@pytest.mark.parametrize("seed", range(20))
def test_loads_and_moves_stay_and_copies_never_grow(seed: int) -> None:
    rng = Random(seed)
    count, hosts, zones = rng.choice((16, 64)), rng.randint(1, 5), rng.randint(1, 3)
    nodes = [NodeId(number) for number in range(1, rng.randint(2, 9))]
    places = {node: Place(f"h{rng.randrange(hosts)}", f"z{rng.randrange(zones)}") for node in nodes}
    previous = [rng.choice(nodes) for _ in range(count)]
    owners = list(previous)
    for p in rng.sample(range(count), count // 3):
        owners[p] = rng.choice(nodes)
    movable = {p for p in range(count) if owners[p] != previous[p]}
    before = list(owners)
    save_copies(owners, previous, movable, places)
    assert Counter(owners) == Counter(before)
    assert all(owners[p] == before[p] for p in range(count) if p not in movable)
    assert new_copies(owners, previous, places) <= new_copies(before, previous, places)
    again = list(before)
    save_copies(again, previous, movable, places)
    assert again == owners, "it depends on nothing but what it is given"
