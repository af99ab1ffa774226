"""A node that is drained, stopped and started again, one after the other, and nobody who writes or reads notices."""

from __future__ import annotations

from collections import Counter

import pytest
import trio

from leafdb import BLIND, Found
from leafdb.errors import LeafdbError, NotApplied, Reason
from leafdb.testing import Cluster
from leafdb.testing.cluster import memory_cluster
from leafdb.testing.raw_client import RawClient
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId
from support import plans

N1, N2, N3, N4 = map(NodeId, range(1, 5))


async def safe(client: RawClient, node: str | int | None = None) -> list[str]:
    """What speaks against stopping a node."""
    named = {} if node is None else {"node": node}
    told = await client.admin("node.safe_to_stop", **named)  # type: ignore[arg-type]
    assert told["safe"] == (not told["reasons"])
    return list(told["reasons"])


async def await_safe(client: RawClient, node: str, limit_s: float = 60.0) -> None:
    with trio.fail_after(limit_s):
        while await safe(client, node):  # noqa: ASYNC110
            await trio.sleep(0.2)


async def await_state(client: RawClient, state: str, limit_s: float = 30.0) -> None:
    with trio.fail_after(limit_s):
        while (await client.admin("node.drain"))["state"] != state:  # noqa: ASYNC110
            await trio.sleep(0.1)


@virtual
async def test_a_draining_node_refuses_clients_and_goes_on_as_a_replica() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket(w=3)
        one, two = await cluster.client(N1), await cluster.client(N2)
        assert (await one.admin("node.drain"))["state"] == "drained"
        await trio.sleep(0.1)
        assert cluster.nodes[N2].view.draining == cluster.nodes[N3].view.draining == {N1}
        for refused in (one.put(bucket, "k", b"v"), one.get(bucket, "k")):
            with pytest.raises(NotApplied) as caught:
                await refused
            assert caught.value.reason is Reason.DRAINING
            assert caught.value.retryable
        written = await two.put(bucket, "k", b"v", w=3, pw=3)
        assert written.primaries == 3
        assert await two.values(bucket, "k", r=3) == [b"v"]
        states = {entry["name"]: entry["state"] for entry in (await two.admin("node.list"))["nodes"]}
        assert states == {"n1": "draining", "n2": "alive", "n3": "alive"}
        assert (await one.admin("node.undrain"))["state"] == "serving"
        await trio.sleep(0.1)
        assert not cluster.nodes[N2].view.draining
        assert await one.values(bucket, "k") == [b"v"]


@virtual
async def test_nobody_forwards_to_a_draining_node_while_another_holds_the_key() -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket(n=2)
        for number in range(40):
            key = f"k{number}"
            holders = cluster.primaries(bucket, key)
            outsider = next(node for node in cluster.nodes if node not in holders)
            drained = await cluster.client(holders[0])
            await drained.admin("node.drain")
            client = await cluster.client(outsider)
            await client.put(bucket, key, b"v", w=2)
            assert await client.values(bucket, key) == [b"v"]
            await drained.admin("node.undrain")


@virtual
async def test_who_meets_a_draining_node_later_is_told_and_a_restart_forgets_it() -> None:
    async with memory_cluster(3) as cluster:
        await (await cluster.client(N1)).admin("node.drain")
        await cluster.kill(N3)
        await cluster.start(N3)
        await cluster.meet()
        await trio.sleep(0.1)
        assert cluster.nodes[N3].view.draining == {N1}
        await cluster.kill(N1)
        await cluster.start(N1)
        await cluster.meet()
        assert not any(node.view.draining for node in cluster.nodes.values())
        assert not cluster.nodes[N1].draining


@virtual
async def test_drained_means_that_hints_went_home() -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket(n=3)
        key = cluster.key_of(bucket, N1, N2)
        third = cluster.primaries(bucket, key)[2]
        (spare,) = set(cluster.nodes) - set(cluster.primaries(bucket, key))
        await cluster.kill(third)
        client = await cluster.client(N1)
        await trio.sleep(5)
        await client.put(bucket, key, b"v", w=3)
        assert await cluster.hints(spare)
        holder = await cluster.client(spare)
        await await_state(holder, "drained")  # its target is away: there is nobody to hand it to
        assert any("hints for" in reason for reason in await safe(holder))
        await cluster.start(third)
        await cluster.settle()
        await await_state(holder, "drained")
        assert not await cluster.hints(spare)


@virtual
async def test_a_node_that_is_stopping_is_not_undrained() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        cluster.cut(N1, (N2, N3), silently=True)
        refusals: list[NotApplied] = []

        async def put() -> None:
            with pytest.raises(LeafdbError):
                await client.put(bucket, "k", b"v", w=3, timeout_s=3)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(put)
            await trio.sleep(0.1)
            cluster.processes[N1].drain.set()
            await trio.sleep(0.1)
            with pytest.raises(NotApplied) as refused:
                cluster.nodes[N1].drain.end()
            refusals.append(refused.value)
        assert refusals[0].reason is Reason.DRAINING
        cluster.heal()


@virtual
async def test_what_speaks_against_a_stop_is_said_in_words() -> None:
    async with memory_cluster(4) as cluster:
        client = await cluster.client(N1)
        await cluster.create_bucket("three")
        assert await safe(client, "n4") == []
        assert await safe(client, 2) == []
        assert await safe(client) == []
        with pytest.raises(NotApplied) as unknown:
            await safe(client, "nobody")
        assert unknown.value.reason is Reason.NO_SUCH_MEMBER
        await cluster.create_bucket("one", n=1)
        assert any("bucket 'one'" in reason and "(r=1)" in reason for reason in await safe(client, "n4"))
        await client.admin("bucket.drop", name="one")
        await cluster.create_bucket("all", w=255, r=1)
        (reason,) = await safe(client, "n2")
        assert "bucket 'all'" in reason
        assert "for writes (w=3)" in reason
        await client.admin("bucket.drop", name="all")
        assert await safe(client, "n2") == []
        await (await cluster.client(N3)).admin("node.drain")
        assert await safe(client, "n2") == ["n3 is draining: one node after the other"]
        await (await cluster.client(N3)).admin("node.undrain")
        await cluster.kill(N3)
        reasons = await safe(client, "n2")
        assert any("control set (n1, n2, n3) would lose its majority" in reason for reason in reasons), reasons
        assert any("bucket 'three'" in reason and "n3" in reason for reason in reasons), reasons
        assert not any("control set" in reason for reason in await safe(client, "n4"))
        assert any("n3 does not answer" in reason for reason in await safe(client, "n3"))
        await cluster.start(N3)
        await cluster.settle()
        machine = await cluster.add_node()
        await plans.join(cluster, N1, machine)
        await cluster.meet()
        assert any("plan" in reason for reason in await safe(client, "n2"))


@virtual
async def test_a_replica_that_may_have_forgotten_something_does_not_count() -> None:
    async with memory_cluster(3) as cluster:
        await cluster.create_bucket()
        client = await cluster.client(N1)
        assert await safe(client, "n2") == []
        cluster.nodes[N3].completeness.doubt(range(4))
        (reason,) = [reason for reason in await safe(client, "n2") if "bucket" in reason]
        assert "of 64 ranges held 4 would have too few replicas for reads" in reason


def test_a_rolling_restart_by_drain_and_safe_to_stop_fails_nothing_under_load() -> None:
    with Cluster(nodes=3, seed=5) as cluster:
        cluster.run(_roll, cluster)


async def _roll(cluster: Cluster) -> None:
    db = await cluster.client()
    await db.create_bucket("load")
    bucket = db.bucket("load")
    over = trio.Event()
    acknowledged: dict[str, bytes] = {}
    failures: Counter[str] = Counter()
    done = Counter[str]()

    async def work(worker: int) -> None:
        number = 0
        while not over.is_set():
            key = f"{worker}-{number}"
            number += 1
            try:
                await bucket.put(key, b"%d" % number, after=BLIND)
                acknowledged[key] = b"%d" % number
                answer = await bucket.get(key)
                assert isinstance(answer, Found)
                done["pairs"] += 1
            except LeafdbError as error:
                failures[f"{type(error).__name__}: {error}"] += 1
            await trio.sleep(0.01)

    async def roll() -> None:
        world = cluster.world
        for node in cluster.nodes:
            other = await world.client(next(each for each in cluster.nodes if each != node))
            await await_safe(other, f"n{node}")
            client = await world.client(node)
            await await_state(client, "drained")
            before = done["pairs"]
            await trio.sleep(0.5)
            assert done["pairs"] > before + 50, "the others do the work"
            client.close()
            await world.stop(node)
            await trio.sleep(1)
            await world.start(node)
            assert not world.nodes[node].draining
            other.close()
        over.set()

    async with trio.open_nursery() as nursery:
        for worker in range(4):
            nursery.start_soon(work, worker)
        await trio.sleep(0.5)
        nursery.start_soon(roll)
    assert not failures, failures
    assert done["pairs"] > 500
    await cluster.settle()
    for key, value in list(acknowledged.items())[::17]:
        answer = await bucket.get(key, r=3)
        assert isinstance(answer, Found)
        assert answer.value == value
