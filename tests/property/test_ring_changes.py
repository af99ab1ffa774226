"""Any history of staging, committing, advancing, finishing and aborting: what a change of the ring promises.

Guards I19 (what an epoch writes meets what the epochs beside it read), I22 (an abort leaves the ring as it was, bans
are final), fair loads, the fewest moves, distinct hosts while there are enough, and bytes that come back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import combinations, product

from hypothesis import given, settings
from hypothesis import strategies as st

from leafdb.errors import NotApplied
from leafdb.ring.control_set import begin_control, finish_control
from leafdb.ring.difference import apply, difference
from leafdb.ring.member import Member
from leafdb.ring.metadata import ClusterMetadata, decode, found
from leafdb.ring.placement import loads_of, moves
from leafdb.ring.plan import Phase
from leafdb.ring.proposal import propose
from leafdb.ring.ring import Ring
from leafdb.ring.staging import ForceRemove, Join, Leave, Replace, StagedChange
from leafdb.ring.transitions import abort, advance, clear_staged, commit, finish, finish_abort, stage
from leafdb.types import NodeId, PartitionId
from support.clusters import CLUSTER_ID, proposed
from support.ring_changes import finished, plan_of

LABELS = st.tuples(st.integers(0, 7), st.integers(0, 2), st.sampled_from((1, 1, 1, 2, 3)))
CLUSTERS = st.lists(LABELS, min_size=1, max_size=8)
CASES = settings(max_examples=40, derandomize=True, deadline=None)
NS = (1, 2, 3, 5)

Label = tuple[int, int, int]
Step = Callable[[ClusterMetadata], ClusterMetadata]


def newcomer(number: int, label: Label) -> Join:
    host, zone, weight = label
    return Join(proposed(number, host=f"h{host}", zone=f"z{zone}", weight=weight))


def founded(labels: Sequence[Label], partitions: int) -> ClusterMetadata:
    members = [newcomer(at, label).member for at, label in enumerate(labels)]
    return found("c", CLUSTER_ID, members, partitions=partitions)


# -- I19, by trying every quorum


@lru_cache(maxsize=1 << 16)
def least_met(write_sets: tuple[frozenset[NodeId], ...], asked: frozenset[NodeId], w: int) -> int:
    """How many of `asked` a write surely reaches that got its w in each of the sets."""
    choices = [combinations(sorted(nodes), min(w, len(nodes))) for nodes in write_sets]
    return min(len(frozenset().union(*chosen) & asked) for chosen in product(*choices))


def assert_quorums_meet(writes: Ring, reads: Ring) -> None:
    for n in NS:
        partitions = map(PartitionId, range(writes.partitions))
        for listed, primaries in {(writes.write_sets(p, n), reads.primaries(p, n)) for p in partitions}:
            sets, asked = tuple(map(frozenset, listed)), frozenset(primaries)
            for w in range(1, n + 1):
                r = len(asked) - min(w, len(asked)) + 1
                assert least_met(sets, asked, w) + r > len(asked), (n, w, sets, asked)


# -- histories


class History:
    """One cluster's metadata through its epochs; every step is checked as it is taken."""

    def __init__(self, start: ClusterMetadata, *, thorough: bool = True) -> None:
        self.now = start
        self.thorough = thorough
        self.ring = Ring(start)
        self.ring.check()
        self.before_plan = start
        self.gone: set[NodeId] = set()
        self.arrivals = 100

    def take(self, step: Step) -> bool:
        """Take the step if it is not refused."""
        before = self.now
        try:
            after = step(before)
        except NotApplied:
            return False
        if after is before:
            return True
        if self.thorough:
            self.assert_step(before, after)
        self.now = after
        return True

    def assert_step(self, before: ClusterMetadata, after: ClusterMetadata) -> None:
        assert after.epoch == before.epoch + 1
        assert after.check() == []
        assert decode(after.encode()) == after
        assert apply(before, difference(before, after)) == after
        ring = Ring(after)
        ring.check()
        assert_quorums_meet(self.ring, ring)
        assert_quorums_meet(ring, self.ring)
        unchanged = [p for p in range(after.partitions) if after.range_epochs[p] == before.range_epochs[p]]
        for n in NS:
            for p in map(PartitionId, unchanged):
                assert ring.write_sets(p, n) == self.ring.write_sets(p, n), "what changes hands is fenced"
        self.gone |= before.members.keys() - after.members.keys()
        assert self.gone <= set(after.bans)
        assert not self.gone & after.members.keys()
        assert after.next_node_id >= before.next_node_id
        if after.plan is not None and before.plan is None:
            self.before_plan = before
        self.ring = ring

    def finish(self) -> None:
        """End the plan in progress, the control set moved first, one step at a time."""
        plan = plan_of(self.now)
        while {*self.now.control} & plan.going:
            staying = sorted(self.now.members.keys() - plan.going - set(plan.joining))
            kept = [node for node in self.now.control if node in staying]
            spare = [node for node in staying if node not in kept]
            if spare:
                one_goes = next(node for node in self.now.control if node in plan.going)
                wanted = [node for node in self.now.control if node != one_goes] + spare[:1]
            else:
                wanted = (kept + [node for node in self.now.control if node not in kept])[: len(self.now.control) - 2]
            assert self.take(lambda now: begin_control(now, wanted)), (self.now.control, wanted)  # noqa: B023
            assert self.take(finish_control)
        assert self.take(lambda now: finish(now, plan.id))
        assert self.now.owners == plan.owners
        assert_fair(self.now.owners, self.now.members)
        assert_apart(self.now)


def change_of(data: st.DataObject, history: History) -> StagedChange:
    numbers = st.integers(1, int(history.now.next_node_id))
    history.arrivals += 1
    arriving = newcomer(history.arrivals, data.draw(LABELS))
    node = NodeId(data.draw(numbers))
    choices: tuple[StagedChange, ...] = (
        arriving,
        arriving,
        Leave(node),
        ForceRemove(node),
        Replace(node, arriving.member),
    )
    return data.draw(st.sampled_from(choices))


def assert_fair(owners: Sequence[NodeId], members: dict[NodeId, Member]) -> None:
    total = sum(member.weight for member in members.values())
    loads = loads_of(owners, members)
    assert sum(loads.values()) == len(owners), "nobody else owns anything"
    for node, member in members.items():
        assert abs(loads[node] * total - len(owners) * member.weight) < total


def assert_apart(metadata: ClusterMetadata) -> None:
    ring = Ring(metadata)
    hosts = len({metadata.members[node].host for node in ring.loads})
    for partition in map(PartitionId, range(ring.partitions)):
        for n in NS:
            held = ring.primaries(partition, n)
            distinct = len({metadata.members[node].host for node in held})
            assert distinct == min(hosts, len(held)), "one host twice although there are enough"


@CASES
@given(data=st.data(), labels=CLUSTERS, partitions=st.sampled_from((16, 16, 32, 64)))
def test_histories_keep_every_promise(data: st.DataObject, labels: list[Label], partitions: int) -> None:
    history = History(founded(labels, partitions))
    for _ in range(data.draw(st.integers(1, 3))):
        for _ in range(data.draw(st.integers(1, 3))):
            change = change_of(data, history)
            history.take(lambda now: stage(now, change))  # noqa: B023
        if data.draw(st.integers(0, 5)) == 0:
            assert history.take(clear_staged)
        if not history.now.staged:
            continue
        plan = propose(history.now)
        assert not history.take(lambda now: commit(now, b"another plan's.."))
        if not history.take(lambda now: commit(now, plan.id)):  # noqa: B023
            raise AssertionError("what is proposed can be committed")
        before = history.before_plan
        ending = data.draw(st.sampled_from(("finish", "finish", "abort", "retreat")))
        if ending != "abort":
            assert history.take(lambda now: advance(now, plan.id))  # noqa: B023
        if ending == "finish":
            history.finish()
            continue
        assert history.take(lambda now: abort(now, plan.id))  # noqa: B023
        if ending == "retreat":
            assert plan_of(history.now).phase is Phase.RETREAT
            assert history.take(lambda now: finish_abort(now, plan.id))  # noqa: B023
        assert (history.now.owners, history.now.members) == (before.owners, before.members)
        assert set(history.now.bans) == {*before.bans, *plan.joining}


def least_moves(owners: Sequence[NodeId], members: dict[NodeId, Member]) -> int:
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
@given(labels=st.lists(LABELS, min_size=2, max_size=8), label=LABELS, goes=st.integers(0, 7), join=st.booleans())
def test_one_that_joins_or_leaves_moves_the_least(labels: list[Label], label: Label, goes: int, join: bool) -> None:
    before = founded(labels, 64)
    history = History(before, thorough=False)
    change = newcomer(100, label) if join else Leave(NodeId(1 + goes % len(labels)))
    for step in (
        lambda now: stage(now, change),
        lambda now: commit(now, propose(now).id),
        lambda now: advance(now, plan_of(now).id),
    ):
        assert history.take(step)
    history.finish()
    after = history.now
    moved, least = moves(before.owners, after.owners), least_moves(before.owners, after.members)
    assert moved == least


@CASES
@given(labels=st.lists(LABELS, min_size=4, max_size=8), label=LABELS)
def test_a_replacement_moves_what_the_replaced_one_had(labels: list[Label], label: Label) -> None:
    before = founded(labels, 64)
    goer = max(before.members.keys() - {*before.control})
    same_weight = (label[0], label[1], before.members[goer].weight)
    after = finished(before, Replace(goer, newcomer(100, same_weight).member))
    heir = before.next_node_id
    assert after.owners == tuple(heir if owner == goer else owner for owner in before.owners)


@CASES
@given(data=st.data(), labels=st.lists(LABELS, min_size=2, max_size=6))
def test_of_two_plans_one_is_committed(data: st.DataObject, labels: list[Label]) -> None:
    history = History(founded(labels, 16))
    while not history.take(lambda now: stage(now, change_of(data, history))):
        pass
    first = propose(history.now).id
    while not history.take(lambda now: stage(now, change_of(data, history))):
        pass
    second = propose(history.now).id
    assert first != second
    order = data.draw(st.permutations((first, second)))
    won = [plan for plan in order if history.take(lambda now: commit(now, plan))]  # noqa: B023
    assert won == [second], "the one that is of what is staged"
