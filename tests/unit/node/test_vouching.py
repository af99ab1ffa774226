"""A store that meets damage, or is given a range it has not got, takes its marks back, and no others."""

from __future__ import annotations

from leafdb.node.vouching import copied, touched
from leafdb.ring.ring import Ring
from support.lone_coordinator import COMES, NODES, Phase, ring_in


def test_a_damaged_table_touches_the_partitions_of_its_keys() -> None:
    assert list(touched(b"\x00\x00a", b"\x00\x00b", 256)) == [0]
    assert list(touched(b"\x10\xffa", b"\x13\x00", 256)) == [0x10, 0x11, 0x12, 0x13]
    assert list(touched(b"\x3f\xff", b"\x40\x00", 4)) == [0, 1]


def test_only_who_copies_a_range_cannot_vouch_for_it_and_only_while_it_does() -> None:
    ring = Ring(ring_in(Phase.READ_OLD))
    partitions = copied(ring, COMES, {3})
    assert partitions
    assert all(COMES in ring.copying(partition, 3) for partition in partitions)
    assert copied(ring, NODES[0], {3}) == []
    for phase in (Phase.BEFORE, Phase.READ_NEW, Phase.RETREAT, Phase.DONE):
        assert copied(Ring(ring_in(phase)), COMES, {3}) == []
