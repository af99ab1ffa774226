"""What `status` calls a healthy cluster: an operator stops the next node on its word."""

from __future__ import annotations

import pytest

from leafdb.node.admin_cluster import cluster_status, node_list, ring_show, status
from leafdb.node.tls import NodeTls
from leafdb.ring.staging import Leave
from leafdb.testing.cluster import memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId
from support.ring_changes import committed, plan_of

N1, N2, N3 = NodeId(1), NodeId(2), NodeId(3)


@virtual
async def test_a_member_that_answers_but_takes_no_requests_is_not_up() -> None:
    """A lane for requests may come later than the one on which liveness and admin verbs travel."""
    async with memory_cluster(3) as cluster:
        await cluster.settle()
        one, two = cluster.nodes[N1], cluster.nodes[N2]
        assert (await status(one, {}))["healthy"]
        assert (await status(one, {}))["nodes_up"] == 3

        one.view.disconnected(N3)
        for node, up in ((one, 2), (two, 3)):
            seen = await status(node, {})
            assert not seen["healthy"], "any node knows that it is no time to stop another"
            assert any("do not reach" in problem for problem in seen["problems"])
            assert seen["nodes_up"] == up
        one.view.connected(N3)
        assert (await status(two, {}))["healthy"]


@virtual
async def test_what_somebody_should_see_to_in_time_is_told_and_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A play that takes one node after the other waits for health in between, and may be what is to be done."""
    monkeypatch.setattr(NodeTls, "notices", lambda self: ["its certificate runs out in 9 days"])
    async with memory_cluster(2) as cluster:
        await cluster.settle()
        seen = await status(cluster.nodes[N1], {})
        assert seen["healthy"]
        assert seen["problems"] == []
        assert sorted(seen["notices"]) == [f"{name}: its certificate runs out in 9 days" for name in ("n1", "n2")]


@virtual
async def test_every_answer_about_members_tells_who_comes_and_who_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    async with memory_cluster(3) as cluster:
        node = cluster.nodes[N1]
        assert node.view.metadata is not None
        still = [await verb(node, {}) for verb in (ring_show, node_list, status, cluster_status)]
        assert all(answer["change"] == {} and answer["staged"] == 0 and answer["bans"] == [] for answer in still)
        name = node.view.name_of(N3)

        moving = committed(node.view.metadata, Leave(N3))
        with monkeypatch.context() as patch:
            patch.setattr(node.view, "metadata", moving)
            for verb, members in (
                (ring_show, "members"),
                (node_list, "nodes"),
                (status, ""),
                (cluster_status, "members"),
            ):
                answer = await verb(node, {})
                assert answer["change"]["leaving"] == [name]
                assert answer["change"]["id"] == plan_of(moving).id
                if members:
                    assert [row["change"] for row in answer[members]] == ["", "", "leaving"]
            shown = (await ring_show(node, {}))["members"]
            assert sum(row["owned_next"] for row in shown) == moving.partitions
            assert shown[2]["owned"] > shown[2]["owned_next"] == 0
