"""What `status` calls a healthy cluster: an operator stops the next node on its word."""

from __future__ import annotations

from leafdb.node.admin_cluster import status
from leafdb.testing.cluster import memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId

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
