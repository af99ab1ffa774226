"""Runs in which hash trees are built anew while clients write: what comes out is judged like all kept trees."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from leafdb.node.kept_trees import split
from leafdb.node.node import Node
from leafdb.sim import cluster_run
from leafdb.sim.doubted_trees import NAME, PROBE
from leafdb.sim.plan import Plan
from leafdb.sim.tree_truth import check_trees
from leafdb.testing.cluster import memory_cluster
from leafdb.testing.violation import Invariant, Violation
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId, TreeId

N1, N2 = NodeId(1), NodeId(2)


@pytest.mark.parametrize("seed", [6, 23])
def test_trees_are_built_anew_beside_writes_and_are_those_of_their_stores(seed: int) -> None:
    outcome = cluster_run.run(seed, nodes=3, operations=150)
    assert outcome.broken is None, f"seed {seed}: {outcome.broken}"
    assert outcome.faults[NAME] > 0
    assert outcome.probes[PROBE] > 0


@virtual
async def test_a_doubt_is_excused_where_it_was_made_and_nowhere_else() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        for number in range(50):
            await client.put(bucket, f"key{number}", b"v", w=3)
        await cluster.settle()
        nodes = cluster.nodes
        trees = nodes[N1].trees.kept
        number, partition = split(next(iter(trees.ranges)))
        trees.doubt(TreeId(number), partition, "a test says so")
        made: Counter[Node] = Counter({nodes[N1]: 1})
        assert await check_trees(cluster, nodes.values(), made) > 0
        assert nodes[N1].metrics.hash_trees_rebuilt_total == 1
        for excused in (Counter[Node](), Counter({nodes[N2]: 1})):
            with pytest.raises(Violation) as caught:
                await check_trees(cluster, nodes.values(), excused)
            assert caught.value.invariant is Invariant.TREES_TRUE


def test_doubts_are_drawn_beside_all_else_where_nothing_is_hunted_and_the_ring_stays() -> None:
    plans = [Plan.draw(seed, 5) for seed in range(200)]
    calm = [plan for plan in plans if plan.rings is None and not plan.hunt]
    assert 0.3 < sum(plan.doubts for plan in calm) / len(calm) < 0.7
    for plan in plans:
        assert not plan.doubts or plan in calm
        assert not plan.with_rings().doubts
        assert not plan.hunted().doubts
        assert replace(plan, doubts=False).describe() == plan.describe().replace("trees doubted; ", "")
