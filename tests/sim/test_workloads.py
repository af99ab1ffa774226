"""Both workloads against whole nodes: what clients are told is allowed, calm or not, and a seed is one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random

import pytest
import trio

from leafdb.sim.convergence import check_converged
from leafdb.sim.plan import BucketPlan, Plan
from leafdb.sim.setting import Setting, Workload
from leafdb.sim.trace import Line, Trace
from leafdb.sim.workload_model import ModelWorkload
from leafdb.sim.workload_program import ProgramWorkload
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.virtual_time import run_virtual
from leafdb.types import Conflict, Durability, NodeId

WORKLOADS: dict[str, Callable[[Setting], Workload]] = {"model": ModelWorkload, "program": ProgramWorkload}


class Run:
    """What is left of one."""

    def __init__(self) -> None:
        self.setting: Setting | None = None
        self.trace = Trace(trio.current_time, keep=True)

    @property
    def opened(self) -> Setting:
        assert self.setting is not None
        return self.setting

    @property
    def told(self) -> list[Line]:
        """What clients did and were told, without what was judged in the end."""
        return [line for line in self.trace.lines if line.who not in ("reader", "test")]


def plan(seed: int, nodes: int, conflict: Conflict) -> Plan:
    bucket = BucketPlan(3, 2, 2, sloppy=True, conflict=conflict, durability=Durability.ALWAYS, ttl_ms=0)
    drawn = Plan.draw(seed, nodes)
    return replace(drawn, troubles=(), kinds=frozenset(), skew_ms=0, bucket=bucket)


async def disturb(cluster: MemoryCluster, rng: Random) -> None:
    """Kill a node and start it again."""
    await trio.sleep(rng.uniform(0.3, 1.5))
    victim = NodeId(rng.randint(1, len(cluster.disks)))
    await cluster.kill(victim)
    await trio.sleep(rng.uniform(0.3, 1.5))
    await cluster.start(victim)


async def perform(
    run: Run, name: str, seed: int, operations: int, *, nodes: int, kill: bool, conflict: Conflict
) -> None:
    async with memory_cluster(nodes, seed, partitions=16) as cluster:
        run.setting = await Setting.open(cluster, plan(seed, nodes, conflict), run.trace)
        workload = WORKLOADS[name](run.setting)
        async with trio.open_nursery() as nursery:
            if kill:
                nursery.start_soon(disturb, cluster, Random(seed))
            await workload.run(operations)
        run.trace.tell("test", "the workload has ended")
        await cluster.settle(900)
        await check_converged(run.setting)


def one_run(
    name: str,
    seed: int,
    operations: int = 90,
    *,
    nodes: int = 3,
    kill: bool = False,
    conflict: Conflict = Conflict.SIBLINGS,
) -> Run:
    run = Run()
    run_virtual(partial(perform, run, name, seed, operations, nodes=nodes, kill=kill, conflict=conflict), seed)
    return run


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("conflict", Conflict)
def test_a_calm_cluster_keeps_its_promises_and_refuses_nothing(name: str, conflict: Conflict) -> None:
    run = one_run(name, 1, conflict=conflict)
    history = run.opened.history
    assert history.count("acked") > 40
    assert history.count("refused") == 0
    assert history.reads > 40
    assert run.opened.left == 0


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("nodes", [3, 5])
def test_promises_are_kept_when_a_node_is_killed(name: str, nodes: int) -> None:
    run = one_run(name, 2, nodes=nodes, kill=True)
    assert run.opened.history.count("acked") > 40


@pytest.mark.parametrize("name", WORKLOADS)
def test_one_seed_is_one_run(name: str) -> None:
    one, again, other = (one_run(name, seed, kill=True) for seed in (3, 3, 4))
    assert one.trace.hexdigest() == again.trace.hexdigest()
    assert one.trace.hexdigest() != other.trace.hexdigest()


@pytest.mark.parametrize("name", WORKLOADS)
def test_fewer_operations_are_the_beginning_of_the_same_run(name: str) -> None:
    long, short = one_run(name, 5, 100).told, one_run(name, 5, 60).told
    pairs = enumerate(zip(long, short, strict=False))
    same = next((index for index, (one, other) in pairs if one != other), len(short))
    begun = sum("begins" in line.text for line in short[:same])
    assert begun >= 55
    assert len(short) - same < 40, "what was under way when the operations were used up"
