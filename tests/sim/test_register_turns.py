"""Changes of the metadata through one node wait for one another, and none of them long: what the drivers try again and
again gives way to an operator, and who has waited enough is told."""

from __future__ import annotations

import pytest
import trio

from leafdb.errors import LeafdbError, NotApplied, Overloaded, Reason
from leafdb.node.admin import VERBS_MAX, ask_member
from leafdb.node.admin_data import CHANGE_TIMEOUT_S
from leafdb.node.register_turns import GIVE_WAY_S
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.raw_client import RawClient
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId
from support.ring_operators import committed, copying, operator
from support.transports import until

N1, N2, N3, N4, N5 = map(NodeId, range(1, 6))


async def answer_of(cluster: MemoryCluster, verb: str, via: NodeId = N1) -> tuple[LeafdbError, float]:
    """Why a verb is refused, and after how long."""
    began = trio.current_time()
    with pytest.raises(NotApplied) as refused:
        await operator(cluster, via, verb)
    return refused.value, trio.current_time() - began


@virtual
async def test_an_operator_does_not_wait_for_what_the_drivers_try_without_a_majority() -> None:
    async with memory_cluster(5) as cluster:
        copying(cluster, done=False)
        away = ({"change": "force-remove", "node": 2}, {"change": "force-remove", "node": 3})
        await committed(cluster, N1, *away, force=True)
        await cluster.kill(N2, N3)
        copying(cluster)
        changes = cluster.nodes[N1].ring_changes
        await until(lambda: "could not be made" in str(changes.waiting()), 120)
        held = 0
        for _ in range(25):
            await trio.sleep(1.3)
            held += cluster.nodes[N1].register.busy
            error, seconds = await answer_of(cluster, "cluster.abort")
            assert isinstance(error, NotApplied)
            assert error.reason is Reason.NO_QUORUM
            assert seconds <= CHANGE_TIMEOUT_S + 2 * GIVE_WAY_S + 0.1, "there are two drivers"
        assert held > 3, "a driver was at it when the operator came"
        await cluster.start(N2)
        cluster.nodes[N2].transfers = cluster.nodes[N1].transfers
        await until(lambda: "could not be made" not in str(changes.waiting()), 60)


@virtual
async def test_of_many_operators_without_a_majority_each_hears_something_in_time() -> None:
    async with memory_cluster(3) as cluster:
        await cluster.kill(N2, N3)
        heard: list[tuple[LeafdbError, float]] = []

        async def ask() -> None:
            heard.append(await answer_of(cluster, "cluster.clear"))

        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(ask)
        assert all(seconds <= 2 * CHANGE_TIMEOUT_S + 0.1 for _, seconds in heard)
        kinds = [type(error) for error, _ in heard]
        assert set(kinds) == {NotApplied, Overloaded}
        assert all("wait" in str(error) for error, _ in heard if isinstance(error, Overloaded))


@virtual
async def test_operators_without_a_majority_do_not_keep_out_what_members_ask_of_each_other() -> None:
    async with memory_cluster(5) as cluster:
        await cluster.kill(N2, N3)
        clients = [await cluster.client(N1) for _ in range(VERBS_MAX)]

        async def ask(client: RawClient) -> None:
            with pytest.raises(NotApplied):
                await client.admin("cluster.clear")

        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(ask, client)
            await trio.sleep(1)
            error, _ = await answer_of(cluster, "status")
            assert isinstance(error, Overloaded)
            assert await ask_member(cluster.nodes[N4], N1, "plan.progress", {})


@virtual
async def test_with_a_majority_many_changes_at_once_are_all_made() -> None:
    async with memory_cluster(3, disk_latency_s=lambda: 0.005) as cluster:
        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(cluster.create_bucket, f"b{number}")
        assert all(cluster.nodes[N1].view.bucket_named(f"b{number}") for number in range(12))
