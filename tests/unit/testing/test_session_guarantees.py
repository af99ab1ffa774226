"""The checker of session guarantees accepts good histories and rejects each kind of bad one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from leafdb.model.actor import ActorIdentity
from leafdb.model.clock import CausalClock, Dot
from leafdb.testing.session_guarantees import Event, Kind, check
from leafdb.testing.violation import Invariant, Violation
from leafdb.types import NodeId

A = ActorIdentity(0, NodeId(1), 1).actor(1)
B = ActorIdentity(0, NodeId(2), 1).actor(1)


def read(session: str, at: int, *newest: Dot, key: str = "k", began: int = 0) -> Event:
    return Event(session, Kind.READ, key, CausalClock(dict(newest)), began or 10 * at, 10 * at + 5)


def write(session: str, at: int, dot: Dot, key: str = "k", began: int = 0) -> Event:
    clock = CausalClock.from_dots([dot])
    return Event(session, Kind.WRITE, key, clock, began or 10 * at, 10 * at + 5, dot)


def assert_broken(words: str, *events: Event) -> None:
    with pytest.raises(Violation, match=words) as error:
        check(events)
    assert (error.value.invariant, error.value.key) == (Invariant.SESSIONS, "k")


def test_a_good_history_is_accepted() -> None:
    check(
        [
            write("s", 1, (A, 1)),
            read("s", 2, (A, 1)),
            write("t", 3, (B, 1)),
            read("s", 4, (A, 1), (B, 1)),
            write("s", 5, (A, 2)),
            read("t", 6, (A, 2), (B, 1)),
            read("s", 7, (A, 2), (B, 1)),
        ]
    )


def test_a_session_reads_its_own_writes() -> None:
    assert_broken("own writes", write("s", 1, (A, 1)), read("s", 2, (B, 1)))
    check([write("s", 1, (A, 1)), read("t", 2, (B, 1))])


def test_a_session_never_reads_less_than_before() -> None:
    assert_broken("than it has read before", read("s", 1, (A, 2)), read("s", 2, (A, 1)))
    check([read("s", 1, (A, 2)), read("t", 2, (A, 1))])


def test_whoever_sees_a_write_sees_the_earlier_writes_of_its_session() -> None:
    events = write("s", 1, (A, 1)), write("s", 2, (B, 1))
    assert_broken("without its earlier writes", *events, read("t", 3, (B, 1)))
    check([*events, read("t", 3, (A, 1))])


def test_whoever_sees_a_write_sees_what_its_session_had_read() -> None:
    events = read("s", 1, (A, 3)), write("s", 2, (B, 1))
    assert_broken("what that had read", *events, read("t", 3, (A, 2), (B, 1)))
    check([*events, read("t", 3, (A, 3), (B, 1))])


def test_each_session_that_wrote_binds_and_not_only_the_newest() -> None:
    assert_broken(
        "a write of s without its earlier writes",
        write("s", 1, (A, 1)),
        write("s", 2, (B, 1)),
        write("s", 3, (B, 3)),
        write("u", 4, (B, 2)),
        read("t", 5, (B, 2)),
    )


def test_only_what_had_ended_before_comes_before() -> None:
    check([write("s", 3, (A, 1)), read("s", 4, (B, 1), began=20)])
    check([read("s", 3, (A, 1)), read("s", 4, (B, 1), began=20)])
    check([write("s", 1, (A, 1)), write("s", 2, (B, 1), began=12), read("t", 3, (B, 1))])
    check([write("s", 1, (A, 1)), write("s", 2, (B, 1)), read("t", 3, (B, 1), began=1)])


def test_keys_are_apart_and_what_is_promised_nothing_is_not_judged() -> None:
    check([write("s", 1, (A, 1)), read("s", 2, (B, 1), key="other")])
    check([replace(write("s", 1, (A, 1)), promised=False), read("s", 2, (B, 1))])
    check([write("s", 1, (A, 1)), replace(read("s", 2, (B, 1)), promised=False)])
