"""The walk: hosts never repeat while there are others, zones neither where hosts allow, n only cuts."""

from __future__ import annotations

from leafdb.ring.preference_list import Place, order_from, orders, walk
from leafdb.types import NodeId, PartitionId


def nodes(*numbers: int) -> list[NodeId]:
    return [NodeId(number) for number in numbers]


def places(**labels: str) -> dict[NodeId, Place]:
    """n1="host" or n1="host/zone"."""
    split = {name: (*label.split("/"), "")[:2] for name, label in labels.items()}
    return {NodeId(int(name[1:])): Place(host, zone) for name, (host, zone) in split.items()}


def test_order_is_first_appearance_clockwise_across_the_wrap() -> None:
    owners = nodes(1, 1, 2, 1, 3)
    assert order_from(owners, PartitionId(2)) == nodes(2, 1, 3)
    assert order_from(owners, PartitionId(4)) == nodes(3, 1, 2)


def test_all_orders_equal_single_ones() -> None:
    owners = nodes(1, 1, 2, 3, 2, 4, 1, 3)
    made = {partition: list(order) for partition, order in orders(owners)}
    assert made == {PartitionId(p): order_from(owners, PartitionId(p)) for p in range(len(owners))}


def test_hosts_come_once_before_any_comes_twice() -> None:
    at = places(n1="a", n2="a", n3="b", n4="c")
    assert walk(nodes(1, 2, 3, 4), at, 4) == tuple(nodes(1, 3, 4, 2))


def test_zones_come_once_before_any_comes_twice() -> None:
    at = places(n1="a/x", n2="b/x", n3="c/y", n4="d/z")
    assert walk(nodes(1, 2, 3, 4), at, 3) == tuple(nodes(1, 3, 4))
    assert walk(nodes(1, 2, 3, 4), at, 4) == tuple(nodes(1, 3, 4, 2))


def test_two_zones_alternate() -> None:
    at = places(n1="a/x", n2="b/x", n3="c/x", n4="d/y", n5="e/y")
    assert walk(nodes(1, 2, 3, 4, 5), at, 5) == tuple(nodes(1, 4, 2, 5, 3))


def test_a_distinct_host_beats_a_distinct_zone() -> None:
    at = places(n1="a/x", n2="a/y", n3="b/x")
    assert walk(nodes(1, 2, 3), at, 2) == tuple(nodes(1, 3))


def test_too_few_hosts_leave_distinct_nodes() -> None:
    at = places(n1="a", n2="a", n3="a")
    assert walk(nodes(3, 1, 2), at, 3) == tuple(nodes(3, 1, 2))
    assert walk(nodes(3, 1, 2), at, 5) == tuple(nodes(3, 1, 2))


def test_hosts_start_over_when_all_are_taken() -> None:
    at = places(n1="a", n2="a", n3="a", n4="b", n5="b")
    assert walk(nodes(1, 2, 3, 4, 5), at, 5) == tuple(nodes(1, 4, 2, 5, 3))
