"""The checker of histories accepts what the cluster may say and rejects what it must not."""

from __future__ import annotations

import pytest

from leafdb.model.actor import ActorIdentity
from leafdb.model.clock import EMPTY, CausalClock, Dot
from leafdb.model.context import ContextSealer
from leafdb.model.key import encode_key
from leafdb.model.record import Record, Sibling, encode
from leafdb.testing.final_record import check_final
from leafdb.testing.history import History
from leafdb.testing.history_values import Write
from leafdb.testing.scan_history import ScanWatch
from leafdb.testing.violation import Invariant, Violation
from leafdb.types import BucketId, Conflict, NodeId
from leafdb.wire.requests import GetReply, PutReply, SiblingReply

A = ActorIdentity(0, NodeId(1), 1).actor(1)
B = ActorIdentity(0, NodeId(2), 1).actor(1)
KEY = "k"
SEALER = ContextSealer(bytes(16))


def sealed(*dots: Dot, clock: CausalClock | None = None, stamp_ms: int = 0) -> bytes:
    """Of what covers more, with a greater stamp."""
    of = CausalClock(dict(dots)) if clock is None else clock
    stamp = (stamp_ms << 16) + sum(counter for _, counter in (*of.vector.items(), *of.cloud))
    return SEALER.seal(of, stamp, BucketId(256), encode_key(KEY))


def put(
    history: History,
    dot: Dot,
    *after: Dot,
    delete: bool = False,
    primaries: int = 2,
    acks: int | None = None,
    ttl_ms: int = 0,
    key: str = KEY,
) -> Write:
    """An acknowledged write."""
    write = history.begin_write(key, delete=delete, context=sealed(*after) if after else None, ttl_ms=ttl_ms)
    ack(history, write, dot, primaries=primaries, acks=acks)
    return write


def ack(history: History, write: Write, dot: Dot, *, primaries: int = 2, acks: int | None = None) -> None:
    context = sealed(clock=write.context.add(dot))
    history.acked(write, PutReply(1, primaries if acks is None else acks, primaries, context))


def reply(clock: CausalClock, *shown: tuple[Write, Dot], stamp_ms: int = 1) -> GetReply:
    siblings = tuple(SiblingReply(dot[0], dot[1], stamp_ms << 16, write.value or b"") for write, dot in shown)
    return GetReply(1, sealed(clock=clock, stamp_ms=stamp_ms), siblings)


def read(history: History, clock: CausalClock, *shown: tuple[Write, Dot], stamp_ms: int = 1) -> None:
    """A quorum read that begins and ends now."""
    history.read(KEY, history.begin_read(KEY), reply(clock, *shown, stamp_ms=stamp_ms))


def record(clock: CausalClock, *present: tuple[Write, Dot], stamp_ms: int = 1) -> bytes:
    siblings = {
        dot: Sibling(stamp_ms << 16, 5 if write.ttl_ms else 0, write.op_id, write.value) for write, dot in present
    }
    return encode(Record(clock, siblings))


def clock(*newest: Dot) -> CausalClock:
    """All dots of these actors up to these."""
    return CausalClock(dict(newest))


def broken(invariant: Invariant) -> pytest.RaisesExc[Violation]:
    return pytest.raises(Violation, check=lambda error: error.invariant is invariant and error.key == KEY)


# -- what is allowed


def test_siblings_that_are_resolved_and_deleted_are_accepted() -> None:
    history = History()
    one = put(history, (A, 1))
    two = put(history, (B, 1))
    read(history, clock((A, 1), (B, 1)), (one, (A, 1)), (two, (B, 1)))
    three = put(history, (A, 2), (A, 1), (B, 1))
    read(history, clock((A, 2), (B, 1)), (three, (A, 2)))
    four = put(history, (B, 2), (A, 2), (B, 1), delete=True)
    read(history, clock((A, 2), (B, 2)))
    check_final(history, KEY, record(clock((A, 2), (B, 2)), (four, (B, 2))))
    history.check_honest()


def test_a_write_of_unknown_outcome_may_be_there_or_not_and_may_cover_others() -> None:
    for applied in (True, False):
        history = History()
        one = put(history, (A, 1))
        lost = history.begin_write(KEY, context=sealed((A, 1)))
        history.failed(lost, "unknown", "Severed")
        final = ((lost, (B, 1)),) if applied else ((one, (A, 1)),)
        check_final(history, KEY, record(clock((A, 1), (B, 1)) if applied else clock((A, 1)), *final))


def test_a_read_that_began_before_a_write_ended_may_miss_it() -> None:
    history = History()
    one = put(history, (A, 1))
    known = history.begin_read(KEY)
    put(history, (B, 1), (A, 1))
    history.read(KEY, known, reply(clock((A, 1)), (one, (A, 1))))


def test_a_read_promises_nothing_where_quorums_do_not_overlap() -> None:
    history = History()
    put(history, (A, 1), primaries=1)
    read(history, EMPTY)
    put(history, (A, 2), (A, 1))
    history.read(KEY, history.begin_read(KEY, 1), reply(EMPTY))
    history.read(KEY, None, reply(EMPTY))


def test_a_write_that_was_sent_twice_may_have_two_dots() -> None:
    history = History()
    write = history.begin_write(KEY, context=None)
    history.failed(write, "unknown", "Severed")
    history.again(write)
    ack(history, write, (B, 1))
    read(history, clock((A, 1), (B, 1)), (write, (A, 1)))
    check_final(history, KEY, record(clock((A, 1), (B, 1)), (write, (A, 1)), (write, (B, 1))))


def test_what_only_lost_stores_acknowledged_may_be_lost() -> None:
    history = History()
    history.stores_lost = 1
    put(history, (A, 1), primaries=1)
    check_final(history, KEY, None)


# -- what is not


def test_a_dot_that_names_two_writes_is_i1() -> None:
    history = History()
    put(history, (A, 1))
    with broken(Invariant.DOTS_UNIQUE):
        put(history, (A, 1))


def test_an_acknowledged_write_that_is_nowhere_is_i2() -> None:
    history = History()
    put(history, (A, 1))
    with broken(Invariant.NOTHING_LOST):
        check_final(history, KEY, None)


def test_a_write_that_a_record_knows_and_does_not_show_is_i2_in_reads_and_at_the_end() -> None:
    history = History()
    put(history, (A, 1))
    two = put(history, (B, 1))
    with broken(Invariant.NOTHING_LOST):
        read(history, clock((A, 1), (B, 1)), (two, (B, 1)))
    with broken(Invariant.NOTHING_LOST):
        check_final(history, KEY, record(clock((A, 1), (B, 1)), (two, (B, 1))))


def test_a_returned_context_that_covers_what_its_writer_has_not_seen_is_i2() -> None:
    history = History()
    put(history, (A, 1))
    write = history.begin_write(KEY, context=None)
    with broken(Invariant.NOTHING_LOST):
        history.acked(write, PutReply(1, 2, 2, sealed((A, 2))))


def test_a_covered_write_that_is_only_said_to_be_covered_by_a_refused_one_is_i2() -> None:
    history = History()
    put(history, (A, 1))
    refused = history.begin_write(KEY, context=sealed((A, 1)), delete=True)
    history.failed(refused, "not_applied", "not_enough_replicas")
    with broken(Invariant.NOTHING_LOST):
        check_final(history, KEY, record(clock((A, 1))))


def test_a_deleted_value_that_is_back_is_i6_and_one_replaced_i5() -> None:
    for delete, invariant in ((True, Invariant.DELETIONS_STAY), (False, Invariant.NO_FALSE_SIBLINGS)):
        history = History()
        one = put(history, (A, 1))
        two = put(history, (B, 1), (A, 1), delete=delete)
        shown = ((one, (A, 1)),) if delete else ((one, (A, 1)), (two, (B, 1)))
        with broken(invariant):
            read(history, clock((A, 1), (B, 1)), *shown)
        with broken(invariant):
            check_final(history, KEY, record(clock((A, 1), (B, 1)), (one, (A, 1)), (two, (B, 1))))


def test_a_write_with_two_dots_that_was_sent_once_is_i5() -> None:
    history = History()
    write = put(history, (A, 1))
    with broken(Invariant.NO_FALSE_SIBLINGS):
        read(history, clock((A, 1), (B, 1)), (write, (B, 1)))


def test_a_write_that_was_sent_twice_and_is_shown_twice_is_i5() -> None:
    history = History()
    write = history.begin_write(KEY, context=None)
    history.failed(write, "unknown", "Severed")
    history.again(write)
    ack(history, write, (B, 1))
    with broken(Invariant.NO_FALSE_SIBLINGS):
        read(history, clock((A, 1), (B, 1)), (write, (A, 1)), (write, (B, 1)))


def test_a_store_that_forgot_more_than_it_may_is_i7() -> None:
    history = History()
    history.stores_lost = 1
    put(history, (A, 1), primaries=1, acks=2)
    with broken(Invariant.SURVIVES_STORES):
        check_final(history, KEY, None)


def test_a_quorum_read_that_misses_an_acknowledged_write_or_an_earlier_read_is_i8() -> None:
    history = History()
    put(history, (A, 1))
    with broken(Invariant.READS_MONOTONIC):
        read(history, EMPTY)
    history = History()
    lost = history.begin_write(KEY, context=None)
    read(history, clock((A, 1)), (lost, (A, 1)))
    with broken(Invariant.READS_MONOTONIC):
        read(history, EMPTY)


def test_overlap_is_counted_for_each_read_and_write() -> None:
    history = History(5)
    put(history, (A, 1), primaries=5)
    with broken(Invariant.READS_MONOTONIC):
        history.read(KEY, history.begin_read(KEY, 1), reply(EMPTY))
    history = History(5)
    put(history, (A, 1), primaries=2)
    history.read(KEY, history.begin_read(KEY, 3), reply(EMPTY))
    with broken(Invariant.READS_MONOTONIC):
        history.read(KEY, history.begin_read(KEY, 4), reply(EMPTY))


def test_what_was_refused_or_never_written_is_i10() -> None:
    history = History()
    write = history.begin_write(KEY, context=None)
    read(history, clock((A, 1)), (write, (A, 1)))
    history.failed(write, "not_applied", "overloaded")
    with broken(Invariant.HONEST_OUTCOMES):
        history.check_honest()
    with broken(Invariant.HONEST_OUTCOMES):
        check_final(history, KEY, record(clock((A, 1)), (write, (A, 1))))
    stranger = Write(KEY, bytes(16), b"never", EMPTY)
    with broken(Invariant.HONEST_OUTCOMES):
        read(history, clock((B, 1)), (stranger, (B, 1)))
    with broken(Invariant.HONEST_OUTCOMES):
        check_final(history, KEY, record(clock((B, 1)), (stranger, (B, 1))))


def test_an_expired_value_that_is_shown_too_late_is_i6() -> None:
    history = History()
    history.expiry_slack_ms = 10
    write = history.begin_write(KEY, context=None, ttl_ms=100)
    history.acked(write, PutReply(1, 2, 2, sealed((A, 1))), 1_000)
    answer = reply(clock((A, 1)), (write, (A, 1)))
    history.read(KEY, history.begin_read(KEY, now_ms=1_110), answer)
    with broken(Invariant.DELETIONS_STAY):
        history.read(KEY, history.begin_read(KEY, now_ms=1_111), answer)


# -- lww


def test_in_an_lww_bucket_an_acknowledged_write_may_lose_without_a_trace() -> None:
    history = History(conflict=Conflict.LWW)
    put(history, (A, 1))
    two = put(history, (B, 1))
    read(history, clock((A, 1), (B, 1)), (two, (B, 1)))
    check_final(history, KEY, record(clock((A, 1), (B, 1)), (two, (B, 1))))


def test_in_an_lww_bucket_nobody_loses_to_an_older_write() -> None:
    history = History(conflict=Conflict.LWW)
    one = put(history, (A, 1))
    put(history, (A, 2))
    with broken(Invariant.NOTHING_LOST):
        read(history, clock((A, 2)), (one, (A, 1)))
    with broken(Invariant.NOTHING_LOST):
        check_final(history, KEY, record(clock((A, 2)), (one, (A, 1))))
    other = put(history, (B, 1))
    read(history, clock((A, 2), (B, 1)), (other, (B, 1)), stamp_ms=9)
    newest = put(history, (A, 3))
    with broken(Invariant.READS_MONOTONIC):
        read(history, clock((A, 3), (B, 1)), (newest, (A, 3)), stamp_ms=8)
    with broken(Invariant.NOTHING_LOST):
        check_final(history, KEY, record(clock((A, 3), (B, 1)), (newest, (A, 3)), stamp_ms=8))


def test_in_an_lww_bucket_something_is_left_and_one_thing_only() -> None:
    history = History(conflict=Conflict.LWW)
    one, two = put(history, (A, 1)), put(history, (B, 1))
    both = clock((A, 1), (B, 1))
    with broken(Invariant.NOTHING_LOST):
        read(history, both)
    with broken(Invariant.NOTHING_LOST):
        check_final(history, KEY, record(both))
    with broken(Invariant.NO_FALSE_SIBLINGS):
        check_final(history, KEY, record(both, (one, (A, 1)), (two, (B, 1))))


# -- scans


def test_a_scan_owes_what_was_there_all_the_while_and_nothing_else() -> None:
    history = History()
    put(history, (A, 1), key="there")
    put(history, (A, 1), key="one copy", primaries=1)
    put(history, (A, 1), key="deleted")
    put(history, (A, 2), (A, 1), key="deleted", delete=True)
    put(history, (A, 1), key="expiring", ttl_ms=100)
    put(history, (A, 1), key="replaced")
    put(history, (A, 2), (A, 1), key="replaced")
    put(history, (A, 1), key="outside")
    watch = ScanWatch(history, lambda key: key != "outside")
    put(history, (A, 1), key="late")
    assert watch.owed() == ["replaced", "there"]
    watch.check(["replaced", "there", "late"])
    with pytest.raises(Violation, match="there all the while"):
        watch.check(["replaced"])
    deletion = history.begin_write("there", delete=True, context=sealed((A, 1)))
    history.failed(deletion, "unknown", "Severed")
    assert watch.owed() == ["replaced"]


# -- stamps


def test_a_write_that_is_not_newer_than_what_its_writer_was_shown_is_rejected() -> None:
    history = History()
    write = history.begin_write(KEY, context=sealed((A, 1), stamp_ms=3))
    with broken(Invariant.CAUSAL_STAMPS):
        history.acked(write, PutReply(1, 2, 2, sealed((A, 2), stamp_ms=2)))
    with broken(Invariant.CAUSAL_STAMPS):
        check_final(history, KEY, record(clock((A, 2)), (write, (A, 2)), stamp_ms=3))
    check_final(history, KEY, record(clock((A, 2)), (write, (A, 2)), stamp_ms=4))


def test_a_read_whose_context_is_older_than_what_it_shows_is_rejected() -> None:
    history = History()
    one = put(history, (A, 1))
    shown = (SiblingReply(A, 1, 5 << 16, one.value or b""),)
    with broken(Invariant.CAUSAL_STAMPS):
        history.read(KEY, None, GetReply(1, sealed((A, 1), stamp_ms=4), shown))


def test_a_read_whose_context_is_older_than_a_deletion_it_covers_is_rejected() -> None:
    history = History()
    write = history.begin_write(KEY, context=sealed((A, 1)), delete=True)
    history.acked(write, PutReply(1, 2, 2, sealed((A, 2), stamp_ms=5)))
    history.read(KEY, None, GetReply(1, sealed((A, 1)), ()))
    with broken(Invariant.CAUSAL_STAMPS):
        history.read(KEY, None, GetReply(1, sealed((A, 2), stamp_ms=4), ()))
