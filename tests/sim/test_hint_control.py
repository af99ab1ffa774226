"""Hints that an operator holds back or gives up: held over restarts, marked before they go, and nothing is lost."""

from __future__ import annotations

from typing import Any

import trio

from leafdb.model.bucket import BucketProperties
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId
from support.transports import until

N1, N2, N3, N4 = NodeId(1), NodeId(2), NodeId(3), NodeId(4)


async def missed_by(cluster: MemoryCluster, node: NodeId, writes: int, **bucket: Any) -> BucketProperties:
    """A bucket of which a node that is down now has missed so many writes through n1."""
    made = await cluster.create_bucket(**bucket)
    client = await cluster.client(N1)
    await cluster.kill(node)
    await trio.sleep(1)
    for number in range(writes):
        await client.put(made, f"key{number}", b"v")
    return made


async def admin(cluster: MemoryCluster, verb: str, **args: Any) -> dict[str, Any]:
    """A verb through n2."""
    client = await cluster.client(N2)
    answer = await client.admin(verb, **args)
    client.close()
    return dict(answer)


@virtual
async def test_paused_hints_stay_over_restarts_hold_nobody_up_and_go_when_they_may() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await missed_by(cluster, N3, 20)
        paused = await admin(cluster, "hints.pause", paused=True, target="n3")
        assert paused["nodes"] == {"n1": "n3", "n2": "n3"}
        assert "n3" in paused["errors"]
        await cluster.start(N3)
        await cluster.meet()
        await trio.sleep(30)
        assert len(await cluster.hints(N1)) == 20
        await cluster.assert_replicas_equal(bucket)  # anti-entropy does not wait for what is not coming
        await cluster.stop(N1)
        await cluster.start(N1)
        await cluster.meet()
        await trio.sleep(5)
        assert len(await cluster.hints(N1)) == 20
        listed = await admin(cluster, "hints.list")
        assert listed["paused"] == {"n1": "n3", "n2": "n3"}
        assert [(line["holder"], line["paused"]) for line in listed["hints"]] == [("n1", True)]
        status = await admin(cluster, "status")
        assert "n1 delivers no hints, it was told to pause: to n3" in status["notices"]
        assert (await admin(cluster, "hints.pause", paused=False))["nodes"] == {"n1": "", "n2": "", "n3": ""}
        await cluster.settle()
        assert cluster.nodes[N1].metrics.hints_delivered_total == 20
        await cluster.assert_replicas_equal(bucket)


@virtual
async def test_a_pause_in_the_middle_of_a_delivery_stops_it_and_loses_nothing() -> None:
    async with memory_cluster(3, disk_latency_s=lambda: 0.01) as cluster:
        bucket = await missed_by(cluster, N3, 600)
        await cluster.start(N3)
        one = cluster.nodes[N1]
        await until(lambda: one.metrics.hints_delivered_total > 0)
        one.hint_pauses.set(N3, paused=True)
        one.handoff.on_pauses()
        await trio.sleep(20)
        left = len(await cluster.hints(N1))
        assert 0 < left < 600
        await trio.sleep(20)
        assert len(await cluster.hints(N1)) == left
        one.hint_pauses.set(None, paused=False)
        one.handoff.on_pauses()
        await cluster.settle()
        await cluster.assert_replicas_equal(bucket)


@virtual
async def test_a_node_drains_although_hints_for_somebody_who_is_there_are_paused() -> None:
    async with memory_cluster(3) as cluster:
        await missed_by(cluster, N3, 5)
        await admin(cluster, "hints.pause", paused=True)
        await cluster.start(N3)
        await cluster.meet()
        client = await cluster.client(N1)
        await client.admin("node.drain")
        await trio.sleep(10)
        assert (await client.admin("node.drain"))["state"] == "drained"
        await cluster.stop(N1)
        await cluster.start(N1)
        await admin(cluster, "hints.pause", paused=False)
        await cluster.settle()


@virtual
async def test_purged_hints_are_marked_first_and_anti_entropy_brings_what_they_had() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await missed_by(cluster, N3, 30)
        would = await admin(cluster, "hints.purge", target="n3", dry=True)
        (line,) = would["purged"].values()
        assert (line["records"], line["fallback_records"], line["kept"]) == (30, 0, 0)
        assert 1 < line["ranges"] <= 30
        assert len(await cluster.hints(N1)) == 30, "nothing was done"
        one = cluster.nodes[N1]
        before = {slot: mask for slot, mask in one.anti_entropy.debts.all().items() if slot[0] != N3}
        one.anti_entropy.debts.keep(lambda peer, _: 0 if peer == N3 else ~0)  # as if it had never been away
        assert (await admin(cluster, "hints.purge", target="n3"))["purged"]["n1"]["records"] == 30
        await trio.sleep(0.5)
        assert not await cluster.hints(N1)
        assert one.metrics.hints_purged_total == 30
        owed = one.anti_entropy.debts.all()
        assert {slot: mask for slot, mask in owed.items() if slot[0] != N3} == before
        assert owed[N3, bucket.id].bit_count() == line["ranges"]
        await cluster.start(N3)
        await cluster.settle()
        assert one.metrics.hints_delivered_total == 0
        await cluster.assert_replicas_equal(bucket)


@virtual
async def test_a_copy_that_counted_is_purged_only_by_who_agrees_to_lose_it() -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket()
        key = cluster.key_of(bucket, N1, N2, N3)
        client = await cluster.client(N4)
        await cluster.kill(N3)
        await trio.sleep(8)
        await client.put(bucket, key, b"v", w=3)
        assert len(await cluster.hints(N4)) == 1
        would = await admin(cluster, "hints.purge", dry=True)
        assert would["purged"]["n4"]["fallback_records"] == 1
        kept = (await admin(cluster, "hints.purge"))["purged"]["n4"]
        assert (kept["records"], kept["kept"]) == (0, 1)
        assert len(await cluster.hints(N4)) == 1
        assert (await admin(cluster, "hints.purge", lose=True))["purged"]["n4"]["records"] == 1
        await trio.sleep(0.5)
        assert not await cluster.hints(N4)
        await cluster.start(N3)
        await cluster.settle()
        await cluster.assert_replicas_equal(bucket)
