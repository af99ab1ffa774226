"""A dry run of a repair changes nothing and says what the repair beside it then does."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from leafdb.errors import NotApplied, Reason
from leafdb.model.key import encode_key
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId
from support.exchange_taps import tap
from support.repairs import contents, plant, record_of

N1, N2, N3 = NodeId(1), NodeId(2), NodeId(3)
ENDED = ("done", "failed", "cancelled")


async def until_ended(cluster: MemoryCluster, tasks: dict[str, int]) -> list[dict[str, Any]]:
    """The lines of these tasks, when all of them are over."""
    client = await cluster.client(N1)
    while True:
        lines = [
            line for line in (await client.admin("repair.status"))["repairs"] if tasks.get(line["node"]) == line["task"]
        ]
        if len(lines) == len(tasks) and all(line["state"] in ENDED for line in lines):
            client.close()
            return lines
        await trio.sleep(0.5)


async def scatter(cluster: MemoryCluster) -> None:
    """Keys on one, two or three nodes, some of them with different records."""
    nodes = [cluster.nodes[node] for node in (N1, N2, N3)]
    for number in range(120):
        for place, node in enumerate(nodes):
            if (number + place) % 3 or not number % 7:
                await plant(node, "b", f"k{number}", record_of(number + 1_000 * (number % 5 == place)))


FIGURES = ("keys_differing", "keys_sent", "keys_received")


@virtual
async def test_a_dry_run_moves_nothing_and_predicts_what_the_repair_beside_it_does() -> None:
    async with memory_cluster(3) as cluster:
        await cluster.create_bucket()
        await cluster.settle()
        await scatter(cluster)
        before = [await contents(node, "b") for node in cluster.nodes.values()]
        messages = tap(cluster.nodes.values())
        client = await cluster.client(N2)
        asked = await client.admin("repair.dry", node="n3")
        (dry,) = await until_ended(cluster, asked["tasks"])
        assert (dry["kind"], dry["state"], dry["partitions_done"]) == ("dry run", "done", 128)
        assert [await contents(node, "b") for node in cluster.nodes.values()] == before
        assert not any(node.anti_entropy.pending for node in cluster.nodes.values())
        assert not any(node.metrics.exchange_keys_sent_total for node in cluster.nodes.values())
        assert {"compare", "cancel", "keys"} <= {kind for kind, _ in messages}
        assert "finish" not in {kind for kind, _ in messages}, "the other side must not take it for proved"

        begun = await client.admin("repair.run", node="n3")
        (done,) = await until_ended(cluster, begun["tasks"])
        assert [dry[name] for name in FIGURES] == [done[name] for name in FIGURES]
        assert dry["keys_differing"] > 100
        assert 0.5 < dry["bytes"] / done["bytes"] < 1.5

        # n1 was compared before what n2 alone had came: a repair of one member makes that one whole, one of all all.
        await until_ended(cluster, (await client.admin("repair.run"))["tasks"])
        again = await client.admin("repair.dry", node="n3")
        (nothing,) = await until_ended(cluster, again["tasks"])
        assert [nothing[name] for name in FIGURES] == [0, 0, 0]


@virtual
async def test_it_shows_ranges_directions_and_keys_with_both_versions() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        await cluster.settle()
        for node in cluster.nodes.values():
            await plant(node, "b", "all", record_of(1))
        for key, holders, number in (("here", (N1,), 2), ("there", (N2, N3), 3)):
            for holder in holders:
                await plant(cluster.nodes[holder], "b", key, record_of(number))
        await plant(cluster.nodes[N1], "b", "both", record_of(4))
        await plant(cluster.nodes[N2], "b", "both", record_of(5, 500))
        await plant(cluster.nodes[N3], "b", "both", record_of(4))
        client = await cluster.client(N1)
        asked = await client.admin("repair.dry", bucket="b", node="n1")
        await until_ended(cluster, asked["tasks"])
        found = (await client.admin("repair.findings", tasks=asked["tasks"]))["findings"]["n1"]
        assert (found["only_here"], found["only_there"], found["different"]) == (2, 2, 1)
        assert found["ranges_compared"] == 128
        samples = {(bytes(sample["key"]), sample["peer"]): sample for sample in found["samples"]}
        both = samples[encode_key("both"), "n2"]
        assert both["bucket"] == bucket.name
        assert both["here"]["version"] != both["there"]["version"]
        assert both["there"]["bytes"] > both["here"]["bytes"] > 0
        assert samples[encode_key("here"), "n2"]["there"] is None
        assert samples[encode_key("there"), "n3"]["here"] is None

        # Of all nodes together, each pair looks once.
        everybody = await client.admin("repair.dry")
        lines = await until_ended(cluster, everybody["tasks"])
        assert sum(line["partitions_total"] for line in lines) == 3 * 64
        one = await client.admin("repair.dry", range=[0, 7], node="n2")
        (line,) = await until_ended(cluster, one["tasks"])
        assert line["partitions_total"] == 16


@virtual
async def test_who_cannot_be_reached_fails_it_by_name_and_it_can_be_taken_back() -> None:
    async with memory_cluster(3) as cluster:
        await cluster.create_bucket()
        await cluster.settle()
        await cluster.kill(N3)
        await trio.sleep(1)
        client = await cluster.client(N1)
        asked = await client.admin("repair.dry", range=[3, 3], node="n1")
        (line,) = await until_ended(cluster, asked["tasks"])
        assert (line["state"], line["partitions_done"]) == ("failed", 1)
        assert line["last_error"].startswith("n3: ")
        more = await client.admin("repair.dry", node="n1")
        await trio.sleep(1)
        task = f"n1/{more['tasks']['n1']}"
        assert await client.admin("repair.cancel", task=task) == {"task": task}
        (line,) = await until_ended(cluster, more["tasks"])
        assert line["state"] == "cancelled"
        with pytest.raises(NotApplied) as over:
            await client.admin("repair.cancel", task=task)
        assert over.value.reason is Reason.NO_SUCH_TASK


@virtual
async def test_a_repair_is_of_some_partitions_and_can_be_taken_back_where_nobody_needs_it() -> None:
    async with memory_cluster(3) as cluster:
        await cluster.create_bucket()
        await cluster.settle()
        client = await cluster.client(N1)
        begun = await client.admin("repair.run", range=[8, 11], node="n2", bucket="b")
        (line,) = await until_ended(cluster, begun["tasks"])
        assert (line["reason"], line["partitions_total"]) == ("repair of b, partitions 8 to 11", 8)
        await cluster.kill(N3)
        await trio.sleep(1)
        one = cluster.nodes[N1]
        owed = one.anti_entropy.debts.all()
        everything = (await client.admin("repair.run", node="n1"))["tasks"]["n1"]
        away = next(line["task"] for line in one.anti_entropy.report() if line["reason"] == "n3 was away")
        with pytest.raises(NotApplied, match="n3 was away"):
            await client.admin("repair.cancel", task=f"n1/{away}")
        await client.admin("repair.cancel", task=f"n1/{everything}")
        assert one.anti_entropy.debts.all() == owed, "what happened is still owed"
        with pytest.raises(NotApplied, match="partitions are 0 to 63"):
            await client.admin("repair.run", range=[60, 64])
        await cluster.start(N3)
        await cluster.settle()
