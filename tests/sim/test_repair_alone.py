"""What hints cannot do anti-entropy does: hints that overflow, grow too old, are refused from the start; a power cut
that hits every owner. Nothing synced is lost, and what else may be lost is told until somebody has read it."""

from __future__ import annotations

import trio

from leafdb.config import RepairConfig
from leafdb.hints.hint import decode_key
from leafdb.limits import KIB
from leafdb.model.bucket import BucketProperties
from leafdb.node.serve import Health
from leafdb.testing.cluster import MemoryCluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import Durability, NodeId
from support.repair_settings import repairing_cluster
from support.transports import until

N1, N2, N3, N4 = map(NodeId, range(1, 5))
NODES = (N1, N2, N3)
VALUE = b"v" * 200


async def write(cluster: MemoryCluster, bucket: BucketProperties, keys: range, via: NodeId = N1) -> None:
    client = await cluster.client(via)
    for number in keys:
        assert (await client.put(bucket, f"key{number}", VALUE)).acks >= 2
    client.close()


async def reasons(cluster: MemoryCluster, node: NodeId) -> set[str]:
    """Why there were repairs on a node."""
    client = await cluster.client(node)
    lines = (await client.admin("repair.status"))["repairs"]
    client.close()
    return {line["reason"] for line in lines if line["node"] == f"n{node}"}


def records_moved(cluster: MemoryCluster) -> int:
    return sum(node.metrics.exchange_keys_received_total for node in cluster.nodes.values())


@virtual
async def test_a_backlog_over_its_limit_is_marked_and_nothing_is_lost() -> None:
    limit = 16 * KIB
    async with repairing_cluster(RepairConfig(hints_bytes_max=limit)) as cluster:
        bucket = await cluster.create_bucket()
        await cluster.settle()
        await cluster.kill(N3)
        await trio.sleep(1)
        one = cluster.nodes[N1]
        for start in range(0, 200, 20):
            await write(cluster, bucket, range(start, start + 20))
            kept = await cluster.hints(N1)
            assert sum(len(key) + len(value) for key, value in kept.items()) == one.hints.ledger.bytes <= limit
        kept_max = len(kept)
        assert 20 < kept_max < 100
        assert one.metrics.hints_overflowed_total == 200 - kept_max
        assert "hints for n3 were given up" in await reasons(cluster, N1)
        await cluster.start(N3)
        await cluster.settle()
        assert one.metrics.hints_delivered_total == kept_max
        assert 200 - kept_max <= records_moved(cluster) <= 2 * (200 - kept_max), "n2 keeps no hints: both may give"
        await cluster.assert_replicas_equal(bucket)


@virtual
async def test_a_backlog_past_its_window_is_marked_and_nothing_is_lost() -> None:
    async with repairing_cluster(RepairConfig(hint_age_max_s=30.0)) as cluster:
        bucket = await cluster.create_bucket()
        await cluster.settle()
        await cluster.kill(N3)
        await trio.sleep(1)
        await write(cluster, bucket, range(50))
        one = cluster.nodes[N1]
        assert len(await cluster.hints(N1)) == 50
        await until(lambda: one.metrics.hints_expired_total > 0, 200.0)
        await trio.sleep(1)
        assert not await cluster.hints(N1)
        assert "hints for n3 were given up" in await reasons(cluster, N1)
        await cluster.start(N3)
        await cluster.settle()
        assert one.metrics.hints_delivered_total == 0
        await cluster.assert_replicas_equal(bucket)


@virtual
async def test_a_write_that_lies_on_a_stand_in_alone_outlives_the_window() -> None:
    async with repairing_cluster(RepairConfig(hint_age_max_s=5.0), nodes=4) as cluster:
        bucket = await cluster.create_bucket(r=1, w=1)
        key = cluster.key_of(bucket, *NODES)
        await cluster.settle()
        cluster.cut(N4, NODES)
        await trio.sleep(0.1)
        outsider, owner = await cluster.client(N4), await cluster.client(N1)
        written = await outsider.put(bucket, key, VALUE)
        assert (written.acks, written.primaries) == (1, 0)
        assert len(await cluster.hints(N4)) == 3
        await until(lambda: cluster.nodes[N4].metrics.hints_expired_total > 0, 200.0)
        await trio.sleep(1)
        (kept,) = await cluster.hints(N4)
        assert decode_key(kept).target == N1, "what counted stays, and the notes about the others go"
        assert await outsider.values(bucket, key) == [VALUE]
        cluster.heal()
        await cluster.settle()
        assert await owner.values(bucket, key, r=3) == [VALUE]
        assert not await cluster.hints(N4)
        await cluster.assert_replicas_equal(bucket)


@virtual
async def test_without_hints_anti_entropy_alone_makes_replicas_equal_and_moves_what_differs() -> None:
    async with repairing_cluster(RepairConfig(hints_bytes_max=0)) as cluster:
        bucket = await cluster.create_bucket()
        await write(cluster, bucket, range(400))
        await cluster.settle()
        before = records_moved(cluster)
        await cluster.kill(N3)
        await trio.sleep(1)
        await write(cluster, bucket, range(350, 500), via=N2)
        assert not any([await cluster.hints(node) for node in cluster.nodes])
        await cluster.start(N3)
        await cluster.settle()
        await cluster.assert_replicas_equal(bucket)
        assert 150 <= records_moved(cluster) - before <= 225, "what differs, and little of it from both"
        assert not any(node.metrics.hints_delivered_total for node in cluster.nodes.values())


@virtual
async def test_after_a_power_cut_of_all_nodes_the_cluster_is_whole_again_and_the_loss_told_until_it_is_read() -> None:
    async with repairing_cluster(RepairConfig()) as cluster:
        bucket = await cluster.create_bucket(durability=Durability.PERIODIC)
        await write(cluster, bucket, range(60))
        await trio.sleep(1)
        await write(cluster, bucket, range(60, 120))
        await cluster.power_cut(*NODES, keep=0.0)
        await cluster.restart(*NODES)
        await cluster.settle()
        await cluster.assert_replicas_equal(bucket)
        assert not any(node.completeness.incomplete for node in cluster.nodes.values())
        client = await cluster.client(N1)
        for number in range(60):
            assert await client.values(bucket, f"key{number}") == [VALUE], "what was synced is there"

        told = [problem for problem in (await client.admin("status"))["problems"] if "writes may be lost" in problem]
        assert told
        # Who is complete again vouches for the others: of each partition at least one node tells.
        lost = [set(line["partitions"]) for line in (await client.admin("repair.status"))["losses"]]
        assert set().union(*lost) == set(range(64))
        checks = {check.name: check for check in Health(cluster.nodes[NodeId(int(told[0][1]))]).checks()}
        assert (checks["losses"].ok, checks["complete"].ok) == (False, True)
        before = cluster.nodes[N2].anti_entropy.possible_losses
        await cluster.stop(N2)
        await cluster.start(N2)
        await cluster.settle()
        counts = {f"n{node}": cluster.nodes[node].anti_entropy.possible_losses for node in NODES}
        assert counts["n2"] == before, "a restart is no excuse"
        assert (await client.admin("repair.acknowledge"))["nodes"] == {name: n for name, n in counts.items() if n}
        status = await client.admin("status")
        assert (status["healthy"], status["problems"]) == (True, [])
        assert (await client.admin("repair.acknowledge"))["nodes"] == {}
        losses = (await client.admin("repair.status"))["losses"]
        assert losses
        assert all(line["acknowledged_ms"] for line in losses), "it stays in the list"
        await cluster.stop(N2)
        await cluster.start(N2)
        await cluster.settle()
        assert (await client.admin("repair.status"))["losses"] == losses
