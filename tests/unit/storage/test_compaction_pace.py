"""Compaction gives way while requests wait longer beside it than without it, and not when it is behind."""

from __future__ import annotations

import os
import select
from dataclasses import replace
from random import Random

import pytest

from leafdb.storage.compaction_pace import JUDGED_S, SHARE_MIN, WAITS_MIN, CompactionPace, Rests, Waits
from leafdb.storage.compaction_picker import PickerLimits
from leafdb.storage.jobs import CompactionJob, FlushJob, Job
from leafdb.storage.worker import Worker
from leafdb.storage.worker_protocol import encode_pace, encode_request
from leafdb.vfs.memory import MemoryFileSystem
from support.store import SMALL, Store
from support.store import TREE as ENGINE_TREE
from support.tables import TREE, store, write_segment, write_table

USUAL_S = 0.004


class Story:
    """Waits of one kind, drawn from a stretched distribution, and judgements of them as they come due."""

    def __init__(self) -> None:
        self.now_s = 50.0
        self.told: list[float] = []
        self.pace = CompactionPace(self.told.append)
        self._rng = Random(5)

    def pass_time(self, judgements: int, fullness: float | None, *, slower: float = 1.0, waits: int = 40) -> float:
        """The share after so many judgements, waits being so much longer than usual."""
        for _ in range(judgements):
            self.pace.on_time(self.now_s, fullness)
            for _ in range(waits):
                self.pace.committed(slower * USUAL_S * self._rng.uniform(0.2, 1.0))
                self.pace.woken(slower * USUAL_S * self._rng.uniform(0.0, 0.5))
            self.now_s += JUDGED_S
        self.pace.on_time(self.now_s, fullness)
        self.pace.check()
        return self.pace.share


def test_waits_that_are_as_without_it_cost_it_nothing() -> None:
    story = Story()
    story.pass_time(50, None)
    assert story.told == [], "nothing is compacted"
    assert story.pass_time(200, 1.0) == 1.0
    assert set(story.told) == {1.0}


def test_it_gives_way_to_longer_waits_down_to_the_least_and_comes_back() -> None:
    story = Story()
    story.pass_time(50, None)
    assert story.pass_time(2, 1.0, slower=3.0) == 0.25
    assert story.pass_time(3, 1.0, slower=3.0) == SHARE_MIN
    assert story.told[-1] == SHARE_MIN
    assert story.pass_time(12, 1.0) == 1.0


@pytest.mark.parametrize("kind", ["committed", "woken"])
def test_one_kind_of_wait_is_not_hidden_by_the_other(kind: str) -> None:
    story = Story()
    story.pass_time(50, None)
    for longer, share in ((3, 1.0), (10, 0.5)):
        story.pace.on_time(story.now_s, 1.0)
        for _ in range(100):
            story.pace.committed(0.001)
            story.pace.woken(0.000_1)
        for _ in range(longer):
            getattr(story.pace, kind)(0.05)
        story.now_s += JUDGED_S
        story.pace.on_time(story.now_s, 1.0)
        assert story.pace.share == share


def test_what_is_behind_is_not_held_up() -> None:
    story = Story()
    story.pass_time(50, None)
    assert story.pass_time(3, 1.5, slower=3.0) == pytest.approx(0.55)
    assert story.pass_time(1, 2.0, slower=3.0) == 1.0
    assert story.pass_time(1, 9.0, slower=3.0) == 1.0
    assert story.pass_time(1, 1.0, slower=3.0) == SHARE_MIN, "what requests leave is remembered beneath"


def test_a_load_that_grew_meanwhile_is_not_taken_for_the_compactions_doing_for_ever() -> None:
    story = Story()
    story.pass_time(50, None)
    assert story.pass_time(5, 1.0, slower=3.0) == SHARE_MIN
    assert story.pass_time(60, 1.0, slower=3.0) > SHARE_MIN
    assert story.pace.commits.usual_s > 2 * USUAL_S


def test_few_waits_are_waited_for_and_one_of_them_is_no_verdict() -> None:
    story = Story()
    story.pass_time(1, 1.0, waits=0)
    for _ in range(WAITS_MIN - 2):
        story.pace.committed(0.001)
    story.pace.committed(9.0)
    story.pace.on_time(story.now_s + JUDGED_S, 1.0)
    assert story.told == [1.0], "not judged yet"
    story.pace.woken(0.0)
    story.pace.on_time(story.now_s + JUDGED_S, 1.0)
    assert story.told == [1.0, 1.0]


def test_a_quantile_is_followed_up_and_down() -> None:
    waits, rng = Waits(), Random(1)
    for scale_s in (0.1, 0.001):
        for _ in range(4_000):
            waits.follow(rng.uniform(0.0, scale_s))
        assert waits.usual_s == pytest.approx(0.95 * scale_s, rel=0.2)
    for _ in range(10_000):
        waits.follow(0.0)
    assert waits.usual_s > 0.0, "it can grow again"


def test_an_engine_listens_while_it_compacts_and_tells_its_share() -> None:
    engine_store = Store(config=replace(SMALL, compaction=PickerLimits(level0_tables=4)))
    engine = engine_store.engine
    engine.create_tree(ENGINE_TREE)
    for number in range(4):
        engine_store.put(b"%d" % number, b"v")
        engine.flush_soon()
        while engine.stats().flushes <= number:
            engine_store.commit()
            engine_store.jobs.step()
    engine_store.elapse(0.0)
    assert engine.survey().compacting is not None
    assert engine.deadline() <= engine_store.now_s + JUDGED_S
    for _ in range(WAITS_MIN):
        engine.woken_late(1.0)
    engine_store.elapse(JUDGED_S)
    assert engine.stats().compaction_share == 0.5
    for _ in range(WAITS_MIN):
        engine_store.put(b"k", b"v")
        engine.flush_batch()
        engine_store.now_s += 1.0  # which the log has taken
        engine_store.commit()
    engine_store.elapse(JUDGED_S)
    assert engine.stats().compaction_share == 0.25
    engine_store.settle()
    assert engine.survey().compacting is None
    engine.check()


def test_short_compactions_are_judged_together() -> None:
    pace = CompactionPace(lambda share: None)
    now_s = 5.0
    for _ in range(WAITS_MIN // 4):
        pace.on_time(now_s, 1.0)
        for _ in range(4):
            pace.woken(9.0)
        pace.on_time(now_s + JUDGED_S, 1.0)
        pace.on_time(now_s + JUDGED_S, None)
        now_s += 60.0
    assert pace.share == 0.5


# -- the worker keeps to it


def test_a_rest_makes_the_slice_its_share_and_follows_a_new_one() -> None:
    rests = Rests()
    rests.worked(1.0, 1.01)
    assert rests.left_s(1.01) == 0.0
    rests.share = 0.1
    assert rests.left_s(1.01) == pytest.approx(0.09)
    assert rests.left_s(1.05) == pytest.approx(0.05)
    rests.share = 0.5
    assert rests.left_s(1.01) == pytest.approx(0.01)
    assert rests.left_s(1.05) == 0.0
    rests.worked(2.0, 60.0)
    assert rests.left_s(60.0) <= 0.25, "a slice that was kept waiting is not paid for in full"


class Machine:
    """A worker on a disk on which each call takes a millisecond, by a clock that only that and rests move."""

    def __init__(self) -> None:
        self.fs = store()
        self.now_s = 0.0
        self.rested_s = 0.0
        self.rests = 0
        self.offers = 0

    def run(self, *requests: bytes, rests_max: int) -> None:
        """Serve the requests until so many rests were taken, or all are answered."""
        reading, writing = os.pipe()
        answers, answering = os.pipe()

        def hang_up() -> None:
            nonlocal writing
            if writing >= 0:
                os.close(writing)
                writing = -1

        def readable(descriptor: int, wait_s: float | None) -> bool:
            if select.select([descriptor], [], [], 0)[0]:
                return True
            if wait_s == 0.0:
                return False
            if wait_s is None or self.rests >= rests_max:
                hang_up()
                return True
            self.rests += 1
            self.rested_s += wait_s
            self.now_s += wait_s
            return False

        try:
            os.write(writing, b"".join(requests))
            self.fs.on_call = lambda kind, path: self._tick()
            Worker(
                self.fs,
                requests=reading,
                answers=answering,
                now_s=lambda: self.now_s,
                readable=readable,
                give_way=self._offer,
            ).serve()
        finally:
            hang_up()
            for descriptor in (reading, answers, answering):
                os.close(descriptor)

    def _tick(self) -> None:
        self.now_s += 0.001

    def _offer(self) -> None:
        self.offers += 1

    @property
    def worked_s(self) -> float:
        return self.now_s - self.rested_s


def merge(fs: MemoryFileSystem) -> Job:
    """A compaction of many slices."""
    rng = Random(3)
    metas = [
        write_table(fs, {rng.randbytes(8): (n, rng.randbytes(1_000)) for n in range(3_000)}, file_number=number)
        for number in (1, 2)
    ]
    return CompactionJob(tree_id=TREE, inputs=tuple(metas), output_level=1, outputs=(3, 4), table_bytes=1 << 18)


def test_a_compaction_takes_its_share_of_the_time() -> None:
    machine = Machine()
    job = merge(machine.fs)
    machine.run(encode_pace(0.25), encode_request(1, job), rests_max=1_000)
    assert machine.fs.exists("tables/0000000003.sst")
    assert machine.rests >= 5
    assert machine.rested_s == pytest.approx(3 * machine.worked_s, rel=0.2)


def test_without_a_pace_nobody_rests_and_a_flush_never_does() -> None:
    machine = Machine()
    path = write_segment(machine.fs, 1, 1, [(TREE, b"%d" % n, b"v") for n in range(5_000)])
    flush = FlushJob(segments=(path,), outputs=((TREE, 7),), upto_lsn=5_000)
    machine.run(encode_request(1, merge(machine.fs)), rests_max=0)
    offers = machine.offers
    assert offers >= 5, "a compaction offers the core after each slice all the same"
    machine.run(encode_pace(0.1), encode_request(2, flush), rests_max=0)
    assert machine.rests == 0
    assert machine.offers >= offers + 5, "a flush does, too"
    assert machine.fs.exists("tables/0000000003.sst")
    assert machine.fs.exists("tables/0000000007.sst")


def test_a_flush_is_done_while_a_compaction_rests() -> None:
    machine = Machine()
    path = write_segment(machine.fs, 1, 1, [(TREE, b"%d" % n, b"v") for n in range(5_000)])
    flush = FlushJob(segments=(path,), outputs=((TREE, 7),), upto_lsn=5_000)
    machine.run(encode_pace(0.1), encode_request(1, merge(machine.fs)), encode_request(2, flush), rests_max=1)
    assert machine.fs.exists("tables/0000000007.sst")
    assert machine.rests == 1
