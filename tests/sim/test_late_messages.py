"""Runs that hunt: single messages come when a horizon has passed over them, and nothing else is disturbed for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random

import pytest
import trio

from leafdb.sim import hunt_run
from leafdb.sim.outcome import Tier
from leafdb.sim.plan import Plan
from leafdb.sim.simulated_cluster import SimulatedCluster
from leafdb.sim.stage import Stage
from leafdb.sim.stalled import NAME, Stalled, flow
from leafdb.sim.trace import Trace
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId
from leafdb.wire.registry import Lane

N1, N2, N3 = map(NodeId, range(1, 4))


@asynccontextmanager
async def stage_of_three() -> AsyncIterator[Stage]:
    plan = replace(Plan.draw(1, 3), latency_s=(0.0, 0.0))
    trace = Trace(trio.current_time)
    async with trio.open_nursery() as nursery:
        stage = Stage(SimulatedCluster(nursery, plan, trace), plan, trace, Random(1))
        for node in (N1, N2, N3):
            await stage.start(node)
        await stage.cluster.found()
        yield stage
        stage.cluster.network.check()
        nursery.cancel_scope.cancel()


@virtual
async def test_a_write_is_late_for_one_node_and_nobody_is_suspected_of_anything() -> None:
    async with stage_of_three() as stage:
        cluster = stage.cluster
        bucket = await cluster.create_bucket(n=3, w=2)
        client = await cluster.client(N1)
        sessions = {lane: cluster.nodes[N2].peers.session(N1, lane) for lane in Lane}
        stalled = Stalled(stage, Random(1), [(N1, N2)])
        await client.put(bucket, "key", b"value")
        for _ in range(90):
            await trio.sleep(0.1)
            stalled.hold()
        assert await cluster.record(N3, bucket, "key") is not None
        late = cluster.nodes[N2].replica.merged_total
        assert {lane: cluster.nodes[N2].peers.session(N1, lane) for lane in Lane} == sessions
        assert cluster.nodes[N1].view.usable == {N2, N3}
        await stalled.release()
        await trio.sleep(0.1)
        assert cluster.nodes[N2].replica.merged_total == late + 1, "the put itself has come"
        assert stage.trace.faults[NAME] == 1


@virtual
async def test_a_session_that_was_given_up_is_made_anew_and_stalled_anew() -> None:
    async with stage_of_three() as stage:
        stalled = Stalled(stage, Random(1), [(N1, N2)])
        first = flow(stage, N1, N2)
        await trio.sleep(20.0)  # nothing is let pass meanwhile
        second = flow(stage, N1, N2)
        assert first is not None
        assert second is not None
        assert first is not second
        assert (first.stalled, second.stalled) == (True, False)
        stalled.hold()
        assert second.stalled
        stalled.let_go()
        assert not first.stalled
        assert not second.stalled


@virtual
async def test_what_does_not_run_cannot_be_stalled() -> None:
    async with stage_of_three() as stage:
        await stage.kill(N2)
        assert flow(stage, N1, N2) is None
        assert flow(stage, N2, N1) is None
        assert flow(stage, N1, N1) is None
        await Stalled(stage, Random(1), [(N1, N2)]).release()


@pytest.mark.parametrize("seed", [5, 8])
def test_in_hunts_writes_come_that_were_forgotten_and_nothing_comes_back(seed: int) -> None:
    outcome = hunt_run.run(seed, nodes=3, operations=150)
    assert outcome.broken is None, f"seed {seed}: {outcome.broken}"
    assert outcome.tier is Tier.HUNT
    assert outcome.faults[NAME] > 0
    assert outcome.probes["late_and_gone"] > 0


def test_what_is_late_is_drawn_beside_all_else() -> None:
    plans = [Plan.draw(seed, 5) for seed in range(200)]
    assert {plan.hunt for plan in plans if plan.late} == {True}
    hunts = [plan for plan in plans if plan.hunt]
    assert 0.5 < sum(plan.late for plan in hunts) / len(hunts) < 0.95
    for plan in hunts:
        late = plan.with_late()
        assert replace(late, late=plan.late, hints_bytes_max=plan.hints_bytes_max) == plan
    for plan in plans:
        hunt = plan.hunted()
        assert hunt.hunt
        assert hunt.late
        assert hunt.hunted() == hunt
        assert not plan.late or hunt == plan
