"""What a history allows where records may be forgotten: absence by right, and nothing that comes back."""

from __future__ import annotations

import pytest

from leafdb.model.actor import ActorIdentity
from leafdb.model.clock import EMPTY, CausalClock, Dot
from leafdb.model.context import ContextSealer
from leafdb.model.key import encode_key
from leafdb.model.purge import NEVER
from leafdb.model.record import Record, Sibling, encode
from leafdb.testing.final_record import check_final
from leafdb.testing.history import History
from leafdb.testing.history_values import Write
from leafdb.testing.session_guarantees import Event, Kind
from leafdb.testing.session_guarantees import check as check_sessions
from leafdb.testing.violation import Invariant, Violation
from leafdb.types import BucketId, Conflict, NodeId
from leafdb.wire.requests import GetReply, PutReply, SiblingReply

A = ActorIdentity(0, NodeId(1), 1).actor(1)
B = ActorIdentity(0, NodeId(2), 1).actor(1)
KEY = "k"
SEALER = ContextSealer(bytes(16))
A1, A2, A3, B1 = (A, 1), (A, 2), (A, 3), (B, 1)


class Story:
    """A history of one key, whose stores are told of every write. Stamps are 10, 20, 30, ... in their order."""

    def __init__(self, conflict: Conflict = Conflict.SIBLINGS) -> None:
        self.history = History(conflict=conflict)
        self.horizon = self.heard = 0
        self.history.forgetting.horizon = lambda key: self.horizon
        self.history.forgetting.heard = lambda key: self.heard
        self.stamps: dict[Dot, int] = {}

    def put(self, dot: Dot, *after: Dot, delete: bool = False, dies: int = 0, primaries: int = 2) -> Write:
        """An acknowledged write; `dies`: when it expires."""
        history, stamp = self.history, 10 * (len(self.stamps) + 1)
        seen = max((self.stamps[each] for each in after), default=0)
        context = self.sealed(CausalClock.from_dots(after), seen) if after else None
        write = history.begin_write(KEY, delete=delete, context=context, ttl_ms=1 if dies else 0)
        self.stamps[dot] = stamp
        history.forgetting.stored(KEY, dot, stamp, dies or (stamp if delete else NEVER), write.op_id)
        sealed = self.sealed(write.context.add(dot), stamp)
        history.acked(write, PutReply(1, primaries, primaries, sealed))
        return write

    def sealed(self, clock: CausalClock, stamp: int) -> bytes:
        return SEALER.seal(clock, stamp, BucketId(256), encode_key(KEY))

    def reply(self, clock: CausalClock, *shown: tuple[Write, Dot]) -> GetReply:
        stamp = max((stamp for dot, stamp in self.stamps.items() if clock.covers(dot)), default=0)
        siblings = (SiblingReply(dot[0], dot[1], self.stamps[dot], write.value or b"") for write, dot in shown)
        return GetReply(1, self.sealed(clock, stamp), tuple(siblings))

    def read(self, clock: CausalClock, *shown: tuple[Write, Dot], promised: bool = True) -> None:
        """A read that begins and ends now."""
        history = self.history
        known = history.begin_read(KEY) if promised else None
        history.read(KEY, known, self.reply(clock, *shown), heard=self.heard)

    def end(self, clock: CausalClock, *present: tuple[Write, Dot]) -> None:
        """The record in the end; none when it knows nothing."""
        siblings = {dot: Sibling(self.stamps[dot], 0, write.op_id, write.value) for write, dot in present}
        check_final(self.history, KEY, encode(Record(clock, siblings)) if clock else None)


def clock(*newest: Dot) -> CausalClock:
    return CausalClock(dict(newest))


def broken(invariant: Invariant) -> pytest.RaisesExc[Violation]:
    return pytest.raises(Violation, check=lambda error: error.invariant is invariant)


# -- gone by right


def test_a_deletion_below_the_horizon_and_what_it_had_covered_may_be_missing() -> None:
    story = Story()
    story.put(A1)
    story.put(A2, A1, delete=True)
    story.read(clock(A2))
    with broken(Invariant.READS_MONOTONIC):
        story.read(EMPTY)
    story.horizon = 20
    with broken(Invariant.READS_MONOTONIC):
        story.read(EMPTY)
    story.horizon = 21
    story.read(EMPTY)
    story.end(EMPTY)


def test_what_nobody_deleted_is_never_gone_by_right() -> None:
    story = Story()
    story.put(A1)
    story.put(B1, delete=True)  # blind: it covers nothing
    story.horizon = 1_000
    with broken(Invariant.READS_MONOTONIC):
        story.read(EMPTY)
    with broken(Invariant.NOTHING_LOST):
        story.end(EMPTY)


def test_an_expired_value_is_gone_with_what_it_had_replaced() -> None:
    story = Story()
    story.put(A1)
    story.put(A2, A1, dies=500)
    story.horizon = 400
    with broken(Invariant.READS_MONOTONIC):
        story.read(EMPTY)
    story.horizon = 501
    story.read(EMPTY)
    story.end(EMPTY)


def test_what_is_gone_with_a_chain_of_writes_is_gone() -> None:
    """The deletion had seen the second value only, and that the first."""
    story = Story()
    story.put(A1)
    story.put(B1, A1)
    story.put(A2, B1, delete=True)
    assert story.history.forgetting.gone(KEY) == EMPTY
    story.horizon = 31
    assert story.history.forgetting.gone(KEY).covers_writes(clock(A2, B1))


def test_a_deletion_that_no_store_was_given_excuses_nothing() -> None:
    story = Story()
    story.put(A1)
    story.history.begin_write(KEY, delete=True, context=story.sealed(clock(A1), 10))
    story.horizon = 1_000
    with broken(Invariant.READS_MONOTONIC):
        story.read(EMPTY)


def test_a_key_that_is_written_anew_shows_the_new_value_alone() -> None:
    story = Story()
    old = story.put(A1)
    story.put(A2, A1, delete=True)
    story.horizon = 21
    new = story.put(B1)
    story.read(clock(B1), (new, B1))
    with broken(Invariant.READS_MONOTONIC):
        story.read(EMPTY)
    with broken(Invariant.DELETIONS_STAY):
        story.read(clock(A1, B1), (old, A1), (new, B1))


def test_a_write_with_a_context_from_before_covers_what_is_forgotten() -> None:
    story = Story()
    story.put(A1)
    story.put(A2, A1, delete=True)
    story.horizon = 21
    new = story.put(B1, A1, A2)
    assert story.history.facts["a write over what was forgotten"] == 1
    story.read(clock(A2, B1), (new, B1))
    story.read(clock(B1), (new, B1))  # what its writer had seen was left out on the way
    story.end(clock(A2, B1), (new, B1))


# -- nothing comes back


def test_what_was_deleted_is_not_read_again_although_the_deletion_is_forgotten() -> None:
    story = Story()
    old = story.put(A1)
    story.put(A2, A1, delete=True)
    story.read(clock(A1), (old, A1), promised=False)  # one that is behind
    story.horizon = 21
    story.read(clock(A1), (old, A1), promised=False)  # the same, of one that has not heard of the horizon
    with broken(Invariant.DELETIONS_STAY):
        story.read(clock(A1), (old, A1))
    story.heard = 20
    story.read(clock(A1), (old, A1), promised=False)
    story.heard = 21
    with broken(Invariant.DELETIONS_STAY):
        story.read(clock(A1), (old, A1), promised=False)


def test_what_fewer_stores_acknowledged_than_were_lost_may_come_undone() -> None:
    story = Story()
    story.history.stores_lost = 1
    old = story.put(A1)
    story.put(A2, A1, delete=True, primaries=1)
    story.horizon = story.heard = 21
    story.read(clock(A1), (old, A1))
    story.end(clock(A1), (old, A1))


def test_in_the_end_nothing_is_back() -> None:
    story = Story()
    old = story.put(A1)
    story.put(A2, A1, delete=True)
    story.horizon = 21
    with broken(Invariant.DELETIONS_STAY):
        story.end(clock(A1), (old, A1))


def test_nothing_is_forgotten_piece_by_piece() -> None:
    """A tombstone that a record knows is there, for as long as something lives beside it."""
    story = Story()
    value = story.put(A1)
    deletion = story.put(B1, delete=True)
    story.horizon = 1_000
    story.end(clock(A1, B1), (value, A1), (deletion, B1))
    story.end(clock(A1), (value, A1))
    with broken(Invariant.NOTHING_LOST):
        story.end(clock(A1, B1), (value, A1))


# -- lww


def test_in_an_lww_bucket_all_that_is_older_is_gone_with_the_newest_that_died() -> None:
    story = Story(Conflict.LWW)
    old = story.put(A1)
    story.put(B1, delete=True)
    story.horizon = 21
    story.read(EMPTY)
    story.end(EMPTY)
    with broken(Invariant.NOTHING_LOST):
        story.read(clock(A1), (old, A1))
    with broken(Invariant.DELETIONS_STAY):
        story.end(clock(A1), (old, A1))


def test_in_an_lww_bucket_what_won_over_the_dead_must_be_there() -> None:
    story = Story(Conflict.LWW)
    story.put(A1, delete=True)
    newest = story.put(B1)
    story.horizon = 1_000
    story.end(clock(B1), (newest, B1))
    with broken(Invariant.NOTHING_LOST):
        story.end(EMPTY)


# -- sessions


def event(story: Story, at: int, known: CausalClock, *shown: Dot) -> Event:
    forgetting = story.history.forgetting
    gone, beaten = forgetting.excused(KEY, known).merge(forgetting.lost(KEY)), forgetting.beaten(KEY, shown)
    return Event("s", Kind.READ, KEY, known, 10 * at, 10 * at + 5, gone=gone, beaten=beaten)


def test_a_session_may_miss_what_was_destroyed_with_the_only_store_that_had_it_below_the_horizon() -> None:
    """Tier cluster, seed 236: one store acknowledged two writes of w=1 and was replaced; a horizon rose, owners vouched
    for it, and the floor was waived."""
    story = Story()
    story.put(A1)
    story.put(A2, A1)
    met = event(story, 1, clock(A2))
    story.history.forgetting.destroyed(KEY, clock(A2), clock(A1))
    story.horizon = 20
    with broken(Invariant.SESSIONS):
        check_sessions([met, event(story, 2, clock(A1), A1)])
    story.horizon = 21
    check_sessions([met, event(story, 2, clock(A1), A1)])
    with broken(Invariant.SESSIONS):  # others have had the first
        check_sessions([met, event(story, 2, EMPTY)])


def test_below_the_horizon_a_session_may_not_miss_what_another_store_has() -> None:
    story = Story()
    story.put(A1)
    met = event(story, 1, clock(A1))
    story.history.forgetting.destroyed(KEY, clock(A1), clock(A1))
    story.horizon = 1_000
    with broken(Invariant.SESSIONS):
        check_sessions([met, event(story, 2, EMPTY)])


def test_a_session_may_lose_what_was_forgotten_and_is_not_shown_what_that_had_replaced() -> None:
    story = Story()
    story.put(A1)
    story.put(A2, A1, delete=True)
    met, early = event(story, 1, clock(A2)), event(story, 2, EMPTY)
    with broken(Invariant.SESSIONS):
        check_sessions([met, early])
    story.horizon = 21
    check_sessions([met, event(story, 3, EMPTY)])
    check_sessions([event(story, 1, clock(A1), A1), met, event(story, 3, EMPTY)])
    with broken(Invariant.SESSIONS):
        check_sessions([met, event(story, 3, clock(A1), A1)])
    check_sessions([event(story, 1, clock(A1), A1), event(story, 2, clock(A1), A1)])
