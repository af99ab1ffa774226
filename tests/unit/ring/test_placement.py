"""Placement: fair loads first, fewest moves second, spread third."""

from __future__ import annotations

import pytest

from leafdb.ring.member import Member
from leafdb.ring.placement import SPREAD, claim, loads_of, moves, target_loads
from leafdb.types import NodeId
from support.clusters import proposed


def members(count: int, *, zones: int = 1) -> list[Member]:
    return [proposed(at, zone=f"zone-{at % zones}").numbered(NodeId(at)) for at in range(1, count + 1)]


def crowded_windows(owners: tuple[NodeId, ...]) -> int:
    """Windows of consecutive partitions, the wrap included, in which an owner repeats."""
    count = len(owners)
    return sum(len({owners[(p + step) % count] for step in range(SPREAD)}) < SPREAD for p in range(count))


def test_weights_are_shares() -> None:
    heavy = proposed(1, weight=3).numbered(NodeId(1))
    light = proposed(2).numbered(NodeId(2))
    assert loads_of(claim([heavy, light], 64), [NodeId(1), NodeId(2)]) == {1: 48, 2: 16}


def test_the_rounded_up_share_stays_where_it_is() -> None:
    weights = {NodeId(node): 1 for node in (1, 2, 3)}
    assert target_loads(weights, 256, {NodeId(3): 90})[NodeId(3)] == 86
    assert target_loads(weights, 256, {})[NodeId(1)] == 86


@pytest.mark.parametrize("partitions", [64, 256, 512])
@pytest.mark.parametrize("count", range(4, 13))
def test_a_new_ring_never_repeats_an_owner_nearby(count: int, partitions: int) -> None:
    assert crowded_windows(claim(members(count), partitions)) == 0


def test_growing_node_by_node_moves_only_to_the_newcomer_and_keeps_the_spread() -> None:
    owners = claim(members(1), 256)
    for count in range(2, 13):
        grown = claim(members(count), 256, owners)
        assert moves(owners, grown) == 256 // count
        assert all(new == count for old, new in zip(owners, grown, strict=True) if old != new)
        assert count < 4 or crowded_windows(grown) == 0
        owners = grown


def test_a_leaver_gives_what_it_had_and_nothing_else_moves() -> None:
    owners = claim(members(8), 256)
    left = claim([member for member in members(8) if member.id != 5], 256, owners)
    assert moves(owners, left) == 32
    assert all(old == 5 for old, new in zip(owners, left, strict=True) if old != new)
    assert crowded_windows(left) == 0


def test_neighbours_are_mixed_so_that_many_share_the_load_of_one_that_is_down() -> None:
    owners = claim(members(8), 256)
    after_five = {owners[(p + 1) % 256] for p in range(256) if owners[p] == 5}
    assert len(after_five) >= 6


def test_placing_again_moves_nothing() -> None:
    for count in range(1, 8):
        owners = claim(members(count), 256)
        assert claim(members(count), 256, owners) == owners


def test_zones_alternate_around_the_circle() -> None:
    owners = claim(members(6, zones=3), 256)
    zones = [node % 3 for node in owners]
    crowded = sum(len({zones[p], zones[p - 1], zones[p - 2]}) < 3 for p in range(256))
    assert crowded <= 4, "3 does not divide 256: only the seam may crowd"


def test_a_wholly_new_membership_is_laid_anew() -> None:
    owners = claim(members(3), 64)
    fresh = [proposed(at).numbered(NodeId(at)) for at in range(11, 15)]
    assert set(claim(fresh, 64, owners)) == {11, 12, 13, 14}


def test_more_members_than_partitions_leave_some_without() -> None:
    owners = claim(members(12), 8)
    assert len(set(owners)) == 8


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        claim([], 64)
    with pytest.raises(ValueError, match="at least one member of a weight"):
        claim([proposed(1, weight=0).numbered(NodeId(1))], 64)
    with pytest.raises(ValueError, match="at least 0"):
        claim([proposed(1, weight=-1).numbered(NodeId(1))], 64)
    with pytest.raises(ValueError, match="previous"):
        claim(members(2), 64, claim(members(2), 32))
