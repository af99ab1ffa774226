"""What befalls a plan, seen from outside: who was killed in the middle of what, and reads at the moments that matter.

`RingTroubles` runs operators beside the nemesis. Right after every step of a plan keys of the ranges that move are
read, at every R, by nodes that have heard of the step and nodes that have not: whatever the history knows by then must
be found (I19). At the end those who were lost come back on the disks they had, and nobody may have them (I22).
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

import trio

from leafdb.ring.plan import Phase
from leafdb.ring.token import split_storage_key
from leafdb.sim.clients import DirectClient, ReadHow, Setting
from leafdb.sim.network_troubles import cut_off
from leafdb.sim.ring_commits import Commits
from leafdb.sim.ring_machines import Machines
from leafdb.sim.ring_operator import Operator
from leafdb.sim.ring_rules import phase_of
from leafdb.sim.ring_stories import RingStories
from leafdb.sim.ring_watch import RingWatch, Step
from leafdb.sim.stage import Stage
from leafdb.testing.cluster import CLIENT_HOST, host_of
from leafdb.testing.violation import Invariant, require, violated
from leafdb.types import NodeId
from leafdb.wire.registry import Lane

LOOK_S: Final = 0.1
CUT_CHANCE: Final = 0.3
CUT_AFTER_S: Final = 4.0
CUT_FOR_S: Final = 20.0
CUT_OFF_S: Final = 1.5
"""Who is out of reach for so long is not just being met."""
READS: Final = 5
"""Of keys that move, after every step."""
ENDING_S: Final = 900.0
"""How long a mended cluster may take for the plan in progress, and an operator for what is left to do."""
REFUSED_S: Final = 60.0
"""How long a node that was removed may run before it has heard of that."""


class RingTroubles:
    """Of one run."""

    def __init__(self, stage: Stage, setting: Setting) -> None:
        rings = setting.plan.rings
        assert rings is not None
        self._stage = stage
        self._setting = setting
        self._watch: RingWatch = stage.cluster.watch
        self._machines = Machines(stage)
        self._commits = Commits(self._watch)
        seed = setting.plan.seed
        self._rng = Random(f"{seed}/ring reads")
        self._operators = [
            Operator(setting, self._machines, self._commits, f"operator {number}", Random(f"{seed}/operator {number}"))
            for number in range(rings.operators)
        ]
        self._reader = DirectClient(setting, "ring reader")
        self._read = 0
        """Steps after which keys were read."""
        self._held_up = b""
        """The plan of which a source is known to have been out of reach."""
        self._stories = RingStories(stage, setting, Random(f"{seed}/ring teller")) if rings.stories else None
        stage.on_kill = self._killed

    async def run(self) -> None:
        """Change the ring until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow, nursery)
            if self._stories is not None:
                nursery.start_soon(self._stories.run)
            for operator in self._operators:
                nursery.start_soon(operator.run)

    async def _follow(self, nursery: trio.Nursery) -> None:
        while True:
            await trio.sleep(LOOK_S)
            self._watch.check()
            self._look_at_copies()
            while self._read < len(self._watch.steps):
                step = self._watch.steps[self._read]
                self._read += 1
                if step.before.plan is None and self._rng.random() < CUT_CHANCE:
                    nursery.start_soon(self._cut_off, step)
                await self._read_after(step)

    async def _cut_off(self, step: Step) -> None:
        """In the middle of a plan somebody is cut off whom it needs, by preference one who leaves, and has to hear: at
        any moment, or when copies are made and the next step is due."""
        rng = self._rng
        members = step.plan.leaving if step.plan.leaving and rng.random() < 0.5 else tuple(step.after.members)
        at_the_end = rng.random() < 0.5
        with trio.move_on_after(rng.uniform(0, CUT_AFTER_S) * (5 if at_the_end else 1)):
            while not at_the_end or self._is_copying(step):  # noqa: ASYNC110  # nothing tells
                await trio.sleep(LOOK_S)
        machine = self._watch.machines[rng.choice(members)]
        await cut_off(self._stage, machine, rng.uniform(0, CUT_FOR_S), "cut_off_in_a_plan")

    def _is_copying(self, step: Step) -> bool:
        """Whether anybody has copies to make for the plan that was committed by this step."""
        running = self._stage.cluster.nodes
        machines = [self._watch.machines[member] for member in step.plan.owners]
        return any(
            machine not in running or not running[machine].ready or running[machine].transfers.progress.plan_epoch == 0
            or not running[machine].transfers.settled()
            for machine in machines
        )  # fmt: skip

    # -- reads

    async def _read_after(self, step: Step) -> None:
        setting, rng = self._setting, self._rng
        n = setting.bucket.n
        ring = self._watch.ring_of(step.after if step.after.plan is not None else step.before)
        moving = [
            key
            for key, stored in setting.stored_keys()
            if ring.is_changing(ring.partition_of(split_storage_key(stored)[0]), n)
        ]
        async with trio.open_nursery() as nursery:
            for key in rng.sample(moving, min(READS, len(moving))):
                how = ReadHow(r=rng.randint(1, n), sloppy=False, timeout_s=rng.choice((0.5, 2.0)))
                nursery.start_soon(self._reader.get, rng.choice(setting.nodes), key, how)
                setting.trace.probe("read_after_a_step")

    # -- probes

    def _killed(self, victims: Sequence[NodeId]) -> None:
        """Nodes are about to be killed: whether that is in the middle of something."""
        metadata, trace = self._watch.newest, self._setting.trace
        plan = None if metadata is None else metadata.plan
        if metadata is None or plan is None:
            return
        running = self._stage.cluster.nodes
        control = [member for member in metadata.control if self._watch.machines[member] in running]
        trace.probe("driver_killed", int(bool(control) and self._watch.machines[min(control)] in victims))
        if plan.phase is not Phase.WRITE_BOTH_READ_OLD:
            return
        copying = {machine for machine, node in running.items() if node.ready and not node.transfers.settled()}
        trace.probe("receiver_killed", int(bool(copying & set(victims))))
        sources = {self._watch.machines[member] for member in metadata.owners}
        trace.probe("source_killed", int(bool(copying - set(victims)) and bool(sources & set(victims))))

    def _look_at_copies(self) -> None:
        metadata = self._watch.newest
        plan = None if metadata is None else metadata.plan
        if plan is None or plan.phase is not Phase.WRITE_BOTH_READ_OLD or plan.id == self._held_up:
            return
        running = self._stage.cluster.nodes
        for node in running.values():
            waiting = node.transfers.report().waiting if node.ready and not node.transfers.settled() else ()
            long = [self._watch.machines[each.node] for each in waiting if each.seconds > CUT_OFF_S]
            if any(machine in running for machine in long):
                self._held_up = plan.id
                self._setting.trace.probe("source_cut_off")

    # -- the end

    async def end(self) -> None:
        """Everything was mended, and clients are done: plans come to their end, lost members are made up for."""
        self._watch.check()
        stage = self._stage
        with trio.move_on_after(ENDING_S):
            await self._operators[0].until_over()
            return
        metadata = self._machines.metadata
        plan = "nothing" if metadata.plan is None else metadata.plan.describe()
        waits = [
            f"n{machine}: {text}"
            for machine, node in stage.cluster.nodes.items()
            for text in node.ring_changes.waiting()
        ]
        text = f"after {ENDING_S:g} s: {plan}, lost {stage.missing}, staged {len(metadata.staged)}; {'; '.join(waits)}"
        violated(Invariant.LIVENESS, text)

    async def bring_back(self) -> None:
        """Machines that were lost are found again; their members were removed, and nobody has them. Except who was away
        while everybody whom it knew was exchanged: nobody is left to tell it."""
        stage = self._stage
        for machine in sorted(stage.lost):
            belief = self._watch.last_belief(machine)
            if belief is None or not belief.members.keys() & self._machines.metadata.members.keys():
                continue
            del stage.lost[machine]
            network = stage.cluster.network
            network.cut(CLIENT_HOST, host_of(machine))  # before it has heard, it may answer for itself
            stage.trace.fault("removed_node_came_back", f"n{machine}")
            await stage.start(machine)
            with trio.move_on_after(REFUSED_S):
                while self._is_member(machine):
                    self._check_shut_out(machine)
                    await trio.sleep(LOOK_S)
            still = self._is_member(machine)
            require(not still, Invariant.BANS_FINAL, f"n{machine} was removed for good, came back and serves")
            if machine in stage.forsaken():
                stage.check_end(machine)
            network.heal(CLIENT_HOST, host_of(machine))
            stage.trace.probe("removed_node_refused")

    def _is_member(self, machine: NodeId) -> bool:
        """Whether a node runs there that takes itself for a member; it may have emptied its store, and wait."""
        node = self._stage.cluster.nodes.get(machine)
        return node is not None and (not node.ready or node.view.metadata is not None)

    def _check_shut_out(self, machine: NodeId) -> None:
        bans = self._machines.metadata.bans
        for other, node in self._stage.cluster.nodes.items():
            if other != machine and node.ready:
                let_in = sorted({member for lane in Lane for member in node.peers.connected(lane)} & set(bans))
                require(not let_in, Invariant.BANS_FINAL, f"n{other} has a session with {let_in}, who was banned")

    def check(self) -> None:
        """Raise Violation when anything of the ring's history was not as it must be."""
        self._watch.check()
        self._commits.check()
        wrong = sorted(self._stage.outcasts.keys() - set(self._machines.metadata.bans))
        require(not wrong, Invariant.BANS_FINAL, f"members {wrong} have ended as if they had been removed")
        self._reader.close()
        for operator in self._operators:
            operator.close()

    def count(self) -> None:
        """Probes and counters of what plans went through."""
        trace = self._setting.trace
        for step in self._watch.steps:
            was, plan = phase_of(step.before), step.plan
            trace.probe("plan_committed", int(was is None))
            trace.probe("plan_finished", int(step.finished))
            trace.probe("aborted_copying", int(step.given_up and was is Phase.WRITE_BOTH_READ_OLD))
            trace.probe("aborted_reading_new", int(step.given_up and was is Phase.RETREAT))
            if step.finished:
                trace.probe("node_joined", len(plan.joining) - len(plan.replaced))
                trace.probe("node_left", len(plan.leaving))
                trace.probe("node_replaced", len(plan.replaced))
                trace.probe("node_removed", len(plan.removed))
        trace.probe("control_set_changed", self._watch.control_changes)
