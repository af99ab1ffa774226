"""One seed of the whole-cluster tier: real nodes and clients in one loop, a nemesis, and judges outside of all.

Three phases. Safety: the workload runs beside the nemesis, and whatever clients are told is judged as it comes.
Liveness: everything is mended, and the cluster has a bounded time to owe nothing to anybody. Convergence: replicas are
equal, everything acknowledged is there, and a quiet cluster stays quiet. What breaks is an outcome, never an exception.

A livelock under virtual time would never end, since time stands still while anybody is busy: the steps of all tasks are
counted, and bounded.
"""

from __future__ import annotations

import re
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from random import Random
from types import TracebackType
from typing import Final

import trio

from leafdb.node.leftovers import LOOK_AGAIN_S
from leafdb.node.node import Node
from leafdb.sim.convergence import check_converged, check_ring
from leafdb.sim.delivery import check_delivered
from leafdb.sim.doubted_trees import DoubtedTrees
from leafdb.sim.forgotten import Forgotten
from leafdb.sim.late import Late
from leafdb.sim.log_capture import Captured, captured_logs
from leafdb.sim.nemesis import Nemesis
from leafdb.sim.outcome import NODES, OPERATIONS, Broken, Outcome, Tier
from leafdb.sim.plan import Plan, Shape
from leafdb.sim.probes import collect
from leafdb.sim.replica_story import tell_replica_writes
from leafdb.sim.ring_troubles import RingTroubles
from leafdb.sim.sessions import keep_session
from leafdb.sim.setting import Setting, Workload
from leafdb.sim.simulated_cluster import SimulatedCluster
from leafdb.sim.stage import Stage
from leafdb.sim.trace import Trace
from leafdb.sim.tree_truth import check_trees
from leafdb.sim.workload_model import ModelWorkload
from leafdb.sim.workload_program import ProgramWorkload
from leafdb.testing.violation import Invariant, Violation
from leafdb.testing.virtual_time import run_virtual

SETTLING_S: Final = 900.0
"""Virtual seconds that a mended cluster has to owe nothing any more."""
STEPS_BEFORE: Final = 1_500_000
STEPS_PER_OPERATION: Final = 4_000
"""Of all tasks together. A run that needs more goes round in circles."""
WORKLOADS: Final[Mapping[Shape, Callable[[Setting], Workload]]] = {
    Shape.MODEL: ModelWorkload,
    Shape.PROGRAM: ProgramWorkload,
}
_ADDRESS: Final = re.compile(r"\b0x[0-9a-fA-F]+")


def run(seed: int, *, nodes: int = NODES, operations: int = OPERATIONS, keep: bool = False) -> Outcome:
    """As `outcome.Runner`."""
    return run_plan(Plan.draw(seed, nodes), operations=operations, keep=keep)


def run_plan(plan: Plan, *, operations: int, keep: bool = False, tier: Tier = Tier.CLUSTER) -> Outcome:
    """Run a plan that may have been changed by hand. Of `tier` is what comes out."""
    simulation = Simulation(plan, operations, keep=keep)
    broken: Broken | None = None
    with captured_logs(simulation.trace) as logs:
        try:
            run_virtual(simulation.main, plan.seed)
        except (Exception, BaseExceptionGroup) as error:
            if any(isinstance(member, KeyboardInterrupt) for member in _members(error)):
                raise
            broken = broken_by(error)
    return Outcome(
        tier=tier,
        seed=plan.seed,
        nodes=plan.nodes,
        operations=operations,
        virtual_s=simulation.virtual_s,
        trace=simulation.trace.hexdigest(),
        broken=broken,
        faults=dict(sorted(simulation.trace.faults.items())),
        probes=simulation.probes(logs),
        lines=tuple(simulation.trace.lines),
    )


class Simulation:
    """The run itself."""

    def __init__(self, plan: Plan, operations: int, *, keep: bool) -> None:
        self.plan = plan
        self.operations = operations
        self.trace: Trace = Trace(self._now, keep=keep)
        self.virtual_s: float = 0.0
        self._ran: list[Node] = []
        self._rings: RingTroubles | None = None
        self._facts: Counter[str] = Counter()

    def _now(self) -> float:
        self.virtual_s = trio.current_time()
        return self.virtual_s

    def probes(self, logs: Captured) -> Mapping[str, int]:
        """What the run has been through."""
        if self._rings is not None:
            self._rings.count()
        return collect(self.trace, self._ran, logs, self._facts)

    async def main(self) -> None:
        """All of it. Raises Violation, or whatever a node raised."""
        limit = int((STEPS_BEFORE + STEPS_PER_OPERATION * self.operations) * self.plan.pace)
        with trio.CancelScope() as scope:
            counter = StepCounter(limit, scope)
            trio.lowlevel.add_instrument(counter)
            async with trio.open_nursery() as nursery:
                await self._phases(nursery)
                nursery.cancel_scope.cancel()
        if counter.exceeded:
            raise Violation(Invariant.LIVENESS, f"more than {limit} steps of tasks: somebody goes round in circles")

    async def _phases(self, nursery: trio.Nursery) -> None:
        plan, trace = self.plan, self.trace
        trace.tell("plan", plan.describe())
        cluster = SimulatedCluster(nursery, plan, trace)
        stage = Stage(cluster, plan, trace, Random(f"{plan.seed}/nemesis"))
        self._ran = stage.ran
        for node in stage.all:
            await stage.start(node)
        await cluster.found()
        setting = await Setting.open(cluster, plan, trace)
        setting.watched(cluster.watch)
        Forgotten(setting, cluster.watch).follow(stage)
        self._facts = setting.history.facts
        tell_replica_writes(setting)
        nemesis = Nemesis(stage)
        rings = self._rings = None if plan.rings is None else RingTroubles(stage, setting)
        doubts = DoubtedTrees(stage, setting)
        done = trio.Event()
        async with trio.open_nursery() as both:
            both.start_soon(nemesis.run, done)
            async with trio.open_nursery() as beside:
                if rings is not None:
                    beside.start_soon(rings.run)
                if plan.late:
                    beside.start_soon(Late(stage, setting).run)
                if plan.doubts:
                    beside.start_soon(doubts.run)
                await self._work(setting)
                beside.cancel_scope.cancel()
            done.set()
        trace.tell("nemesis", "everything is mended")
        if rings is not None:
            await self._end_plans(rings, stage, nemesis)
        await self._settle(stage, nemesis)
        if not plan.destructive:
            await check_delivered(setting)
        if stage.deaths:
            # See `delivery`: in this version somebody has to start this after a death.
            for running in cluster.nodes.values():
                running.anti_entropy.start_repair(None)
            await self._settle(stage, nemesis)
        await check_converged(setting, buried=plan.forgets and await self._forget(stage, nemesis))
        if rings is not None:
            await check_ring(setting, stage.lost)
            rings.check()
        trace.probe("trees_compared", await check_trees(cluster, self._ran, doubts.in_vain))
        await cluster.check()
        await cluster.stop(*cluster.nodes)

    async def _work(self, setting: Setting) -> None:
        """The workload, and beside it the sessions of the plan as long as it lasts."""
        over = trio.Event()
        async with trio.open_nursery() as sessions:
            for number in range(self.plan.sessions):
                sessions.start_soon(keep_session, setting, f"session {number}", over)
            await WORKLOADS[self.plan.shape](setting).run(self.operations)
            over.set()

    async def _end_plans(self, rings: RingTroubles, stage: Stage, nemesis: Nemesis) -> None:
        """The ring comes to rest, and every node with it; and who was removed comes back in vain."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nemesis.look_after)
            await rings.end()
            nursery.cancel_scope.cancel()
        await self._settle(stage, nemesis)
        await rings.bring_back()
        await trio.sleep(LOOK_AGAIN_S + 1.0)  # what came late is looked for then

    async def _settle(self, stage: Stage, nemesis: Nemesis) -> None:
        await self._wait(stage, nemesis, stage.cluster.unsettled, Invariant.LIVENESS)

    async def _forget(self, stage: Stage, nemesis: Nemesis) -> bool:
        """Nobody writes any more and all clocks are put right, so all that dies is forgotten by itself; then proofs
        rest, and records with them. False: nothing is, since so many control nodes have lost their votes with their
        disks that no horizon can be raised any more."""
        cluster = stage.cluster
        for machine in cluster.skew_ms:
            cluster.skew_ms[machine] = 0
        if not cluster.can_decide():
            return False
        await self._wait(stage, nemesis, lambda: cluster.unsettled() or cluster.undead(), Invariant.SPACE_RECLAIMED)
        return True

    async def _wait(self, stage: Stage, nemesis: Nemesis, left: Callable[[], list[str]], broken: Invariant) -> None:
        with trio.move_on_after(SETTLING_S):
            while left() or stage.down:
                await trio.sleep(0.25)
                await nemesis.revive()
            return
        down = [f"n{node} is down" for node in stage.down]
        broken = Invariant.BANS_FINAL if stage.cluster.banned() else broken
        raise Violation(broken, f"after {SETTLING_S:g} s: {'; '.join(down + left())}")


class StepCounter(trio.abc.Instrument):
    """Cancels a run that has taken too many steps."""

    def __init__(self, limit: int, scope: trio.CancelScope) -> None:
        self.steps: int = 0
        self.exceeded: bool = False
        self._limit = limit
        self._scope = scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """As trio wants it."""
        self.steps += 1
        if self.steps > self._limit and not self.exceeded:
            self.exceeded = True
            self._scope.cancel()


def broken_by(error: BaseException) -> Broken:
    """What an error says was broken: of a group its most telling member."""
    members = list(_members(error))
    violation = next((member for member in members if isinstance(member, Violation)), None)
    if violation is not None:
        return Broken(violation.invariant.value, _without_addresses(violation.message), violation.key)
    found = next((member for member in members if isinstance(member, AssertionError)), members[0])
    invariant = Invariant.LIVENESS if isinstance(found, trio.TooSlowError) else Invariant.SELF_CHECK
    text = f"{type(found).__name__}: {found}".rstrip(": ")
    return Broken(invariant.value, _without_addresses(f"{text} in {_place(found.__traceback__)}"))


def _members(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from _members(member)
    else:
        yield error


def _place(trail: TracebackType | None) -> str:
    frames = traceback.extract_tb(trail)
    if not frames:
        return "nowhere"
    own = [frame for frame in frames if "leafdb" in frame.filename] or frames
    last = own[-1]
    module = last.filename.rpartition("leafdb/")[2]
    return f"{module} {last.name}: {last.line}"


def _without_addresses(text: str) -> str:
    return _ADDRESS.sub("0x...", text)
