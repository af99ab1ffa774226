"""The holder's side of handoff, stepped by hand; the target's credits; expiry; the ledger's bounds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import inf
from random import Random
from typing import TypeVar

from leafdb.hints.config import HintsConfig
from leafdb.hints.credits import CreditGrantor
from leafdb.hints.effects import Apply, Drained, Effect, MarkRange, ReadPage, Remove, Send
from leafdb.hints.hint import Kind, encode_key, target_range, version_of, with_record
from leafdb.hints.ledger import Ledger
from leafdb.hints.messages import HintBatch, HintCredits, HintItem, HintsDone, HintsWaiting
from leafdb.hints.schedule import Schedule
from leafdb.types import BucketId, NodeId

T = TypeVar("T")
TARGET, OTHER = NodeId(2), NodeId(3)
CONFIG = HintsConfig()


def only(effects: Iterable[object], kind: type[T]) -> list[T]:
    return [each for each in effects if isinstance(each, kind)]


def batches(effects: Iterable[object]) -> list[HintBatch]:
    return [each.message for each in only(effects, Send) if isinstance(each.message, HintBatch)]


def waits(effects: Iterable[object]) -> list[HintsWaiting]:
    return [each.message for each in only(effects, Send) if isinstance(each.message, HintsWaiting)]


class Tree:
    """A hints tree with its ledger and schedule, and a driver that answers when told."""

    def __init__(self, config: HintsConfig = CONFIG, *, bytes_max: int = 1 << 20) -> None:
        self.items: dict[bytes, bytes] = {}
        self.ledger = Ledger(partitions=256, bytes_max=bytes_max)
        self.schedule = Schedule(config, self.ledger, rng=Random(1))

    def add(
        self, place: int, *, target: NodeId = TARGET, kind: Kind = Kind.FALLBACK, ms: int = 0, record: bytes = b"r"
    ) -> MarkRange | None:
        key = encode_key(target, BucketId(256), (place << 56).to_bytes(8, "big") + b"k")
        new = with_record(self.items.get(key), kind, ms, record)
        mark = self.ledger.admit(key, self.items.get(key), new)
        if mark is None:
            self.items[key] = new
        return mark

    def page(self, effects: Iterable[object], now: float) -> tuple[Effect, ...]:
        [read] = only(effects, ReadPage)
        start, stop = target_range(read.target)
        keys = sorted(key for key in self.items if start <= key < stop and key > (read.after or b""))
        chosen = keys[: read.records_max]
        items = [(key, self.items[key]) for key in chosen]
        return self.schedule.on_page(read.ticket, items, end=chosen == keys, now=now)

    def remove(self, effects: Iterable[object], now: float) -> list[object]:
        happened: list[object] = []
        for removal in only(effects, Remove):
            value: bytes | None = self.items[removal.key]
            if version_of(self.items[removal.key]) == removal.version:
                del self.items[removal.key]
            else:
                value = None
            happened += self.schedule.on_removed(removal.key, value, now)
        self.schedule.check(self.items.items())
        return happened

    def say(self, message: HintCredits | HintsDone, now: float) -> tuple[Effect, ...]:
        effects = self.schedule.on_message(TARGET, message, now)
        self.schedule.check(self.items.items())
        return effects


def test_replay_starts_with_the_session_and_ends_with_nothing_left() -> None:
    tree = Tree()
    for place in range(5):
        tree.add(place)
    assert tree.schedule.deadline() == inf
    effects = tree.schedule.on_session_established(TARGET, 1.0)
    assert [each.records for each in waits(effects)] == [5]
    assert batches(tree.page(effects, 1.0)) == [], "nothing is sent without credits"
    [batch] = batches(tree.say(HintCredits(3), 1.0))
    assert (len(batch.hints), batch.waiting) == (3, 2)
    effects = tree.say(HintsDone(batch.batch), 1.1)
    assert len(only(effects, Remove)) == 3
    tree.remove(effects, 1.1)
    [last] = batches(tree.say(HintCredits(2), 1.2))
    effects = tree.say(HintsDone(last.batch), 1.3)
    assert only(tree.remove(effects, 1.3), Drained) == [Drained(TARGET)]
    assert tree.items == {}
    assert tree.schedule.deadline() == inf


def test_credits_that_come_too_late_are_given_back() -> None:
    """The target had granted more before it knew that this was the last batch. Kept, they would be missing to others
    for as long as the target bears with a holder that sits on its credits."""
    tree = Tree()
    tree.add(0)
    effects = tree.schedule.on_session_established(TARGET, 1.0)
    tree.page(effects, 1.0)
    [batch] = batches(tree.say(HintCredits(1), 1.0))
    tree.remove(tree.say(HintsDone(batch.batch), 1.1), 1.1)
    assert tree.items == {}
    assert [each.records for each in waits(tree.say(HintCredits(64), 1.2))] == [0]
    assert waits(tree.schedule.on_time(9.0)) == []


def test_a_hint_that_comes_after_the_last_batch_is_asked_for_at_once() -> None:
    """What an earlier batch said about more to come was settled by the last one: nobody owes credits any more."""
    tree = Tree(replace(CONFIG, batch_bytes_max=1))
    for place in range(3):
        tree.add(place)
    effects = tree.schedule.on_session_established(TARGET, 1.0)
    while only(effects, ReadPage):
        effects = tree.page(effects, 1.0)
    sent = batches(tree.say(HintCredits(3), 1.0))
    assert [batch.waiting for batch in sent] == [2, 1], "one hint each, two at a time"
    for batch in sent:
        effects = tree.say(HintsDone(batch.batch), 1.2)
        sent += batches(effects)  # the third, of which nothing waits any more
        tree.remove(effects, 1.2)
    assert [batch.waiting for batch in sent] == [2, 1, 0]
    assert tree.items == {}
    tree.add(7)
    tree.schedule.on_added(TARGET, 2.0)
    due = tree.schedule.deadline()
    assert due < 2.5
    assert [each.records for each in waits(tree.schedule.on_time(due))] == [1]


def test_credits_are_given_back_for_the_time_of_a_pause() -> None:
    tree = Tree()
    for place in range(4):
        tree.add(place)
    effects = tree.schedule.on_session_established(TARGET, 1.0)
    tree.page(effects, 1.0)
    [batch] = batches(tree.say(HintCredits(2), 1.0))
    effects = tree.say(HintsDone(batch.batch, refused=(0, 1)), 1.1)
    assert waits(effects) == []
    assert [each.records for each in waits(tree.say(HintCredits(2), 1.2))] == [0], "granted before the refusal"
    due = tree.schedule.deadline()
    assert 1.2 < due < 3.0
    assert [each.records for each in waits(tree.schedule.on_time(due))] == [4], "and asked for again after it"


def test_hint_changed_since_it_was_sent_stays_and_is_sent_again() -> None:
    tree = Tree()
    tree.add(0)
    effects = tree.schedule.on_session_established(TARGET, 1.0)
    tree.page(effects, 1.0)
    [batch] = batches(tree.say(HintCredits(9), 1.0))
    tree.add(0, record=b"newer")
    tree.remove(tree.say(HintsDone(batch.batch), 1.1), 1.1)
    assert len(tree.items) == 1
    due = tree.schedule.deadline()
    assert due <= 1.1 + CONFIG.linger_s
    [again] = batches(tree.page(tree.schedule.on_time(due), due))
    assert again.hints[0].record == b"newer"


def test_unused_credits_are_given_back() -> None:
    tree = Tree()
    tree.add(0)
    tree.page(tree.schedule.on_session_established(TARGET, 1.0), 1.0)
    [batch] = batches(tree.say(HintCredits(50), 1.0))
    effects = tree.remove(tree.say(HintsDone(batch.batch), 1.1), 1.1)
    assert waits(effects) == [HintsWaiting(0, 0)]


def test_refused_hints_stay_and_pauses_grow_until_something_is_taken() -> None:
    tree = Tree()
    tree.add(0)
    now = 1.0
    effects = tree.schedule.on_session_established(TARGET, now)
    pauses = []
    for _ in range(12):
        tree.page(effects, now)
        [batch] = batches(tree.say(HintCredits(9), now))
        tree.say(HintsDone(batch.batch, (0,)), now)
        due = tree.schedule.deadline()
        pauses.append(due - now)
        now = due
        effects = tree.schedule.on_time(now)
    assert CONFIG.backoff_s_min / 2 <= pauses[0] <= CONFIG.backoff_s_min
    assert CONFIG.backoff_s_max / 2 <= pauses[-1] <= CONFIG.backoff_s_max
    assert len(tree.items) == 1


def test_target_that_does_not_answer_is_asked_again_later_and_its_late_answer_changes_nothing() -> None:
    tree = Tree()
    tree.add(0)
    tree.page(tree.schedule.on_session_established(TARGET, 1.0), 1.0)
    [batch] = batches(tree.say(HintCredits(9), 1.0))
    due = tree.schedule.deadline()
    assert due == 1.0 + CONFIG.reply_timeout_s
    assert batches(tree.schedule.on_time(due)) == []
    assert only(tree.say(HintsDone(batch.batch), due), Remove) == []
    assert due < tree.schedule.deadline() <= due + CONFIG.backoff_s_min
    assert len(waits(tree.schedule.on_time(tree.schedule.deadline()))) == 1


def test_lost_session_stops_at_once_and_pages_read_for_it_are_ignored() -> None:
    tree = Tree()
    tree.add(0)
    effects = tree.schedule.on_session_established(TARGET, 1.0)
    tree.say(HintCredits(9), 1.0)
    tree.schedule.on_session_lost(TARGET, 1.1)
    assert tree.page(effects, 1.2) == ()
    assert tree.say(HintCredits(9), 1.2) == ()
    assert tree.schedule.deadline() == inf
    assert (tree.schedule.up(), tree.schedule.in_flight()) == ([], 0)


def test_unreadable_page_is_asked_for_again_later() -> None:
    tree = Tree()
    tree.add(0, kind=Kind.COORDINATOR)
    [read] = only(tree.schedule.on_session_established(TARGET, 1.0), ReadPage)
    assert tree.schedule.on_page_failed(read.ticket, 1.0) == ()
    due = tree.schedule.deadline()
    assert 1.0 < due <= 1.0 + CONFIG.backoff_s_min
    assert len(only(tree.schedule.on_time(due), ReadPage)) == 1

    late_ms = int(CONFIG.age_s_max * 1000) + 10
    [read] = only(tree.schedule.expire(late_ms), ReadPage)
    tree.schedule.on_page_failed(read.ticket, due)
    assert len(only(tree.schedule.expire(late_ms), ReadPage)) == 1, "the pass proved nothing and may begin again"


def test_hints_a_pass_did_not_meet_are_looked_for_again_unhurried() -> None:
    tree = Tree()
    tree.add(0)
    [read] = only(tree.schedule.on_session_established(TARGET, 1.0), ReadPage)
    assert tree.schedule.on_page(read.ticket, [], end=True, now=1.0) == ()
    assert 1.0 + CONFIG.linger_s < tree.schedule.deadline() < inf


def test_batches_keep_within_their_bytes_and_their_number() -> None:
    tree = Tree(replace(CONFIG, batch_bytes_max=100, batches_in_flight_max=2))
    for place in range(9):
        tree.add(place, record=b"x" * (200 if place == 0 else 10))
    tree.page(tree.schedule.on_session_established(TARGET, 1.0), 1.0)
    sent = batches(tree.say(HintCredits(100), 1.0))
    assert [len(each.hints) for each in sent] == [1, 2]
    assert tree.schedule.in_flight() == 3


def test_hint_for_a_node_that_is_up_waits_a_little_for_company() -> None:
    tree = Tree()
    assert tree.schedule.on_session_established(TARGET, 1.0) == ()
    tree.add(0)
    effects = tree.schedule.on_added(TARGET, 1.0)
    tree.page(effects, 1.0)
    [batch] = batches(tree.say(HintCredits(1), 1.0))
    tree.remove(tree.say(HintsDone(batch.batch), 1.0), 1.0)
    tree.add(1)
    assert tree.schedule.on_added(TARGET, 2.0) == ()
    assert tree.schedule.deadline() == 2.0 + CONFIG.linger_s
    assert tree.schedule.on_added(OTHER, 2.0) == (), "a target that is down costs nothing"


def test_expiry_marks_before_it_removes_and_spares_fallback_copies() -> None:
    tree = Tree()
    age_ms = int(CONFIG.age_s_max * 1000)
    tree.add(1, kind=Kind.COORDINATOR, ms=10)
    tree.add(2, kind=Kind.FALLBACK, ms=10)
    tree.add(3, kind=Kind.COORDINATOR, ms=5_000)
    tree.add(4, kind=Kind.COORDINATOR, ms=20, target=OTHER)
    assert tree.schedule.expire(age_ms + 10) == (), "nothing is too old yet"
    effects = tree.schedule.expire(age_ms + 15)
    assert [each.target for each in only(effects, ReadPage)] == [TARGET]
    effects = tree.page(effects, 1.0)
    assert [type(each) for each in effects] == [MarkRange, Remove]
    assert effects[0] == MarkRange(TARGET, BucketId(256), 1)  # type: ignore[arg-type]  # a plain partition number
    assert tree.schedule.expire(age_ms + 15) == (), "one pass at a time"
    tree.remove(effects, 1.0)
    assert len(tree.items) == 3
    assert tree.schedule.expire(age_ms + 20) == (), "the ledger knows better now"
    assert len(only(tree.schedule.expire(age_ms + 5_001), ReadPage)) == 2


def test_overflow_is_refused_before_it_is_written_and_marks_its_range() -> None:
    tree = Tree(bytes_max=200)
    assert tree.add(1, record=b"x" * 100) is None
    assert tree.add(7, record=b"x" * 100) == MarkRange(TARGET, BucketId(256), 7)  # type: ignore[arg-type]  # likewise
    assert tree.add(1, record=b"x" * 90) is None, "what does not grow always fits"
    tree.schedule.check(tree.items.items())
    [summary] = tree.ledger.summaries()
    assert (summary.target, summary.records, summary.fallback_records, summary.oldest_ms) == (TARGET, 1, 1, 0)


ITEM = HintItem(BucketId(256), b"\x00" * 9, b"r")


def test_credits_are_shared_and_come_back_when_merged() -> None:
    grantor = CreditGrantor(replace(CONFIG, credits_max=10))
    assert grantor.on_message(TARGET, HintsWaiting(100, 1), 0.0) == (Send(TARGET, HintCredits(10)),)
    assert grantor.on_message(OTHER, HintsWaiting(3, 1), 0.0) == ()
    batch = HintBatch(1, 90, (ITEM,) * 10)
    assert grantor.on_message(TARGET, batch, 0.1) == (Apply(TARGET, batch),)
    assert grantor.granted == 10
    effects = grantor.on_applied(TARGET, 1, (2,), 0.2)
    assert effects[0] == Send(TARGET, HintsDone(1, (2,)))
    assert sorted(only(effects[1:], Send), key=lambda each: each.to) == [
        Send(TARGET, HintCredits(5)),
        Send(OTHER, HintCredits(3)),
    ]
    grantor.check()


def test_batch_beyond_its_credits_is_refused_whole() -> None:
    grantor = CreditGrantor(CONFIG)
    assert grantor.on_message(TARGET, HintBatch(1, 0, (ITEM, ITEM)), 0.0) == (Send(TARGET, HintsDone(1, (0, 1))),)
    grantor.on_message(TARGET, HintsWaiting(1, 1), 0.0)
    assert grantor.on_message(TARGET, HintBatch(2, 0, (ITEM, ITEM)), 0.0) == (Send(TARGET, HintsDone(2, (0, 1))),)
    assert grantor.on_applied(TARGET, 2, (), 0.0) == ()


def test_idle_credits_are_taken_back_and_asking_anew_renews_them() -> None:
    grantor = CreditGrantor(replace(CONFIG, credits_max=10))
    grantor.on_message(TARGET, HintsWaiting(100, 1), 0.0)
    grantor.on_message(OTHER, HintsWaiting(100, 1), 0.0)
    assert grantor.deadline() == CONFIG.grant_idle_s
    assert grantor.on_time(CONFIG.grant_idle_s) == (Send(OTHER, HintCredits(10)),)
    assert grantor.on_message(OTHER, HintsWaiting(4, 1), 40.0) == (Send(OTHER, HintCredits(4)),)
    grantor.on_message(OTHER, HintsWaiting(0, 0), 41.0)
    assert (grantor.granted, grantor.deadline()) == (0, inf)
    grantor.check()
