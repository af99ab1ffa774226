"""Promises: only what nobody can see any more dies, at a stamp above all that it covers; a record dies whole."""

from __future__ import annotations

import pytest

from leafdb.model.actor import ActorIdentity
from leafdb.model.clock import CausalClock
from leafdb.model.epochs import EpochLease
from leafdb.model.hlc import LOGICAL_BITS, STAMP_MAX
from leafdb.model.purge import NEVER, death_of, expires_ms, is_dead, record_death
from leafdb.model.record import Head, Record, Sibling, encode, header, put
from leafdb.types import Conflict, NodeId

OURS = ActorIdentity(1, NodeId(1), 1)
A = OURS.actor(1)
B = ActorIdentity(1, NodeId(2), 1).actor(1)


def head(stamp: int, *, expires_ms: int = 0, tombstone: bool = False) -> Head:
    return Head(stamp, expires_ms, bytes(16), tombstone, 0, 0)


def record(*siblings: Sibling) -> bytes:
    dots = [(A, 1), (B, 1)][: len(siblings)]
    return encode(Record(CausalClock.from_dots(dots), dict(zip(dots, siblings, strict=True))))


def test_a_value_without_an_expiry_never_dies() -> None:
    assert death_of(head(5)) == NEVER
    assert not is_dead(record(Sibling(5, 0, bytes(16), b"v")), STAMP_MAX)


def test_a_tombstone_dies_with_its_stamp_and_a_value_with_its_expiry() -> None:
    assert death_of(head(5, tombstone=True)) == 5
    assert death_of(head(5, expires_ms=7)) == 7 << LOGICAL_BITS


def test_a_value_that_was_born_expired_dies_with_its_stamp() -> None:
    assert death_of(head(9 << LOGICAL_BITS, expires_ms=3)) == 9 << LOGICAL_BITS


def test_an_expiry_beyond_all_stamps_is_never() -> None:
    assert death_of(head(5, expires_ms=(1 << 64) - 1)) == NEVER


def test_a_record_dies_with_the_last_of_its_siblings() -> None:
    tombstone, expiring = Sibling(5, 0, bytes(16), None), Sibling(6, 1, bytes(16), b"v")
    assert record_death(record(tombstone)) == 5
    assert record_death(record(tombstone, expiring)) == 1 << LOGICAL_BITS
    assert record_death(record(tombstone, Sibling(1, 0, bytes(16), b"v"))) == NEVER
    assert record_death(record()) == 0


def test_what_dies_at_the_horizon_is_not_below_it() -> None:
    data = record(Sibling(5, 0, bytes(16), None))
    assert not is_dead(data, 5)
    assert is_dead(data, 6)
    assert not is_dead(data, 0)


@pytest.mark.parametrize("conflict", [Conflict.SIBLINGS, Conflict.LWW])
def test_a_deletion_is_above_what_is_here_and_what_its_writer_saw(conflict: Conflict) -> None:
    """A clock that is behind deletes what a clock ahead had written: it must not die before that."""
    epochs = EpochLease(1, 100)
    local = record(Sibling(100, 0, bytes(16), b"v"))
    seen = CausalClock.from_dots([(B, 1)])

    def deletion(local: bytes | None, floor: int) -> int:
        made = put(
            local, seen, identity=OURS, epochs=epochs, stamp=50, expires_ms=0, op_id=bytes(16), value=None,
            conflict=conflict, floor=floor,
        )  # fmt: skip
        return header(made.data).heads[made.dot].stamp

    assert deletion(None, 0) == 50
    assert deletion(local, 0) == 101
    assert deletion(local, 200) == 201
    assert deletion(None, 200) == 201


@pytest.mark.parametrize("expires", [0, 1, 7, 9_000, (STAMP_MAX >> LOGICAL_BITS) + 5])
@pytest.mark.parametrize("stamp", [1, (5 << LOGICAL_BITS) + 3, STAMP_MAX])
@pytest.mark.parametrize("value", [None, b"v"])
def test_a_record_is_dead_below_every_horizon_of_a_later_ms_than_it_says(
    expires: int, stamp: int, value: bytes | None
) -> None:
    data = record(Sibling(stamp, expires, bytes(16), value))
    told = expires_ms(data)
    assert (told == 0) == (record_death(data) == NEVER)
    if told:
        assert is_dead(data, (told + 1) << LOGICAL_BITS)
        assert told == 1 or not is_dead(data, told << LOGICAL_BITS)


def test_of_what_is_no_record_nobody_can_tell_when_it_expires() -> None:
    assert expires_ms(b"no record") == 0
