"""Promises: below the horizon a replica takes in only what cannot have been forgotten by right, dot by dot; what it
leaves out it does not cover; its own dots are never minted twice for it; who cannot vouch becomes like who can."""

from __future__ import annotations

import pytest

from leafdb.model import admission
from leafdb.model.actor import ActorIdentity
from leafdb.model.admission import Inadmissible, admitted, left_out, proves_loss
from leafdb.model.clock import CausalClock, Dot
from leafdb.model.epochs import EpochLease
from leafdb.model.record import Record, Sibling, accept_above, clock_of, decode, encode, merge, put, restored
from leafdb.types import Conflict, NodeId

OURS = ActorIdentity(1, NodeId(1), 1)
A, B, C = (ActorIdentity(1, NodeId(node), 1).actor(1) for node in (1, 2, 3))
HORIZON = 100
SIBLINGS, LWW = Conflict.SIBLINGS, Conflict.LWW


def record(clock: list[Dot], **siblings: int) -> bytes:
    """Siblings by dot, as `A1=stamp`; a stamp below 0 is a tombstone's."""
    actors = {"A": A, "B": B, "C": C}
    dots = {(actors[name[0]], int(name[1:])): stamp for name, stamp in siblings.items()}
    made = {
        dot: Sibling(abs(stamp), 0, bytes(16), None if stamp < 0 else b"v%d" % stamp) for dot, stamp in dots.items()
    }
    return encode(Record(CausalClock.from_dots([*clock, *dots]), made))


def taken(local: bytes | None, incoming: bytes, conflict: Conflict = SIBLINGS) -> bytes | None:
    epochs = EpochLease(10, 1_000)
    return accept_above(local, incoming, conflict, identity=OURS, epochs=epochs, horizon=HORIZON)


def made_whole(local: bytes | None, vouched: bytes | None) -> bytes | None:
    epochs = EpochLease(10, 1_000)
    return restored(local, vouched, SIBLINGS, identity=OURS, epochs=epochs, horizon=HORIZON)


def test_without_a_horizon_everything_is_taken() -> None:
    incoming = record([], B1=5)
    assert admitted(None, incoming, 0) is incoming
    assert not left_out(None, incoming, 0)
    assert not proves_loss(None, incoming, 0)


def test_what_is_not_older_than_the_horizon_is_taken() -> None:
    incoming = record([], B1=HORIZON)
    assert admitted(None, incoming, HORIZON) is incoming


def test_the_unknown_below_the_horizon_is_left_out() -> None:
    incoming = record([], B1=50)
    assert admitted(None, incoming, HORIZON) is None
    assert taken(None, incoming) is None


@pytest.mark.parametrize("conflict", [SIBLINGS, LWW])
def test_the_old_value_of_a_key_that_was_written_again_is_left_out(conflict: Conflict) -> None:
    again = record([], A1=150)
    assert taken(again, record([], B1=50), conflict) is again


def test_what_is_held_or_covered_is_merged_as_ever() -> None:
    held, covers = record([], B1=50), record([(B, 1)], A1=150)
    incoming = record([(B, 1)], B1=50, C1=150)
    assert taken(held, incoming) == merge(held, incoming, SIBLINGS)
    assert taken(covers, incoming) == merge(covers, incoming, SIBLINGS)


def test_only_the_old_dot_is_left_out_and_it_is_not_covered() -> None:
    """Else a store that lost a record unnoticed would delete it everywhere with the next write it hears of."""
    got = taken(None, record([(C, 2)], B1=50, B2=150))
    assert got is not None
    assert set(decode(got).siblings) == {(B, 2)}
    clock = clock_of(got)
    assert not clock.covers((B, 1))
    assert clock.covers((B, 2))
    assert clock.covers((C, 2))
    holder = record([], B1=50)
    assert (B, 1) in decode(merge(holder, got, SIBLINGS)).siblings


def test_what_is_older_than_something_held_has_not_been_forgotten() -> None:
    """B1 replaced A1, its writer died, and it comes late: left out, it would take A1 with it."""
    held = record([], A1=40)
    got = taken(held, record([(A, 1)], B1=50, C1=150))
    assert got is not None
    assert set(decode(got).siblings) == {(B, 1), (C, 1)}


def test_own_dots_that_are_left_out_are_not_minted_again() -> None:
    """This node minted A1 to A2, has forgotten, and is told of A2 by a record of which nothing is taken."""
    local = record([], A1=90)
    got = taken(local, record([], A1=90, A2=50))
    assert got is not None
    epochs = EpochLease(20, 1_000)
    made = put(
        got, clock_of(got), identity=OURS, epochs=epochs, stamp=200, expires_ms=0, op_id=bytes(16), value=b"n",
        conflict=SIBLINGS,
    )  # fmt: skip
    assert made.dot not in {(A, 1), (A, 2)}


def test_a_live_dot_on_one_side_proves_a_loss_and_a_dead_one_does_not() -> None:
    assert proves_loss(None, record([], B1=50), HORIZON)
    assert not proves_loss(None, record([], B1=-50), HORIZON)
    assert not proves_loss(None, record([], B1=150), HORIZON)
    assert not proves_loss(record([(B, 1)], A1=150), record([], B1=50), HORIZON)


def test_who_cannot_vouch_drops_what_the_other_does_not_know() -> None:
    """Else an old copy of a disk would bring back whatever was deleted since."""
    assert made_whole(record([], B1=50), None) is None
    assert made_whole(None, None) is None
    local, vouched = record([], B1=50, C1=150), record([], A1=60)
    whole = made_whole(local, vouched)
    assert whole is not None
    assert set(decode(whole).siblings) == {(A, 1), (C, 1)}


def test_who_cannot_vouch_takes_everything_from_who_can() -> None:
    vouched = record([(C, 3)], A1=60, B1=150)
    fresh = made_whole(None, vouched)
    assert fresh is not None
    assert decode(fresh).siblings == decode(vouched).siblings
    local = record([], B1=150)
    whole = made_whole(local, vouched)
    assert whole is not None
    assert decode(whole).siblings == decode(vouched).siblings
    assert made_whole(vouched, vouched) is vouched


def test_a_hole_beyond_all_bounds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "SINGLES_MAX", 8)
    assert admitted(None, record([(B, 8)], B1=50, B9=150), HORIZON) is not None
    with pytest.raises(Inadmissible):
        admitted(None, record([(B, n) for n in range(1, 12)], B1=50, B12=150), HORIZON)
