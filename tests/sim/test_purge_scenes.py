"""Promises (I2, I6): what the histories of the purge model have found, each played once and alone, in its own order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

import pytest

from leafdb.sim.heap import Heap
from leafdb.sim.purge_node import PurgeNode, hint_of
from leafdb.sim.purge_run import PurgeHistory
from leafdb.sim.purge_traffic import UNSEEN, Reach

KEY, OTHER_KEY = 0, 1


def histories() -> Iterator[PurgeHistory]:
    """Some with three owners, a stand-in, and disks that are synced."""
    for number in range(200):
        history = PurgeHistory(Heap(), f"scene/{number}")
        if len(history.world.members) > 3 and not history.world.periodic:
            history.world.weather = 0.0
            yield history


@pytest.fixture
def history() -> PurgeHistory:
    return next(histories())


def owners(history: PurgeHistory) -> list[PurgeNode]:
    return history.world.owners_now()


def forget(history: PurgeHistory) -> None:
    """A horizon is proved over all there is, and what is dead below it goes at every owner."""
    history.calm.settle()
    history.world.step += 5
    history.world.begin_proof(owners(history)[0])
    while history.world.proof is not None and not history.world.proof.over:
        history.traffic.proof()
        history.calm.drain()
    for node in owners(history):
        node.learn(history.world.horizon)
        node.sweep()


def test_a_stand_in_that_has_not_heard_of_the_horizon_shows_nobody_what_was_deleted(history: PurgeHistory) -> None:
    first, second, third = owners(history)
    history.faults.down(third)
    history.traffic.put(first, KEY, UNSEEN, False, 0, 1, Reach.LATE)
    history.world.start(third)
    history.calm.settle()
    history.traffic.put(first, KEY, history.traffic.shown(KEY, first), True, 0, 2, Reach.ALL)
    forget(history)
    assert first.record(KEY) is None
    while history.world.deliver(history.world.late):
        pass
    kept = [(node, record) for node in history.traffic.stand_ins() for _, record in node.hints()]
    assert kept, "no copy has come late to a stand-in"
    for node, record in kept:
        assert not node.horizon
        assert node.answer(record, node.horizon, owner=False) is not None
        assert node.answer(record, history.world.named([node, first, second]), owner=False) is None


def test_who_has_lost_something_loses_nothing_else_for_it() -> None:
    for history, order in zip(histories(), permutations(range(3)), strict=False):
        first, second, third = (owners(history)[at] for at in order)
        for key in (KEY, OTHER_KEY):
            history.traffic.put(first, key, UNSEEN, False, 0, 1, Reach.ALL)
        forget(history)
        for node, key in ((first, KEY), (second, OTHER_KEY), (third, OTHER_KEY)):
            history.faults.lose(node, key)
        history.calm.settle()
        for node in owners(history):
            assert node.complete
            assert node.record(KEY) is not None
            assert node.record(OTHER_KEY) is not None


def test_who_has_lost_something_is_incomplete_until_it_has_met_everybody(history: PurgeHistory) -> None:
    first, second, third = owners(history)
    history.traffic.put(first, KEY, UNSEEN, False, 0, 1, Reach.ALL)
    forget(history)
    history.faults.lose(first, KEY)
    for other, complete in ((second, False), (third, True)):
        first.exchanged.discard(other.id)
        history.world.exchange(first, other)
        history.calm.drain()
        assert first.record(KEY) is not None
        assert first.vouches
        assert first.complete is complete


def test_a_copy_that_moved_is_lost_with_the_disk_it_moved_to(history: PurgeHistory) -> None:
    holder, heir = history.traffic.stand_ins()[0], owners(history)[1]
    history.traffic.put(holder, KEY, UNSEEN, False, 0, 1, Reach.NONE, target=owners(history)[0])
    (write,) = history.oracle.writes
    assert write.acked
    history.traffic.move_hints(holder, heir)
    assert hint_of(KEY, owners(history)[0].id) in holder.store.synced
    history.faults.wipe(heir)
    assert write.lost


def test_a_copy_given_up_for_one_that_was_lost_unnoticed_is_lost(history: PurgeHistory) -> None:
    holder, target = history.traffic.stand_ins()[0], owners(history)[0]
    history.traffic.put(holder, KEY, UNSEEN, False, 0, 1, Reach.NONE, target=target)
    (write,) = history.oracle.writes
    history.traffic.hand_over(holder)
    history.world.deliver(history.world.mail)
    assert target.record(KEY) is not None
    history.faults.lose(target, KEY)
    assert not write.lost
    history.calm.drain()
    assert not holder.hints()
    assert write.lost


def test_no_horizon_rises_below_what_somebody_has_vouched_for_already(history: PurgeHistory) -> None:
    """Seed 9011, history 422: a proof with a fast clock came to nothing, but one owner had its mark. A deletion after
    that was older than the mark, by a slow clock; so was the next horizon. An old copy of that owner's disk had the
    mark and not the deletion, was believed, and gave back what had been deleted."""
    first, second, third = owners(history)
    for node in owners(history):
        node.skew_ms = 0
    history.traffic.put(first, KEY, UNSEEN, False, 0, 2, Reach.ALL)
    history.calm.settle()
    early = first.stamp() + (3_000 << 16)
    for node in owners(history):
        assert node.begin(99, early)
    assert second.end(99, owner=True)
    third.start()  # it forgets what it promised, and the proof comes to nothing
    history.faults.sync_all()
    history.faults.back_up_all()
    history.traffic.put(third, KEY, history.traffic.shown(KEY, third), True, 0, 1, Reach.ALL)
    history.calm.settle()
    assert history.oracle.writes[-1].stamp < early
    history.world.step += 5
    assert not second.begin(100, third.stamp()), "a horizon below the mark"
    history.world.step += 1_000  # clocks pass it
    forget(history)
    assert history.world.horizon > early
    assert second.record(KEY) is None
    history.faults.restore(second)
    history.world.start(second)
    assert second.record(KEY) is not None
    assert not second.vouches, "its old mark is below the horizon"
    history.calm.settle()
    assert second.record(KEY) is None
