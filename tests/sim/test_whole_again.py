"""Exchanges around a purge horizon, between whole nodes: what was deleted and forgotten stays so, what was lost comes
back, and every owner comes to vouch again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from leafdb.node.node import Node
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId
from support.old_and_new import HORIZON, NEW, OLD, held, put_there, raise_horizon, swept, vouch, written
from support.repairs import contents, make_bucket, partition_of, repaired
from support.transports import until

N1, N2, N3 = NodeId(1), NodeId(2), NodeId(3)
PARTITIONS = 16


@asynccontextmanager
async def horizon_cluster(nodes: int = 3) -> AsyncIterator[MemoryCluster]:
    """All vouch below one horizon; the bucket "b" holds 40 keys everywhere, of which every fourth is newer."""
    async with memory_cluster(nodes, partitions=PARTITIONS) as cluster:
        await make_bucket(cluster.nodes.values(), "b")
        await cluster.settle()
        for node in cluster.nodes.values():
            for number in range(40):
                put_there(node, "b", f"k{number}", written(number, OLD if number % 4 else NEW))
        vouch(cluster.nodes.values())
        await raise_horizon(cluster.nodes.values())
        await cluster.settle()
        yield cluster


async def compare(*nodes: Node) -> None:
    """Every range of these nodes is compared with every peer."""
    for node in nodes:
        node.anti_entropy.start_repair(None)
    with trio.fail_after(600):
        await repaired(*nodes)
        await until(lambda: not any(node.anti_entropy.pending for node in nodes), 300.0)


async def assert_whole(cluster: MemoryCluster) -> None:
    await cluster.settle()
    nodes = list(cluster.nodes.values())
    assert [node.anti_entropy.standings.wholeness.unvouched() for node in nodes] == [0] * len(nodes)
    stores = [await contents(node, "b") for node in nodes]
    assert all(store == stores[0] for store in stores)


@virtual
async def test_a_lost_write_below_the_horizon_comes_back_from_who_has_it() -> None:
    async with horizon_cluster() as cluster:
        one, two, three = cluster.nodes.values()
        put_there(two, "b", "k1", None)
        await compare(one, two, three)
        await assert_whole(cluster)
        assert held(two, "b", "k1") == written(1, OLD), "it heals instead of differing for ever"
        assert two.metrics.losses_proved_total >= 1
        assert [one.metrics.losses_proved_total, three.metrics.losses_proved_total] == [0, 0]
        assert not two.completeness.incomplete
        assert not two.anti_entropy.losses.report(), "somebody had it: nothing is lost"


@virtual
async def test_what_was_deleted_and_forgotten_does_not_come_back_from_a_store_without_marks() -> None:
    async with horizon_cluster() as cluster:
        one, two, three = cluster.nodes.values()
        # An old disk: it has what was deleted and forgotten since, and lacks what came later.
        put_there(three, "b", "deleted", written(500, OLD))
        put_there(three, "b", "k0", None)
        put_there(three, "b", "k2", None)
        put_there(three, "b", "fresh", written(501, NEW))
        three.horizons.retract(range(PARTITIONS), "a test")
        await assert_whole(cluster)
        assert [held(node, "b", "deleted") for node in (one, two, three)] == [None] * 3
        assert [held(node, "b", "fresh") for node in (one, two, three)] == [written(501, NEW)] * 3
        assert held(three, "b", "k2") == written(2, OLD)
        assert sum(node.metrics.losses_proved_total for node in cluster.nodes.values()) == 0
        assert all(three.horizons.mark(at) == HORIZON for at in range(PARTITIONS))


@virtual
async def test_who_does_not_vouch_is_made_whole_whoever_begins() -> None:
    async with horizon_cluster() as cluster:
        one, two, three = cluster.nodes.values()
        for number in range(500, 530):
            put_there(three, "b", f"deleted{number}", written(number, OLD))
        three.horizons.retract(range(PARTITIONS), "a test")
        one.anti_entropy.start_repair(None)
        two.anti_entropy.start_repair(None)
        await assert_whole(cluster)
        assert len(await contents(three, "b")) == 40


@virtual
async def test_equal_stores_are_made_whole_without_a_record_moved() -> None:
    async with horizon_cluster() as cluster:
        three = cluster.nodes[N3]
        before = sum(node.metrics.exchange_keys_sent_total for node in cluster.nodes.values())
        three.horizons.retract(range(PARTITIONS), "a test")
        await assert_whole(cluster)
        assert sum(node.metrics.exchange_keys_sent_total for node in cluster.nodes.values()) == before


@virtual
async def test_where_nobody_vouches_all_give_everything_and_say_that_deleted_values_may_return() -> None:
    async with horizon_cluster() as cluster:
        nodes = list(cluster.nodes.values())
        for number, node in enumerate(nodes):
            put_there(node, "b", f"only{number}", written(600 + number, OLD))
        for node in nodes:
            node.horizons.retract(range(PARTITIONS), "a test")
        await assert_whole(cluster)
        for number in range(3):
            assert held(nodes[0], "b", f"only{number}") == written(600 + number, OLD)
        events = [event for node in nodes for event in node.anti_entropy.losses.report()]
        assert {partition for event in events if event["returned"] for partition in event["partitions"]} == set(
            range(PARTITIONS)
        )


@virtual
async def test_while_an_owner_is_away_nobody_takes_it_that_none_vouches() -> None:
    async with horizon_cluster() as cluster:
        one, two, _ = cluster.nodes.values()
        put_there(one, "b", "deleted", written(500, OLD))
        await cluster.stop(N3)
        await trio.sleep(5)
        for node in (one, two):
            node.horizons.retract(range(PARTITIONS), "a test")
        await trio.sleep(120)
        assert all(node.anti_entropy.standings.wholeness.unvouched() for node in (one, two))
        assert held(two, "b", "deleted") is None, "so far each takes from the other what a message may bring"
        back = await cluster.start(N3)
        swept(back)
        await assert_whole(cluster)
        assert [held(node, "b", "deleted") for node in cluster.nodes.values()] == [None] * 3, "the third one vouched"
        assert not any(node.anti_entropy.losses.report() for node in cluster.nodes.values())


@virtual
async def test_a_bucket_that_a_store_holds_alone_is_nobody_elses_to_make_whole() -> None:
    async with horizon_cluster() as cluster:
        nodes = list(cluster.nodes.values())
        await make_bucket(nodes, "alone", n=1)
        await cluster.settle()
        for node in nodes:
            node.horizons.retract(range(PARTITIONS), "a test")
        await assert_whole(cluster)


@virtual
async def test_an_exchange_during_which_the_horizon_moves_comes_to_nothing_and_is_made_again() -> None:
    async with horizon_cluster() as cluster:
        one, two, three = cluster.nodes.values()
        nodes = (one, two, three)
        for number in range(700, 1_000):
            put_there(two, "b", f"more{number}", written(number, NEW + number))
        vouch(nodes, NEW)
        with cluster.held(N2, N3):
            two.anti_entropy.start_repair(None)
            await trio.sleep(1)
            under_way = [accord for accords in two.anti_entropy.standings.accords._all.values() for accord in accords]
            await raise_horizon(nodes, NEW)
        assert under_way
        assert all(accord.spoilt for accord in under_way)
        await assert_whole(cluster)
        assert held(three, "b", "more999") == written(999, NEW + 999)


@virtual
async def test_stores_that_know_different_horizons_do_not_exchange_and_the_one_behind_hears_of_it() -> None:
    async with horizon_cluster() as cluster:
        one, two, three = cluster.nodes.values()
        place = put_there(two, "b", "fresh", written(501, NEW))
        partition = partition_of(two, place)
        stamps = three.horizons._stamps
        three.horizons._stamps = tuple(OLD for _ in stamps)  # it missed the change
        heard: list[NodeId] = []
        three.anti_entropy.exchanges._behind = heard.append
        two.anti_entropy.start_repair(None)
        await trio.sleep(20)
        assert held(one, "b", "fresh") is not None
        assert held(three, "b", "fresh") is None
        assert N2 in heard
        assert three.horizons.of(partition) == OLD
        three.horizons._stamps = stamps
        await assert_whole(cluster)


@virtual
async def test_nothing_is_exchanged_before_the_sweeper_has_passed() -> None:
    async with horizon_cluster() as cluster:
        one, two, three = cluster.nodes.values()
        put_there(two, "b", "fresh", written(501, NEW))
        for partition in range(PARTITIONS):
            two.horizons.has_swept(partition, 0)
        two.anti_entropy.start_repair(None)
        one.anti_entropy.start_repair(None)
        await trio.sleep(30)
        assert held(one, "b", "fresh") is None
        assert two.anti_entropy.pending
        for partition in range(PARTITIONS):
            two.horizons.has_swept(partition, HORIZON)
        await assert_whole(cluster)
        assert held(three, "b", "fresh") is not None
