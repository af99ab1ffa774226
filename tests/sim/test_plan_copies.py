"""Whole clusters in one loop: what the copies of a plan promise (docs/walks/transfers.md)."""

from __future__ import annotations

from collections import deque

import trio

from leafdb.limits import EXCHANGE_BYTES_MAX
from leafdb.node.exchange_queue import Work
from leafdb.ring.plan import Phase
from leafdb.ring.staging import Leave
from leafdb.testing.cluster import MemoryCluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId, PartitionId, TreeId
from support.repairs import make_bucket, record_of, view_of
from support.ring_changes import plan_of
from support.ring_clusters import (
    assert_copied,
    bucket_id,
    bytes_held,
    new_owners,
    old_owners,
    place_of,
    put,
    ring_cluster,
    ring_of,
)
from support.transports import until

N1, N2, N3, N4 = (NodeId(number) for number in range(1, 5))


async def fill(cluster: MemoryCluster, keys: int, *, size: int = 200, alone: int = 5) -> None:
    """Keys at all their owners, but each `alone`th at one of them only."""
    for number in range(keys):
        at = {NodeId(number // alone % 3 + 1)} if number % alone == 0 else ()
        await put(cluster, f"k{number}", record_of(number, size), at=at)


def holders_of(cluster: MemoryCluster, key: str) -> tuple[NodeId, ...]:
    return ring_of(cluster).holders(PartitionId(place_of(cluster, key)[1]), 3)


@virtual
async def test_a_newcomer_has_everything_any_old_owner_had_and_next_to_nothing_twice() -> None:
    async with ring_cluster(3) as (cluster, steps):
        await fill(cluster, 600)
        await steps.begin_join()
        report = cluster.nodes[N4].transfers.report()
        assert report.total == report.left > 0
        await steps.copied()
        await assert_copied(cluster)
        node = cluster.nodes[N4]
        assert node.metrics.transfer_bytes_received_total <= 1.1 * await bytes_held(node)
        report = node.transfers.report()
        assert (report.left, report.bytes_left, report.waiting_for) == (0, 0, ())
        await steps.advance()
        assert all(each.transfers.settled() for each in cluster.nodes.values())
        await steps.finish()
        await cluster.settle()


@virtual
async def test_whoever_stays_copies_from_the_others_before_somebody_goes() -> None:
    async with ring_cluster(4) as (cluster, steps):
        await fill(cluster, 400)
        await steps.begin(Leave(N4))
        await steps.copied()
        await assert_copied(cluster)
        moved = sum(node.metrics.transfer_bytes_received_total for node in cluster.nodes.values())
        assert moved > 0
        await steps.advance()
        await steps.finish()
        for number in (N1, N2, N3):
            cluster.nodes[number].anti_entropy.check()


@virtual
async def test_what_is_written_while_copies_are_made_is_in_them() -> None:
    async with ring_cluster(3) as (cluster, steps):
        await fill(cluster, 400)
        await steps.begin_join()
        cluster.nodes[N4].transfers.set_limit(40_000)
        number = 0
        while not cluster.nodes[N4].transfers.settled():
            await put(cluster, f"new{number}", record_of(10_000 + number))
            await put(cluster, f"k{number * 7 % 400}", record_of(20_000 + number))
            number += 1
            await trio.sleep(0.05)
        assert number > 20
        await steps.copied()
        await assert_copied(cluster)


@virtual
async def test_a_receiver_that_is_killed_goes_on_where_it_was() -> None:
    async with ring_cluster(3, partitions=4) as (cluster, steps):
        await fill(cluster, 3_000, size=1_000)
        await steps.begin_join()
        node = cluster.nodes[N4]
        node.transfers.set_limit(400_000)
        moved = 0
        for _ in range(3):
            await until(lambda node=node: node.metrics.transfer_bytes_received_total > 0, 60)  # type: ignore[misc]
            await trio.sleep(0.5)
            assert not node.transfers.settled()
            moved += node.metrics.transfer_bytes_received_total
            await cluster.kill(N4)
            node = await cluster.start(N4)
            assert node.transfers.progress.total > 0
            node.transfers.set_limit(400_000)
        await steps.copied()
        await assert_copied(cluster)
        moved += node.metrics.transfer_bytes_received_total
        assert moved <= 1.1 * await bytes_held(node) + 3 * EXCHANGE_BYTES_MAX
        assert node.transfers.report().bytes_done >= 0.9 * await bytes_held(node)


@virtual
async def test_a_source_that_is_killed_is_waited_for_and_named_and_the_others_give_meanwhile() -> None:
    async with ring_cluster(3, partitions=4) as (cluster, steps):
        await fill(cluster, 800, size=1_000)
        await steps.begin_join()
        node = cluster.nodes[N4]
        node.transfers.set_limit(400_000)
        await until(lambda: node.transfers.report().bytes_done > 0)
        victim = next(peer for peer in (N1, N2, N3) if node.anti_entropy.debts.claimed(peer, bucket_id(cluster)))
        await cluster.kill(victim)
        await until(lambda: all(peer == victim for peer in node.transfers.progress.copies.peers()), 120)
        await trio.sleep(30)
        report = node.transfers.report()
        assert report.left > 0
        assert report.waiting_for == (victim,)
        assert report.waiting[0].seconds >= 30
        assert report.bytes_left == 0, "what it alone has nobody can say"
        await cluster.start(victim)
        await steps.copied()
        await assert_copied(cluster)
        assert node.transfers.report().waiting_for == ()
        assert node.metrics.transfer_bytes_received_total <= 1.1 * await bytes_held(node) + EXCHANGE_BYTES_MAX


@virtual
async def test_a_full_disk_stops_a_receiver_until_there_is_room() -> None:
    async with ring_cluster(3, partitions=4) as (cluster, steps):
        await fill(cluster, 1_500, size=1_000)
        await steps.begin_join()
        node = cluster.nodes[N4]
        node.transfers.set_limit(50_000)
        await until(lambda: node.transfers.report().bytes_done > 0)
        cluster.fill_disk(N4)
        await trio.sleep(20)
        stopped = node.metrics.transfer_bytes_received_total
        await trio.sleep(30)
        report = node.transfers.report()
        assert 0 < node.metrics.transfer_bytes_received_total == stopped
        assert report.left > 0
        assert "merged here" in report.last_error
        cluster.free_disk(N4)
        await steps.copied()
        await assert_copied(cluster)
        assert node.metrics.transfer_bytes_received_total <= 1.1 * await bytes_held(node) + EXCHANGE_BYTES_MAX


@virtual
async def test_a_source_shows_nothing_while_older_writes_wait_for_the_disk() -> None:
    async with ring_cluster(3, partitions=4) as (cluster, steps):
        await fill(cluster, 100)
        waiting = {number: [(TreeId(1), b"k")] for number in (N1, N2, N3)}
        for number, slots in waiting.items():
            cluster.nodes[number].replica.queue._pending[slots[0]] = deque()
        await steps.begin_join()
        node = cluster.nodes[N4]
        before = node.transfers.report().left
        await trio.sleep(30)
        assert (node.transfers.report().left, node.metrics.transfer_bytes_received_total) == (before, 0)
        for number, slots in waiting.items():
            queue = cluster.nodes[number].replica.queue
            del queue._pending[slots[0]]
            queue._older.clear()
        await steps.copied()
        await assert_copied(cluster)


@virtual
async def test_a_receiver_begins_nothing_while_its_own_older_writes_wait() -> None:
    async with ring_cluster(4, partitions=4) as (cluster, steps):
        await fill(cluster, 100)
        queue = cluster.nodes[N1].replica.queue
        queue._pending[TreeId(1), b"k"] = deque()
        await steps.begin(Leave(N4))
        await trio.sleep(30)
        report = cluster.nodes[N1].transfers.report()
        assert report.left == report.total > 0, "nor does it answer: that would be one as well"
        del queue._pending[TreeId(1), b"k"]
        queue._older.clear()
        await steps.copied()
        await assert_copied(cluster)


@virtual
async def test_who_has_not_heard_of_the_plan_is_asked_in_vain() -> None:
    async with ring_cluster(4, partitions=8) as (cluster, steps):
        await fill(cluster, 100)
        late = cluster.nodes[N3]
        late.register.learn = lambda metadata, done=None: None  # type: ignore[method-assign]  # it hears nothing
        await steps.begin(Leave(N4), told=False)
        one = cluster.nodes[N1]
        await until(lambda: one.transfers.progress.copies.peers() == [N3], 120)
        await trio.sleep(20)
        report = one.transfers.report()
        assert report.left > 0
        assert "other_owners" in report.last_error
        assert report.waiting_for == ()
        del late.register.learn
        await steps.copied()
        await assert_copied(cluster)


@virtual
async def test_a_hint_that_comes_late_to_an_old_owner_is_owed_to_the_new_ones() -> None:
    async with ring_cluster(3) as (cluster, steps):
        await fill(cluster, 50, alone=1_000)
        await steps.begin_join()
        await steps.copied()
        ring = ring_of(cluster)
        number, key = next(
            (partition, f"late{each}")
            for each in range(1_000)
            if ring.is_changing(partition := PartitionId(place_of(cluster, f"late{each}")[1]), 3)
        )
        goes = next(node for node in old_owners(ring, number) if node not in new_owners(ring, number))
        other = next(node for node in (N1, N2, N3) if node != goes)
        bucket = view_of(cluster.nodes[other], "b")
        cluster.nodes[other].hints.owe(goes, bucket, place_of(cluster, key)[0], record_of(9))
        total = cluster.nodes[goes].transfers.report().total
        await until(lambda: cluster.nodes[goes].transfers.report().total > total, 60)
        await steps.copied()
        await assert_copied(cluster)
        assert await cluster.record(N4, bucket.properties, key) == record_of(9)


@virtual
async def test_a_bucket_made_under_the_plan_has_nothing_to_copy() -> None:
    async with ring_cluster(3) as (cluster, steps):
        await fill(cluster, 50)
        cluster.cut(N3, (N1, N2))
        await steps.begin_join(told=False)
        await until(lambda: set(cluster.nodes[N4].transfers.progress.copies.peers()) <= {N3}, 120)
        made = await make_bucket([cluster.nodes[number] for number in (N1, N2, N4)], "later")
        left = cluster.nodes[N4].transfers.report()
        assert {line.name for line in left.buckets} == {"b"}
        assert not cluster.nodes[N4].transfers.to_pull(made)
        cluster.heal()
        await steps.copied()
        assert {line.name for node in cluster.nodes.values() for line in node.transfers.report().buckets} == set()


@virtual
async def test_a_plan_that_is_given_up_leaves_no_debt_and_another_begins_anew() -> None:
    async with ring_cluster(4, partitions=4) as (cluster, steps):
        await fill(cluster, 300, size=500)
        for number in (N1, N2, N3, N4):
            cluster.nodes[number].transfers.set_limit(50_000)
        first = await steps.begin(Leave(N4))
        await trio.sleep(1)
        assert not all(node.transfers.settled() for node in cluster.nodes.values())
        strays: list[Work | None] = []
        for node in cluster.nodes.values():
            node.view.on_install.append(lambda _, queue=node.anti_entropy.queue: strays.append(queue.stray()))  # type: ignore[misc]
        await steps.abort()
        assert strays
        assert not any(strays), "debts of ranges that it holds no more would be passed on"
        await cluster.settle()
        assert all(node.transfers.settled() for node in cluster.nodes.values())
        assert all(node.transfers.report().total == 0 for node in cluster.nodes.values())
        second = await steps.begin(Leave(N3))
        assert second.id != first.id
        for number in (N1, N2, N3, N4):
            cluster.nodes[number].transfers.set_limit(0)
        await steps.copied()
        await assert_copied(cluster)


@virtual
async def test_a_page_that_is_not_paid_for_holds_nothing_up_when_its_plan_is_given_up() -> None:
    async with ring_cluster(4, partitions=4) as (cluster, steps):
        await fill(cluster, 300, size=1_000)
        for node in cluster.nodes.values():
            node.transfers.set_limit(1_000)
        await steps.begin(Leave(N4))
        await trio.sleep(3)
        assert any(node.transfers._pulling for node in cluster.nodes.values()), "for a minute or more"
        await steps.abort()
        await trio.sleep(3)
        assert not any(node.transfers._pulling for node in cluster.nodes.values())


@virtual
async def test_in_a_retreat_nothing_is_copied_and_nothing_is_waited_for() -> None:
    async with ring_cluster(3) as (cluster, steps):
        await fill(cluster, 200)
        await steps.begin_join()
        await steps.copied()
        await steps.advance()
        await steps.give_up()
        assert plan_of(steps.ring.metadata).phase is Phase.RETREAT
        await trio.sleep(2)
        for number in range(40):
            await put(
                cluster,
                f"r{number}",
                record_of(50_000 + number),
                at=old_owners(ring_of(cluster), place_of(cluster, f"r{number}")[1]),
            )
        before = cluster.nodes[N4].metrics.exchange_keys_received_total
        for node in cluster.nodes.values():
            node.anti_entropy.start_repair(None)
        await cluster.settle()
        assert cluster.nodes[N4].metrics.exchange_keys_received_total == before
        assert all(node.transfers.settled() for node in cluster.nodes.values())


@virtual
async def test_who_is_given_up_is_not_waited_for_and_is_asked_when_it_answers() -> None:
    async with ring_cluster(4, partitions=8) as (cluster, steps):
        await fill(cluster, 200)
        alone = next(f"alone{each}" for each in range(1_000) if N2 in holders_of(cluster, f"alone{each}"))
        await put(cluster, alone, record_of(70_000), at={N2})
        await steps.begin_replace(N2)
        await steps.copied()
        await until(lambda: not any(node.anti_entropy.pending for node in cluster.nodes.values()), 120)
        await assert_copied(cluster)
        # And with it dead.
    async with ring_cluster(4, partitions=8) as (cluster, steps):
        await fill(cluster, 200)
        await cluster.kill(N2)
        await steps.begin_replace(N2)
        await steps.copied()
        assert all(node.transfers.report().waiting_for == () for node in cluster.nodes.values())


@virtual
async def test_a_store_that_forgot_copies_again() -> None:
    async with ring_cluster(3, partitions=4) as (cluster, steps):
        await fill(cluster, 200)
        cluster.cut(N4, (N3,))
        await steps.begin_join()
        node = cluster.nodes[N4]
        await until(lambda: node.transfers.progress.copies.peers() == [N3], 120)
        left = node.transfers.report().left
        await cluster.power_cut(N4, keep=0.0)
        node = await cluster.start(N4)
        assert node.completeness.incomplete
        assert node.transfers.report().left > left
        cluster.heal()
        await steps.copied()
        await assert_copied(cluster)
        await cluster.settle()
        assert not node.completeness.incomplete


def forget(cluster: MemoryCluster, *nodes: NodeId) -> None:
    """These say that they may have forgotten something, for good."""
    for number in nodes:
        cluster.nodes[number].completeness.definitive = lambda *_: False  # type: ignore[method-assign]


@virtual
async def test_a_source_that_may_have_forgotten_something_is_passed_over_while_there_is_another() -> None:
    async with ring_cluster(3, partitions=4) as (cluster, steps):
        await fill(cluster, 200)
        forget(cluster, N1, N2)
        await steps.begin_join()
        await steps.copied()
        await assert_copied(cluster)
        sent = [cluster.nodes[number].metrics.transfer_bytes_sent_total for number in (N1, N2, N3)]
        assert sent[:2] == [0, 0]
        assert sent[2] > 0
    async with ring_cluster(3, partitions=4) as (cluster, steps):
        await fill(cluster, 200)
        forget(cluster, N1, N2, N3)
        await steps.begin_join()
        await steps.copied()
        await assert_copied(cluster)
        assert not any(node.metrics.transfer_bytes_sent_total for node in cluster.nodes.values())


@virtual
async def test_what_is_here_already_is_not_pulled_again() -> None:
    async with ring_cluster(4, partitions=4) as (cluster, steps):
        await fill(cluster, 2_000, size=1_000)
        await steps.begin(Leave(N4))
        await steps.copied()
        first = [cluster.nodes[number].metrics.transfer_bytes_received_total for number in (N1, N2, N3)]
        await steps.abort()
        await steps.begin(Leave(N4))
        await steps.copied()
        await assert_copied(cluster)
        again = [cluster.nodes[number].metrics.transfer_bytes_received_total for number in (N1, N2, N3)]
        assert sum(first) > 1_000_000
        assert sum(again) - sum(first) <= 4 * EXCHANGE_BYTES_MAX, "a page of each range, to find out"


@virtual
async def test_one_owner_becomes_three() -> None:
    async with ring_cluster(1) as (cluster, steps):
        for number in range(200):
            await put(cluster, f"k{number}", record_of(number, 200))
        await steps.begin_join(2)
        await steps.copied()
        await assert_copied(cluster)
        held = {await bytes_held(cluster.nodes[number]) for number in (N1, N2, N3)}
        assert len(held) == 1
