"""Promises: ranges are compared in their turn, evenly, before they are too old, after everything else; what is too old
is told with the reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from leafdb.node.debts import Debts, Masks, bits
from leafdb.node.repair_ages import RepairAges, Slot
from leafdb.node.repair_schedule import AT_ONCE, RepairSchedule
from leafdb.node.shared_ranges import SharedRanges
from leafdb.node.view import ClusterView
from leafdb.types import BucketId, NodeId, PartitionId
from support.clusters import bucket, cluster

ONE, TWO, THREE = NodeId(1), NodeId(2), NodeId(3)
BUCKET = BucketId(256)
DAY_S = 86_400.0
PARTITIONS = 64


class Node:
    """The schedule of one of three nodes, and a world in which debts are worked off when the test says so."""

    def __init__(self, own: NodeId = ONE, age_s: float = DAY_S) -> None:
        self.now = 1_000_000.0
        self.why: dict[NodeId, str] = {}
        self.stored: list[tuple[bytes, bytes | None]] = []
        self.debts = Debts(lambda _: None)
        self.ages = RepairAges(lambda _: None)
        self.begun: list[tuple[float, Slot, int]] = []
        view = ClusterView()
        view.install(own, cluster(3, partitions=PARTITIONS).create_bucket(bucket()))
        self.schedule = RepairSchedule(
            ages=self.ages, shared=SharedRanges(view), debts=self.debts, self_id=lambda: own,
            name_of=lambda node: f"n{node}", owe=self.owe, why=lambda peer: self.why.get(peer, ""),
            write=self.stored.extend, now=lambda: self.now, now_ms=lambda: int(self.now * 1000), age_max_s=age_s,
        )  # fmt: skip

    def owe(self, masks: Masks) -> None:
        self.debts.add(masks)
        self.begun += [(self.now, slot, partition) for slot, mask in masks.items() for partition in bits(mask)]

    def work(self, peers: tuple[NodeId, ...] = (TWO, THREE)) -> None:
        """Everything that is owed to these is exchanged."""
        for (peer, number), mask in self.debts.all().items():
            for partition in bits(mask) if peer in peers else ():
                claim = self.debts.claim(peer, number, PartitionId(partition))
                self.debts.settle(claim)
                self.debts.release(claim)
                self.prove(peer, partition)

    def prove(self, peer: NodeId, partition: int) -> None:
        self.ages.proved((peer, BUCKET), 1 << partition, int(self.now * 1000))

    def pass_time(self, seconds: float, each: Callable[[], None] = lambda: None) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += self.schedule.tick()
            self.ages.check()
            each()


class Others:
    """The two peers, who begin their half of what they share with the node."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def __call__(self) -> None:
        node = self.node
        node.work()
        due_ms = int((node.now - DAY_S / 2) * 1000)
        for (peer, _), mask in node.ages.older_than(due_ms).items():
            for partition in bits(mask):
                if partition % 2:  # the peer has the higher number
                    node.prove(peer, partition)


def test_no_range_grows_older_than_is_promised_and_the_load_is_even() -> None:
    node = Node()
    oldest = 0.0

    def each() -> None:
        nonlocal oldest
        oldest = max(oldest, node.schedule.oldest_s())
        others()

    others = Others(node)
    node.pass_time(5 * DAY_S, each)
    assert 0.4 * DAY_S < oldest < 0.95 * DAY_S
    assert node.schedule.too_old() == []
    mine = {(slot, partition) for _, slot, partition in node.begun}
    assert mine == {((peer, BUCKET), partition) for peer in (TWO, THREE) for partition in range(0, PARTITIONS, 2)}
    assert 5 * len(mine) <= len(node.begun) <= 9 * len(mine), "a little more often than it must be"
    for hour in range(24, 120):
        begin = 1_000_000.0 + 3_600 * hour
        assert sum(begin <= at < begin + 3_600 for at, _, _ in node.begun) <= 8, "no herd"


def test_one_alone_keeps_the_promise_when_the_others_do_not_begin_theirs() -> None:
    node = Node()
    node.pass_time(4 * DAY_S, node.work)
    assert {partition for _, _, partition in node.begun} == set(range(PARTITIONS))
    assert node.schedule.oldest_s() < 1.1 * DAY_S


def test_what_was_compared_for_another_reason_is_not_compared_again_soon() -> None:
    node = Node()

    def prove_all() -> None:
        for peer in (TWO, THREE):
            for partition in range(PARTITIONS):
                node.prove(peer, partition)

    node.pass_time(3 * DAY_S, prove_all)
    assert node.begun == []


def test_nothing_is_begun_while_something_else_can_be_worked_off() -> None:
    node = Node()
    node.pass_time(0.5 * DAY_S)
    begun = len(node.begun)
    assert 0 < begun == node.schedule.pending == AT_ONCE, "and not too much at once"
    node.work()
    node.debts.add({(TWO, BUCKET): 1 << PARTITIONS - 1})
    node.pass_time(0.2 * DAY_S)
    assert len(node.begun) == begun
    node.why[TWO] = "it cannot be reached"
    node.pass_time(0.1 * DAY_S)
    assert {slot for _, slot, _ in node.begun[begun:]} == {(THREE, BUCKET)}, "who is away holds up nobody"


def test_debts_of_its_own_are_told_from_those_that_have_a_reason() -> None:
    node = Node()
    node.pass_time(0.5 * DAY_S)
    assert node.debts.pending == node.schedule.pending == AT_ONCE
    _, slot, partition = node.begun[0]
    node.schedule.taken_over({slot: 1 << partition})
    assert (node.debts.pending, node.schedule.pending) == (AT_ONCE, AT_ONCE - 1)
    node.work()
    assert node.schedule.pending == 0


def test_what_is_too_old_is_told_with_the_peer_and_the_reason() -> None:
    node = Node()
    node.why[THREE] = "it cannot be reached"
    node.pass_time(2.5 * DAY_S, lambda: node.work((TWO,)))
    (line,) = node.schedule.too_old()
    assert (line.peer, line.ranges, line.why) == (THREE, PARTITIONS, "it cannot be reached")
    assert node.schedule.problems() == [
        "64 ranges shared with n3 were last compared 2d ago, 1d is promised: it cannot be reached"
    ]
    assert node.schedule.report()["over_age"][0]["ranges"] == PARTITIONS


def test_a_pause_stops_it_is_told_and_outlives_a_restart() -> None:
    node = Node()
    node.schedule.pause(True)
    node.pass_time(1.5 * DAY_S)
    assert node.begun == []
    assert {line.why for line in node.schedule.too_old()} == {"the schedule is paused"}
    key, value = node.stored[-1]
    assert key == b"\x11"
    assert value is not None
    again = Node()
    again.schedule.load(value)
    assert again.schedule.paused
    again.schedule.pause(False)
    again.pass_time(1.0 * DAY_S, again.work)
    assert again.begun


def test_another_age_is_kept_over_a_restart_and_has_bounds() -> None:
    node = Node()
    node.schedule.set_age(3_600)
    for wrong in (1, 10**9):
        with pytest.raises(ValueError, match="between 1m and 90d"):
            node.schedule.set_age(wrong)
    assert node.schedule.age_max_s == 3_600
    value = node.stored[-1][1]
    assert value is not None
    again = Node()
    again.schedule.load(value)
    assert again.schedule.age_max_s == 3_600
    again.pass_time(4 * 3_600.0, again.work)
    assert again.schedule.oldest_s() < 1.1 * 3_600
    again.schedule.set_age(0)
    assert again.schedule.age_max_s == DAY_S
