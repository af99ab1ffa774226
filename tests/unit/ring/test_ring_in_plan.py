"""A ring with a plan in progress: which nodes reads ask, writes need and copies go to."""

from __future__ import annotations

from leafdb.ring.ring import Ring, Role
from leafdb.ring.staging import ForceRemove, Join, Leave, Replace
from leafdb.ring.transitions import abort
from leafdb.types import NodeId, PartitionId
from support.clusters import cluster, proposed
from support.ring_changes import advanced, committed, finished, plan_of

FIRST = PartitionId(0)
PARTITIONS = tuple(map(PartitionId, range(64)))
ONE, THREE, FOUR = NodeId(1), NodeId(3), NodeId(4)


def test_without_a_plan_there_is_one_set() -> None:
    ring = Ring(cluster(5))
    for partition in PARTITIONS:
        listed = ring.primaries(partition, 3)
        assert ring.holders(partition, 3) is listed
        assert ring.write_sets(partition, 3) == (listed,)
        assert not ring.is_changing(partition, 3)
        assert (ring.pending(partition, 3), ring.sources(partition, 3)) == ((), ())


def test_growing_from_one_to_three_counts_each_set_by_its_own_n() -> None:
    made = committed(cluster(1), Join(proposed(7)), Join(proposed(8)))
    ring = Ring(made)
    assert (ring.effective_n(3), ring.primaries(FIRST, 3)) == (1, (1,))
    old, new = ring.write_sets(FIRST, 3)
    assert (old, sorted(new)) == ((1,), [1, 2, 3])
    assert ring.holders(FIRST, 3)[0] == 1
    assert (sorted(ring.pending(FIRST, 3)), ring.sources(FIRST, 3)) == ([2, 3], (1,))
    assert ring.fallbacks(FIRST, 3) == ()
    reading = Ring(advanced(cluster(1), Join(proposed(7)), Join(proposed(8))))
    assert (reading.effective_n(3), sorted(reading.primaries(FIRST, 3))) == (3, [1, 2, 3])
    ring.check()
    reading.check()


def test_reads_move_at_the_second_phase_and_back_in_a_retreat() -> None:
    before = cluster(5)
    changes = (Join(proposed(7)), Leave(NodeId(5)))
    old, new = Ring(before), Ring(finished(before, *changes))
    under_way = advanced(before, *changes)
    first, second = Ring(committed(before, *changes)), Ring(under_way)
    retreat = Ring(abort(under_way, plan_of(under_way).id))
    for p in PARTITIONS:
        assert first.primaries(p, 3) == retreat.primaries(p, 3) == old.primaries(p, 3)
        assert second.primaries(p, 3) == new.primaries(p, 3)
        both = {*old.primaries(p, 3), *new.primaries(p, 3)}
        for ring in (first, second, retreat):
            assert set(ring.holders(p, 3)) == both
            if len(both) > 3:
                assert ring.write_sets(p, 3) == (old.primaries(p, 3), new.primaries(p, 3))
        assert first.pending(p, 3) == tuple(node for node in first.holders(p, 3) if node not in old.primaries(p, 3))
        assert set(second.pending(p, 3)) == set(first.pending(p, 3))
        assert (retreat.pending(p, 3), retreat.sources(p, 3)) == ((), ())
    for ring in (first, second, retreat):
        ring.check()


def test_nobody_stands_in_who_holds_or_is_no_owner_of_the_table_read() -> None:
    ring = Ring(committed(cluster(6), Join(proposed(7))))
    joiner = NodeId(7)
    for p in PARTITIONS:
        assert joiner not in ring.fallbacks(p, 3)
        assert not set(ring.fallbacks(p, 3)) & set(ring.holders(p, 3))
        expected = Role.PRIMARY if joiner in ring.holders(p, 3) else Role.NONE
        assert ring.role_of(joiner, p, 3) is expected
    assert ring.partitions_held(joiner, 3) == tuple(p for p in PARTITIONS if joiner in ring.holders(p, 3))


def test_one_set_in_another_order_is_one_set() -> None:
    ring = Ring(advanced(cluster(3), Join(proposed(7))))
    assert all(len(ring.write_sets(p, 4)) == 2 for p in PARTITIONS)
    shuffled = Ring(advanced(cluster(4), Leave(FOUR)))
    for p in PARTITIONS:
        sets = shuffled.write_sets(p, 1)
        assert len(sets) == (1 if len(set(sets)) == 1 else 2)
        assert shuffled.write_sets(p, 1)[-1] == shuffled.primaries(p, 1)


def test_sources_are_the_old_owners_the_dead_last() -> None:
    ring = Ring(committed(cluster(4), ForceRemove(ONE), Replace(THREE, proposed(7))))
    for p in PARTITIONS:
        sources = ring.sources(p, 3)
        if ring.pending(p, 3):
            assert set(sources) == set(ring.primaries(p, 3))
            dead = [node in (1, 3) for node in sources]
            assert dead == sorted(dead)


def test_newcomers_on_their_way_are_not_idle() -> None:
    ring = Ring(committed(cluster(3), Join(proposed(7))))
    assert not ring.warnings()
    assert "join 4" in ring.describe()
