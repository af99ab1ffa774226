"""I19 for every pair of sets a plan can make: what an epoch acknowledged, the readers of it and of its neighbours meet.

Every set of nodes that can acknowledge is tried, every count, every read quorum. A write that a fallback acknowledged
for a primary reaches that primary by its hint: it meets readers who ask stand-ins as well, and is promised to readers
of primaries as far as `primary_acks` says.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, product
from typing import NamedTuple

import pytest

from leafdb.model.bucket import BucketProperties
from leafdb.quorum.joint_put_operation import JointPutOperation
from leafdb.quorum.owner_set import OwnerSet
from leafdb.quorum.policy import (
    ALL,
    MAJORITY,
    NONE,
    ImpossibleQuorum,
    TooFewMembers,
    WritePolicy,
    joint_write_policy,
    read_policy,
    write_policy,
)
from leafdb.quorum.put_operation import PutOperation, Step
from leafdb.types import NodeId
from support.clusters import bucket

Nodes = tuple[NodeId, ...]


class Change(NamedTuple):
    """What a plan does to one range of a bucket with n copies."""

    n: int
    old: Nodes
    new: Nodes


def change(n: int, old: str, new: str) -> Change:
    return Change(n, tuple(NodeId(int(digit)) for digit in old), tuple(NodeId(int(digit)) for digit in new))


CHANGES = {
    "join": change(3, "123", "412"),
    "join of two": change(3, "123", "145"),
    "leave": change(3, "123", "324"),
    "replace": change(3, "123", "143"),
    "another order": change(3, "123", "312"),
    "all new": change(3, "123", "456"),
    "one to three": change(3, "1", "123"),
    "one to three others": change(3, "1", "234"),
    "three to one": change(3, "123", "2"),
    "one to two": change(3, "1", "12"),
    "two to three": change(3, "12", "132"),
    "three to two": change(3, "123", "23"),
    "one for one": change(1, "1", "2"),
    "two for two": change(2, "12", "23"),
    "five to four": change(5, "12345", "1234"),
    "four to five": change(5, "1234", "12345"),
    "five for five": change(5, "12345", "12346"),
}


class Epoch(NamedTuple):
    """What a coordinator does in it: which sets take its writes, which set its reads ask."""

    old_writes: bool
    new_writes: bool
    reads_new: bool


BEFORE = Epoch(True, False, False)
READ_OLD = Epoch(True, True, False)
READ_NEW = Epoch(True, True, True)
DONE = Epoch(False, True, True)
ABORTED = BEFORE
NEIGHBOURS = ((BEFORE, READ_OLD), (READ_OLD, READ_NEW), (READ_NEW, DONE), (READ_OLD, ABORTED))


def wires(n: int) -> tuple[int, ...]:
    return (*range(1, n + 1), MAJORITY, ALL)


def machine(plan: Change, epoch: Epoch, w: int, targets: dict[NodeId, NodeId]) -> PutOperation | None:
    """The write as a coordinator of that epoch begins it; None when it refuses."""
    properties = bucket(n=plan.n)
    try:
        if epoch.old_writes and epoch.new_writes:
            both = joint_write_policy(properties, len(plan.old), len(plan.new), w=w, pw=NONE, dw=NONE, sloppy=None)
            sets = (OwnerSet(plan.old, w=both.old.w), OwnerSet(plan.new, w=both.new.w))
            return JointPutOperation(old=sets[0], new=sets[1], targets=targets, spares=[])
        resolved = alone(properties, plan.old if epoch.old_writes else plan.new, w)
    except (ImpossibleQuorum, TooFewMembers):
        return None
    return PutOperation(w=resolved.w, pw=0, targets=targets, spares=[])


def alone(properties: BucketProperties, owners: Nodes, w: int) -> WritePolicy:
    return write_policy(properties, len(owners), w=w, pw=NONE, dw=NONE, sloppy=None)


def targets_of(plan: Change, epoch: Epoch) -> list[NodeId]:
    return list(dict.fromkeys((*plan.old * epoch.old_writes, *plan.new * epoch.new_writes)))


def acknowledged(plan: Change, epoch: Epoch, w: int) -> Iterator[set[NodeId]]:
    """Every set of primaries of which some order of answers makes an acknowledged write."""
    nodes = targets_of(plan, epoch)
    for some in (set(each) for size in range(len(nodes) + 1) for each in combinations(nodes, size)):
        put = machine(plan, epoch, w, {node: node for node in nodes})
        if put is None:
            return
        steps = [put.acked(node) for node in nodes if node in some]
        put.check()
        if Step.DECIDED in steps:
            yield set([node for node in nodes if node in some][: steps.index(Step.DECIDED) + 1])


def read_quorums(plan: Change, epoch: Epoch, r: int) -> tuple[int, list[Nodes]]:
    """How many are read, and every choice of them; none when the read is refused."""
    owners = plan.new if epoch.reads_new else plan.old
    try:
        count = read_policy(bucket(n=plan.n), len(owners), r=r, pr=NONE).r
    except TooFewMembers:
        return 0, []
    return count, list(combinations(owners, count))


def overlapping(plan: Change, w: int, r: int) -> bool:
    """Whether the caller's counts promise anything: w + r > n before the plan and after it, as far as it is served."""
    for owners in (plan.old, plan.new):
        n = len(owners)
        counts = [n // 2 + 1 if count == MAJORITY else n if count == ALL else count for count in (w, r)]
        if sum(counts) <= n:
            return False
    return True


@pytest.mark.parametrize("name", CHANGES)
def test_what_an_epoch_acknowledged_every_read_of_it_and_its_neighbours_meets(name: str) -> None:
    plan = CHANGES[name]
    tried = 0
    for w, r in product(wires(plan.n), repeat=2):
        if not overlapping(plan, w, r):
            continue
        for one, next_ in NEIGHBOURS:
            for written, read in ((one, one), (one, next_), (next_, one), (next_, next_)):
                quorums = read_quorums(plan, read, r)[1]
                for held in acknowledged(plan, written, w):
                    assert all(held.intersection(asked) for asked in quorums), (w, r, written, read, held)
                    tried += len(quorums)
    assert tried > 10


def test_one_who_gives_up_the_new_set_at_once_loses_writes_for_readers_that_are_an_epoch_behind() -> None:
    """Why a plan that reads the new owners goes back by way of *read old*, or fences them first."""
    plan = CHANGES["replace"]
    quorums = read_quorums(plan, READ_NEW, MAJORITY)[1]
    assert any(not held.intersection(asked) for held in acknowledged(plan, ABORTED, MAJORITY) for asked in quorums)


@pytest.mark.parametrize("name", [name for name, plan in CHANGES.items() if plan.n <= 3])
def test_fallbacks_reach_by_hint_and_primary_acks_say_what_is_there_in_person(name: str) -> None:
    """Each target in person, by a fallback, or not at all: every way of it."""
    plan = CHANGES[name]
    nodes = targets_of(plan, READ_OLD)
    sides = ((plan.old, READ_OLD), (plan.new, READ_NEW))
    n = max(len(plan.old), len(plan.new))
    decided = 0
    for w, ways in product(wires(plan.n), product((1, 2, 0), repeat=len(nodes))):
        reached = {node: NodeId(node + 10 * (way == 2)) for node, way in zip(nodes, ways, strict=True) if way}
        put = machine(plan, READ_OLD, w, {node: primary for primary, node in reached.items()})
        assert put is None or isinstance(put, JointPutOperation)
        if put is None or put.short() is not None:
            continue
        steps = [put.acked(node) for node in reached.values()]
        put.check()
        assert steps.count(Step.DECIDED) == 1, "who can reach it does, and once"
        decided += 1
        in_person = {primary for primary, node in reached.items() if node == primary}
        assert put.acks == len(reached)
        assert put.primary_acks <= len(in_person)
        for (owners, epoch), r in product(sides, wires(plan.n)):
            count, quorums = read_quorums(plan, epoch, r)
            both = joint_write_policy(
                bucket(n=plan.n), len(plan.old), len(plan.new), w=w, pw=NONE, dw=NONE, sloppy=None
            )
            needed = (both.new if epoch.reads_new else both.old).w
            if needed + count > len(owners):
                assert all(reached.keys() & asked for asked in quorums)
            wanted = n // 2 + 1 if r == MAJORITY else n if r == ALL else r
            if put.primary_acks + wanted > n and (r not in (MAJORITY, ALL) or put.primary_acks >= n // 2 + 1):
                assert all(in_person.intersection(asked) for asked in quorums), (reached, r, put.primary_acks)
    assert decided
