"""The control set of whole clusters looks after itself: it replaces its dead, grows, and is not hurried."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from leafdb.errors import NotApplied, Reason
from leafdb.node.register_change import Change
from leafdb.ring.metadata import ClusterMetadata
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import Epoch, NodeId
from support.ring_operators import blank, committed, copying, metadata_of, operator, until_phase

N1, N2, N3, N4, N5, N6, N7 = map(NodeId, range(1, 8))


async def control(cluster: MemoryCluster, wanted: tuple[NodeId, ...], limit_s: float) -> float:
    """Wait until every running node believes in this control set, and none to be; answers when that was."""
    with trio.fail_after(limit_s):
        while any(  # noqa: ASYNC110
            metadata_of(cluster, node).control != wanted or metadata_of(cluster, node).control_next
            for node in cluster.nodes
        ):
            await trio.sleep(0.1)
    return trio.current_time()


@virtual
async def test_a_member_that_is_dead_for_ten_minutes_is_replaced_and_follows_when_it_returns() -> None:
    async with memory_cluster(5) as cluster:
        copying(cluster)
        killed = trio.current_time()
        await cluster.kill(N3)
        await trio.sleep(595)
        assert metadata_of(cluster, N1).control == (N1, N2, N3)
        assert 600 < await control(cluster, (N1, N2, N4), 40) - killed < 625
        await cluster.start(N3)
        await control(cluster, (N1, N2, N4), 30)
        await cluster.create_bucket(via=N3)
        await cluster.kill(N2)
        await cluster.create_bucket("c", via=N3)


@virtual
async def test_a_member_that_was_seen_alive_in_between_is_not_dead_for_ten_minutes() -> None:
    async with memory_cluster(5) as cluster:
        for _ in range(2):
            await cluster.kill(N3)
            await trio.sleep(400)
            await cluster.start(N3)
            await cluster.meet()
        await trio.sleep(10)
        assert metadata_of(cluster, N1).control == (N1, N2, N3)


@virtual
async def test_a_change_whose_driver_dies_in_the_middle_is_finished_by_the_next_one() -> None:
    async with memory_cluster(5) as cluster:
        copying(cluster, done=False)
        await committed(cluster, N4, {"change": "leave", "node": 3})
        with trio.fail_after(10):
            while not metadata_of(cluster, N2).control_next:  # noqa: ASYNC110
                await trio.sleep(0.02)
        await cluster.kill(N1)
        await control(cluster, (N1, N2, N4), 60)
        await operator(cluster, N5, "cluster.abort")


@virtual
async def test_the_set_grows_with_the_cluster_and_shrinks_with_it() -> None:
    async with memory_cluster(2) as cluster:
        assert metadata_of(cluster, N1).control == (N1,)
        for number in range(3, 8):
            copying(cluster)
            await blank(cluster)
            await committed(cluster, N1, {"change": "join", "address": f"host-{number}:2"})
            await until_phase(cluster, None)
        await control(cluster, (N1, N2, N3, N4, N5), 60)
        await cluster.create_bucket(via=N7)
        await committed(cluster, N1, {"change": "leave", "node": 7}, {"change": "leave", "node": 2})
        staying = (N1, N3, N4, N5, N6)
        await until_phase(cluster, None, *staying)
        await cluster.kill(N2, N7)
        await control(cluster, (N1, N3, N4), 60)
        assert metadata_of(cluster, N5).bans == (N2, N7)


@virtual
async def test_an_acceptor_does_not_become_another_one_behind_the_registers_back() -> None:
    """A store put in under another incarnation takes a seat by a change of the control set, or has none."""
    async with memory_cluster(4) as cluster:

        def reborn(node: NodeId) -> Change:
            def change(current: ClusterMetadata, change_id: bytes) -> ClusterMetadata:
                member = replace(current.members[node], incarnation=current.members[node].incarnation + 1)
                return replace(current, epoch=Epoch(current.epoch + 1), members={**current.members, node: member})

            return change

        register = cluster.nodes[N1].register
        with pytest.raises(NotApplied, match="one step at a time") as refused:
            await register.change(reborn(N2), 4.0)
        assert refused.value.reason is Reason.BAD_REQUEST
        await register.change(reborn(N4), 4.0)
        await cluster.create_bucket(via=N3)
