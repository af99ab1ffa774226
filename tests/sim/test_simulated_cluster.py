"""The cluster that a plan describes."""

from __future__ import annotations

import trio

from leafdb.sim.plan import Plan
from leafdb.sim.simulated_cluster import SimulatedCluster
from leafdb.sim.trace import Trace
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId


@virtual
async def test_it_knows_who_holds_a_key_when_no_node_runs() -> None:
    """Seed 831717993: clients ask that before they write, also right after a power cut of all nodes."""
    plan = Plan.draw(1, 3)
    async with trio.open_nursery() as nursery:
        cluster = SimulatedCluster(nursery, plan, Trace(trio.current_time))
        for node in map(NodeId, range(1, 4)):
            await cluster.start(node)
        await cluster.found()
        bucket = await cluster.create_bucket(n=3)
        await cluster.kill(*cluster.disks)
        assert set(cluster.walk(bucket, "key")) == set(cluster.disks)
        nursery.cancel_scope.cancel()
