"""What the simulation of ring changes has found, each as small as it can be told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio

from leafdb.errors import ConnectFailed, NotApplied, Reason
from leafdb.node.node import Node
from leafdb.ring import transitions
from leafdb.ring.plan import Phase
from leafdb.ring.staging import Leave
from leafdb.testing.cluster import MemoryCluster, address_of, memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId
from support import plans
from support.ring_operators import Copies, committed, copying, metadata_of, operator, phases, until_phase

N1, N2, N3, N5 = NodeId(1), NodeId(2), NodeId(3), NodeId(5)


async def reads_moved(cluster: MemoryCluster, *, holding: NodeId) -> tuple[dict[NodeId, Copies], bytes]:
    """The fourth node leaves by a plan in which reads have moved, and which `holding` keeps there: what everybody has
    of it to copy, and its id."""
    copies = copying(cluster)
    copies[holding].stuck = (Phase.WRITE_BOTH_READ_NEW, cluster.nodes[holding].view)
    plan_id = await committed(cluster, N1, {"change": "leave", "node": 4})
    await until_phase(cluster, Phase.WRITE_BOTH_READ_NEW)
    return copies, plan_id


@virtual
async def test_a_refusal_shows_what_it_is_about_although_its_proposer_died_before_anybody_heard() -> None:
    async with memory_cluster(3) as cluster:
        cluster.nodes[N1].register.learn = lambda *_: None  # type: ignore[method-assign]
        with trio.move_on_after(2):
            await plans.change(cluster.nodes[N1], transitions.stage, Leave(NodeId(3)))
        assert not any(metadata_of(cluster, node).staged for node in cluster.nodes)
        with pytest.raises(NotApplied):
            await operator(cluster, N2, "cluster.stage", change="leave", node=3)
        assert metadata_of(cluster, N2).staged == (Leave(NodeId(3)),), "or nobody can see what is staged, or commit it"
        await cluster.kill(N1)


@virtual
async def test_a_newcomer_that_dies_while_it_is_asked_who_it_is_was_not_staged_and_that_is_what_is_said() -> None:
    async with memory_cluster(1) as cluster:
        machine = await cluster.add_node()

        async def dies(node: Node, args: Mapping[str, Any]) -> dict[str, Any]:
            nursery.start_soon(cluster.kill, machine)
            await trio.sleep_forever()

        cluster.nodes[machine].admin._peers.verbs["join.describe"] = dies
        async with trio.open_nursery() as nursery:
            with pytest.raises(ConnectFailed) as refused:
                await operator(cluster, N1, "cluster.stage", change="join", address=address_of(machine))
        assert refused.value.outcome == "not_applied"


@virtual
async def test_a_member_that_is_lost_for_good_does_not_hold_a_plan_that_is_given_up_for_ever() -> None:
    async with memory_cluster(4) as cluster:
        copies, plan_id = await reads_moved(cluster, holding=N2)
        await cluster.kill(N3)
        await operator(cluster, N1, "cluster.abort", plan_id=plan_id)
        with pytest.raises(NotApplied) as refused:
            await operator(cluster, N2, "cluster.abort", without=["n3"])
        assert refused.value.reason is Reason.UNSAFE, "nobody knows yet whether n3 is dead"
        await trio.sleep(120)
        assert set(phases(cluster).values()) == {Phase.RETREAT}, "it waits for the one that is lost"
        await operator(cluster, N2, "cluster.abort", without=["n3"])
        await until_phase(cluster, None)
        copies[N2].stuck = None
        await committed(cluster, N1, {"change": "force-remove", "node": 3})
        await until_phase(cluster, None)
        assert set(metadata_of(cluster, N1).members) == {1, 2, 4}


@virtual
async def test_who_names_one_that_is_lost_says_nothing_of_another_that_is_cut_off() -> None:
    """Tier HUNT, seed 20044: whoever went as dead was not waited for, and read from new owners all the while."""
    async with memory_cluster(5) as cluster:
        _, plan_id = await reads_moved(cluster, holding=N2)
        cluster.cut(N5, cluster.nodes.keys() - {N5}, silently=True)
        await cluster.kill(N3)
        await operator(cluster, N1, "cluster.abort", plan_id=plan_id)
        await trio.sleep(120)
        with pytest.raises(NotApplied, match="n5 is down") as refused:
            await operator(cluster, N1, "cluster.abort", without=["n3"])
        assert refused.value.reason is Reason.UNSAFE
        assert phases(cluster)[N1] is Phase.RETREAT
        assert phases(cluster)[N5] is Phase.WRITE_BOTH_READ_NEW, "it reads from new owners still"
        cluster.heal()
        await until_phase(cluster, Phase.RETREAT, N5)
        await operator(cluster, N1, "cluster.abort", without=["n3"])
        await until_phase(cluster, None)


@virtual
async def test_a_retreat_is_ended_without_somebody_only_if_it_is_the_one_that_was_looked_at() -> None:
    async with memory_cluster(4) as cluster:
        _, plan_id = await reads_moved(cluster, holding=N1)
        behind = cluster.nodes[N2].register
        behind.learn = lambda metadata, done=None: done() if done else None  # type: ignore[method-assign]
        await operator(cluster, N1, "cluster.abort", plan_id=plan_id)
        assert phases(cluster)[N2] is Phase.WRITE_BOTH_READ_NEW
        await operator(cluster, N2, "cluster.abort", without=["n3"])
        await trio.sleep(5)
        assert phases(cluster)[N1] is Phase.RETREAT, "n2 reads from new owners still, and knows of no retreat"
