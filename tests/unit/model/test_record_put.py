"""Promise: a put covers what its writer saw and nothing else, never reuses a dot, and keeps the limits."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from leafdb.limits import HLC_DRIFT_MS_MAX, RECORD_BYTES_MAX, SIBLINGS_MAX, SIBLINGS_STORED_MAX, VALUE_BYTES_MAX
from leafdb.model import record
from leafdb.model.actor import ActorIdentity, epoch_of
from leafdb.model.clock import EMPTY, CausalClock, Dot
from leafdb.model.epochs import EpochLease
from leafdb.model.hlc import LOGICAL_BITS, STAMP_MAX, LeaseExhausted
from leafdb.model.live import NO_OPERATION
from leafdb.model.record import ConflictLimit, PutResult, RecordError, RecordTooLarge
from leafdb.types import Conflict, NodeId

NOW_MS = 1_000_000
STAMP = NOW_MS << LOGICAL_BITS


@dataclass
class Node:
    """A replica of one key: identity, lease, and a counter that makes operation ids."""

    identity: ActorIdentity
    epochs: EpochLease
    operations: int = 0

    def put(
        self,
        local: bytes | None,
        context: CausalClock | None = None,
        value: bytes | None = b"v",
        *,
        conflict: Conflict = Conflict.SIBLINGS,
        stamp: int = STAMP,
        expires_ms: int = 0,
        floor: int = 0,
    ) -> PutResult:
        self.operations += 1
        return record.put(
            local,
            context,
            identity=self.identity,
            epochs=self.epochs,
            stamp=stamp,
            expires_ms=expires_ms,
            op_id=self.identity.prefix + self.operations.to_bytes(8, "big"),
            value=value,
            conflict=conflict,
            floor=floor,
        )

    def accept(self, local: bytes | None, incoming: bytes) -> bytes:
        return record.accept(local, incoming, Conflict.SIBLINGS, identity=self.identity, epochs=self.epochs)


def node(number: int = 1, *, first_epoch: int = 1, floor: int = 0) -> Node:
    identity, epochs = ActorIdentity(1, NodeId(number), 1), EpochLease(first_epoch, 1 << 20, floor)
    return Node(identity, epochs, operations=(first_epoch - 1) << 32)


def values(data: bytes) -> set[bytes | None]:
    return {sibling.value for sibling in record.decode(data).siblings.values()}


def after(context: CausalClock | None, dot: Dot) -> CausalClock:
    """The context that a write returns: exactly what it was given plus its own dot."""
    return (context or EMPTY).add(dot)


def test_first_write_takes_a_fresh_epoch() -> None:
    n = node()
    data, dot = n.put(None)
    assert dot == (n.identity.actor(1), 1)
    assert data == record.first(dot[0], STAMP, 0, n.identity.prefix + (1).to_bytes(8, "big"), b"v")
    assert n.put(None).dot == (n.identity.actor(2), 1)


def test_a_blind_write_makes_a_sibling_and_a_read_one_replaces() -> None:
    n = node()
    one, first_dot = n.put(None, None, b"1")
    two, second_dot = n.put(one, None, b"2")
    assert second_dot == (first_dot[0], 2)
    assert values(two) == {b"1", b"2"}
    three, _ = n.put(two, record.clock_of(two), b"3")
    assert values(three) == {b"3"}
    half, _ = n.put(two, EMPTY.add(first_dot), b"4")
    assert values(half) == {b"2", b"4"}


def test_the_empty_context_is_blind() -> None:
    n = node()
    one, _ = n.put(None, EMPTY, b"1")
    assert values(n.put(one, EMPTY, b"2").data) == {b"1", b"2"}


def test_three_writers() -> None:
    # 2-semantics.md section 2: A reads; B writes blind; A writes twice, chaining contexts; B's value is still there.
    x, y = node(1), node(2)
    start, _ = x.put(None, None, b"start")
    read = record.clock_of(start)
    with_b, _ = y.put(start, None, b"B")
    at_x = x.accept(start, with_b)
    once, dot = x.put(at_x, read, b"A1")
    assert values(once) == {b"B", b"A1"}
    at_y = y.accept(with_b, once)
    twice, _ = y.put(at_y, after(read, dot), b"A2")
    assert values(twice) == {b"B", b"A2"}


def test_a_chained_context_may_name_a_dot_the_coordinator_has_not_seen() -> None:
    x, y = node(1), node(2)
    at_x, _ = x.put(None, None, b"seen by nobody else")
    at_x, dot = x.put(at_x, None, b"mine")
    at_y, _ = y.put(None, after(None, dot), b"mine, changed at y")
    clock = record.clock_of(at_y)
    assert clock.covers(dot)
    assert not clock.covers((dot[0], 1))
    assert values(record.merge(at_x, at_y, Conflict.SIBLINGS)) == {b"seen by nobody else", b"mine, changed at y"}


def put_as(n: Node, local: bytes | None, context: CausalClock | None, number: int) -> PutResult:
    """The write of operation `number`, whenever it is sent."""
    n.operations = number - 1
    return n.put(local, context, b"%d" % number)


def test_a_write_that_is_there_is_not_made_again() -> None:
    n = node()
    one = put_as(n, None, None, 1)
    both = put_as(n, one.data, None, 2)
    again = put_as(n, both.data, None, 1)
    assert again.data is both.data
    assert again.dot == one.dot
    assert record.dots_of(both.data, record.decode(both.data).siblings[one.dot].op_id) == [one.dot]


def test_writes_without_an_id_are_all_different() -> None:
    n = node()
    local: bytes | None = None
    for _ in range(2):
        local = record.put(
            local, None, identity=n.identity, epochs=n.epochs, stamp=STAMP, expires_ms=0, op_id=NO_OPERATION,
            value=b"v", conflict=Conflict.SIBLINGS,
        ).data  # fmt: skip
    assert local is not None
    assert len(record.decode(local).siblings) == 2


def test_who_has_seen_one_dot_of_a_write_replaces_them_all() -> None:
    n, other = node(), node(2)
    one = put_as(n, None, None, 1)
    twin = other.put(None, None, b"1")
    head = record.decode(one.data).siblings[one.dot]
    copied = record.Sibling(STAMP, 0, head.op_id, b"1")
    twin_data = record.encode(record.Record(record.clock_of(twin.data), {twin.dot: copied}))
    both = record.merge(one.data, twin_data, Conflict.SIBLINGS)
    assert len(record.decode(both).siblings) == 2
    gone: list[record.Named] = []
    after_one = record.put(
        both, EMPTY.add(one.dot), identity=n.identity, epochs=n.epochs, stamp=STAMP, expires_ms=0, op_id=b"o" * 16,
        value=b"new", conflict=Conflict.SIBLINGS, replaced=gone,
    )  # fmt: skip
    assert values(after_one.data) == {b"new"}
    assert sorted(gone) == sorted([(head.op_id, one.dot), (head.op_id, twin.dot)])


def test_a_delete_keeps_the_clock() -> None:
    n = node()
    one, _ = n.put(None)
    gone, _ = n.put(one, record.clock_of(one), None)
    decoded = record.decode(gone)
    assert record.live(decoded, NOW_MS, Conflict.SIBLINGS) == []
    assert decoded.clock.covers((n.identity.actor(1), 2))
    assert record.merge(gone, one, Conflict.SIBLINGS) is gone


class TestAmnesia:
    """The coordinator and the replica path of riak_kv#679: whoever forgot must not mint an old dot again."""

    def test_an_entry_below_the_floor_is_left_alone(self) -> None:
        one, dot = node().put(None)
        restarted = node(first_epoch=10, floor=10)
        two, fresh = restarted.put(one)
        assert dot[0] in record.clock_of(two).vector
        assert fresh == (restarted.identity.actor(10), 1)
        assert restarted.put(two).dot == (restarted.identity.actor(10), 2)

    def test_a_context_that_knows_more_of_us_than_we_do(self) -> None:
        n = node()
        one, first_dot = n.put(None)
        two, second_dot = n.put(one)
        for context in (record.clock_of(two), EMPTY.add(second_dot), EMPTY.add((first_dot[0], 9))):
            forgetful = node(first_epoch=10)
            data, dot = forgetful.put(one, context)
            assert epoch_of(dot[0]) == 10
            assert forgetful.put(data).dot == (dot[0], 2)

    def test_a_context_that_knows_an_epoch_we_do_not(self) -> None:
        one, _ = node().put(None)
        forgetful = node(first_epoch=10)
        _, dot = forgetful.put(one, EMPTY.add((forgetful.identity.actor(7), 1)))
        assert epoch_of(dot[0]) == 10

    def test_other_nodes_and_incarnations_are_not_ours(self) -> None:
        one, theirs = node(1).put(None)
        for other in (node(2), Node(ActorIdentity(1, NodeId(1), 2), EpochLease(1, 100))):
            _, dot = other.put(one)
            assert dot == (other.identity.actor(1), 1)
            assert dot[0] != theirs[0]

    def test_a_replica_that_forgot_gets_a_fresh_entry_with_the_merge(self) -> None:
        n = node()
        one, _ = n.put(None)
        two, dot = n.put(one)
        for local in (None, one):
            forgetful = node(first_epoch=10)
            stored = forgetful.accept(local, two)
            assert record.clock_of(stored).vector == {dot[0]: 2, forgetful.identity.actor(10): 0}
            assert values(stored) == values(two)
            assert forgetful.put(stored).dot == (forgetful.identity.actor(10), 1)
            assert forgetful.accept(stored, two) is stored

    def test_a_forgotten_empty_entry_is_noticed_too(self) -> None:
        one, _ = node(2).put(None)
        n = node()
        announced = record.encode(
            record.Record(record.clock_of(one).add_entry(n.identity.actor(5)), record.decode(one).siblings)
        )
        forgetful = node(first_epoch=10)
        assert forgetful.identity.actor(10) in record.clock_of(forgetful.accept(one, announced)).vector

    def test_no_entry_is_added_where_none_is_needed(self) -> None:
        n = node()
        one, _ = n.put(None)
        two, _ = n.put(one)
        assert n.accept(two, one) is two
        assert node(2).accept(one, two) is two
        assert node(2).accept(None, two) is two
        assert node(first_epoch=10, floor=10).accept(None, two) is two
        newer = node(first_epoch=10)
        local, _ = newer.put(None)
        merged = newer.accept(local, two)
        assert merged == record.merge(local, two, Conflict.SIBLINGS)
        assert newer.put(merged).dot == (newer.identity.actor(10), 2)

    def test_two_copies_on_one_node_never_mint_the_same_dot(self) -> None:
        # A fallback that stands for two primaries keeps two copies of the key and may be asked to write to either.
        n = node()
        for_one, first_dot = n.put(None)
        for_other = n.accept(None, for_one)
        dots = {first_dot}
        for _ in range(3):
            for_one, dot_one = n.put(for_one)
            for_other, dot_other = n.put(for_other)
            dots |= {dot_one, dot_other}
        assert len(dots) == 7

    def test_a_reused_identity_stops_the_node(self) -> None:
        one, _ = node(first_epoch=50).put(None)
        with pytest.raises(AssertionError, match="identity reused"):
            node(first_epoch=10).put(one, EMPTY.add((node().identity.actor(50), 7)))

    def test_an_exhausted_lease_refuses_before_anything_is_written(self) -> None:
        with pytest.raises(LeaseExhausted):
            Node(node().identity, EpochLease(5, 5)).put(None)

    def test_arriving_records_are_checked(self) -> None:
        for local in (None, node().put(None).data):
            with pytest.raises(RecordError):
                node(2).accept(local, b"\x01\x00garbage")


class TestStamps:
    @pytest.mark.parametrize("conflict", Conflict)
    @pytest.mark.parametrize("seen", [0, STAMP - 9, STAMP, STAMP + 9, (NOW_MS + 10**10) << LOGICAL_BITS])
    def test_a_write_is_newer_than_what_its_writer_was_shown_and_no_newer_than_it_must(
        self, seen: int, conflict: Conflict
    ) -> None:
        n, other = node(1), node(2)
        dot = (other.identity.actor(1), 1)
        for local in (None, n.put(None, None, b"here", stamp=STAMP - 3, conflict=conflict).data):
            for context in (None, EMPTY, EMPTY.add(dot)):
                data, made = n.put(local, context, floor=seen, conflict=conflict)
                assert record.decode(data).siblings[made].stamp == max(STAMP, seen + 1) == record.newest_stamp(data)

    def test_one_through_a_slow_clock_beats_what_its_writer_had_read_wherever_they_meet(self) -> None:
        fast, slow = node(1), node(2)
        read, _ = fast.put(None, None, b"read", conflict=Conflict.LWW, stamp=STAMP + 3_000_000)
        over, _ = slow.put(None, None, b"over", conflict=Conflict.LWW, floor=record.newest_stamp(read))
        assert values(record.merge(read, over, Conflict.LWW)) == {b"over"}
        assert values(record.merge(over, read, Conflict.LWW)) == {b"over"}

    def test_a_stamp_far_ahead_hides_and_drops_no_value_that_has_not_expired(self) -> None:
        n = node()
        data, _ = n.put(None, None, b"expires next year", expires_ms=NOW_MS + 366 * 86_400_000)
        far = (NOW_MS + 10 * 366 * 86_400_000) << LOGICAL_BITS
        for _ in range(SIBLINGS_STORED_MAX + 2):
            data, _ = n.put(data, None, None, floor=far)
        assert b"expires next year" in values(data)

    def test_the_newest_is_found_in_records_of_every_shape(self) -> None:
        x, y = node(1), node(2)
        one, _ = x.put(None)
        assert record.newest_stamp(one) == STAMP
        many = one
        for step in range(4):
            many, _ = (y if step % 2 else x).put(many, None, b"v", stamp=STAMP + 5 * step)
            assert record.newest_stamp(many) == max(s.stamp for s in record.decode(many).siblings.values())
        bare = record.encode(record.Record(CausalClock({x.identity.actor(1): 0}), {}))
        assert record.newest_stamp(bare) == 0
        for cut in (7, 40, len(many) - 30):
            with pytest.raises(RecordError):
                record.newest_stamp(many[:cut])


class TestLww:
    def put(self, n: Node, local: bytes | None, stamp: int, value: bytes | None = b"v") -> bytes:
        return n.put(local, None, value, conflict=Conflict.LWW, stamp=stamp).data

    def test_the_last_write_replaces_all_even_with_a_slow_clock(self) -> None:
        n, slow = node(1), node(2)
        one = self.put(n, None, STAMP)
        two = self.put(slow, one, STAMP - 5, b"later")
        assert values(two) == {b"later"}
        assert record.newest_stamp(two) == STAMP + 1
        assert record.merge(one, two, Conflict.LWW) is two
        assert record.merge(two, one, Conflict.LWW) is two

    def test_no_room_above_the_stamp_is_an_error(self) -> None:
        one = self.put(node(), None, STAMP_MAX)
        with pytest.raises(RecordError, match="stamp"):
            self.put(node(2), one, STAMP)


class TestLimits:
    def full(self, n: Node, count: int = SIBLINGS_MAX) -> bytes:
        data, _ = n.put(None)
        for _ in range(count - 1):
            data, _ = n.put(data)
        return data

    def test_one_sibling_too_many_is_refused_and_takes_no_dot(self) -> None:
        n = node()
        data = self.full(n)
        with pytest.raises(ConflictLimit, match="64"):
            n.put(data)
        assert n.put(data, record.clock_of(data)).dot[1] == SIBLINGS_MAX + 1

    def test_resolving_always_works(self) -> None:
        # Merging has no limit: two replicas may come to twice as many, and reading and resolving must work.
        x, y = node(1), node(2)
        both = record.merge(self.full(x), self.full(y), Conflict.SIBLINGS)
        assert len(record.decode(both).siblings) == 2 * SIBLINGS_MAX
        with pytest.raises(ConflictLimit):
            x.put(both)
        clock = record.clock_of(both)
        lower = CausalClock({actor: min(counter, 3) for actor, counter in clock.vector.items()})
        assert len(values_list(x.put(both, lower).data)) == 2 * SIBLINGS_MAX - 5
        assert len(values_list(x.put(both, clock).data)) == 1
        assert record.live(record.decode(x.put(both, clock, None).data), NOW_MS, Conflict.SIBLINGS) == []

    def test_hidden_siblings_do_not_count(self) -> None:
        n = node()
        data, _ = n.put(None, None, None)
        for _ in range(SIBLINGS_MAX):
            data, _ = n.put(data, None, None)
            data, _ = n.put(data, None, b"x", expires_ms=NOW_MS)
        for _ in range(SIBLINGS_MAX):
            data, _ = n.put(data)
        with pytest.raises(ConflictLimit):
            n.put(data)

    def test_hidden_siblings_do_not_pile_up_for_ever(self) -> None:
        n = node()
        data, _ = n.put(None, None, b"kept")
        for count in range(3 * SIBLINGS_STORED_MAX):
            data, _ = n.put(data, None, None if count % 2 else b"x", expires_ms=0 if count % 2 else 1)
            assert len(record.decode(data).siblings) <= SIBLINGS_STORED_MAX + 1
        assert b"kept" in values(data)
        assert sum(record.clock_of(data).vector.values()) == 1 + 3 * SIBLINGS_STORED_MAX

    def test_what_a_slow_peer_may_still_show_is_not_dropped(self) -> None:
        n = node()
        data, _ = n.put(None, None, b"just expired", expires_ms=NOW_MS - HLC_DRIFT_MS_MAX // 2)
        for _ in range(SIBLINGS_STORED_MAX + 2):
            data, _ = n.put(data, None, None)
        assert b"just expired" in values(data)

    def test_sizes(self) -> None:
        n = node()
        with pytest.raises(RecordTooLarge, match="value"):
            n.put(None, None, bytes(VALUE_BYTES_MAX + 1))
        data, _ = n.put(None, None, bytes(VALUE_BYTES_MAX))
        for _ in range(2):
            data, _ = n.put(data, None, bytes(VALUE_BYTES_MAX))
        with pytest.raises(RecordTooLarge, match="record"):
            n.put(data, None, bytes(VALUE_BYTES_MAX))
        assert len(data) < RECORD_BYTES_MAX
        over = record.merge(data, node(2).put(None, None, bytes(VALUE_BYTES_MAX)).data, Conflict.SIBLINGS)
        assert len(over) > RECORD_BYTES_MAX - 1
        with pytest.raises(RecordTooLarge):
            n.put(over, None, b"small")
        assert values(n.put(over, record.clock_of(over), b"resolved").data) == {b"resolved"}


def values_list(data: bytes) -> list[bytes | None]:
    return [sibling.value for sibling in record.decode(data).siblings.values()]
