"""Promise: merge loses nothing concurrent, keeps nothing covered, and hands back the very bytes where it can."""

from __future__ import annotations

import random

import pytest

from leafdb.model import record
from leafdb.model.actor import Actor, ActorIdentity
from leafdb.model.clock import CausalClock, Dot
from leafdb.model.live import NO_OPERATION
from leafdb.model.record import Record, RecordError, Sibling, live
from leafdb.types import Conflict, NodeId

A, B, C = (ActorIdentity(1, NodeId(node), 1).actor(1) for node in (1, 2, 3))
SIBLINGS, LWW = Conflict.SIBLINGS, Conflict.LWW


def sibling(dot: Dot, stamp: int = 1, value: bytes | None = b"?", expires_ms: int = 0) -> Sibling:
    op_id = dot[0][2:10] + dot[1].to_bytes(8, "big")
    return Sibling(stamp, expires_ms, op_id, value)


def made(vector: dict[Actor, int], *dots: Dot, cloud: frozenset[Dot] = frozenset()) -> bytes:
    clock = CausalClock(vector, cloud)
    return record.encode(Record(clock, {dot: sibling(dot) for dot in dots}))


def shape(data: bytes) -> tuple[dict[Actor, int], set[Dot]]:
    decoded = record.decode(data)
    return decoded.clock.vector, set(decoded.siblings)


def copy(data: bytes) -> bytes:
    return bytes(bytearray(data))


def test_the_same_object_comes_back() -> None:
    old, new = made({A: 1}, (A, 1)), made({A: 2}, (A, 2))
    wider = made({A: 2, B: 1}, (A, 2), (B, 1))
    for small, large in ((old, new), (new, wider), (old, wider)):
        for conflict in Conflict:
            if conflict is LWW and large is wider:
                continue
            assert record.merge(small, large, conflict) is large
            assert record.merge(large, small, conflict) is large
    assert record.merge(new, copy(new), SIBLINGS) is new


def test_same_clock_fewer_siblings() -> None:
    # Only an older version of one write can differ from it so: the clock covers what is missing.
    both, one = made({A: 1, B: 1}, (A, 1), (B, 1)), made({A: 1, B: 1}, (B, 1))
    assert record.merge(both, one, SIBLINGS) is one
    assert record.merge(one, both, SIBLINGS) is one


def test_concurrent_writes_both_stay() -> None:
    merged = record.merge(made({A: 2}, (A, 2)), made({A: 1, B: 1}, (B, 1)), SIBLINGS)
    assert shape(merged) == ({A: 2, B: 1}, {(A, 2), (B, 1)})


def test_a_covered_write_does_not_come_back() -> None:
    merged = record.merge(made({A: 1}, (A, 1)), made({A: 1, B: 1}, (B, 1)), SIBLINGS)
    assert shape(merged) == ({A: 1, B: 1}, {(B, 1)})
    assert record.merge(merged, made({A: 1}, (A, 1)), SIBLINGS) is merged


def test_the_cloud_joins_the_vector_when_the_gap_closes() -> None:
    ahead = made({B: 1}, (B, 1), cloud=frozenset({(A, 2)}))
    behind = made({A: 1}, (A, 1))
    assert shape(record.merge(behind, ahead, SIBLINGS)) == ({A: 2, B: 1}, {(A, 1), (B, 1)})


def test_malformed_records_are_refused_on_either_side() -> None:
    good = made({A: 1}, (A, 1))
    for conflict in Conflict:
        with pytest.raises(RecordError):
            record.merge(good, good[:-1], conflict)
        with pytest.raises(RecordError):
            record.merge(good[:-1], good, conflict)


def test_lww_keeps_the_greatest_stamp_then_dot() -> None:
    def lww(dot: Dot, stamp: int, value: bytes | None = b"v") -> bytes:
        return record.encode(Record(CausalClock({dot[0]: dot[1]}), {dot: sibling(dot, stamp, value)}))

    early, late, tie = lww((A, 1), 5), lww((B, 1), 6, None), lww((C, 1), 6)
    assert shape(record.merge(early, late, LWW)) == ({A: 1, B: 1}, {(B, 1)})
    assert shape(record.merge(late, tie, LWW)) == ({B: 1, C: 1}, {(C, 1)})
    merged = record.merge(record.merge(tie, early, LWW), late, LWW)
    assert merged == record.merge(early, record.merge(late, tie, LWW), LWW)
    assert record.merge(merged, early, LWW) is merged
    assert record.newest_stamp(merged) == 6


def test_newest_stamp_of_no_sibling_is_zero() -> None:
    assert record.newest_stamp(made({A: 1})) == 0


class TestLive:
    NOW = 1_000

    def of(self, conflict: Conflict, *items: tuple[Dot, Sibling]) -> list[bytes | None]:
        clock = CausalClock.from_dots(dot for dot, _ in items)
        decoded = record.decode(record.encode(Record(clock, dict(items))))
        return [sibling.value for _, sibling in live(decoded, self.NOW, conflict)]

    def test_in_dot_order(self) -> None:
        items = [((B, 1), sibling((B, 1), 1, b"b")), ((A, 2), sibling((A, 2), 9, b"a2"))]
        items += [((A, 1), sibling((A, 1), 5, b"a1"))]
        random.Random(1).shuffle(items)
        assert self.of(SIBLINGS, *items) == [b"a1", b"a2", b"b"]

    def test_tombstones_and_expired_are_hidden(self) -> None:
        assert self.of(
            SIBLINGS,
            ((A, 1), sibling((A, 1), value=None)),
            ((A, 2), sibling((A, 2), value=b"gone", expires_ms=self.NOW)),
            ((A, 3), sibling((A, 3), value=b"here", expires_ms=self.NOW + 1)),
        ) == [b"here"]

    def test_one_operation_is_shown_once(self) -> None:
        twice = [((actor, 1), Sibling(3, 0, b"o" * 16, b"same")) for actor in (C, A)]
        assert self.of(SIBLINGS, *twice) == [b"same"]

    def test_writes_without_an_operation_are_never_folded(self) -> None:
        twice = [((actor, 1), Sibling(3, 0, NO_OPERATION, b"x")) for actor in (A, B)]
        assert self.of(SIBLINGS, *twice) == [b"x", b"x"]

    def test_lww_shows_the_winner_or_nothing(self) -> None:
        older, newer = ((A, 1), sibling((A, 1), 5, b"old")), ((B, 1), sibling((B, 1), 6, b"new"))
        assert self.of(LWW, older, newer) == [b"new"]
        deleted = ((B, 1), sibling((B, 1), 6, None))
        assert self.of(LWW, older, deleted) == []
        expired = ((B, 1), sibling((B, 1), 6, b"x", expires_ms=1))
        assert self.of(LWW, older, expired) == []
