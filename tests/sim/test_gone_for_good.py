"""Members that were removed, that left, or lost their disk: they hear of it, say why and stay away, and nobody else.

The plan is stepped by hand, as in test_joining.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from leafdb.node.endings import Expelled
from leafdb.node.recognition import State
from leafdb.ring import transitions
from leafdb.ring.control_set import begin_control, finish_control
from leafdb.ring.staging import ForceRemove, Leave
from leafdb.testing.cluster import memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId
from leafdb.wire.hello import Refusal
from support import plans
from support.newcomers import assert_takes_part, is_blank, stamp_of, until

N1, N2, N3, N4, N5 = map(NodeId, range(1, 6))


@pytest.fixture(autouse=True)
def _by_hand() -> Iterator[None]:
    with plans.by_hand():
        yield


@pytest.mark.parametrize("node", [N1, N2, N4])
@virtual
async def test_a_removed_member_ends_when_it_hears_and_says_why_whenever_it_comes_back(node: NodeId) -> None:
    async with memory_cluster(4) as cluster:
        via = N3
        metadata = cluster.nodes[via].view.metadata
        assert metadata is not None
        if node in metadata.control:
            left = tuple(sorted({*metadata.control, N4} - {node}))
            await plans.change(cluster.nodes[via], begin_control, left)
            await plans.change(cluster.nodes[via], finish_control)
        await cluster.kill(node)
        old = cluster.clone_disk(node)
        await plans.stage(cluster.nodes[via], ForceRemove(node))
        plan = await plans.commit(cluster.nodes[via])
        await plans.change(cluster.nodes[via], transitions.advance, plan.id)
        await plans.change(cluster.nodes[via], transitions.finish, plan.id)
        await plans.agree(cluster)
        for _ in range(2):
            cluster.disks[node] = old.copy()
            await cluster.start(node)
            with trio.fail_after(20):
                await cluster.processes[node].ended.wait()
            failure = cluster.processes[node].failure
            assert isinstance(failure, Expelled)
            assert failure.why is Refusal.BANNED
            assert f"n{node} (node {node}) was removed from cluster 'test' for good" in str(failure)
        assert stamp_of(cluster, node).node_id == node, "its data are as they were"
        with pytest.raises(Expelled, match="for good"):
            await cluster.start(node)
        await cluster.meet()


@virtual
async def test_a_member_that_leaves_as_planned_ends_by_itself_and_comes_back_only_as_another() -> None:
    async with memory_cluster(4) as cluster:
        one = cluster.nodes[N1]
        await plans.stage(one, Leave(N4))
        plan = await plans.commit(one)
        await plans.change(one, transitions.advance, plan.id)
        await plans.agree(cluster)
        await plans.change(one, transitions.finish, plan.id)
        with trio.fail_after(20):
            await cluster.processes[N4].ended.wait()
        failure = cluster.processes[N4].failure
        assert isinstance(failure, Expelled)
        assert "left cluster 'test' for good" in str(failure)
        cluster.wipe(N4)
        await cluster.start(N4)
        plan = await plans.join(cluster, N1, N4)
        await assert_takes_part(cluster, N4, N5)


@virtual
async def test_peers_behind_the_metadata_expel_nobody() -> None:
    """A newcomer meets members that have not heard of it, and a member comes back to some that know less than it."""
    async with memory_cluster(3) as cluster:
        cluster.cut(N3, (N1, N2), silently=True)
        machine = await cluster.add_node()
        await plans.join(cluster, N1, machine)
        await cluster.kill(N1)
        await cluster.kill(N2)
        await trio.sleep(30)
        assert cluster.nodes[machine].view.self_id == N4
        assert N4 not in cluster.nodes[N3].view.metadata.members  # type: ignore[union-attr]
        cluster.heal()
        await cluster.start(N1)
        await cluster.start(N2)
        await assert_takes_part(cluster, machine, N4)


@pytest.mark.parametrize("node", [N1, N2, N3])
@virtual
async def test_a_wiped_disk_under_an_old_name_is_noticed_named_and_refused(node: NodeId) -> None:
    async with memory_cluster(3) as cluster:
        disk = cluster.clone_disk(node)
        await cluster.stop(node)
        cluster.wipe(node)
        await cluster.start(node)
        others = [other for other in cluster.nodes if other != node]
        findings = [cluster.nodes[other].belonging.recognition.findings for other in others]
        await until(lambda: all(node in found and found[node].state is State.WIPED for found in findings))
        assert is_blank(cluster, node)
        client = await cluster.client(others[0])
        status = await client.admin("status")
        (problem,) = (text for text in status["problems"] if f"n{node} cannot be reached" in text)
        assert f"leafdb cluster stage replace n{node} ADDRESS" in problem
        listed = await client.admin("node.list")
        states = {entry["name"]: entry["state"] for entry in listed["nodes"]}
        assert states[f"n{node}"] == "wiped"
        assert "wiped" in listed["errors"][f"n{node}"]
        # It is replaced as the text says, or its directory is found again.
        machine = await cluster.add_node()
        via = cluster.nodes[others[0]]
        await plans.stage_replace(via, node, machine)
        plan = await plans.commit(via)
        await plans.admit(via, plan.joining[0])
        await until(lambda: cluster.nodes[machine].view.self_id == plan.joining[0])
        await cluster.stop(node)
        cluster.disks[node] = disk
        await cluster.start(node)
        await cluster.meet()
        assert not any(node in found for found in findings)
