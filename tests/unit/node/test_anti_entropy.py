"""Whole nodes whose stores differ become equal, whatever comes between; nothing is moved that need not be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import pytest
import trio
from trio.testing import MockClock

from leafdb.hints.effects import MarkRange
from leafdb.limits import EXCHANGE_BYTES_MAX, EXCHANGE_KEYS_MAX
from leafdb.model.key import encode_key
from leafdb.node.node import Node
from leafdb.ring.token import storage_key
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.transport.session import Session
from leafdb.types import NodeId, PartitionId
from leafdb.wire.registry import Lane, MessageType
from support.exchange_taps import tap
from support.repairs import contents, drop_bucket, make_bucket, partition_of, plant, record_of, repaired, view_of
from support.transports import until

ONE, TWO, THREE = NodeId(1), NodeId(2), NodeId(3)
PARTITIONS = 64

Story = Callable[[MemoryCluster], Awaitable[None]]


def play(story: Story, nodes: int = 3) -> None:
    """Run a story on a founded cluster with the bucket `b`, every bulk session up, in virtual time."""

    async def main() -> None:
        async with memory_cluster(nodes, partitions=PARTITIONS) as cluster:
            await make_bucket(cluster.nodes.values(), "b")
            await meet(cluster.nodes.values())
            with trio.fail_after(3_000):
                await story(cluster)

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def meet(nodes: Iterable[Node]) -> None:
    nodes = list(nodes)
    await until(lambda: all(len(node.peers.lane(Lane.BULK)) == len(nodes) - 1 for node in nodes))


async def equal(nodes: Iterable[Node], keys: int) -> None:
    stores = [await contents(node, "b") for node in nodes]
    assert [len(store) for store in stores] == [keys] * len(stores)
    assert all(store == stores[0] for store in stores)


async def scatter(nodes: list[Node], keys: int, *, start: int = 0) -> None:
    """Keys on one node each, of which every fifth is on the next one with another value."""
    for number in range(start, start + keys):
        await plant(nodes[number % len(nodes)], "b", f"k{number}", record_of(number))
        if number % 5 == 0:
            await plant(nodes[(number + 1) % len(nodes)], "b", f"k{number}", record_of(100_000 + number))


def moved(nodes: Iterable[Node]) -> int:
    """Records that were given to anybody."""
    return sum(node.metrics.exchange_keys_sent_total for node in nodes)


def test_replicas_that_differ_become_equal() -> None:
    async def story(cluster: MemoryCluster) -> None:
        nodes = list(cluster.nodes.values())
        await scatter(nodes, 150)
        numbers = [node.anti_entropy.start_repair(None) for node in nodes]
        assert sum(node.anti_entropy.pending for node in nodes) == 6 * PARTITIONS
        await repaired(*nodes)
        await equal(nodes, 150)
        for node, number in zip(nodes, numbers, strict=True):
            line = node.anti_entropy.report()[-1]
            assert (line["task"], line["state"], line["last_error"]) == (number, "done", "")
            assert line["partitions_done"] == line["partitions_total"] == 2 * PARTITIONS
            assert line["keys_received"] > 0

    play(story)


def test_equal_replicas_exchange_roots_and_nothing_else() -> None:
    async def story(cluster: MemoryCluster) -> None:
        nodes = list(cluster.nodes.values())
        for number in range(60):
            for node in nodes:
                await plant(node, "b", f"k{number}", record_of(number))
        kinds = tap(nodes)
        nodes[0].anti_entropy.start_repair(view_of(nodes[0], "b").id)
        await repaired(*nodes)
        (line,) = nodes[0].anti_entropy.report()
        assert (line["partitions_done"], line["keys_differing"]) == (2 * PARTITIONS, 0)
        assert {kind for kind, _ in kinds} == {"compare", "equal"}
        assert len(kinds) == 4 * PARTITIONS
        assert moved(nodes) == 0

    play(story)


def test_each_range_is_exchanged_about_once_when_both_sides_begin() -> None:
    async def story(cluster: MemoryCluster) -> None:
        nodes = list(cluster.nodes.values())
        for node in nodes:
            node.anti_entropy.start_repair(None)
        await repaired(*nodes)
        done = sum(node.metrics.exchanges_total for node in nodes) / 2
        assert 3 * PARTITIONS <= done <= 3.5 * PARTITIONS

    play(story)


def test_a_peer_that_was_cut_off_owes_and_is_owed_everything_until_it_is_back() -> None:
    async def story(cluster: MemoryCluster) -> None:
        nodes = list(cluster.nodes.values())
        cluster.cut(THREE, (ONE, TWO))
        await until(lambda: nodes[0].anti_entropy.pending == PARTITIONS)
        await plant(nodes[0], "b", "here", record_of(1))
        await plant(nodes[2], "b", "there", record_of(2))
        assert nodes[0].anti_entropy.report()[-1]["state"] == "waiting"
        await trio.sleep(5)
        assert nodes[0].anti_entropy.pending == PARTITIONS, "nothing is given up"
        cluster.heal()
        await repaired(*nodes)
        await equal(nodes[::2], 2)
        assert (await contents(nodes[1], "b")).keys() <= (await contents(nodes[0], "b")).keys()

    play(story)


def test_what_was_read_before_a_session_was_lost_settles_nothing_after_it() -> None:
    async def story(cluster: MemoryCluster) -> None:
        one = cluster.nodes[ONE]
        claim = one.anti_entropy.debts.claim(TWO, view_of(one, "b").id, PartitionId(0))
        cluster.cut(ONE, (TWO,))
        await until(lambda: one.anti_entropy.pending > 0)
        assert claim.spoilt
        assert not one.anti_entropy.debts.settle(claim)
        one.anti_entropy.debts.release(claim)
        cluster.heal()
        await repaired(*cluster.nodes.values())

    play(story)


def test_a_flap_costs_roots_only() -> None:
    async def story(cluster: MemoryCluster) -> None:
        nodes = list(cluster.nodes.values())
        await plant(nodes[0], "b", "k", record_of(1))
        nodes[0].anti_entropy.start_repair(None)
        await repaired(*nodes)
        before = moved(nodes)
        kinds = tap(nodes)
        cluster.cut(TWO, (ONE, THREE))
        await trio.sleep(1)
        cluster.heal()
        await meet(nodes)
        await repaired(*nodes)
        assert {kind for kind, _ in kinds} == {"compare", "equal"}
        assert moved(nodes) == before

    play(story)


def test_debts_survive_a_restart_and_are_settled_when_the_peer_comes() -> None:
    async def story(cluster: MemoryCluster) -> None:
        place = await plant(cluster.nodes[ONE], "b", "k", record_of(1))
        one = cluster.nodes[ONE]
        bucket, partition = view_of(one, "b").id, PartitionId(partition_of(one, place))
        await cluster.stop(THREE)
        await until(lambda: one.anti_entropy.pending == PARTITIONS)
        one.anti_entropy.mark(MarkRange(THREE, bucket, partition))
        await cluster.stop(ONE)
        one = await cluster.start(ONE)
        assert one.anti_entropy.debts.mask(THREE, bucket) == (1 << PARTITIONS) - 1
        await trio.sleep(5)
        assert one.anti_entropy.debts.mask(THREE, bucket) == (1 << PARTITIONS) - 1
        three = await cluster.start(THREE)
        await meet(cluster.nodes.values())
        await repaired(*cluster.nodes.values())
        assert place in await contents(three, "b")
        assert one.anti_entropy.report()[0]["state"] == "done"

    play(story)


def test_a_clean_stop_is_no_news_of_the_peers() -> None:
    async def story(cluster: MemoryCluster) -> None:
        await cluster.stop(TWO)
        two = await cluster.start(TWO)
        assert (two.anti_entropy.pending, two.anti_entropy.report()) == (0, [])
        await until(lambda: cluster.nodes[ONE].anti_entropy.pending == 0)
        assert cluster.nodes[ONE].anti_entropy.report()[-1]["reason"] == "n2 was away"

    play(story)


def test_a_peer_lost_in_the_middle_is_gone_on_with() -> None:
    async def story(cluster: MemoryCluster) -> None:
        nodes = list(cluster.nodes.values())
        for number in range(400):
            await plant(nodes[0], "b", f"k{number}", record_of(number))
        two = nodes[1]
        cuts = 0

        def lose(session: Session, node: NodeId, request_id: int, body: bytes) -> None:
            nonlocal cuts
            if cuts < 3 and two.metrics.exchange_keys_received_total > 40 * cuts:
                cuts += 1
                cluster.network.cut("host-1", "host-2")
                cluster.network.heal("host-1", "host-2")
            two.anti_entropy.on_records(session, node, request_id, body)

        two._peer_dispatch._others[int(MessageType.RECORDS)] = lose
        nodes[0].anti_entropy.start_repair(None)
        await until(lambda: cuts == 3)
        await meet(nodes)
        await repaired(*nodes)
        await equal(nodes, 400)

    play(story)


def test_an_incomplete_store_is_complete_when_every_owner_was_exchanged_with() -> None:
    async def story(cluster: MemoryCluster) -> None:
        nodes = list(cluster.nodes.values())
        one = nodes[0]
        for number in range(30):
            await plant(nodes[1], "b", f"k{number}", record_of(number))
        cluster.cut(THREE, (ONE, TWO))
        one.completeness.doubt(range(PARTITIONS))
        one.anti_entropy.distrust()
        await until(lambda: one.anti_entropy.pending == PARTITIONS)
        assert len(one.completeness.incomplete) == PARTITIONS, "node 3 may hold what the others have forgotten"
        cluster.heal()
        await until(lambda: not one.completeness.incomplete)
        assert one.anti_entropy.possible_losses == 0
        assert len(await contents(one, "b")) == 30
        await repaired(*nodes)

    play(story)


def test_when_all_owners_forgot_they_source_each_other_and_the_loss_is_told() -> None:
    async def story(cluster: MemoryCluster) -> None:
        nodes = list(cluster.nodes.values())
        await scatter(nodes, 30)
        for node in nodes:
            node.completeness.doubt(range(PARTITIONS))
        for node in nodes:
            node.anti_entropy.distrust()
        await repaired(*nodes)
        assert not any(node.completeness.incomplete for node in nodes)
        assert nodes[0].anti_entropy.possible_losses > 0
        await equal(nodes, 30)

    play(story)


def test_a_store_that_lost_its_power_is_made_whole() -> None:
    async def story(cluster: MemoryCluster) -> None:
        for node in cluster.nodes.values():
            for number in range(60):
                await plant(node, "b", f"k{number}", record_of(number))
        await cluster.power_cut(TWO, keep=0.0)
        two = await cluster.start(TWO)
        assert len(two.completeness.incomplete) == PARTITIONS
        assert two.anti_entropy.pending == 2 * PARTITIONS
        await repaired(*cluster.nodes.values())
        assert not two.completeness.incomplete
        assert two.anti_entropy.possible_losses == 0
        await equal(cluster.nodes.values(), 60)

    play(story)


def test_a_store_is_complete_although_it_owes_somebody_what_it_does_not_hold() -> None:
    async def story(cluster: MemoryCluster) -> None:
        two = cluster.nodes[TWO]
        bucket = view_of(two, "b")
        ring = two.view.ring
        assert ring is not None
        stray = next(p for p in range(PARTITIONS) if TWO not in ring.primaries(PartitionId(p), 3))
        target = ring.primaries(PartitionId(stray), 3)[0]
        cluster.cut(TWO, [node for node in cluster.disks if node != TWO])
        two.anti_entropy.mark(MarkRange(target, bucket.id, PartitionId(stray)))
        await trio.sleep(1)
        await cluster.power_cut(TWO, keep=0.0)
        two = await cluster.start(TWO)
        await trio.sleep(1)
        assert two.anti_entropy.pending
        cluster.heal()
        await repaired(*cluster.nodes.values())
        assert not two.completeness.incomplete
        assert two.anti_entropy.possible_losses == 0, "of what others hold nothing is lost here"

    play(story, nodes=5)


def test_one_node_has_nobody_to_ask() -> None:
    async def story(cluster: MemoryCluster) -> None:
        (node,) = cluster.nodes.values()
        node.anti_entropy.distrust()
        assert node.anti_entropy.start_repair(None) > 0
        assert (node.anti_entropy.pending, node.anti_entropy.report()[0]["state"]) == (0, "done")
        node.completeness.doubt(range(PARTITIONS))
        await cluster.stop(ONE)
        node = await cluster.start(ONE)
        await until(lambda: not node.completeness.incomplete)
        assert node.anti_entropy.possible_losses == PARTITIONS

    play(story, nodes=1)


def test_messages_are_bounded() -> None:
    async def story(cluster: MemoryCluster) -> None:
        one, two, *_ = cluster.nodes.values()
        keys = 2_500
        for number in range(keys):
            # One partition: rows of one partition key.
            await plant(one, "b", ("rows", f"{number:05}"), record_of(number, 300))
        sizes = tap(cluster.nodes.values())
        two.anti_entropy.start_repair(None)
        await repaired(*cluster.nodes.values())
        one.anti_entropy.start_repair(None)
        await repaired(*cluster.nodes.values())
        await equal(cluster.nodes.values(), keys)
        assert max(size for _, size in sizes) < EXCHANGE_BYTES_MAX + 64 * 1024
        for kind in ("records", "answer", "keys"):
            assert sum(each == kind for each, _ in sizes) >= keys // EXCHANGE_KEYS_MAX

    play(story)


def test_a_dropped_bucket_owes_nothing() -> None:
    async def story(cluster: MemoryCluster) -> None:
        nodes = list(cluster.nodes.values())
        await make_bucket(nodes, "other")
        await scatter(nodes, 60)
        for node in nodes:
            node.anti_entropy.start_repair(None)
        await drop_bucket(nodes[0], view_of(nodes[0], "b").id)
        await until(lambda: not any(node.view.bucket_named("b") for node in nodes))
        await repaired(*nodes)
        assert all(line["state"] == "done" for node in nodes for line in node.anti_entropy.report())

    play(story)


def test_hints_come_first() -> None:
    async def story(cluster: MemoryCluster) -> None:
        one, two, three = cluster.nodes.values()
        waiting = 5
        one.anti_entropy.queue._hints_for = lambda peer: waiting if peer == TWO else 0
        one.anti_entropy.start_repair(None)
        two.anti_entropy.start_repair(None)
        await until(lambda: not one.anti_entropy.debts.buckets(THREE))
        assert one.anti_entropy.pending == PARTITIONS
        assert two.anti_entropy.debts.buckets(ONE), "neither side begins"
        waiting = 0
        await repaired(one, two, three)

    play(story)


def test_a_mark_of_a_range_that_is_not_ours_reaches_those_who_hold_it() -> None:
    async def story(cluster: MemoryCluster) -> None:
        nodes = list(cluster.nodes.values())
        assert [node.hints.ledger.partitions for node in nodes] == [PARTITIONS] * 4
        bucket = view_of(nodes[0], "b")
        ring = nodes[0].view.ring
        assert ring is not None
        partition = next(p for p in map(PartitionId, range(PARTITIONS)) if ONE not in ring.primaries(p, 3))
        holder, target, other = (cluster.nodes[node] for node in ring.primaries(partition, 3))
        number = next(n for n in range(10_000) if partition_at(holder, n) == partition)
        place = await plant(holder, "b", f"k{number}", record_of(number))
        await plant(other, "b", f"k{number}", record_of(number))
        nodes[0].anti_entropy.mark(MarkRange(target.view.self_id, bucket.id, partition))
        await until(lambda: not nodes[0].anti_entropy.pending)
        await repaired(*nodes)
        assert place in await contents(target, "b")

    play(story, nodes=4)


def partition_at(node: Node, number: int) -> int:
    """The partition of the key `k<number>`."""
    return partition_of(node, storage_key(view_of(node, "b").id, encode_key(f"k{number}")))


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL", logger="leafdb")
