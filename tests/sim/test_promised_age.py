"""Three nodes that nobody asks anything compare every range in its turn, and that costs roots and nothing else."""

from __future__ import annotations

import trio

from leafdb.config import RepairConfig
from leafdb.testing.cluster import MemoryCluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId
from support.exchange_taps import tap
from support.repair_settings import repairing_cluster
from support.repairs import plant, record_of

N1, N2, N3 = NodeId(1), NodeId(2), NodeId(3)
AGE_S = 80.0
PAIRS = 3
PARTITIONS = 64


def oldest_s(cluster: MemoryCluster) -> float:
    return max(node.anti_entropy.schedule.oldest_s() for node in cluster.nodes.values())


def moved(cluster: MemoryCluster) -> int:
    return sum(node.metrics.exchange_keys_sent_total for node in cluster.nodes.values())


@virtual
async def test_a_quiet_cluster_exchanges_roots_only_repairs_nothing_and_keeps_its_promise() -> None:
    async with repairing_cluster(RepairConfig(divergence_age_max_s=AGE_S)) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        for number in range(100):
            await client.put(bucket, f"key{number}", b"v", w=3)
        await cluster.settle()
        await trio.sleep(2 * AGE_S)
        before, messages = moved(cluster), tap(cluster.nodes.values())
        exchanges = sum(node.metrics.exchanges_total for node in cluster.nodes.values())
        for _ in range(40):
            await trio.sleep(AGE_S / 10)
            assert oldest_s(cluster) < AGE_S
            assert not any(node.anti_entropy.pending for node in cluster.nodes.values()), "that is no trouble"
            assert not any(node.anti_entropy.report() for node in cluster.nodes.values() if node.anti_entropy.pending)
        made = (sum(node.metrics.exchanges_total for node in cluster.nodes.values()) - exchanges) / 2
        assert {kind for kind, _ in messages} == {"compare", "equal"}
        assert 4 * PAIRS * PARTITIONS <= made <= 8 * PAIRS * PARTITIONS
        assert sum(size for _, size in messages) / made < 200
        assert moved(cluster) == before
        assert not any(node.metrics.exchange_keys_differing_total for node in cluster.nodes.values())


@virtual
async def test_what_went_wrong_behind_everybodys_back_is_found_within_the_promised_age() -> None:
    async with repairing_cluster(RepairConfig(divergence_age_max_s=AGE_S)) as cluster:
        bucket = await cluster.create_bucket()
        await trio.sleep(AGE_S)
        for number in range(20):
            await plant(cluster.nodes[N2], "b", f"key{number}", record_of(number))
        await trio.sleep(AGE_S)
        await cluster.settle()
        await cluster.assert_replicas_equal(bucket)
        assert await cluster.record(N3, bucket, "key7") == record_of(7)


@virtual
async def test_ages_go_on_over_a_restart() -> None:
    async with repairing_cluster(RepairConfig(divergence_age_max_s=1_000.0)) as cluster:
        await cluster.create_bucket()
        await trio.sleep(200)
        before = oldest_s(cluster)
        assert before > 100
        await cluster.stop(N1, N2, N3)
        await trio.sleep(300)
        cluster.cut(N1, (N2, N3))
        cluster.cut(N2, (N3,))
        await cluster.restart(N1, N2, N3)
        assert oldest_s(cluster) > before + 290
        cluster.heal()
        await cluster.settle()


@virtual
async def test_a_node_that_is_away_for_too_long_is_told_with_the_reason_until_it_is_back() -> None:
    async with repairing_cluster(RepairConfig(divergence_age_max_s=AGE_S)) as cluster:
        await cluster.create_bucket()
        await cluster.settle()
        await cluster.kill(N3)
        await trio.sleep(2 * AGE_S)
        client = await cluster.client(N1)
        problems = (await client.admin("status"))["problems"]
        wanted = "64 ranges shared with n3 were last compared"
        (told,) = [problem for problem in problems if problem.startswith(f"n1: {wanted}")]
        assert told.endswith("80s is promised: it cannot be reached")
        status = await client.admin("repair.status")
        (line,) = [line for line in status["schedules"] if line["node"] == "n1"]
        assert [(over["peer"], over["ranges"]) for over in line["over_age"]] == [("n3", 64)]
        await cluster.start(N3)
        await cluster.settle()
        assert not cluster.nodes[N1].anti_entropy.schedule.too_old()
        assert (await client.admin("status"))["healthy"]
