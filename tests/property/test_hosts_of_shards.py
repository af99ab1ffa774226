"""Machines of several shards each, any zones and weights: copies apart, loads fair, little moved.

Guards I20: a preference list is on distinct hosts while there are hosts enough, and in as many zones as hosts and walk
allow; a load is within one partition of its weighted fair share; one shard or one machine that comes or goes, as one
plan, moves what its going or coming needs and no more. Effective n counts owners, not machines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from leafdb.limits import REPLICAS_MAX
from leafdb.ring.member import Member, ProposedMember
from leafdb.ring.metadata import ClusterMetadata, found
from leafdb.ring.placement import loads_of, moves
from leafdb.ring.plan_report import report
from leafdb.ring.proposal import propose
from leafdb.ring.ring import Ring
from leafdb.ring.staging import Join, Leave, Replace, StagedChange
from leafdb.ring.transitions import commit
from leafdb.types import NodeId, PartitionId
from support.clusters import CLUSTER_ID, proposed
from support.ring_changes import staged

CASES = settings(max_examples=40, derandomize=True, deadline=None)
PARTITIONS = st.sampled_from((64, 256))
COPIES = (1, 2, 3, 5)


@dataclass(frozen=True)
class Machine:
    """A host: its zone, its shards, the weight of each."""

    zone: int
    shards: int
    weight: int


MACHINES = st.lists(
    st.builds(Machine, st.integers(0, 3), st.integers(1, 4), st.sampled_from((0, 1, 1, 1, 2, 4))),
    min_size=2,
    max_size=6,
)


def members_of(machine: Machine, number: int) -> list[ProposedMember]:
    return [
        proposed(10 * number + shard, host=f"h{number}", zone=f"z{machine.zone}", weight=machine.weight)
        for shard in range(machine.shards)
    ]


def founded(machines: Sequence[Machine], partitions: int) -> ClusterMetadata | None:
    members = [each for number, machine in enumerate(machines) for each in members_of(machine, number)]
    if not any(each.weight for each in members):
        return None
    return found("c", CLUSTER_ID, members, partitions=partitions)


def after(metadata: ClusterMetadata, *changes: StagedChange) -> ClusterMetadata:
    """The metadata with a plan of these changes, all in one."""
    ready = staged(metadata, *changes)
    return commit(ready, propose(ready).id)


def future_of(metadata: ClusterMetadata) -> tuple[tuple[NodeId, ...], dict[NodeId, Member]]:
    plan = metadata.plan
    assert plan is not None
    return plan.owners, {node: member for node, member in metadata.members.items() if node not in plan.going}


def assert_fair(owners: Sequence[NodeId], members: Mapping[NodeId, Member]) -> None:
    total = sum(member.weight for member in members.values())
    loads = loads_of(owners, members)
    assert sum(loads.values()) == len(owners), "nobody else owns anything"
    for node, member in members.items():
        assert abs(loads[node] - Fraction(len(owners) * member.weight, total)) < 1
        assert member.weight or not loads[node], "a weight of 0 owns nothing"


def assert_apart(ring: Ring) -> None:
    members = ring.metadata.members
    owning = [members[node] for node in ring.loads]
    hosts = len({member.host for member in owning})
    zones = len({member.zone for member in owning})
    for partition in map(PartitionId, range(ring.partitions)):
        for n in COPIES:
            listed = ring.primaries(partition, n)
            assert len(listed) == min(n, len(owning)), "effective n is of owners"
            assert len({members[node].host for node in listed}) == min(hosts, len(listed))
            # A host has one zone here, so no host can cost the walk a zone.
            assert len({members[node].zone for node in listed}) == min(zones, len(listed))


def least_moves(owners: Sequence[NodeId], members: Mapping[NodeId, Member]) -> int:
    """What has to move for fair loads: what members are short of the floor of theirs, or have above the ceiling."""
    total = sum(member.weight for member in members.values())
    had = loads_of(owners, members)
    short = over = 0
    for node, member in members.items():
        floor, rest = divmod(len(owners) * member.weight, total)
        short += max(0, floor - had[node])
        over += max(0, had[node] - floor - bool(rest))
    return max(short, over + len(owners) - sum(had.values()))


@CASES
@given(machines=MACHINES, partitions=PARTITIONS)
def test_a_new_ring_is_apart_and_fair(machines: list[Machine], partitions: int) -> None:
    metadata = founded(machines, partitions)
    if metadata is None:
        return
    assert_apart(Ring(metadata))
    assert_fair(metadata.owners, metadata.members)
    assert max(COPIES) <= REPLICAS_MAX


@CASES
@given(machines=MACHINES, comes=st.builds(Machine, st.integers(0, 3), st.integers(1, 4), st.integers(0, 3)))
def test_a_machine_that_comes_in_one_plan_takes_its_share_and_nothing_else_moves(
    machines: list[Machine], comes: Machine
) -> None:
    before = founded(machines, 64)
    if before is None:
        return
    under_way = after(before, *(Join(each) for each in members_of(comes, 50)))
    owners, members = future_of(under_way)
    assert_fair(owners, members)
    assert moves(before.owners, owners) == least_moves(before.owners, members)
    taken = {new for old, new in zip(before.owners, owners, strict=True) if old != new}
    assert taken <= under_way.members.keys() - before.members.keys(), "only newcomers take"


@CASES
@given(machines=MACHINES, goes=st.integers(0, 5))
def test_a_machine_that_goes_in_one_plan_gives_what_it_had_and_nothing_else_moves(
    machines: list[Machine], goes: int
) -> None:
    before = founded(machines, 64)
    if before is None:
        return
    host = f"h{goes % len(machines)}"
    leaving = [node for node, member in before.members.items() if member.host == host]
    if not any(member.weight for node, member in before.members.items() if node not in leaving):
        return
    owners, members = future_of(after(before, *map(Leave, leaving)))
    assert_fair(owners, members)
    had = sum(owner in leaving for owner in before.owners)
    assert moves(before.owners, owners) == least_moves(before.owners, members) == had
    assert all(old in leaving for old, new in zip(before.owners, owners, strict=True) if old != new)


@CASES
@given(machines=MACHINES, label=st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 3)), join=st.booleans())
def test_one_shard_that_comes_or_goes_moves_the_least(
    machines: list[Machine], label: tuple[int, int, int], join: bool
) -> None:
    before = founded(machines, 64)
    if before is None:
        return
    host, zone, weight = label
    newcomer = proposed(99, host=f"h{host}", zone=f"z{zone}", weight=weight)
    goer = max(before.members)
    if not join and not any(member.weight for node, member in before.members.items() if node != goer):
        return
    owners, members = future_of(after(before, Join(newcomer) if join else Leave(goer)))
    assert_fair(owners, members)
    assert moves(before.owners, owners) == least_moves(before.owners, members)


@CASES
@given(machines=MACHINES)
def test_a_machine_for_a_machine_moves_what_it_had(machines: list[Machine]) -> None:
    before = founded(machines, 64)
    if before is None or not any(machine.weight for machine in machines[:-1]):
        return
    old = [node for node, member in before.members.items() if member.host == f"h{len(machines) - 1}"]
    new = members_of(machines[-1], 50)
    changes = [Replace(node, by) for node, by in zip(old, new, strict=True)]
    owners, _ = future_of(after(before, *changes))
    heirs = {node: NodeId(before.next_node_id + at) for at, node in enumerate(old)}
    assert owners == tuple(heirs.get(owner, owner) for owner in before.owners)


@CASES
@given(machines=MACHINES, comes=st.builds(Machine, st.integers(0, 3), st.integers(1, 4), st.integers(0, 3)))
def test_every_step_of_a_machine_s_plan_keeps_copies_apart_and_the_report_says_so(
    machines: list[Machine], comes: Machine
) -> None:
    before = founded(machines, 64)
    if before is None:
        return
    under_way = after(before, *(Join(each) for each in members_of(comes, 50)))
    ring = Ring(under_way)
    ring.check()
    told = report(under_way, live=before.members, bytes_of=lambda partition, bucket: 1)
    hosts = len({under_way.members[node].host for node in set(future_of(under_way)[0])})
    assert told.spread_after.hosts == hosts
    assert told.spread_after.least_hosts == min(3, hosts, len(set(future_of(under_way)[0])))
    assert told.moved == told.moved_least
    assert sum(line.after for line in told.ownership) == 64
